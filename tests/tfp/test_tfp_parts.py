"""TensorFlow Probability's tools, with our distributions and bijectors as parts."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow Probability needs TensorFlow", allow_module_level=True)

import tensorflow as tf
import tensorflow_probability as tfp
from laws import set_random_weights, to_numpy

from keras_made import (
    MADE,
    NADE,
    AutoregressiveDensity,
    MixtureOfNormals,
    Normal,
    flows,
)

tfb, tfd = tfp.bijectors, tfp.distributions


def make_flow(kind, size=2, context_size=0, num_steps=1, scale=0.3):
    flow = kind(size, num_steps, (8,), context_size=context_size)
    flow.require_built()
    set_random_weights(flow, scale=scale)
    return flow


def make_density(network, conditional):
    model = AutoregressiveDensity(network, conditional)
    model.build((None, 2))
    set_random_weights(network, scale=0.5)
    return model


# Distributions of two real entries.
PARTS = {
    "maf": lambda: make_flow(flows.MAF),
    "iaf": lambda: make_flow(flows.IAF),
    "realnvp": lambda: make_flow(flows.RealNVP, num_steps=2),
    "made": lambda: make_density(MADE([8], 2), Normal()),
    "nade": lambda: make_density(NADE(6, 6), MixtureOfNormals(2)),
}


@pytest.fixture(scope="module")
def every_part():
    return {name: make().distribution() for name, make in PARTS.items()}


def rows(*shape, seed=0):
    x = np.random.RandomState(seed).normal(size=shape)
    return tf.constant(x, tf.float32)


def anew(tensor):
    """A copy: TFP's cache would hand the other side of a pair back."""
    return tf.identity(tensor)


# TFP's own: its loop over a batch says that it is one.
AUTO_BATCHED = "ignore:Saw Tensor seed:UserWarning"


def joint_with(part, kind):
    """`part`, and normals around its draw."""

    def given(z):
        return tfd.MultivariateNormalDiag(z, [0.5, 2.0])

    def coroutine():
        z = yield part
        yield given(z)

    if kind == "sequential":
        return tfd.JointDistributionSequential([part, given])
    if kind == "coroutine":
        return tfd.JointDistributionCoroutineAutoBatched(coroutine)
    return tfd.JointDistributionNamed({"z": part, "y": lambda z: given(z)})


# TFP runs what has a loop, row by row, in one of its own that takes long to compile.
LOOPS = {"scored": ["iaf"], "drawn": [name for name in PARTS if name != "realnvp"]}


def joint_cases(what):
    for name in PARTS:
        for kind in ("named", "sequential", "coroutine"):
            slow = kind == "coroutine" and name in LOOPS[what]
            yield pytest.param(name, kind, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("name", "kind"), list(joint_cases("scored")))
def test_it_is_scored_as_a_part_of_a_joint_distribution(name, kind, every_part):
    part = every_part[name]
    z, y = (rows(6, 2, seed=seed) for seed in (0, 1))
    draws = {"z": z, "y": y} if kind == "named" else (z, y)
    expected = part.log_prob(z) + tfd.MultivariateNormalDiag(z, [0.5, 2.0]).log_prob(y)
    log_prob = joint_with(part, kind).log_prob(draws)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings(AUTO_BATCHED)
@pytest.mark.parametrize(("name", "kind"), list(joint_cases("drawn")))
def test_it_is_drawn_as_a_part_of_a_joint_distribution(name, kind, every_part):
    draws = joint_with(every_part[name], kind).sample(500, seed=(1, 2))
    z, y = (draws["z"], draws["y"]) if kind == "named" else draws
    assert z.shape == y.shape == (500, 2) and len(np.unique(to_numpy(z)[:, 0])) > 490
    noise = to_numpy(y - z) / [0.5, 2.0]
    assert np.abs(noise.mean(0)).max() < 0.2
    np.testing.assert_allclose(noise.std(0), 1, atol=0.15)


def test_a_context_comes_from_another_part_of_a_joint_distribution():
    flow = make_flow(flows.MAF, 2, 3)
    joint = tfd.JointDistributionSequential(
        [tfd.Sample(tfd.Normal(0.0, 1.0), 3), flow.distribution]
    )
    context, x = joint.sample(5, seed=(1, 2))
    expected = flow.log_prob(to_numpy(x), to_numpy(context)) + tf.reduce_sum(
        tfd.Normal(0.0, 1.0).log_prob(context), -1
    )
    np.testing.assert_allclose(joint.log_prob([context, x]), expected, rtol=1e-4)


