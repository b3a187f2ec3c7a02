"""What TensorFlow Probability asks of its own bijectors and distributions, asked of
ours: its tests, and the tools that take any of them as a part.
"""

import copy
import pickle

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow Probability needs TensorFlow", allow_module_level=True)

import tensorflow as tf
import tensorflow_probability as tfp
from laws import chi_square_p, set_random_weights, to_numpy
from tensorflow_probability.python.internal import test_util

from keras_made import (
    MADE,
    NADE,
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
    flows,
)

tfb, tfd = tfp.bijectors, tfp.distributions

FLOWS = {
    "maf": flows.MAF,
    "iaf": flows.IAF,
    "spline": flows.SplineMAF,
    "realnvp": flows.RealNVP,
    "nice": flows.NICE,
}


def make_flow(name, size=3, context_size=0, dtype="float64", scale=0.3, **options):
    options = {"num_steps": 2, "hidden_units": (8,), **options}
    flow = FLOWS[name](size, context_size=context_size, dtype=dtype, **options)
    flow.require_built()
    set_random_weights(flow, scale=scale)
    return flow


# Densities of real events of two entries, and of events that can be enumerated.
REAL = {
    "made": lambda: (MADE([8], 2), Normal()),
    "orders": lambda: (MADE([8], 2, ordering="random", num_masks=2), Normal()),
    "made mixture": lambda: (MADE([8], 6), MixtureOfNormals(2)),
    "nade": lambda: (NADE(6, 6), MixtureOfNormals(2)),
    "average": lambda: (NetworkAverage([MADE([8], 2), NADE(6, 2)]), Normal()),
    "wavenet": lambda: (WaveNet((2,), 4, 2, num_layers=1), Normal()),
    "recurrent": lambda: (Recurrent((2,), 4, num_params=2), Normal()),
}
MIXED = Columns([Bernoulli(), Categorical(3), MixtureOfLogistics(1, 4)])
DISCRETE = {
    "made": lambda: (MADE([8]), Bernoulli(), [2] * 3),
    "nade": lambda: (NADE(6, 3), Categorical(3), [3] * 3),
    "orders": lambda: (NADE(6, ordering="random", num_masks=2), Bernoulli(), [2] * 3),
    "levels": lambda: (MADE([8], 6), MixtureOfLogistics(2, 4), [4] * 3),
    "columns": lambda: (MADE([8], 3), MIXED, [2, 3, 4]),
    "average": lambda: (NetworkAverage([MADE([8]), NADE(6)]), Bernoulli(), [2] * 3),
    "pixelcnn": lambda: (PixelCNN((2, 2), 4, num_layers=2), Bernoulli(), [2] * 4),
    "pixelrnn": lambda: (PixelRNN((2, 2), 4, num_layers=1), Bernoulli(), [2] * 4),
    "wavenet": lambda: (WaveNet((3,), 4, 3, num_layers=2), Categorical(3), [3] * 3),
    "recurrent": lambda: (
        Recurrent((3,), 4, num_params=3, end=1),
        Categorical(3),
        [3] * 3,
    ),
}


def make_density(network, conditional, size=3, scale=0.5, **options):
    model = AutoregressiveDensity(network, conditional, **options)
    model.build((None, *(network.event_shape or (size,))))
    set_random_weights(network, scale=scale)
    return model


# A whole flow, with all that may stand between its steps, and one step.
BIJECTORS = [f"{name}{part}" for name in FLOWS for part in ("", ", one step")]


@pytest.fixture(scope="module")
def every_bijector():
    found = {}
    for name in FLOWS:
        flow = make_flow(name, permutation="random", seed=1)
        found[name], found[f"{name}, one step"] = (
            flow.bijector(),
            flow.make_step(0, None),
        )
    return found


def rows(*shape, seed=0):
    return tf.constant(np.random.RandomState(seed).normal(size=shape))


def anew(tensor):
    """A copy: TFP's cache would hand the other side of a pair back."""
    return tf.identity(tensor)


