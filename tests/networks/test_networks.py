"""Every network of the family keeps the laws, and what each promises by itself."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
from eager import uncompiled
from keras import ops
from laws import (
    all_states,
    chi_square_p,
    dependence,
    others_slow,
    past,
    reload,
    run_steps,
    set_random_weights,
    state_index,
    to_numpy,
)

from keras_made import (
    MADE,
    NADE,
    Attention,
    Autoregressive,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    MixtureOfLogistics,
    MixtureOfNormals,
    NetworkAverage,
    Normal,
    PixelCNN,
    PixelRNN,
    Recurrent,
    WaveNet,
)
from keras_made.densities.drawing import observed_first
from keras_made.image_masks import image_mask, image_reach
from keras_made.layers import CausalConv1D, MaskedConv2D
from keras_made.networks import attention

pytestmark = pytest.mark.neutral


def pixelcnn_of_rows(event_shape=(6,)):
    network = PixelCNN((2, 3), 8, num_layers=2)
    return NetworkAverage([network], event_shape=event_shape)


# name: (constructor, event shape, size of the context)
NETWORKS = {
    "nade": (lambda: NADE(8), (6,), 0),
    "nade, reversed": (lambda: NADE(8, 2, ordering="reversed"), (6,), 2),
    "nade, own ordering": (lambda: NADE(8, ordering=[2, 0, 3, 1]), (4,), 0),
    "eonade": (
        lambda: NADE(8, ordering="random", num_masks=3, activation="relu", seed=4),
        (6,),
        2,
    ),
    "nade, deep": (lambda: NADE(8, 2, num_blocks=1, activation="tanh"), (5,), 2),
    "eonade, deep": (
        lambda: NADE(6, ordering="random", num_masks=3, num_blocks=2, dropout=0.3),
        (6,),
        0,
    ),
    "nade, classes": (lambda: NADE(8, 3, encoder=Categorical(3)), (5,), 0),
    "lstm": (lambda: Recurrent((6,), 8), (6,), 0),
    "gru, two layers": (
        lambda: Recurrent((5,), 8, "gru", 2, num_layers=2),
        (5,),
        2,
    ),
    "gru, classes": (
        lambda: Recurrent((5,), 8, "gru", 3, encoder=Categorical(3)),
        (5,),
        0,
    ),
    "lstm, end": (
        lambda: Recurrent((5,), 8, "lstm", 3, end=1, encoder=Categorical(3)),
        (5,),
        2,
    ),
    "wavenet": (lambda: WaveNet((8,), 8, num_layers=3), (8,), 0),
    "wavenet, stacks": (
        lambda: WaveNet((8,), 8, 2, num_layers=2, num_stacks=2, kernel_size=3),
        (8,),
        2,
    ),
    "wavenet, classes": (
        lambda: WaveNet((5,), 8, 3, num_layers=3, encoder=Categorical(3)),
        (5,),
        0,
    ),
    "pixelcnn": (lambda: PixelCNN((3, 3), 8, num_layers=3), (3, 3), 0),
    "pixelcnn, wide": (
        lambda: PixelCNN((2, 4), 8, 2, num_layers=2, kernel_size=5),
        (2, 4),
        2,
    ),
    "pixelcnn, channels": (
        lambda: PixelCNN((2, 2, 2), 12, num_layers=2),
        (2, 2, 2),
        2,
    ),
    "pixelcnn, classes": (
        lambda: PixelCNN((2, 3), 12, 3, num_layers=3, encoder=Categorical(3)),
        (2, 3),
        0,
    ),
    "pixelrnn": (
        lambda: PixelRNN((3, 3), 8, num_layers=1, first_kernel_size=5),
        (3, 3),
        2,
    ),
    "pixelrnn, channels": (
        lambda: PixelRNN((2, 2, 2), 12, 2, num_layers=2, first_kernel_size=5),
        (2, 2, 2),
        0,
    ),
    "attention": (lambda: Attention((6,), 8, 2, 2), (6,), 0),
    "attention, own ordering": (
        lambda: Attention((4,), 8, 1, 4, 2, ordering=[2, 0, 3, 1], mlp_units=5),
        (4,),
        2,
    ),
    "attention, orders": (
        lambda: Attention((6,), 8, 1, 2, ordering="random", num_masks=3, seed=4),
        (6,),
        2,
    ),
    "attention, classes": (
        lambda: Attention((5,), 8, 2, 2, 3, encoder=Categorical(3)),
        (5,),
        0,
    ),
    "average": (lambda: NetworkAverage([MADE([8]), NADE(8)]), (6,), 0),
    "average, reversed": (
        lambda: NetworkAverage([MADE([u], 2, ordering="reversed") for u in (7, 9)]),
        (6,),
        2,
    ),
    "average, cycle": (
        lambda: NetworkAverage(
            [MADE([u, u], ordering="random", num_masks=3, seed=4) for u in (8, 8)]
        ),
        (6,),
        0,
    ),
    "average, image": (
        lambda: NetworkAverage([MADE([12]), PixelCNN((3, 3), 8, num_layers=3)]),
        (3, 3),
        0,
    ),
    "average, rows of images": (
        lambda: NetworkAverage([MADE([12]), pixelcnn_of_rows()]),
        (6,),
        0,
    ),
    "average, other blocks": (
        lambda: NetworkAverage([MADE([12]), PixelCNN((2, 4), 8, num_layers=2)]),
        (2, 4),
        0,
    ),
    "average, classes": (
        lambda: NetworkAverage(
            [
                NADE(8, 3, encoder=Categorical(3)),
                Recurrent((5,), 8, "gru", 3, encoder=Categorical(3)),
            ]
        ),
        (5,),
        0,
    ),
}
CLASSES = [name for name in NETWORKS if "classes" in name or "end" in name]
WITH_CONTEXT = [name for name in NETWORKS if NETWORKS[name][2]]
BINARY = [
    name
    for name in NETWORKS
    if NETWORKS[name][0]().num_params is None and name not in CLASSES
]


def make(name):
    """The network, built, with random weights."""
    build, shape, context_size = NETWORKS[name]
    network = build()
    context = (None, context_size) if context_size else None
    network.build((None, *shape), context)
    set_random_weights(network, scale=0.6)
    return network


def make_data(name, num_rows=5, seed=0):
    _, shape, context_size = NETWORKS[name]
    rng = np.random.RandomState(seed)
    x = rng.normal(size=(num_rows, *shape)).astype("float32")
    if name in CLASSES:
        x = rng.randint(3, size=(num_rows, *shape)).astype("float32")
    context = rng.normal(size=(num_rows, context_size)).astype("float32")
    return x, context if context_size else None


def make_density(name):
    network = make(name)
    model = AutoregressiveDensity(
        network, Categorical(3) if name in CLASSES else Bernoulli()
    )
    context_size = NETWORKS[name][2]
    shape = (None, *network.event_shape)
    model.build((shape, (None, context_size)) if context_size else shape)
    context = np.linspace(-1, 1, context_size) if context_size else None
    return model, context


def heard_by(name, network, structure=0):
    classes = name in CLASSES
    size = network.event_size
    return dependence(
        network,
        NETWORKS[name][2],
        structure,
        num_points=96,
        make_x=(lambda rng, n: rng.randint(3, size=(n, size))) if classes else None,
    )


# The laws of every network ------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_each_parameter_hears_exactly_the_past(name):
    network = make(name)
    for row in range(network.num_masks):
        np.testing.assert_array_equal(heard_by(name, network, row), past(network, row))


@pytest.mark.parametrize(
    "name",
    [
        "eonade",
        "gru, two layers",
        "wavenet, stacks",
        "pixelcnn, channels",
        "attention, orders",
    ],
)
def test_a_training_step_opens_nothing(name):
    network = make(name)
    x, context = make_data(name, 32)
    inputs = [keras.Input(x.shape[1:]), keras.Input(context.shape[1:])]
    model = keras.Model(inputs, network(*inputs))
    model.compile(keras.optimizers.Adam(0.02), loss="mse")
    before = network.get_weights()
    target = np.zeros((32, *model.output_shape[1:]), "float32")
    model.fit([x, context], target, epochs=3, verbose=0)
    assert not np.array_equal(before[0], network.get_weights()[0])
    for row in range(network.num_masks):
        np.testing.assert_array_equal(heard_by(name, network, row), past(network, row))


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize("name", NETWORKS)
def test_step_by_step_is_all_at_once(name, slow):
    network = make(name)
    x, context = make_data(name)
    for row in range(network.num_masks):
        whole = to_numpy(network(x, context, structure=row))
        whole = whole.reshape(len(x), network.event_size, -1)
        steps = run_steps(network, x, context, row, slow=slow)
        np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*BINARY, *CLASSES])
def test_probabilities_of_all_events_sum_to_one(name):
    model, context = make_density(name)
    states = all_states(model.network.event_size, 3 if name in CLASSES else 2)
    x = states.reshape(-1, *model.event_shape)
    if context is not None:
        context = np.tile(context.astype("float32"), (len(x), 1))
    p = np.exp(to_numpy(model(x if context is None else (x, context))))
    assert (p < 0.9).all()
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["eonade", "lstm", "wavenet", "pixelcnn, channels", "attention, orders"]
)
def test_samples_have_the_probabilities_of_the_density(name):
    model, context = make_density(name)
    states = all_states(model.network.event_size)
    p = np.exp(
        to_numpy(model.log_prob(states.reshape(-1, *model.event_shape), context))
    )
    x = to_numpy(model.sample(8000, context, seed=1)).reshape(8000, -1)
    counts = np.bincount(state_index(x), minlength=len(states))
    assert chi_square_p(counts, p / p.sum()) > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "nade",
        "lstm, end",
        "wavenet",
        "pixelcnn, channels",
        "pixelrnn",
        "average",
        "average, image",
        "average, other blocks",
        "attention",
    ],
)
def test_fast_samples_are_slow_samples(name, monkeypatch):
    model, context = make_density(name)
    fast = to_numpy(model.sample(20, context, seed=3))
    kind = type(model.network)
    for method in ("start", "step", "open", "block_length"):
        monkeypatch.setattr(kind, method, getattr(Autoregressive, method))
    slow = AutoregressiveDensity(model.network, model.conditional)
    np.testing.assert_array_equal(to_numpy(slow.sample(20, context, seed=3)), fast)
    assert len(np.unique(fast.reshape(20, -1), axis=0)) > 1


@pytest.mark.parametrize("name", NETWORKS)
def test_it_comes_back_from_a_file(name, tmp_path):
    network = make(name)
    conditional = {1: Bernoulli(), 2: Normal(), 3: Categorical(3)}
    model = AutoregressiveDensity(network, conditional[network.params_per_entry])
    x, context = make_data(name)
    if network.params_per_entry == 1:
        x = (x > 0).astype("float32")
    inputs = x if context is None else (x, context)
    before = to_numpy(model(inputs))
    again = reload(model, tmp_path / "m.keras")
    assert again.network.get_config() == network.get_config()
    np.testing.assert_array_equal(to_numpy(again(inputs)), before)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_two_kernels_start_alike(name):
    """Called again, a Keras initializer repeats itself."""
    build, shape, context_size = NETWORKS[name]
    network = build()
    network.build((None, *shape), (None, context_size) if context_size else None)
    starts = [to_numpy(v).ravel()[:6] for v in network.trainable_variables]
    starts = [a / np.linalg.norm(a) for a in starts if len(a) == 6 and a.std() > 0]
    alike = np.abs(np.stack(starts) @ np.stack(starts).T) - np.eye(len(starts))
    assert alike.max() < 0.999


@pytest.mark.parametrize("name", NETWORKS)
def test_config_round_trip(name):
    network = NETWORKS[name][0]()
    config = network.get_config()
    arguments = set(inspect.signature(type(network)).parameters) - {"layer_kwargs"}
    assert arguments <= set(config)
    assert all(hasattr(network, argument) for argument in arguments)
    assert type(network).from_config(config).get_config() == config


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_every_entry_hears_context_and_non_linearly(name):
    network = make(name)
    x, _ = make_data(name, 1)
    rng, size = np.random.RandomState(2), NETWORKS[name][2]
    points = rng.normal(size=(64, size))

    def params(context):
        rows = np.repeat(x, len(context), axis=0)
        out = to_numpy(network(rows, context.astype("float32")))
        return out.reshape(len(context), network.event_size, -1)

    if name == "lstm, end":
        x[:] = 0
    for j in range(size):
        step = np.zeros(size)
        step[j] = 1.0
        low, mid, high = params(points - step), params(points), params(points + step)
        assert (np.abs(high - low).max(axis=(0, 2)) > 1e-3).all()
        assert (np.abs(high - 2 * mid + low).max(axis=(0, 2)) > 1e-3).all()


@pytest.mark.parametrize("name", WITH_CONTEXT)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_number_of_batch_axes(name, batch):
    network = make(name)
    x, context = make_data(name, int(np.prod(batch, dtype=int)))
    flat = to_numpy(network(x, context))
    shaped = network(
        x.reshape(*batch, *x.shape[1:]), context.reshape(*batch, *context.shape[1:])
    )
    assert tuple(shaped.shape) == (*batch, *flat.shape[1:])
    np.testing.assert_allclose(
        to_numpy(shaped).reshape(flat.shape), flat, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "name", ["eonade", "lstm, end", "wavenet", "pixelcnn, wide", "attention, orders"]
)
def test_mixed_precision(name):
    exact = make(name)
    config = {**exact.get_config(), "dtype": "mixed_bfloat16"}
    network = type(exact).from_config(config)
    x, context = make_data(name)
    out = network(x, context)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    network.set_weights(exact.get_weights())
    shape = (len(x), exact.event_size, -1)
    out = to_numpy(ops.cast(network(x, context), "float32")).reshape(shape)
    expected = to_numpy(exact(x, context)).reshape(shape)
    np.testing.assert_allclose(out, expected, rtol=0.05, atol=0.3)
    density = AutoregressiveDensity(
        network,
        {1: Bernoulli(), 2: Normal(), 3: Categorical(3)}[network.params_per_entry],
    )
    samples = density.sample(4, context[0] if context is not None else None)
    assert np.isfinite(to_numpy(samples)).all()


CYCLE = {"ordering": "random", "num_masks": 3}
PATTERNS = {
    "nade": lambda: NADE(16),
    "lstm": lambda: Recurrent((6,), 8),
    "wavenet": lambda: WaveNet((6,), 8, num_layers=3),
    "attention": lambda: Attention((6,), 16, 2, 2),
    "pixelcnn": lambda: PixelCNN((2, 3), 16, num_layers=2),
    "pixelrnn": lambda: PixelRNN((2, 3), 32, num_layers=1, first_kernel_size=3),
}


@pytest.mark.compiled
@pytest.mark.parametrize("name", others_slow(PATTERNS, "nade", "lstm"))
def test_fit_learns_and_impute_completes(name):
    """Each entry repeats the one before it: log p of the truth is -log 2."""
    # Some starts end with an entry that no unit hears any longer.
    keras.utils.set_random_seed(2)
    rng = np.random.RandomState(0)
    network = PATTERNS[name]()
    x = np.tile(rng.randint(2, size=(256, 1)), (1, 6)).astype("float32")
    x = x.reshape(256, *(network.event_shape or (6,)))
    model = AutoregressiveDensity(network)
    # At the rate that suits these two, an LSTM over rows diverges, and units behind a
    # rectifier may fall silent for good.
    slow = name not in ("nade", "lstm")
    model.compile(keras.optimizers.Adam(0.01 if slow else 0.03))
    model.fit(x, epochs=30 if slow else 20, batch_size=32, verbose=0)
    assert np.log(2) - 0.01 < model.evaluate(x, verbose=0) < np.log(2) + 0.25
    missing = x[:40].copy()
    missing.reshape(40, 6)[:, 1::2] = np.nan
    # What comes before a missing entry tells it all.
    with pytest.warns(UserWarning, match="one particle"):
        completed = to_numpy(model.impute(missing, num_particles=1, seed=0))
    assert (completed == x[:40]).mean() > 0.95


@pytest.mark.parametrize(
    ("network", "conditional"),
    [
        (lambda: NADE(8, 6), MixtureOfNormals(2)),
        (lambda: PixelCNN((2, 2), 8, 6, num_layers=1), MixtureOfLogistics(2, 9)),
        pytest.param(
            lambda: WaveNet((4,), 8, 6, num_layers=1),
            MixtureOfLogistics(2, 9),
            marks=pytest.mark.slow,
        ),
        (lambda: Recurrent((4,), 8, "gru", 2), Normal()),
        pytest.param(
            lambda: PixelRNN((2, 2), 8, 256, num_layers=1),
            Categorical(256),
            marks=pytest.mark.slow,
        ),
        (
            lambda: Attention((4,), 8, 1, 2, 9, dropout=0.1, **CYCLE),
            Columns(
                [
                    Normal(),
                    Categorical(9),
                    MixtureOfNormals(2),
                    MixtureOfLogistics(2, 9),
                ]
            ),
        ),
    ],
    ids=[
        "rnade",
        "pixelcnn logistics",
        "wavenet logistics",
        "gru normal",
        "256",
        "attention columns",
    ],
)
def test_any_conditional(network, conditional):
    network = network()
    shape = network.event_shape or (4,)
    x = np.random.RandomState(0).randint(9, size=(64, *shape)).astype("float32")
    model = AutoregressiveDensity(network, conditional)
    model.compile(keras.optimizers.Adam(0.01))
    nll = model.fit(x, epochs=4, batch_size=16, verbose=0).history["nll"]
    assert nll[-1] < nll[0]
    sample = to_numpy(model.sample(3, seed=0))
    assert sample.shape == (3, *shape)
    conditional.check(sample)


def built(network):
    """The network, built for five entries."""
    network.build((None, 5))
    return network


def average_of(*networks):
    return built(NetworkAverage(networks))


@pytest.mark.parametrize(
    ("make_network", "message"),
    [
        (lambda: NADE(0), "units"),
        (lambda: NADE([4]), "units"),
        (lambda: NADE(4, num_blocks=-1), "num_blocks"),
        (lambda: NADE(4, num_blocks=1.5), "num_blocks"),
        (lambda: NADE(4, num_blocks=None), "num_blocks"),
        (lambda: NADE(4, dropout=1.0), "dropout"),
        (lambda: NADE(4, dropout="much"), "dropout"),
        (lambda: NADE(4, num_masks=2), "would be the same"),
        (lambda: NADE(4, ordering="sorted"), "ordering"),
        (lambda: NADE(4, ordering=[0, 0]), "ordering"),
        (lambda: NADE(4, seed=None), "seed"),
        (lambda: NADE(4).ranks(), "build"),
        (
            lambda: make("eonade")(np.zeros((2, 6)), np.zeros((2, 2)), structure=3),
            "0 to 2",
        ),
        (lambda: make("nade, reversed")(np.zeros((2, 6))), "context"),
        (lambda: Recurrent((4, 4), 8), "event_shape"),
        (lambda: Recurrent((4,), 0), "units"),
        (lambda: Recurrent((4,), 8, "rnn"), "cell"),
        (lambda: Recurrent((4,), 8, num_layers=0), "num_layers"),
        (lambda: Recurrent((4,), 8, end=0), "end"),
        (lambda: Recurrent((4,), 8, num_params=3, end=3), "end"),
        (lambda: Recurrent((4,), 8, num_params=3, end=2)(np.zeros((2, 4))), "one-hot"),
        (lambda: make("lstm")(np.zeros((2, 5))), r"\(6,\)"),
        (lambda: make("lstm").start(2, order=np.zeros((2, 6))), "structure"),
        (lambda: Attention(()), "event_shape"),
        (lambda: Attention((4, 0)), "event_shape"),
        (lambda: Attention((4,), 0), "width"),
        (lambda: Attention((4,), num_layers=0), "num_layers"),
        (lambda: Attention((4,), num_heads=0), "num_heads"),
        (lambda: Attention((4,), 6, num_heads=4), "divide"),
        (lambda: Attention((4,), mlp_units=0), "mlp_units"),
        (lambda: Attention((4,), dropout=1.0), "dropout"),
        (lambda: Attention((4,), num_masks=2), "would be the same"),
        (lambda: Attention((4,), ordering=[0, 1, 1, 2]), "once"),
        (lambda: Attention((4,), ordering=[1, 0]), "0..3 once"),
        (lambda: WaveNet((4, 4)), "event_shape"),
        (lambda: WaveNet((4,), num_layers=0), "num_layers"),
        (lambda: WaveNet((4,), num_stacks=0), "num_stacks"),
        (lambda: WaveNet((4,), kernel_size=0), "kernel_size"),
        (lambda: WaveNet((4,), skip_units=-1), "skip_units"),
        (lambda: PixelCNN((4,)), "event_shape"),
        (lambda: PixelCNN((4, 0)), "event_shape"),
        (lambda: PixelCNN((4, 4), kernel_size=4), "odd"),
        (lambda: PixelCNN((4, 4), kernel_size=1), "odd"),
        (lambda: PixelCNN((4, 4, 3), 2), "units"),
        (lambda: PixelCNN((4, 4), num_layers=0), "num_layers"),
        (lambda: PixelRNN((4, 4), first_kernel_size=2), "first_kernel_size"),
        (lambda: make("pixelcnn")(np.zeros((2, 3, 4))), r"\(3, 3\)"),
        (lambda: MaskedConv2D([0], [0], (2, 3)), "odd"),
        (lambda: NetworkAverage([]), "at least one"),
        (lambda: NetworkAverage([NADE(4)] * 2), "each once"),
        (lambda: NetworkAverage(NADE(4)), "sequence"),
        (lambda: NetworkAverage([keras.layers.Dense(4)]), "Autoregressive"),
        (lambda: NetworkAverage([NADE(4), NADE(4, 2)]), "num_params"),
        (
            lambda: NetworkAverage(
                [NADE(4, 3, encoder=Categorical(k)) for k in (3, 4)]
            ),
            "encoder",
        ),
        (lambda: average_of(NADE(4), NADE(4, ordering="reversed")), "orderings"),
        (lambda: built(pixelcnn_of_rows((5,))), r"hold as many .* 6\. Received"),
        (lambda: average_of(*(Recurrent((n,), 8) for n in (5, 6))), "event_size"),
        (lambda: average_of(make("nade, classes"), built(NADE(4, 3))), "num_features"),
    ],
)
def test_bad_input_is_named_early(make_network, message):
    with pytest.raises(ValueError, match=message):
        make_network()


# NADE ---------------------------------------------------------------------------------


def nade_by_loop(network, x, context, row):
    """The recursion of the paper, entry by entry, in float64 NumPy."""
    weights = {w.name: to_numpy(w).astype("float64") for w in network.weights}
    size, params = network.event_size, network.params_per_entry
    a = weights["bias"] + context @ weights["context_kernel"]
    output = weights["output_kernel"].reshape(size, params, -1)
    out = np.zeros((len(x), size, params))
    for entry in network.orders()[row]:
        h = 1 / (1 + np.exp(-a))
        out[:, entry] = h @ output[entry].T + weights["output_bias"][entry]
        a = a + x[:, [entry]] * weights["kernel"][entry]
    return out


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 40])
def test_nade_is_the_recursion_of_the_paper(size):
    network = NADE(5, 2, ordering="random", num_masks=2)
    network.build((None, size), (None, 3))
    set_random_weights(network, scale=0.5)
    rng = np.random.RandomState(0)
    x = rng.normal(size=(4, size)).astype("float32")
    context = rng.normal(size=(4, 3)).astype("float32")
    for row in range(2):
        expected = nade_by_loop(network, x, context, row)
        whole = to_numpy(network(x, context, structure=row))
        np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-4)
        steps = run_steps(network, x, context, row)
        np.testing.assert_allclose(steps, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        dependence(network, 3, structure=1), past(network, structure=1)
    )


@pytest.mark.parametrize(
    "name",
    ["nade", "eonade", "nade, classes", "attention, classes", "attention, orders"],
)
def test_nade_takes_an_order_for_each_example(name):
    network = make(name)
    x, context = make_data(name)
    size = network.event_size
    order = np.stack([np.random.RandomState(i).permutation(size) for i in range(5)])
    order = order.astype("int32")
    together = run_steps(network, x, context, order=order)
    for i in range(5):
        one = slice(i, i + 1)
        alone = run_steps(
            network, x[one], None if context is None else context[one], order=order[one]
        )
        np.testing.assert_allclose(together[one], alone, rtol=1e-4, atol=1e-5)


def test_eonade_is_the_mixture_of_its_orderings():
    model, context = make_density("eonade")
    x = all_states(6)
    members = [
        to_numpy(
            AutoregressiveDensity(model.network, structures=[row]).log_prob(x, context)
        )
        for row in range(3)
    ]
    assert np.ptp(members, axis=0).max() > 0.1
    expected = np.logaddexp.reduce(members, axis=0) - np.log(3)
    np.testing.assert_allclose(
        to_numpy(model.log_prob(x, context)), expected, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["eonade", "average, cycle", "attention, orders"])
def test_an_order_agnostic_network_imputes_exactly(name):
    """Under an ordering with the observed entries first: chi-square on the missing."""
    model, context = make_density(name)
    observed = np.array([True, False, True, False, False, True])
    x = np.array([[1, 0, 0, 0, 0, 1]], "float32")
    order = observed_first(model, observed[None])
    states = x.repeat(8, axis=0)
    states[:, ~observed] = all_states(3)
    p = np.exp(
        to_numpy(model.conditional_log_prob(states, observed, context, verbose=0))
    )
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-4)
    assert observed[order[0][:3]].all()
    draws = to_numpy(model.impute(np.tile(x, (4000, 1)), observed, context, seed=0))
    counts = np.bincount(state_index(draws[:, ~observed]), minlength=8)
    assert chi_square_p(counts, p / p.sum()) > 1e-3


# Attention ----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6])
def test_attention_in_blocks_is_attention_at_once(length, monkeypatch):
    """Whatever the length of its blocks, and whether the last is full."""
    network = make("attention, orders")
    x, context = make_data("attention, orders")
    whole = to_numpy(network(x, context, structure=1))
    monkeypatch.setattr(attention, "BLOCK", length)
    blocks = to_numpy(network(x, context, structure=1))
    np.testing.assert_allclose(blocks, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        heard_by("attention, orders", network, 1), past(network, 1)
    )


@pytest.mark.compiled
def test_attention_knows_any_order_of_a_pattern():
    """Entries that are all alike: after one, whichever it is, all others are known."""
    keras.utils.set_random_seed(0)
    rng = np.random.RandomState(0)
    x = np.tile(rng.randint(2, size=(512, 1)), (1, 5)).astype("float32")
    network = Attention((5,), 16, 1, 2, ordering="random", num_masks=60)
    model = AutoregressiveDensity(network, structures=[0])
    model.compile(keras.optimizers.Adam(0.02))
    model.fit(x, epochs=15, batch_size=32, verbose=0)
    # Each row sees another entry, and so has another order than the others.
    observed = np.eye(5, dtype=bool)[np.arange(200) % 5]
    missing = np.where(observed, x[:200], np.nan)
    with uncompiled():
        completed = to_numpy(model.impute(missing, seed=0, verbose=0))
    assert (completed == x[:200]).mean() > 0.97


# Recurrent ----------------------------------------------------------------------------


def test_what_follows_the_end_is_free_and_certain():
    """log p is that of the real entries and one end; the padding adds exactly zero."""
    model, context = make_density("lstm, end")
    x = np.array([[0, 2, 1, 1, 1]], "float32")
    params = model.network(x, np.float32([context]))
    entries = to_numpy(Categorical(3).log_prob(params, x))[0]
    assert (entries[:3] < 0).all()
    np.testing.assert_array_equal(entries[3:], 0.0)
    draws = to_numpy(model.sample(500, context, seed=0))
    ended = np.cumsum(draws == 1, axis=1) > 0
    assert 0 < ended.mean() < 1
    assert (draws[ended] == 1).all()


@pytest.mark.slow
def test_training_with_an_end_stays_finite_and_learns_lengths():
    rng = np.random.RandomState(0)
    lengths = rng.choice([1, 3], size=512)
    x = np.where(np.arange(5) < lengths[:, None], 0, 1).astype("float32")
    network = Recurrent((5,), 8, num_params=3, end=1)
    model = AutoregressiveDensity(network, Categorical(3))
    model.compile(keras.optimizers.Adam(0.05))
    model.fit(x, epochs=8, verbose=0)
    assert np.log(2) - 0.05 < model.evaluate(x, verbose=0) < np.log(2) + 0.1
    drawn = (to_numpy(model.sample(400, seed=0)) == 0).sum(axis=1)
    assert np.isin(drawn, [1, 3]).mean() > 0.9


# WaveNet ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"num_layers": 3}, 8),
        ({"num_layers": 2, "num_stacks": 2}, 7),
        ({"num_layers": 2, "kernel_size": 3}, 7),
        ({"num_layers": 1, "kernel_size": 1}, 1),
        ({"num_layers": 10}, 1024),
    ],
)
def test_wavenet_hears_exactly_its_receptive_field(arguments, field):
    network = WaveNet((12,), 8, **arguments)
    assert network.receptive_field == field
    network.build((None, 12))
    set_random_weights(network, scale=0.5)
    distance = np.arange(12)[:, None] - np.arange(12)
    np.testing.assert_array_equal(
        dependence(network), (distance >= 1) & (distance <= field)
    )


def test_wavenet_steps_beyond_its_rings():
    network = WaveNet((40,), 6, num_layers=3, kernel_size=3, skip_units=5)
    network.build((None, 40))
    set_random_weights(network, scale=0.5)
    x = np.random.RandomState(0).normal(size=(2, 40)).astype("float32")
    np.testing.assert_allclose(
        run_steps(network, x)[..., 0], to_numpy(network(x)), rtol=1e-4, atol=1e-4
    )


def test_causal_convolution_is_keras_causal_convolution():
    layer = CausalConv1D(4, 3, dilation=2)
    reference = keras.layers.Conv1D(4, 3, dilation_rate=2, padding="causal")
    x = np.random.RandomState(0).normal(size=(2, 9, 5)).astype("float32")
    layer.build(x.shape)
    reference.build(x.shape)
    set_random_weights(layer)
    reference.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        to_numpy(layer(x)), to_numpy(reference(x)), rtol=1e-4, atol=1e-4
    )


def test_causal_convolution_of_sequences_of_unknown_length():
    """Short ones, of which some places of the kernel hear nothing, among them."""
    layer = CausalConv1D(4, 3, dilation=2)
    inputs = keras.Input((None, 5))
    model = keras.Model(inputs, layer(inputs))
    for length in (1, 3, 9):
        x = np.random.RandomState(0).normal(size=(2, length, 5)).astype("float32")
        np.testing.assert_allclose(
            model.predict(x, verbose=0), to_numpy(layer(x)), rtol=1e-4, atol=1e-5
        )


# Images -------------------------------------------------------------------------------


def test_masks_of_types_a_and_b_are_those_of_the_papers():
    channel = np.array([0])
    b = image_mask((3, 3), channel, channel)[..., 0, 0]
    assert b.astype(int).tolist() == [[1, 1, 1], [1, 1, 0]]
    rows = image_mask((3, 3), channel, channel, strict=True, by_row=True)[..., 0, 0]
    assert rows.astype(int).tolist() == [[1, 1, 1], [0, 0, 0]]
    colours = np.arange(3)
    center = image_mask((3, 3), colours, colours, strict=True)[1, 1]
    assert center.astype(int).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    center = image_mask((3, 3), colours, colours)[1, 1]
    assert center.astype(int).tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert image_mask((3, 3), colours, colours)[0].all()


def test_masked_convolution_is_a_convolution_with_a_masked_kernel():
    layer = MaskedConv2D([0, 1], [0, 0, 1], (3, 5), strict=True)
    x = np.random.RandomState(0).normal(size=(2, 4, 6, 2)).astype("float32")
    layer.build(x.shape)
    set_random_weights(layer)
    kernel, bias = layer.get_weights()
    whole = np.zeros((3, 5, 2, 3), "float32")
    whole[:2] = kernel * layer.mask()
    reference = keras.layers.Conv2D(
        3, (3, 5), padding="same", data_format="channels_last"
    )
    reference.build(x.shape)
    reference.set_weights([whole, bias])
    np.testing.assert_allclose(
        to_numpy(layer(x)), to_numpy(reference(x)), rtol=1e-4, atol=1e-4
    )


FIELDS = {
    "pixelcnn, shallow": lambda: PixelCNN((5, 6), 8, num_layers=2),
    "pixelcnn, deep": lambda: PixelCNN((4, 5), 8, num_layers=4),
    "pixelcnn, colours": lambda: PixelCNN((3, 3, 3), 18, num_layers=2),
    "pixelrnn": lambda: PixelRNN((4, 7), 8, num_layers=1, first_kernel_size=3),
    "pixelrnn, two layers": lambda: PixelRNN(
        (3, 6, 2), 12, num_layers=2, first_kernel_size=3
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_connectivity_is_what_images_hear(name):
    network = FIELDS[name]()
    network.build((None, *network.event_shape))
    set_random_weights(network, scale=0.5)
    heard = dependence(network, num_points=96)
    np.testing.assert_array_equal(heard, network.connectivity())
    assert not (heard & ~past(network)).any()


def field_of(network, row, column):
    """What the entry at a place hears, as an image of 0 and 1."""
    shape = network.event_shape
    index = np.ravel_multi_index((row, column), shape)
    return network.connectivity()[index].reshape(shape).astype(int).tolist()


def test_pixelcnn_has_no_blind_spot():
    """Its field is a whole rectangle above, and the row to the left."""
    network = PixelCNN((5, 7), num_layers=2)
    assert field_of(network, 4, 3) == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 0, 0],
    ]


def test_one_stack_of_masked_convolutions_has_a_blind_spot():
    """What the two stacks are for: a single one misses a wedge at any depth."""
    channel, shape = np.array([0]), (5, 7)
    reach = image_reach(image_mask((3, 3), channel, channel, strict=True), *shape)
    for _ in range(20):
        reach = reach @ image_reach(image_mask((3, 3), channel, channel), *shape)
    assert reach[:, 4 * 7 + 3].reshape(shape).astype(int).tolist() == [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
    ]


def test_the_row_lstm_hears_a_triangle():
    """One column more on each side a row, and no more; the masked convolutions, the
    first of them 3 wide, add two columns to the left.
    """
    network = PixelRNN((5, 7), num_layers=1, first_kernel_size=3)
    assert field_of(network, 4, 3) == [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
    ]


# How to add a network: the code of the README, literally ------------------------------


@keras.saving.register_keras_serializable(package="mine")
class Attending(Autoregressive):
    """Each entry attends to those before it."""

    def __init__(self, event_shape, units=16, num_params=None, **kwargs):
        super().__init__(num_params, event_shape=event_shape, **kwargs)
        self.units = units

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        size, width = self.event_size, self.units
        self.embed = keras.layers.Dense(width, "relu", dtype=self.dtype_policy)
        self.embed.build((None, self.num_features + size + self.context_size))
        self.attend = keras.layers.MultiHeadAttention(2, width, dtype=self.dtype_policy)
        self.attend.build((None, size, width), (None, size, width))
        self.head = keras.layers.Dense(self.params_per_entry, dtype=self.dtype_policy)
        self.head.build((None, width))

    def compute_params(self, features, context, structure, training):
        batch, size = ops.shape(features)[0], self.event_size
        before = ops.pad(features, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        known = [before, ops.repeat(ops.eye(size, dtype=before.dtype)[None], batch, 0)]
        if context is not None:
            known.append(ops.repeat(context[:, None], size, axis=1))
        h = self.embed(ops.concatenate(known, axis=-1))
        return self.head(h + self.attend(h, h, use_causal_mask=True))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("context_size", others_slow([0, 2], 2))
def test_a_network_of_ones_own(context_size, tmp_path):
    network = Attending((5,), num_params=3)
    model = AutoregressiveDensity(network, Categorical(3))
    rng = np.random.RandomState(0)
    x = np.tile(rng.randint(3, size=(256, 1)), (1, 5)).astype("float32")
    context = rng.normal(size=(256, context_size)).astype("float32")
    context = context if context_size else None
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x if context is None else (x, context), epochs=8, verbose=0)
    heard = dependence(
        network, context_size, make_x=lambda rng, n: rng.randint(3, size=(n, 5))
    )
    np.testing.assert_array_equal(heard, past(network))
    row = None if context is None else context[0]
    p = np.exp(to_numpy(model.log_prob(all_states(5, 3), row)))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-4)
    again = reload(model, tmp_path / "m.keras")
    samples = to_numpy(again.sample(20, row, seed=0))
    np.testing.assert_array_equal(samples, to_numpy(model.sample(20, row, seed=0)))
    missing = np.where(np.arange(5) < 2, x[:20], np.nan)
    completed = to_numpy(
        model.impute(missing, context=None if context is None else context[:20])
    )
    assert (completed == x[:20]).mean() > 0.8


def test_the_documentation_shows_this_network():
    page = Path(__file__).parents[2] / "docs" / "howto" / "extend.md"
    assert inspect.getsource(Attending).strip() in page.read_text(encoding="utf-8")


# NetworkAverage -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NETWORKS if n.startswith("average")])
def test_the_average_is_the_mean_of_the_parameters(name):
    network = make(name)
    x, context = make_data(name)
    for row in range(network.num_masks):
        params = []
        for member in network.networks:
            own = to_numpy(
                member(x.reshape(-1, *member.event_shape), context, structure=row)
            )
            params.append(own.reshape(len(x), network.event_size, -1))
        assert np.abs(params[0] - params[1]).max() > 0.1
        whole = to_numpy(network(x, context, structure=row))
        np.testing.assert_allclose(
            whole.reshape(params[0].shape), np.mean(params, axis=0), atol=1e-5
        )


def test_the_average_is_at_least_the_mean_of_the_log_likelihoods():
    average, _ = make_density("average, image")
    x = all_states(9).reshape(-1, 3, 3)
    own = [
        to_numpy(AutoregressiveDensity(n).log_prob(x.reshape(-1, *n.event_shape)))
        for n in average.network.networks
    ]
    gain = to_numpy(average.log_prob(x)) - np.mean(own, axis=0)
    assert (gain > -1e-4).all() and gain.max() > 1


def test_blocks_of_several_lengths():
    lengths = {
        name: {n.block_length for n in make(name).networks}
        for name in ("average", "average, image", "average, other blocks")
    }
    # NADE opens no blocks, and so follows those of MADE.
    assert lengths["average"] == {2, 6} and make("average").block_length == 2
    assert lengths["average, image"] == {3} and make("average, image").block_length == 3
    assert len(lengths["average, other blocks"]) == 2
    assert make("average, other blocks").block_length == 8


@pytest.mark.compiled
def test_networks_trained_apart_are_averaged_without_another_build():
    rng = np.random.RandomState(0)
    x = np.tile(rng.randint(2, size=(200, 3)), (1, 2)).astype("float32")
    models = [AutoregressiveDensity(MADE([16], seed=s)) for s in range(2)]
    for model in models:
        model.compile(keras.optimizers.Adam(0.02))
        model.fit(x, epochs=5, verbose=0)
    average = AutoregressiveDensity(NetworkAverage([m.network for m in models]))
    own = [to_numpy(model.log_prob(x)).mean() for model in models]
    assert to_numpy(average.log_prob(x)).mean() > np.mean(own) > -6 * np.log(2)
    before = models[0].network.get_weights()[0]
    average.compile(keras.optimizers.Adam(0.02))
    nll = average.fit(x, epochs=5, verbose=0).history["nll"]
    assert nll[-1] < nll[0]
    assert not np.array_equal(before, models[0].network.get_weights()[0])
