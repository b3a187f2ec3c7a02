"""MaskedDense: weights x structure, against NumPy."""

import keras
import numpy as np
import pytest
from laws import reload, set_random_weights, to_numpy

from keras_made import MADE
from keras_made.layers import MaskedDense
from keras_made.layers.kernels import STAIRCASE_WEIGHTS
from keras_made.layers.staircase import Staircase
from keras_made.masks import connect, count_connections

pytestmark = pytest.mark.neutral

SOURCES, DEGREES = np.array([[0, 1, 2], [2, 0, 1]]), np.array([[0, 1, 1, 2]] * 2)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("row", [0, 1])
def test_it_is_a_masked_matrix_product(strict, row):
    layer = MaskedDense(SOURCES, DEGREES, strict=strict, companion=True)
    x = np.random.RandomState(0).normal(size=(5, 3)).astype("float32")
    layer(x)
    set_random_weights(layer)
    kernel, companion, bias = layer.get_weights()
    mask = connect(SOURCES[row], DEGREES[row], strict)
    expected = x @ (kernel * mask) + (companion * mask).sum(axis=0) + bias
    np.testing.assert_allclose(to_numpy(layer(x, structure=row)), expected, atol=1e-5)
    np.testing.assert_array_equal(to_numpy(layer.mask(row)), mask)


def test_penalties_count_connected_weights_only():
    layer = MaskedDense(
        SOURCES[0], DEGREES[0], kernel_regularizer=keras.regularizers.L1(1.0)
    )
    layer(np.zeros((1, 3), "float32"))
    set_random_weights(layer)
    kernel = layer.get_weights()[0]
    expected = np.abs(kernel * connect(SOURCES[0], DEGREES[0])).sum()
    np.testing.assert_allclose(to_numpy(layer.losses[0]), expected, rtol=1e-5)


def test_it_comes_back_from_a_file(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), MaskedDense(SOURCES[0], DEGREES[0], activation="relu")]
    )
    x = np.random.RandomState(0).normal(size=(5, 3)).astype("float32")
    again = reload(model, tmp_path / "m.keras")
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 1.0], [0, 1]), "must be integers"),
        (([], [0]), "must be integers"),
        ((SOURCES, DEGREES[:1]), "one row per structure"),
    ],
)
def test_bad_degrees_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskedDense(*arguments)


def test_a_wrong_width_is_named():
    with pytest.raises(ValueError, match="width 3"):
        MaskedDense(SOURCES, DEGREES)(np.zeros((2, 4), "float32"))


# Structures in which panels meet every oddity: repeated and missing degrees, units
# that hear nothing or all, permuted inputs and units, fewer units than panels.
STRUCTURES = {
    "sorted": (np.arange(9), np.repeat(np.arange(8), 2), False),
    "strict": (np.repeat(np.arange(5), 2), np.arange(5), True),
    "permuted": (np.random.RandomState(0).permutation(9), np.arange(9)[::-1], True),
    "context": (np.append(np.arange(6), [-1, -1]), np.arange(-1, 6), False),
    "deaf": (np.arange(3, 9), np.arange(9), False),
    "narrow": (np.arange(9), np.array([4, 2]), False),
    "one": (np.array([0]), np.array([0]), True),
}


def both_forms(name, **options):
    """The same layer stored whole and as panels, with the same weights."""
    sources, degrees, strict = STRUCTURES[name]
    layers = [
        MaskedDense(sources, degrees, strict=strict, kernel_form=form, **options)
        for form in ("masked", "staircase")
    ]
    for layer in layers:
        layer.build((None, len(sources)))
    masked, stairs = layers
    set_random_weights(masked)
    load_weights(stairs, masked)
    return masked, stairs


def load_weights(layer, other):
    """What a file does, without one."""
    store = {}
    other.save_own_variables(store)
    layer.load_own_variables({name: to_numpy(v) for name, v in store.items()})


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_staircase_is_the_masked_kernel(name):
    masked, stairs = both_forms(name)
    sources, degrees, strict = STRUCTURES[name]
    mask = connect(sources, degrees, strict)
    x = np.random.RandomState(0).normal(size=(2, 4, len(sources))).astype("float32")
    np.testing.assert_allclose(to_numpy(stairs(x)), to_numpy(masked(x)), atol=1e-5)
    np.testing.assert_array_equal(
        to_numpy(stairs.kernel) * mask, to_numpy(masked.kernel) * mask
    )
    load_weights(masked, stairs)
    np.testing.assert_array_equal(
        to_numpy(masked.kernel) * mask, to_numpy(stairs.kernel) * mask
    )
    stored = sum(int(np.prod(v.shape)) for v in stairs.weights)
    assert stored <= sum(int(np.prod(v.shape)) for v in masked.weights)