# Bijectors ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_in_one_dimension_the_slope_is_the_derivative(name):
    """`assert_scalar_congruency` of TFP's tests, which its wheel does not hold."""
    bijector = make_flow(name, 1).bijector()
    low, high = -2.0, 2.0
    ten = to_numpy(bijector.forward(np.linspace(low, high, 10)[:, None]))[:, 0]
    assert np.all(np.diff(ten) > 0)

    x = tf.constant(np.random.RandomState(0).uniform(low, high, (1000, 1)))
    y = tf.constant(np.linspace(ten[0], ten[-1], 1001)[:, None])
    back = to_numpy(bijector.inverse(anew(bijector.forward(x))))
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)
    forth = to_numpy(bijector.forward(anew(bijector.inverse(y))))
    np.testing.assert_allclose(forth, y, rtol=1e-9, atol=1e-9)

    # b - a is the integral of |dx/dy| from y(a) to y(b).
    # A constant may come without the batch axes, as that of `tfb.Scale` does.
    slopes = np.exp(to_numpy(bijector.inverse_log_det_jacobian(y, 1)))
    slopes = np.broadcast_to(slopes, len(y))
    assert np.trapezoid(slopes, to_numpy(y)[:, 0]) == pytest.approx(high - low, 1e-4)
    source = anew(bijector.inverse(y))
    other = to_numpy(bijector.forward_log_det_jacobian(source, 1))
    np.testing.assert_allclose(slopes, np.exp(-other), rtol=1e-9)


@pytest.mark.parametrize("name", BIJECTORS)
def test_it_is_bijective_and_finite(name, every_bijector):
    """`assert_bijective_and_finite` of TFP's tests, out to a million."""
    bijector = every_bijector[name]
    scale = np.array([1.0, 1e3, 1e6])[:, None, None]
    x, y = scale * rows(3, 5, 3), scale * rows(3, 5, 3, seed=1)
    forward, inverse = bijector.forward(x), bijector.inverse(y)
    forward_log_det = bijector.forward_log_det_jacobian(x, 1)
    inverse_log_det = bijector.inverse_log_det_jacobian(y, 1)
    for result in (forward, inverse, forward_log_det, inverse_log_det):
        assert np.all(np.isfinite(result))
    forward, inverse = anew(forward), anew(inverse)
    back, forth = bijector.inverse(forward), bijector.forward(inverse)
    np.testing.assert_allclose(back / scale, x / scale, rtol=0, atol=1e-8)
    np.testing.assert_allclose(forth / scale, y / scale, rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        bijector.inverse_log_det_jacobian(forward, 1), -forward_log_det, atol=1e-8
    )
    np.testing.assert_allclose(
        bijector.forward_log_det_jacobian(inverse, 1), -inverse_log_det, atol=1e-8
    )


