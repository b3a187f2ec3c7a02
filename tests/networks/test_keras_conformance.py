"""Keras's own conformance test, over every public layer and its options.

`run_layer_test` is what Keras runs over the layers that it ships: configs and what
comes back from them, weights and where they are counted, symbolic shapes and dtypes
beside those of an eager call, one compiled training step, mixed precision.
"""

from collections import Counter

import keras
import pytest
from keras.src.testing import TestCase

from keras_made import (
    MADE,
    NADE,
    Attention,
    Categorical,
    MixtureOfLogistics,
    NetworkAverage,
    PixelCNN,
    PixelRNN,
    Recurrent,
    WaveNet,
)
from keras_made.layers import CausalConv1D, MaskedConv2D, MaskedDense

pytestmark = pytest.mark.neutral

CASES, TRAINED_BY_DEFAULT = {}, set()


def case(name, layer, options, shape, output, weights, *, train=False, **expected):
    """One line of the table.

    Args:
        name: of the case, after the layer's own.
        layer: its class.
        options: arguments of its constructor.
        shape: of its input; a pair of tuples is that of x and that of the context.
        output: expected shape of the output.
        weights: expected number of trainable weights.
        train: whether the training step, which compiles, runs by default.
        **expected: other arguments of `run_layer_test`.
    """
    name = f"{layer.__name__} {name}"
    assert name not in CASES
    if isinstance(shape[0], tuple):
        shape = {"x_shape": shape[0], "context_shape": shape[1]}
        # Keras's training step would hand the two to the layer as one argument.
        expected["run_training_check"] = False
    expected = {
        "input_shape": shape,
        "expected_output_shape": output,
        "expected_num_trainable_weights": weights,
        "expected_num_non_trainable_weights": 0,
        "expected_num_seed_generators": 0,
        "expected_num_losses": 0,
        "supports_masking": False,
    } | expected
    CASES[name] = layer, options, expected
    if train:
        TRAINED_BY_DEFAULT.add(name)


CYCLE = {"expected_num_non_trainable_weights": 1}  # Its position.
ROWS, CONTEXT = (2, 5), ((2, 5), (2, 3))
RANDOM = {"ordering": "random", "num_masks": 3}

# MADE: kernels and biases of the hidden layers and of the output, a direct kernel, and
# a companion kernel to each hidden layer.
for name, options, weights, expected in [
    ("", {}, 5, {"train": True}),
    ("of two layers", {"hidden_units": [8, 6]}, 7, {}),
    ("without hidden layers", {"hidden_units": []}, 2, {"train": True}),
    ("indirect", {"direct": False}, 4, {}),
    ("reversed", {"ordering": "reversed"}, 5, {}),
    ("in random order", {"ordering": "random", "seed": 3}, 5, {}),
    ("in a given order", {"ordering": [2, 0, 1, 4, 3]}, 5, {}),
    ("of random degrees", {"hidden_degrees": "random"}, 5, {}),
    ("of a cycle of orders", RANDOM, 5, {"train": True, **CYCLE}),
    (
        "of a cycle of degrees",
        {"hidden_degrees": "random", "num_masks": 2},
        5,
        CYCLE,
    ),
    ("of a cycle of both", {"hidden_degrees": "random", **RANDOM}, 5, CYCLE),
    (
        "residual",
        {"residual": True, "hidden_units": (8, 8, 6)},
        9,
        {"train": True},
    ),
    (
        "residual of random degrees",
        {"residual": True, "hidden_units": (8, 8), "hidden_degrees": "random"},
        7,
        {},
    ),
    ("with companions", {"companion": True}, 6, {"train": True}),
    (
        "with companions in a cycle",
        {"companion": True, "hidden_degrees": "random", **RANDOM},
        6,
        CYCLE,
    ),
    ("with an activation layer", {"activation": keras.ops.softsign}, 5, {}),
    (
        "with dropout",
        {"dropout": 0.5, "hidden_units": (8, 8)},
        7,
        {"train": True, "expected_num_seed_generators": 2},
    ),
    (
        "with dropout, residual",
        {"dropout": 0.5, "hidden_units": (8, 8), "residual": True},
        7,
        {"expected_num_seed_generators": 2},
    ),
    ("with L1", {"kernel_regularizer": "l1"}, 5, {"expected_num_losses": 3}),
    (
        "with L2",
        {"kernel_regularizer": keras.regularizers.L2(0.1)},
        5,
        {"train": True, "expected_num_losses": 3},
    ),
    (
        "with companions and L1L2",
        {"kernel_regularizer": keras.regularizers.L1L2(0.1, 0.2), "companion": True},
        6,
        {"expected_num_losses": 4},
    ),
    (
        "of another initializer",
        {"kernel_initializer": keras.initializers.HeNormal(seed=1)},
        5,
        {},
    ),
    ("masked", {"kernel_form": "masked"}, 5, {}),
    # Four panels of the hidden layer, and four of the outputs and the direct kernel.
    ("in panels", {"kernel_form": "staircase"}, 14, {"train": True}),
    ("of float64", {"dtype": "float64"}, 5, {"expected_output_dtype": "float64"}),
    ("of bfloat16", {"dtype": "bfloat16"}, 5, {"run_mixed_precision_check": False}),
    ("named", {"name": "made"}, 5, {}),
]:
    case(name, MADE, {"hidden_units": [8], **options}, ROWS, ROWS, weights, **expected)

