"""Mixtures of Gaussians as densities: beside those of a well-known library."""

import keras
import numpy as np
import pytest
from laws import to_numpy

from keras_made import Ensemble
from keras_made.recipes.gaussians import gaussian_mixture


def clusters(num_rows=400, size=4, seed=0):
    """Rows of three correlated clusters, of unequal scale in unequal units."""
    rng = np.random.RandomState(seed)
    which = rng.choice(3, num_rows, p=[0.5, 0.3, 0.2])
    maps = rng.normal(size=(3, size, size))
    x = np.einsum("nij,nj->ni", maps[which], rng.normal(size=(num_rows, size)))
    x = x + 6 * rng.normal(size=(3, size))[which]
    return (x * np.logspace(-2, 2, size) + 5).astype("float32")


@pytest.mark.neutral
def test_one_gaussian_has_the_moments_of_the_rows():
    x = clusters()
    # Columns of which one is nearly the sum of two others.
    x[:, 3] = 100 * (
        x[:, 0] + x[:, 1] + 0.05 * np.random.RandomState(1).normal(size=400)
    )
    model = gaussian_mixture(x, 1, 1e-4)
    # By hand, from mean and covariance.
    z = (x.astype("float64") - x.mean(axis=0)) / x.std(axis=0)
    covariance = z.T @ z / len(z)
    squares = np.einsum("ni,ij,nj->n", z, np.linalg.inv(covariance), z)
    log_p = -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])
    log_p -= np.log(x.std(axis=0)).sum()
    scores = to_numpy(model.log_prob(x, verbose=0))
    assert np.abs(scores - log_p).mean() < 0.02


@pytest.mark.parametrize("number", [2, 3])
def test_as_likely_as_those_of_scikit_learn(number):
    mixture = pytest.importorskip("sklearn.mixture")
    x, test = np.split(clusters(800), 2)
    spread = x.std(axis=0)
    # Its floor is a variance of standardised columns.
    theirs = mixture.GaussianMixture(number, reg_covar=1e-4, n_init=5, random_state=0)
    theirs.fit((x - x.mean(axis=0)) / spread)
    model = gaussian_mixture(x, number, 1e-2)
    assert isinstance(model, Ensemble) and len(model.members) == number
    for rows in (x, test):
        expected = theirs.score((rows - x.mean(axis=0)) / spread) - np.log(spread).sum()
        assert abs(to_numpy(model.log_prob(rows, verbose=0)).mean() - expected) < 0.1


@pytest.mark.neutral
def test_draws_are_those_of_the_clusters():
    x = clusters()
    drawn = to_numpy(gaussian_mixture(x, 3, 1e-2).sample(4000, seed=0, verbose=0))
    scale = x.std(axis=0)
    assert np.abs((drawn.mean(axis=0) - x.mean(axis=0)) / scale).max() < 0.15
    assert np.abs(np.corrcoef(drawn.T) - np.corrcoef(x.T)).max() < 0.15


@pytest.mark.neutral
def test_saved_and_trained_further(tmp_path):
    x = clusters(100)
    model = gaussian_mixture(x, 2, 1e-2)
    before = to_numpy(model.log_prob(x, verbose=0))
    model.save(tmp_path / "gaussians.keras")
    again = keras.models.load_model(tmp_path / "gaussians.keras")
    np.testing.assert_allclose(
        to_numpy(again.log_prob(x, verbose=0)), before, atol=1e-4
    )
    again.compile(keras.optimizers.Adam(1e-3))
    again.fit(x, epochs=20, verbose=0)
    # It was the likeliest of its kind already.
    assert to_numpy(again.log_prob(x, verbose=0)).mean() > before.mean() - 0.2


def test_columns_that_say_nothing_or_the_same_twice():
    x = clusters(60)
    x[:, 1], x[:, 2] = 3.0, x[:, 0]
    for number in (1, 2):
        scores = to_numpy(gaussian_mixture(x, number, 1e-2).log_prob(x, verbose=0))
        assert np.isfinite(scores).all()
