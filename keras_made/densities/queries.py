"""How probable a box is, and draws within it, one entry after another.

    P(low <= x <= high) = E[ product of P(low_i <= x_i <= high_i | the entries before) ]

over events whose entries are drawn, each in turn, within their intervals (progressive
sampling). An entry whose two ends are equal is observed: its factor is its density.
Reference: Yang et al. 2019, "Deep Unsupervised Cardinality Estimation",
https://arxiv.org/abs/1905.04278
"""

from typing import NamedTuple

import numpy as np

from keras_made.compiling import to_tensor
from keras_made.densities.boxes import check_boxes
from keras_made.densities.drawing import draw_members
from keras_made.densities.imputation import log_slopes, one_by_weight, run_particles


class Estimate(NamedTuple):
    """A logarithm that was estimated, in nats, and how far off it may be.

    `standard_error` is that of the probability, as a part of the probability: about
    the standard error of `log_prob`.
    """

    log_prob: object
    standard_error: object


def interval_log_prob(model, low, high, context, particles, noise, verbose):
    """As `AutoregressiveDensity.estimate_interval`."""
    boxes = low, high, _ = check_boxes(model, low, high, context)

    def estimate(groups):
        weights = np.concatenate([weights for _, weights in groups], axis=1)
        return summarise(weights, len(model.members))

    job = [model, "interval_log_prob", estimate, list(boxes), particles, noise, verbose]
    found = run_particles(*job, draw_boxes).astype(model.density_dtype)
    log_prob, error = (to_tensor(np.ascontiguousarray(a)) for a in found.T)
    return Estimate(log_prob + log_slopes(model, low, low == high), error)


def sample_within(model, num_samples, low, high, context, particles, noise, verbose):
    """As `AutoregressiveDensity.sample` with `low` and `high`, an array."""
    boxes = check_boxes(model, low, high, context, num_samples)
    job = [one_by_weight(noise), list(boxes), particles, noise, verbose]
    return run_particles(model, "sample within", *job, draw_boxes)


def draw_boxes(model, verb, low, high, context, particles, noise):
    """Every box filled `particles` times, by the structures in turn.

    Returns:
        `(draws, weights)`: `(n * particles, *event_shape)`, those of a box adjacent,
        and the logs of the products of what the intervals hold, `(n, particles)`.
    """
    rounds = len(low) * particles // len(model.members)
    members = np.tile(np.array(model.members, "int32"), rounds)
    low, high, context = (
        None if a is None else np.repeat(a, particles, axis=0)
        for a in (low, high, context)
    )
    turns = _turns(low, high) if model.network.order_agnostic else None
    draws, weights = draw_members(
        model, members, context, noise, verb, turns, low=low, high=high, verbose=0
    )
    return draws, np.reshape(weights, (-1, particles))


def _turns(low, high):
    """What is observed first, then what is bounded: less is left to chance."""
    free = (low == -np.inf) & (high == np.inf)
    return np.where(low == high, 0, np.where(free, 2, 1)).astype("int32")


def summarise(weights, members):
    """The mean of some probabilities, and its error.

    Args:
        weights: logs of probabilities, `(n, particles)`; the columns belong to the
            structures in turn.
        members: number of structures.

    Returns:
        Floats `(n, 2)`: the log of the mean, and the standard error of the mean as a
        part of it, infinite where all are zero and NaN for one particle.
    """
    weights = weights.astype("float64")
    top = np.max(weights, axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    # What differs between structures, which have as many particles each, is no error.
    strata = np.exp(weights - top).reshape(len(weights), -1, members)
    if strata.shape[1] == 1:
        strata = strata.reshape(len(weights), -1, 1)
    mean = strata.mean(axis=(1, 2))
    if weights.shape[1] == 1:
        variance = np.full(len(weights), np.nan)
    else:
        variance = strata.var(axis=1, ddof=1).mean(axis=1) / weights.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_prob = top[:, 0] + np.log(mean)
        error = np.where(mean > 0, np.sqrt(variance) / mean, np.inf)
    return np.stack([log_prob, error], axis=1)
