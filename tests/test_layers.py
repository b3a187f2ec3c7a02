"""MaskedDense: weights x structure, against NumPy."""

import keras
import numpy as np
import pytest
from laws import reload, set_random_weights, to_numpy

from keras_made.layers import MaskedDense
from keras_made.masks import connect

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
    np.testing.assert_allclose(to_numpy(layer(x, row=row)), expected, atol=1e-5)
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
