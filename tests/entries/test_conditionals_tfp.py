"""Conditionals beside TensorFlow Probability, which says what the numbers should be."""

import warnings

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow Probability needs TensorFlow", allow_module_level=True)

# TensorFlow Probability looks at TensorFlow's version in a deprecated way.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorflow_probability as tfp

from laws import to_numpy

from keras_made import (
    Bernoulli,
    Categorical,
    Columns,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
)

LEVELS = {"bernoulli": 2, "categorical": 6, "logistics": 256, "few levels": 5}
CONDITIONALS = {
    "bernoulli": Bernoulli(),
    "categorical": Categorical(6),
    "normal": Normal(),
    "narrow normal": Normal(min_scale=1e-6),
    "normals": MixtureOfNormals(3),
    "logistics": MixtureOfLogistics(3, 256),
    "few levels": MixtureOfLogistics(2, 5),
}


def make(name, scale):
    """Parameters as wide as `scale`, and entries in the bulk and far in the tails."""
    conditional, rng = CONDITIONALS[name], np.random.RandomState(0)
    params = scale * rng.normal(size=(500, conditional.num_params))
    # Sums with the centres of the components are exact: single precision then knows
    # the locations as well as double does, however narrow the scales.
    params = (np.round(params * 1024) / 1024).astype("float32")
    if name in LEVELS:
        x = rng.randint(LEVELS[name], size=500)
        x[:2] = [0, LEVELS[name] - 1]
    else:
        x = to_numpy(conditional.sample(params, seed=0))
        x[::2] += scale * rng.normal(size=250)
    return conditional, params, x.astype("float32")


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("name", CONDITIONALS)
def test_log_prob_is_that_of_tfp(name, scale):
    """Of TFP in double precision: in single, its own tails are off by more."""
    conditional, params, x = make(name, scale)
    found = to_numpy(conditional.log_prob(params, x))
    wide = params.astype("float64")
    expected = conditional.distribution(wide).log_prob(x.astype("float64")).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["bernoulli", "normal", "normals"])
def test_mean_is_that_of_tfp(name):
    conditional, params, _ = make(name, 3.0)
    expected = conditional.distribution(params).mean().numpy()
    np.testing.assert_allclose(conditional.mean(params), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONDITIONALS)
def test_the_distribution_samples_like_the_conditional(name):
    conditional, params, _ = make(name, 1.0)
    many = np.broadcast_to(params[:1], (20_000, params.shape[1]))
    theirs = conditional.distribution(many).sample(seed=3).numpy()
    ours = to_numpy(conditional.sample(many, seed=3))
    error = np.hypot(theirs.std(), ours.std()) / np.sqrt(20_000)
    assert abs(theirs.mean() - ours.mean()) < 4.5 * error
    conditional.check(theirs)


def test_a_row_of_columns_is_one_event():
    kinds = [Bernoulli(), Normal(), Categorical(3), MixtureOfLogistics(2, 8)]
    columns, rng = Columns(kinds), np.random.RandomState(0)
    params = rng.normal(size=(9, 4, columns.num_params)).astype("float32")
    x = np.stack(
        [rng.randint(2, size=9), rng.normal(size=9)]
        + [rng.randint(n, size=9) for n in (3, 8)],
        axis=1,
    ).astype("float32")
    distribution = columns.distribution(params)
    assert isinstance(distribution, tfp.distributions.Blockwise)
    assert distribution.event_shape == (4,)
    expected = to_numpy(columns.log_prob(params, x)).sum(axis=1)
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-5, atol=1e-5)