def test_a_batch_of_contexts_is_mixed_by_tfp():
    flow = make_flow(flows.RealNVP, 2, 3, num_steps=2)
    contexts = rows(4, 3)
    logits = tf.constant([0.0, 1.0, -1.0, 0.5])
    mixture = tfd.MixtureSameFamily(
        tfd.Categorical(logits=logits), flow.distribution(contexts)
    )
    x = mixture.sample(7, seed=(1, 2))
    assert x.shape == (7, 2)
    parts = [flow.distribution(c).log_prob(anew(x)) for c in contexts]
    expected = tf.reduce_logsumexp(tf.stack(parts, -1) + tf.math.log_softmax(logits), 1)
    np.testing.assert_allclose(mixture.log_prob(x), expected, rtol=1e-4, atol=1e-5)


# Inference ----------------------------------------------------------------------------


def hmc(target, start, bijector=None, num_steps=20):
    kernel = tfp.mcmc.HamiltonianMonteCarlo(target, step_size=0.3, num_leapfrog_steps=3)
    if bijector is not None:
        kernel = tfp.mcmc.TransformedTransitionKernel(kernel, bijector)

    def trace(_, results):
        return getattr(results, "inner_results", results).log_accept_ratio

    @tf.function
    def run(start):
        return tfp.mcmc.sample_chain(
            num_steps, start, kernel=kernel, trace_fn=trace, seed=(1, 2)
        )

    states, log_ratios = run(start)
    accepted = np.exp(np.minimum(to_numpy(log_ratios), 0)).mean()
    return to_numpy(states[-1]), accepted


def test_hmc_leaves_a_flow_as_it_is():
    """Chains that start from its draws still have its moments, 20 steps later."""
    distribution = make_flow(flows.MAF, scale=0.15).distribution()
    start = distribution.sample(4000, seed=(3, 4))
    moved, accepted = hmc(distribution.log_prob, anew(start))
    assert 0.8 < accepted <= 1
    start = to_numpy(start)
    assert np.abs(moved - start).mean() > 0.3
    np.testing.assert_allclose(moved.mean(0), start.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(start.T), atol=0.15)


def test_hmc_runs_in_the_noise_of_a_flow():
    """There the flow's own density is a standard normal, and the start forgotten."""
    distribution = make_flow(flows.IAF).distribution()
    # One bijector, whose cache lets the flow score its own draws in parallel.
    bijector = distribution.bijector
    start = bijector.forward(3.0 + tf.zeros((2000, 2)))
    moved, accepted = hmc(distribution.log_prob, start, bijector)
    assert 0.95 < accepted <= 1
    noise = to_numpy(bijector.inverse(tf.constant(moved)))
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.2)


@pytest.mark.slow
def test_an_iaf_is_fitted_as_a_surrogate_posterior():
    import tf_keras

    flow = flows.IAF(2, 1, (8,))
    flow.require_built()
    surrogate = flow.distribution()
    scale_tril = [[1.0, 0.0], [0.8, 0.6]]
    target = tfd.MultivariateNormalTriL([1.0, -2.0], scale_tril)
    slower = tf_keras.optimizers.schedules.PolynomialDecay(0.1, 150, 1e-3)
    optimizer = tf_keras.optimizers.Adam(slower)
    optimizer.build(surrogate.trainable_variables)

    @tf.function
    def fit():
        return tfp.vi.fit_surrogate_posterior(
            target.log_prob,
            surrogate,
            optimizer,
            num_steps=150,
            sample_size=32,
            seed=(1, 2),
        )

    losses = to_numpy(fit())
    # The loss is KL(surrogate || target), the target being normalised.
    assert losses[0] > 1 and losses[-50:].mean() < 0.05
    draws = to_numpy(surrogate.sample(20_000, seed=(3, 4)))
    np.testing.assert_allclose(draws.mean(0), [1.0, -2.0], atol=0.15)
    expected = np.array(scale_tril) @ np.transpose(scale_tril)
    np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.2)
    # The Keras model was trained with it.
    x = to_numpy(target.sample(500, seed=(5, 6)))
    gap = to_numpy(target.log_prob(x)) - to_numpy(flow.log_prob(x))
    assert abs(gap.mean()) < 0.05