MADE8 = {"hidden_units": [8]}
THREE = {"num_params": 3}
ENCODED = {"encoder": Categorical(3), **THREE}
LEVELS = {"encoder": MixtureOfLogistics(1, 4), **THREE}
case("of parameters", MADE, MADE8 | THREE, ROWS, (2, 5, 3), 5, train=True)
case("of one parameter", MADE, MADE8 | {"num_params": 1}, ROWS, (2, 5, 1), 5)
case("of one variable", MADE, MADE8, (3, 1), (3, 1), 5)
ONE_AXIS = {"event_shape": (5,)}
case("of batch axes", MADE, MADE8 | ONE_AXIS, (2, 3, 5), (2, 3, 5), 5, train=True)
case("of no batch axis", MADE, MADE8, (5,), (5,), 5)
case("of classes", MADE, MADE8 | ENCODED, ROWS, (2, 5, 3), 5, train=True)
case("of levels", MADE, MADE8 | LEVELS, ROWS, (2, 5, 3), 5)
case(
    "frozen",
    MADE,
    MADE8 | {"trainable": False},
    ROWS,
    ROWS,
    0,
    expected_num_non_trainable_weights=5,
    # Keras warns that there is nothing to train.
    run_training_check=False,
)
for name, options, weights, expected in [
    ("", {}, 5, {}),
    ("without hidden layers", {"hidden_units": []}, 2, {}),
    ("and companions", {"companion": True}, 6, {}),
    ("and a cycle", RANDOM, 5, CYCLE),
    ("and residual", {"residual": True, "hidden_units": (8, 8)}, 7, {}),
    ("and dropout", {"dropout": 0.5}, 5, {"expected_num_seed_generators": 1}),
]:
    options = MADE8 | options
    case(f"with context {name}", MADE, options, CONTEXT, ROWS, weights, **expected)
case("with context of classes", MADE, MADE8 | ENCODED, CONTEXT, (2, 5, 3), 5)
# One context for all rows.
case("with a shared context", MADE, MADE8, ((2, 5), (3,)), ROWS, 5)

# NADE: W, b, V, c, and with a context U.
for name, options, expected in [
    ("", {}, {"train": True}),
    ("reversed", {"ordering": "reversed"}, {}),
    ("in a given order", {"ordering": (2, 0, 1, 4, 3)}, {}),
    ("of a cycle of orders", RANDOM, {"train": True, **CYCLE}),
    ("of another activation", {"activation": "relu"}, {}),
    ("with L2", {"kernel_regularizer": "l2"}, {"expected_num_losses": 2}),
    ("with dropout", {"dropout": 0.5}, {"expected_num_seed_generators": 1}),
    ("of another initializer", {"kernel_initializer": "he_uniform"}, {}),
    ("of float64", {"dtype": "float64"}, {"expected_output_dtype": "float64"}),
]:
    case(name, NADE, {"units": 6, **options}, ROWS, ROWS, 4, **expected)
