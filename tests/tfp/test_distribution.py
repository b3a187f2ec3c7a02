"""The density as a TensorFlow Probability distribution."""

import keras
import numpy as np
import pytest
from laws import all_states, chi_square_p, set_random_weights, state_index

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow Probability needs TensorFlow", allow_module_level=True)

import tensorflow as tf
import tensorflow_probability as tfp

from keras_made import MADE, AutoregressiveDensity


def make(context_size=0, **kwargs):
    model = AutoregressiveDensity(MADE([12], **kwargs))
    shape = (None, 4)
    model.build((shape, (None, context_size)) if context_size else shape)
    set_random_weights(model.network, scale=0.7)
    return model


@pytest.mark.parametrize("num_masks", [1, 3])
def test_it_scores_and_draws_what_the_model_does(num_masks):
    model = make(ordering="random", num_masks=num_masks)
    distribution = model.distribution()
    assert isinstance(distribution, tfp.distributions.Distribution)
    assert distribution.batch_shape == [] and distribution.event_shape == [4]
    log_prob = np.asarray(model.log_prob(all_states(4)))
    np.testing.assert_allclose(
        distribution.log_prob(all_states(4)), log_prob, rtol=1e-4, atol=1e-5
    )
    draws = distribution.sample((2, 10_000), seed=1)
    assert draws.shape == (2, 10_000, 4)
    counts = np.bincount(state_index(tf.reshape(draws, (-1, 4)).numpy()), minlength=16)
    assert chi_square_p(counts, np.exp(log_prob)) > 1e-3
    np.testing.assert_array_equal(
        distribution.sample(5, seed=(1, 2)), distribution.sample(5, seed=(1, 2))
    )


def test_a_batch_of_contexts_is_the_batch_shape():
    model = make(context_size=3)
    contexts = np.random.RandomState(0).normal(size=(2, 5, 3)).astype("float32")
    distribution = model.distribution(contexts)
    assert distribution.batch_shape == [2, 5]
    x = all_states(4)[3]
    expected = model.log_prob(np.tile(x, (10, 1)), contexts.reshape(10, 3))
    np.testing.assert_allclose(
        tf.reshape(distribution.log_prob(x), (-1,)), expected, rtol=1e-4, atol=1e-5
    )
    assert distribution.sample(7, seed=0).shape == (7, 2, 5, 4)
    assert distribution.log_prob(distribution.sample(7, seed=0)).shape == (7, 2, 5)


def test_its_variables_are_visible_and_train():
    model = make()
    distribution = model.distribution()
    assert len(distribution.trainable_variables) == len(model.trainable_variables) > 0
    x = tf.constant(all_states(4)[:8])
    before = float(tf.reduce_mean(distribution.log_prob(x)))
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(distribution.log_prob(x))
        gradients = tape.gradient(loss, distribution.trainable_variables)
        for variable, gradient in zip(
            distribution.trainable_variables, gradients, strict=True
        ):
            variable.assign_sub(0.1 * gradient)
    assert float(tf.reduce_mean(distribution.log_prob(x))) > before
    # The model is trained with it: there is one set of weights.
    np.testing.assert_allclose(
        np.mean(model.log_prob(x.numpy())),
        float(tf.reduce_mean(distribution.log_prob(x))),
        rtol=1e-4,
    )


@pytest.mark.parametrize(("declared", "given"), [(0, 2), (3, 0), (3, 2)])
def test_a_wrong_context_is_named(declared, given):
    model = make(context_size=declared)
    with pytest.raises(ValueError, match="context of size"):
        model.distribution(np.zeros(given, "float32") if given else None)
