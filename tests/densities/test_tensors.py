"""log p of tensors: compiled, with derivatives, and inside the user's own functions."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import set_random_weights, to_numpy

from keras_made import MADE, AutoregressiveDensity, Normal, flows

pytestmark = pytest.mark.neutral

BACKEND = keras.backend.backend()
D, C = 3, 2


def density():
    network = MADE([8], 2, activation="tanh", ordering="random", num_masks=2)
    return AutoregressiveDensity(network, Normal())


MODELS = {
    "density": density,
    "flow": lambda: flows.MAF(D, 2, (8,), context_size=C, activation="tanh"),
}


@pytest.fixture(params=MODELS)
def model(request):
    model = MODELS[request.param]()
    model.build(((None, D), (None, C)))
    set_random_weights(model, scale=0.3)
    return model


def data(n, seed=0):
    rng = np.random.RandomState(seed)
    return (rng.normal(size=(n, k)).astype("float32") for k in (D, C))


def gradient(function, x):
    """Of a scalar function, on any back end, as an array."""
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)
    import torch

    x = x if x.requires_grad else x.detach().requires_grad_(True)
    return torch.autograd.grad(function(x), x, create_graph=True)[0]


@pytest.mark.parametrize("num_rows", [1, 5, 20])
def test_a_tensor_scores_as_its_array(model, num_rows):
    x, context = data(num_rows)
    scores = to_numpy(model.log_prob(x, context))
    tensors = [ops.convert_to_tensor(a) for a in (x, context)]
    found = to_numpy(model.log_prob(*tensors))
    assert found.shape == (num_rows,)
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-5)
    # A context that all rows share.
    first = to_numpy(model.log_prob(tensors[0], context[0]))
    expected = to_numpy(model.log_prob(x, context[0]))
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-5)


def test_first_and_second_derivatives_are_those_of_differences(model):
    x, context = data(4)
    context = ops.convert_to_tensor(context)
    direction = np.random.RandomState(7).normal(size=x.shape).astype("float32")
    tensor = ops.convert_to_tensor(direction)

    def total(x):
        return ops.sum(model.log_prob(x, context))

    def along(x):
        return ops.sum(gradient(total, x) * tensor)

    def moved(function, step):
        return float(to_numpy(function(ops.convert_to_tensor(x + step * direction))))

    here, step = ops.convert_to_tensor(x), 0.01
    slope = np.sum(to_numpy(gradient(total, here)) * direction)
    difference = (moved(total, step) - moved(total, -step)) / (2 * step)
    assert slope == pytest.approx(difference, rel=0.01, abs=0.01)
    if BACKEND == "jax":
        import jax

        curvature = jax.jvp(jax.grad(total), (here,), (direction,))[1]
    else:
        curvature = to_numpy(gradient(along, here))
    curvature = np.sum(np.asarray(curvature) * direction)
    difference = (moved(along, step) - moved(along, -step)) / (2 * step)
    assert curvature == pytest.approx(difference, rel=0.02, abs=0.02)


@pytest.mark.skipif(BACKEND == "torch", reason="torch compiles nothing here")
def test_tensors_of_many_sizes_share_what_is_compiled(model):
    for num_rows in (1, 3, 11, 16):
        x, context = (ops.convert_to_tensor(a) for a in data(num_rows))
        model.log_prob(x, context)
    assert len(model.compiled_function("log_prob of tensors", None).shapes) == 1


@pytest.mark.skipif(BACKEND != "jax", reason="these are JAX's own")
def test_transformations_of_jax(model):
    import jax

    x, context = data(4)
    scores = np.asarray(model.log_prob(x, context))
    inside = jax.jit(lambda x, c: model.log_prob(x, c))(x, context)
    np.testing.assert_allclose(inside, scores, rtol=1e-5, atol=1e-5)
    pairs = np.stack([x, x + 1.0]), np.stack([context, context])
    mapped = jax.vmap(lambda x, c: model.log_prob(x, c))(*pairs)
    np.testing.assert_allclose(mapped[0], scores, rtol=1e-5, atol=1e-5)
    each = jax.vmap(jax.grad(lambda x, c: model.log_prob(x[None], c[None])[0]))
    total = jax.grad(lambda x: model.log_prob(x, ops.convert_to_tensor(context)).sum())
    np.testing.assert_allclose(
        each(x, context), total(ops.convert_to_tensor(x)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="these are TensorFlow's own")
def test_weights_have_gradients_and_graphs_take_the_model_as_it_is(model):
    import tensorflow as tf

    x, context = (tf.constant(a) for a in data(4))
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model.log_prob(x, context))
    found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model((x, context)))
    expected = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    inside = tf.function(model.log_prob)(x, context)
    np.testing.assert_allclose(inside, model.log_prob(x, context), rtol=1e-5)