NADE6 = {"units": 6}
case("of parameters", NADE, NADE6 | THREE, ROWS, (2, 5, 3), 4)
case("of batch axes", NADE, NADE6 | ONE_AXIS, (2, 3, 5), (2, 3, 5), 4)
DEEP = NADE6 | {"num_blocks": 1, "kernel_regularizer": "l2"}
case("deep", NADE, DEEP, ROWS, ROWS, 8, train=True, expected_num_losses=4)
case("of two blocks", NADE, NADE6, (2, 20), (2, 20), 4)
case("of classes", NADE, NADE6 | ENCODED, ROWS, (2, 5, 3), 4, train=True)
case("with context", NADE, NADE6, CONTEXT, ROWS, 5)
case("with context and a cycle", NADE, NADE6 | RANDOM, CONTEXT, ROWS, 5, **CYCLE)
case(
    "with context and L1",
    NADE,
    NADE6 | {"kernel_regularizer": "l1"},
    CONTEXT,
    ROWS,
    5,
    expected_num_losses=3,
)


def average(*networks):
    """As configs: every layer that is made of them makes networks of its own."""
    return {"networks": [keras.saving.serialize_keras_object(n) for n in networks]}


PAIR = average(MADE([8]), NADE(6))
case("", NetworkAverage, PAIR, ROWS, ROWS, 9, train=True)
case("of one", NetworkAverage, average(MADE([8])), ROWS, ROWS, 5)
OF_ROWS = average(MADE([8], event_shape=(5,)), NADE(6))
case("of batch axes", NetworkAverage, OF_ROWS, (2, 3, 5), (2, 3, 5), 9)
case("with context", NetworkAverage, PAIR, CONTEXT, ROWS, 10)
case(
    "of parameters",
    NetworkAverage,
    average(MADE([8], 3), NADE(6, 3)),
    ROWS,
    (2, 5, 3),
    9,
)
case(
    "of a cycle of orders",
    NetworkAverage,
    average(MADE([8], **RANDOM), NADE(6, **RANDOM)),
    ROWS,
    ROWS,
    9,
    # Its own position, and that of each network.
    expected_num_non_trainable_weights=3,
)
case(
    "with dropout and L2",
    NetworkAverage,
    average(MADE([8], dropout=0.5), NADE(6, kernel_regularizer="l2")),
    ROWS,
    ROWS,
    9,
    expected_num_seed_generators=1,
    expected_num_losses=2,
)
case(
    "of classes",
    NetworkAverage,
    average(MADE([8], **ENCODED), Recurrent((5,), 4, **ENCODED)),
    ROWS,
    (2, 5, 3),
    10,
    expected_num_seed_generators=1,  # Of the cell.
)
case(
    "of an image",
    NetworkAverage,
    average(PixelCNN((3, 2), 4, num_layers=1), MADE([8])),
    (2, 3, 2),
    (2, 3, 2),
    17,
)

# PixelCNN: four kernels with their biases to a layer, five with a context, whose
# kernel has none; two more pairs in the head.
IMAGE, COLOURS, IMAGE_CONTEXT = (2, 4, 3), (2, 4, 3, 2), ((2, 4, 3), (2, 3))
for layer, weights, with_context in [(PixelCNN, 12, 13), (PixelRNN, 11, 12)]:
    one = {"event_shape": (4, 3), "units": 4, "num_layers": 1}
    colours = one | {"event_shape": (4, 3, 2)}
    more = weights + (8 if layer is PixelCNN else 5)
    case("", layer, one, IMAGE, IMAGE, weights, train=True)
    case("of two layers", layer, one | {"num_layers": 2}, IMAGE, IMAGE, more)
    case("of wide kernels", layer, one | {"kernel_size": 5}, IMAGE, IMAGE, weights)
    case("of parameters", layer, one | THREE, IMAGE, (*IMAGE, 3), weights)
    case("of channels", layer, colours, COLOURS, COLOURS, weights)
    case("of levels", layer, colours | LEVELS, COLOURS, (*COLOURS, 3), weights)
    case("of classes", layer, one | ENCODED, IMAGE, (*IMAGE, 3), weights)
    case("of batch axes", layer, one, (2, *IMAGE), (2, *IMAGE), weights)
    case("with context", layer, one, IMAGE_CONTEXT, IMAGE, with_context)
    case("of float64", layer, one | {"dtype": "float64"}, IMAGE, IMAGE, weights)