COPIES = {
    "copy": copy.copy,
    "own copy": lambda part: part.copy(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda part: pickle.loads(pickle.dumps(part)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", BIJECTORS)
def test_a_bijector_is_copied_like_those_of_tfp(name, how, every_bijector):
    """A copy shares the weights; a deep one has its own, of the same values."""
    bijector, x = every_bijector[name], rows(4, 3)
    y = bijector.forward(x)  # It has been used: its cache holds a pair of tensors.
    other = COPIES[how](bijector)
    assert type(other) is type(bijector)
    np.testing.assert_allclose(other.forward(anew(x)), y)
    log_det = bijector.inverse_log_det_jacobian(y, 1)
    np.testing.assert_allclose(other.inverse_log_det_jacobian(anew(y), 1), log_det)
    own = {id(v) for v in bijector.trainable_variables}
    others = {id(v) for v in other.trainable_variables}
    assert len(own) == len(others) > 0
    shared = how in ("copy", "own copy")
    assert others == own if shared else not others & own
    assert bijector.inverse(y) is x


# Distributions ------------------------------------------------------------------------


def distributions():
    """Of every flow, and of every kind of network, float32 and float64."""
    found = {}
    for name in FLOWS:
        found[f"flow {name}"] = make_flow(name, 2, dtype="float32").distribution()
    for name, make in REAL.items():
        found[f"density {name}"] = make_density(*make(), size=2).distribution()
    return found


@pytest.fixture(scope="module")
def every_distribution():
    return distributions()


DISTRIBUTIONS = [f"flow {name}" for name in FLOWS]
DISTRIBUTIONS += [f"density {name}" for name in REAL]


@pytest.fixture(scope="module")
def ball_test():
    """TFP's: the volume of a ball, from draws that are weighted with their density."""
    from absl import flags

    # TFP's tests read their seeds from a command line, which pytest has not.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    class BallTest(test_util.VectorDistributionTestHelpers, test_util.TestCase):
        pass

    return BallTest().run_test_sample_consistent_log_prob


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_have_the_density_that_they_are_scored_with(
    name, every_distribution, ball_test
):
    distribution = every_distribution[name]
    center = to_numpy(distribution.sample(2000, seed=(3, 4))).mean(0)
    for offset in (0.0, 0.5):
        ball_test(
            lambda tensors: [None if t is None else to_numpy(t) for t in tensors or []],
            distribution,
            num_samples=20_000,
            radius=0.7,
            center=(center + offset).astype("float32"),
            seed=5,
            rtol=0.05,
        )


@pytest.mark.parametrize("name", DISCRETE)
def test_draws_of_discrete_events_have_their_probabilities(name):
    network, conditional, levels = DISCRETE[name]()
    distribution = make_density(network, conditional).distribution()
    states = np.stack(np.meshgrid(*map(np.arange, levels), indexing="ij"), axis=-1)
    states = states.reshape(-1, *distribution.event_shape).astype("float32")
    probabilities = np.exp(to_numpy(distribution.log_prob(states)))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    draws = to_numpy(distribution.sample(20_000, seed=(1, 2)))
    draws = draws.reshape(len(draws), -1).astype(int)
    counts = np.bincount(
        np.ravel_multi_index(draws.T, levels), minlength=len(probabilities)
    )
    assert chi_square_p(counts, probabilities) > 1e-3


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_its_weights_are_tracked_restored_and_shared_by_copies(
    name, every_distribution, tmp_path
):
    distribution = every_distribution[name]
    variables = distribution.trainable_variables
    assert len({id(v) for v in variables}) == len(variables) > 0
    holder = tf.Module()
    holder.part = distribution
    holder.wrapped = tfd.Sample(distribution, 2)
    assert {id(v) for v in holder.trainable_variables} == {id(v) for v in variables}
    for other in (copy.copy(distribution), distribution.copy()):
        assert {id(v) for v in other.trainable_variables} == {id(v) for v in variables}

    x = tf.constant(np.random.RandomState(0).normal(size=(4, 2)), tf.float32)
    before, values = (
        to_numpy(distribution.log_prob(anew(x))),
        [v.numpy() for v in variables],
    )
    path = tf.train.Checkpoint(part=distribution).save(str(tmp_path / "weights"))
    for variable in variables:
        variable.assign(variable * 1.5 + 0.1)
    assert not np.allclose(distribution.log_prob(anew(x)), before)
    tf.train.Checkpoint(part=distribution).restore(path).assert_consumed()
    for variable, value in zip(variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)
    np.testing.assert_array_equal(distribution.log_prob(anew(x)), before)


# TFP's own: its loop over a batch says that it is one.
AUTO_BATCHED = "ignore:Saw Tensor seed:UserWarning"
PARTS = ["flow maf", "flow iaf", "flow realnvp", "density made", "density nade"]


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
LOOPS = {"scored": ["flow iaf"], "drawn": [name for name in PARTS if "nvp" not in name]}


def joint_cases(what):
    for name in PARTS:
        for kind in ("named", "sequential", "coroutine"):
            slow = kind == "coroutine" and name in LOOPS[what]
            yield pytest.param(name, kind, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("name", "kind"), list(joint_cases("scored")))
def test_it_is_scored_as_a_part_of_a_joint_distribution(name, kind, every_distribution):
    part = every_distribution[name]
    z, y = (tf.cast(rows(6, 2, seed=seed), tf.float32) for seed in (0, 1))
    draws = {"z": z, "y": y} if kind == "named" else (z, y)
    expected = part.log_prob(z) + tfd.MultivariateNormalDiag(z, [0.5, 2.0]).log_prob(y)
    log_prob = joint_with(part, kind).log_prob(draws)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings(AUTO_BATCHED)
@pytest.mark.parametrize(("name", "kind"), list(joint_cases("drawn")))
def test_it_is_drawn_as_a_part_of_a_joint_distribution(name, kind, every_distribution):
    joint = joint_with(every_distribution[name], kind)
    draws, again = (joint.sample(500, seed=(1, 2)) for _ in range(2))
    tf.nest.map_structure(np.testing.assert_array_equal, draws, again)
    z, y = (draws["z"], draws["y"]) if kind == "named" else draws
    assert z.shape == y.shape == (500, 2) and len(np.unique(to_numpy(z)[:, 0])) > 490
    noise = to_numpy(y - z) / [0.5, 2.0]
    assert np.abs(noise.mean(0)).max() < 0.2
    np.testing.assert_allclose(noise.std(0), 1, atol=0.15)


def test_a_context_comes_from_another_part_of_a_joint_distribution():
    flow = make_flow("maf", 2, 3, "float32")
    joint = tfd.JointDistributionSequential(
        [tfd.Sample(tfd.Normal(0.0, 1.0), 3), flow.distribution]
    )
    context, x = joint.sample(5, seed=(1, 2))
    expected = flow.log_prob(to_numpy(x), to_numpy(context)) + tf.reduce_sum(
        tfd.Normal(0.0, 1.0).log_prob(context), -1
    )
    np.testing.assert_allclose(joint.log_prob([context, x]), expected, rtol=1e-4)


def test_a_batch_of_contexts_is_mixed_by_tfp():
    flow = make_flow("realnvp", 2, 3, "float32")
    contexts = tf.cast(rows(4, 3), tf.float32)
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


@pytest.mark.parametrize(("name", "num_steps"), [("maf", 1), ("realnvp", 2)])
def test_hmc_leaves_a_flow_as_it_is(name, num_steps):
    """Chains that start from its draws still have its moments, 20 steps later."""
    flow = make_flow(name, 2, dtype="float32", scale=0.15, num_steps=num_steps)
    distribution = flow.distribution()
    start = distribution.sample(4000, seed=(3, 4))
    moved, accepted = hmc(distribution.log_prob, anew(start))
    assert 0.8 < accepted <= 1
    start = to_numpy(start)
    assert np.abs(moved - start).mean() > 0.3
    np.testing.assert_allclose(moved.mean(0), start.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(start.T), atol=0.15)


def test_hmc_runs_in_the_noise_of_a_flow():
    """There the flow's own density is a standard normal, and the start forgotten."""
    distribution = make_flow("iaf", 2, dtype="float32", num_steps=1).distribution()
    # One bijector, whose cache lets the flow score its own draws in parallel.
    bijector = distribution.bijector
    start = bijector.forward(3.0 + tf.zeros((2000, 2)))
    moved, accepted = hmc(distribution.log_prob, start, bijector)
    assert 0.95 < accepted <= 1
    noise = to_numpy(bijector.inverse(tf.constant(moved)))
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.2)


def test_an_iaf_is_fitted_as_a_surrogate_posterior():
    import tf_keras

    flow = flows.IAF(2, 2, (8,))
    flow.require_built()
    surrogate = flow.distribution()
    scale_tril = [[1.0, 0.0], [0.8, 0.6]]
    target = tfd.MultivariateNormalTriL([1.0, -2.0], scale_tril)
    slower = tf_keras.optimizers.schedules.PolynomialDecay(0.05, 300, 1e-3)
    optimizer = tf_keras.optimizers.Adam(slower)
    optimizer.build(surrogate.trainable_variables)

    @tf.function
    def fit():
        return tfp.vi.fit_surrogate_posterior(
            target.log_prob,
            surrogate,
            optimizer,
            num_steps=300,
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