@pytest.mark.parametrize("name", STRUCTURES)
def test_counts_are_those_of_the_mask(name):
    sources, degrees, strict = STRUCTURES[name]
    mask = connect(sources, degrees, strict)
    heard_by, hears = count_connections(sources, degrees, strict)
    np.testing.assert_array_equal(heard_by, mask.sum(axis=1))
    np.testing.assert_array_equal(hears, mask.sum(axis=0))


def test_four_panels_keep_five_eighths():
    panels = Staircase(np.arange(64), np.arange(64)).panels
    assert [tuple(panel) for panel in panels] == [
        (0, 16, 16),
        (16, 32, 32),
        (32, 48, 48),
        (48, 64, 64),
    ]


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_both_forms_train_alike(penalty):
    layers = both_forms("sorted", kernel_regularizer=penalty)
    rng = np.random.RandomState(0)
    x = rng.normal(size=(64, 9)).astype("float32")
    y = rng.normal(size=(64, 16)).astype("float32")
    mask, losses = connect(*STRUCTURES["sorted"]), []
    for layer in layers:
        model = keras.Sequential([keras.Input((9,)), layer])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    kernels = [to_numpy(layer.kernel) * mask for layer in layers]
    np.testing.assert_allclose(kernels[1], kernels[0], atol=1e-4)


def test_both_forms_start_alike():
    initializer = keras.initializers.HeNormal(seed=3)
    sources, degrees, _ = STRUCTURES["sorted"]
    kernels = []
    for form in ("masked", "staircase"):
        layer = MaskedDense(
            sources, degrees, kernel_initializer=initializer, kernel_form=form
        )
        layer.build((None, 9))
        kernels.append(to_numpy(layer.kernel) * connect(sources, degrees))
    np.testing.assert_array_equal(kernels[1], kernels[0])


@pytest.mark.parametrize("form", ["masked", "staircase"])
def test_weights_start_with_the_fans_that_are_connected(form):
    degrees = np.arange(400)
    mask = connect(degrees, degrees)
    for initializer, variance in [
        ("he_normal", 2 / mask.sum(axis=0)),
        ("glorot_uniform", 2 / (mask.sum(axis=0) + mask.sum(axis=1)[:, None])),
        (keras.initializers.RandomNormal(stddev=0.1), 0.01),
    ]:
        layer = MaskedDense(
            degrees, degrees, kernel_initializer=initializer, kernel_form=form
        )
        layer.build((None, 400))
        scaled = to_numpy(layer.kernel) / np.sqrt(np.broadcast_to(variance, mask.shape))
        for part in (slice(0, 200), slice(200, 400)):
            kept = scaled[:, part][mask[:, part]]
            np.testing.assert_allclose(np.mean(kept**2), 1.0, rtol=0.05)


def test_kernels_of_one_shape_start_apart():
    network = MADE([6, 6, 6], companion=True, direct=False)
    network.build((None, 6))
    kernels = []
    for layer in network.masked_layers[:3]:
        kernels += [to_numpy(layer.kernel), to_numpy(layer.companion_kernel)]
    assert len({kernel.tobytes() for kernel in kernels}) == 6


def test_the_form_is_chosen_by_size():
    many = np.zeros(STAIRCASE_WEIGHTS // 100, int)
    assert MaskedDense(np.arange(100), many).is_staircase
    assert not MaskedDense(np.arange(99), many).is_staircase
    assert not MaskedDense(np.arange(100), many, kernel_form="masked").is_staircase
    assert not MaskedDense(np.arange(100), many, companion=True).is_staircase
    two = np.tile(np.arange(100), (2, 1)), np.tile(many, (2, 1))
    assert not MaskedDense(*two).is_staircase
    penalty = keras.regularizers.OrthogonalRegularizer()
    layer = MaskedDense(np.arange(100), many, kernel_regularizer=penalty)
    assert not layer.is_staircase


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((SOURCES, DEGREES), {"kernel_form": "staircase"}, "2 structures"),
        (
            (SOURCES[0], DEGREES[0]),
            {"kernel_form": "staircase", "companion": True},
            "companion=True",
        ),
        ((SOURCES[0], DEGREES[0]), {"kernel_form": "stairs"}, "'stairs'"),
    ],
)
def test_a_form_that_cannot_be_had_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        MaskedDense(*arguments, **options)


@pytest.mark.parametrize("form", ["masked", "staircase"])
def test_weights_of_another_shape_are_refused(form):
    layer, other = (
        MaskedDense([0, 1, 2], np.arange(units), kernel_form=form) for units in (3, 4)
    )
    layer.build((None, 3))
    other.build((None, 3))
    with pytest.raises(ValueError, match="another architecture"):
        load_weights(layer, other)


def test_panels_that_are_not_numbered_through_are_refused_in_words():
    layer = MaskedDense([0, 1, 2], [0, 1, 2])
    layer.build((None, 3))
    panels = {f"kernel_panel_{i}": np.ones((3, 1)) for i in (0, 2, 3)}
    with pytest.raises(ValueError, match="another architecture"):
        layer.load_own_variables({**panels, "bias": np.zeros(3)})
