"""The simulators of the posterior benchmark are those whose posterior is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import posterior
from simulators import TASKS, VARIANCE


@pytest.mark.parametrize("name", TASKS)
def test_simulations_have_the_sizes_of_the_task_and_lie_in_its_support(name):
    task = TASKS[name]
    theta, x = task.simulate(50, seed=0)
    assert theta.shape == (50, task.size) and x.shape == (50, task.context_size)
    assert theta.dtype == x.dtype == "float32"
    if task.support:
        low, high = task.support
        assert theta.min() >= low and theta.max() <= high
    again = task.simulate(50, seed=0)
    np.testing.assert_array_equal(theta, again[0])
    np.testing.assert_array_equal(x, again[1])


def test_noise_of_the_gaussian_tasks_is_a_variance():
    theta, x = TASKS["gaussian_linear"].simulate(20_000, seed=0)
    np.testing.assert_allclose(theta.var(), VARIANCE, rtol=0.02)
    np.testing.assert_allclose((x - theta).var(), VARIANCE, rtol=0.02)


def test_two_moons_has_the_same_observation_for_two_parameters():
    """Both signs of the sum give it, and it lies on a crescent of radius 0.1."""
    task = TASKS["two_moons"]
    theta = np.tile([[0.3, -0.1], [0.1, -0.3]], (500, 1))
    x = task.simulator(np.random.RandomState(0), theta)
    centers = x - np.array([-0.2, -0.4]) / np.sqrt(2) - [0.25, 0.0]
    radius = np.linalg.norm(centers, axis=1)
    assert centers[:, 0].min() > 0
    np.testing.assert_allclose(radius.mean(), 0.1, atol=0.001)
    np.testing.assert_allclose(radius.std(), 0.01, rtol=0.1)


def test_points_of_slcp_have_the_mean_and_covariance_of_the_parameters():
    theta = np.tile([[0.5, -2.0, 1.5, -2.0, 0.6]], (20_000, 1))
    x = TASKS["slcp"].simulator(np.random.RandomState(0), theta).reshape(-1, 2)
    np.testing.assert_allclose(x.mean(axis=0), [0.5, -2.0], atol=0.06)
    np.testing.assert_allclose(x.std(axis=0), [1.5**2, 2.0**2], rtol=0.02)
    np.testing.assert_allclose(np.corrcoef(x.T)[0, 1], np.tanh(0.6), atol=0.01)


def test_the_classifier_tells_what_differs_and_nothing_else():
    rng = np.random.RandomState(0)
    a, b = rng.normal(size=(2, 400, 2)).astype("float32")
    assert abs(posterior.c2st(a, b) - 0.5) < 0.08
    assert posterior.c2st(a, b + 4) > 0.9