PIXEL_RNN = {"event_shape": (4, 3), "units": 4, "num_layers": 1}
PIXEL_RNN |= {"first_kernel_size": 3}
case("of a narrow first kernel", PixelRNN, PIXEL_RNN, IMAGE, IMAGE, 11)

# WaveNet: a gate, a residual and a skip connection to a layer, the last without the
# residual; a first layer and two in the head.
SEQUENCE, SEQUENCE_CONTEXT = (2, 6), ((2, 6), (2, 3))
WAVE = {"event_shape": (6,), "units": 4, "num_layers": 2}
for name, options, output, weights, expected in [
    ("", {}, SEQUENCE, 16, {"train": True}),
    ("of two stacks", {"num_stacks": 2, "num_layers": 1}, SEQUENCE, 16, {}),
    ("of wide kernels", {"kernel_size": 3}, SEQUENCE, 16, {}),
    ("of other skips", {"skip_units": 5}, SEQUENCE, 16, {}),
    ("of parameters", THREE, (2, 6, 3), 16, {}),
    ("of classes", ENCODED, (2, 6, 3), 16, {}),
    ("of levels", LEVELS, (2, 6, 3), 16, {}),
]:
    case(name, WaveNet, WAVE | options, SEQUENCE, output, weights, **expected)
case("of batch axes", WaveNet, WAVE, (2, 2, 6), (2, 2, 6), 16)
case("with context", WaveNet, WAVE, SEQUENCE_CONTEXT, SEQUENCE, 18)

# Recurrent: three weights and a seed to a cell, and the output's two.
SEED = {"expected_num_seed_generators": 1}
CELL = {"event_shape": (6,), "units": 4}
for name, options, output, weights, expected in [
    ("", {}, SEQUENCE, 5, {"train": True, **SEED}),
    ("of a GRU", {"cell": "gru"}, SEQUENCE, 5, {"train": True, **SEED}),
    (
        "of two cells",
        {"num_layers": 2},
        SEQUENCE,
        8,
        {"expected_num_seed_generators": 2},
    ),
    ("of parameters", THREE, (2, 6, 3), 5, SEED),
    ("of classes", ENCODED, (2, 6, 3), 5, SEED),
    ("with an end", ENCODED | {"end": 1}, (2, 6, 3), 5, {"train": True, **SEED}),
]:
    case(name, Recurrent, CELL | options, SEQUENCE, output, weights, **expected)
case("of batch axes", Recurrent, CELL, (2, 2, 6), (2, 2, 6), 5, **SEED)
case("with context", Recurrent, CELL, SEQUENCE_CONTEXT, SEQUENCE, 5, **SEED)

# Attention: kernel and bias of what is heard, gains, two tables of places, the start, a
# norm, an output kernel and a bias to each entry; ten to a block; with a context U.
TOKENS = {"event_shape": (5,), "width": 4, "num_layers": 1, "num_heads": 2}
for name, options, output, weights, expected in [
    ("", {}, ROWS, 19, {"train": True}),
    ("of two layers", {"num_layers": 2}, ROWS, 29, {}),
    ("reversed", {"ordering": "reversed"}, ROWS, 19, {}),
    ("in a given order", {"ordering": (2, 0, 1, 4, 3)}, ROWS, 19, {}),
    ("of a cycle of orders", RANDOM, ROWS, 19, {"train": True, **CYCLE}),
    ("of another dense net", {"mlp_units": 3, "activation": "relu"}, ROWS, 19, {}),
    ("with dropout", {"dropout": 0.5}, ROWS, 19, {"expected_num_seed_generators": 2}),
    ("of parameters", THREE, (2, 5, 3), 19, {}),
    ("of classes", ENCODED, (2, 5, 3), 19, {}),
    ("of levels", LEVELS, (2, 5, 3), 19, {}),
    ("of float64", {"dtype": "float64"}, ROWS, 19, {}),
]:
    if "dtype" in options:
        expected = {"expected_output_dtype": "float64"}
    case(name, Attention, TOKENS | options, ROWS, output, weights, **expected)
