"""What TensorFlow Probability's tests ask of its bijectors and distributions, asked of
ours.
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
ONE_STEP = ("maf", "spline")
BIJECTORS = [*FLOWS, *(f"{name}, one step" for name in ONE_STEP)]
BIJECTORS.remove("spline")  # Costs most, and is chained as `maf` is.


@pytest.fixture(scope="module")
def every_bijector():
    found = {}
    for name in FLOWS:
        flow = make_flow(name, permutation="random", seed=1)
        found[name] = flow.bijector()
        if name in ONE_STEP:
            found[f"{name}, one step"] = flows.MaskedAutoregressiveFlow(
                flow.networks[0], transform=flow.steps[0].transform
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
    bijector = make_flow(name, 1, num_steps=1).bijector()
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


@pytest.fixture(scope="module")
def every_distribution():
    """Of every flow, and of every kind of network, over two real entries."""
    found = {}
    for name in FLOWS:
        num_steps = 2 if name in ("realnvp", "nice") else 1
        flow = make_flow(name, 2, dtype="float32", num_steps=num_steps)
        found[f"flow {name}"] = flow.distribution()
    for name, make in REAL.items():
        found[f"density {name}"] = make_density(*make(), size=2).distribution()
    return found


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
            num_samples=10_000,
            radius=0.7,
            center=(center + offset).astype("float32"),
            seed=5,
            rtol=0.07,
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
