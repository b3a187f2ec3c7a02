"""Simulators whose posterior is to be learned, as published.

Lueckmann, Boelts, Greenberg, Goncalves, Macke 2021, "Benchmarking Simulation-Based
Inference", https://arxiv.org/abs/2101.04653, appendix T. A task is a prior, a simulator
and the box that holds the prior's parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Of the prior of gaussian_linear, and of the noise of both Gaussian simulators.
VARIANCE = 0.1


def uniform_prior(size, bound=1.0):
    """U(-bound, bound) for each of `size` parameters."""
    return lambda rng, num_rows: rng.uniform(-bound, bound, (num_rows, size))


def normal_prior(size):
    """N(0, 0.1) for each of `size` parameters."""
    return lambda rng, num_rows: np.sqrt(VARIANCE) * rng.normal(size=(num_rows, size))


def two_moons(rng, theta):
    """A crescent of radius 0.1, moved by |theta_1 + theta_2| and theta_2 - theta_1."""
    angle = rng.uniform(-np.pi / 2, np.pi / 2, len(theta))
    radius = 0.1 + 0.01 * rng.normal(size=len(theta))
    crescent = np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)
    moved = [-np.abs(theta[:, 0] + theta[:, 1]), theta[:, 1] - theta[:, 0]]
    return crescent + np.stack(moved, axis=1) / np.sqrt(2)


def gaussian(rng, theta):
    """theta and noise of variance 0.1."""
    return theta + np.sqrt(VARIANCE) * rng.normal(size=theta.shape)


def slcp(rng, theta):
    """Four points of a plane, whose mean and covariance theta gives."""
    scale_0, scale_1, correlation = theta[:, 2] ** 2, theta[:, 3] ** 2, theta[:, 4]
    correlation = np.tanh(correlation)
    noise = rng.normal(size=(len(theta), 4, 2))
    mixed = correlation[:, None] * noise[..., 0]
    mixed += np.sqrt(1.0 - correlation**2)[:, None] * noise[..., 1]
    first = theta[:, :1] + scale_0[:, None] * noise[..., 0]
    second = theta[:, 1:2] + scale_1[:, None] * mixed
    return np.stack([first, second], axis=-1).reshape(len(theta), 8)


@dataclass(frozen=True)
class Task:
    """A prior, a simulator, and what is known of the parameters beforehand.

    Args:
        size: number of parameters.
        context_size: number of entries of an observation.
        prior: function of a generator and a number of rows to parameters.
        simulator: function of a generator and parameters to observations.
        support: lower and upper bound of every parameter; None for none.
    """

    size: int
    context_size: int
    prior: Callable
    simulator: Callable
    support: tuple[float, float] | None = None

    def simulate(self, num_rows, seed):
        """Parameters `(num_rows, size)` and an observation of each, float32."""
        rng = np.random.RandomState(seed)
        theta = self.prior(rng, num_rows)
        x = self.simulator(rng, theta)
        return theta.astype("float32"), x.astype("float32")


TASKS = {
    "two_moons": Task(2, 2, uniform_prior(2), two_moons, (-1.0, 1.0)),
    "gaussian_linear": Task(10, 10, normal_prior(10), gaussian),
    "gaussian_linear_uniform": Task(10, 10, uniform_prior(10), gaussian, (-1.0, 1.0)),
    "slcp": Task(5, 8, uniform_prior(5, 3.0), slcp, (-3.0, 3.0)),
}