case("of batch axes", Attention, TOKENS, (2, 3, 5), (2, 3, 5), 19)
case("of one entry", Attention, TOKENS | {"event_shape": (1,)}, (2, 1), (2, 1), 19)
case("with context", Attention, TOKENS, CONTEXT, ROWS, 20)
IMAGE_TOKENS = TOKENS | {"event_shape": (4, 3)}
case("of an image", Attention, IMAGE_TOKENS, IMAGE, IMAGE, 19)

DENSE = {"source_degrees": [0, 1, 2, 1], "degrees": [2, 0, 1]}
TWO = {"source_degrees": [[0, 1, 2, 1], [1, 0, 0, 2]], "degrees": [[2, 0, 1]] * 2}
for name, options, weights, expected in [
    ("", {}, 2, {"train": True}),
    ("strict", {"strict": True}, 2, {}),
    ("of another activation", {"activation": "relu"}, 2, {}),
    ("without bias", {"use_bias": False}, 1, {}),
    ("with companions", {"companion": True}, 3, {}),
    ("with L2", {"kernel_regularizer": "l2"}, 2, {"expected_num_losses": 1}),
    (
        "with companions and L1",
        {"kernel_regularizer": "l1", "companion": True},
        3,
        {"expected_num_losses": 2},
    ),
    ("of two structures", TWO, 2, {}),
    ("of the second structure", TWO, 2, {"call_kwargs": {"structure": 1}}),
]:
    options = DENSE | options
    case(name, MaskedDense, options, (2, 4), (2, 3), weights, **expected)
case("of batch axes", MaskedDense, DENSE, (2, 5, 4), (2, 5, 3), 2)

CONV = {"source_degrees": [0, 1], "degrees": [0, 0, 1], "kernel_size": (3, 3)}
for name, options, weights, expected in [
    ("", {}, 2, {"train": True}),
    ("strict", {"strict": True}, 2, {}),
    ("by row", {"by_row": True, "strict": True}, 2, {}),
    ("without bias", {"use_bias": False}, 1, {}),
]:
    options = CONV | options
    case(name, MaskedConv2D, options, (2, 4, 3, 2), (2, 4, 3, 3), weights, **expected)

for name, options, expected in [
    ("", {}, {"train": True}),
    ("dilated", {"dilation": 2}, {}),
    ("longer than the sequence", {"kernel_size": 4, "dilation": 4}, {}),
    ("of ones", {"kernel_initializer": "ones"}, {}),
]:
    options = {"units": 3, "kernel_size": 2, **options}
    case(name, CausalConv1D, options, (2, 6, 2), (2, 6, 3), 2, **expected)
case("of a sequence", CausalConv1D, {"units": 3, "kernel_size": 2}, (6, 2), (6, 3), 2)


def has_float64():
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.config.jax_enable_x64


SLOW = [] if keras.backend.backend() == "torch" else [pytest.mark.slow]


def runs():
    """Every case; the training step of most is slow, as it compiles.

    So are cases but the first three of each layer, in the README's test command.
    """
    counts = Counter()
    for name, (layer, _, expected) in CASES.items():
        counts[layer] += 1
        if counts[layer] > 3:
            yield pytest.param(name, True, id=name, marks=SLOW)
        elif name in TRAINED_BY_DEFAULT or not expected.get("run_training_check", True):
            yield pytest.param(name, True, id=name)
        else:
            yield pytest.param(name, False, id=name)
            yield pytest.param(name, True, id=f"{name}, trained", marks=SLOW)


# Keras's own: it trains on a generator, and `fit` says that it will not shuffle that.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.parametrize(("name", "trained"), list(runs()))
def test_keras_finds_nothing_to_complain_of(name, trained):
    layer, options, expected = CASES[name]
    if options.get("dtype") == "float64" and not has_float64():
        pytest.skip("JAX has no float64 unless JAX_ENABLE_X64 is set")
    expected = {"run_training_check": trained} | expected
    TestCase().run_layer_test(layer, options, **expected)
