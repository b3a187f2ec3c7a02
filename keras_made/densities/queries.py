"""How probable a box is, and draws within it, one entry after another.

    P(low <= x <= high) = E[ product of P(low_i <= x_i <= high_i | the entries before) ]

over events whose entries are drawn, each in turn, within their intervals (progressive
sampling). An entry whose two ends are equal is observed: its factor is its density.
Reference: Yang et al. 2019, "Deep Unsupervised Cardinality Estimation",
https://arxiv.org/abs/1905.04278
"""

from typing import NamedTuple

import numpy as np

from keras_made.checks import check_positive
from keras_made.compiling import to_tensor
from keras_made.densities.boxes import check_boxes
from keras_made.densities.drawing import draw_members
from keras_made.densities.imputation import log_slopes, one_by_weight, run_particles
from keras_made.generation import noise_generator


class Estimate(NamedTuple):
    """A logarithm that was estimated, in nats, and how far off it may be.

    `standard_error` is that of the probability, as a part of the probability: about
    the standard error of `log_prob`.
    """

    log_prob: object
    standard_error: object


class Queried:
    """What a density of one entry after another can be asked about boxes."""

    def interval_log_prob(
        self,
        low,
        high,
        context=None,
        num_particles=1000,
        seed=None,
        verbose="auto",
    ):
        """log P(low <= x <= high) of boxes in nats, by progressive sampling.

        Events are drawn entry by entry within their intervals, and the masses of these
        multiplied: unbiased in P, at `num_particles` draws a box. It is exact where no
        mass depends on what was drawn: for boxes of one interval that comes first, and
        without noise for boxes of one point, which have `log_prob`.

        Ends belong to the interval. Where they are equal the entry is observed: it
        counts with its probability, or with its density if it is real. An order-
        agnostic network takes observed entries first, then intervals, then all others,
        in each of its structures; others keep their order. Structures are mixed, as in
        `log_prob`.

        Args:
            low: lower ends `(n, *event_shape)`, or what is repeated to that, such as
                one event or a number; -inf or None for no end. In units of the data.
            high: upper ends, likewise.
            context: `(n, C)`, or `(C,)` for all boxes.
            num_particles: events behind each estimate, rounded up to as many for each
                structure.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: as in `impute`.

        Returns:
            A float tensor `(n,)`.

        Raises:
            ValueError: for ends that are NaN or of a wrong shape, and for an interval
                that holds no value, by row and index.

        Example:
            >>> from keras_made import MADE, AutoregressiveDensity
            >>> model = AutoregressiveDensity(MADE([8]))
            >>> model.build((None, 3))
            >>> log_prob = model.interval_log_prob([0, 0, 1], 1, seed=0)
            >>> tuple(log_prob.shape), float(log_prob[0]) < 0.0
            ((1,), True)
        """
        estimate = self.estimate_interval(
            low, high, context, num_particles, seed, verbose
        )
        return estimate.log_prob

    def estimate_interval(
        self,
        low,
        high,
        context=None,
        num_particles=1000,
        seed=None,
        verbose="auto",
    ):
        """As `interval_log_prob`, and how far off it may be.

        Returns:
            A named tuple `(log_prob, standard_error)` of float tensors `(n,)`: the
            error is that of P, as a part of P; NaN for one particle.
        """
        check_positive("num_particles", num_particles)
        self._require_values("interval_log_prob")
        return _estimate(
            self, low, high, context, num_particles, noise_generator(seed), verbose
        )


def _estimate(model, low, high, context, particles, noise, verbose):
    """As `Queried.estimate_interval`."""
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
    boxes, rounds = len(low), particles // len(model.members)
    members = np.tile(np.array(model.members, "int32"), boxes * rounds)
    turns = alike = None
    if model.network.order_agnostic:
        turns = _turns(low, high)
        _, kinds = np.unique(turns.reshape(boxes, -1), axis=0, return_inverse=True)
        alike = np.repeat(kinds.ravel(), particles) * model.network.num_masks + members
    job = [context, turns, low, high]
    context, turns, low, high = (
        None if a is None else np.repeat(a, particles, axis=0) for a in job
    )
    within = {"low": low, "high": high, "alike": alike, "verbose": 0}
    draws, weights = draw_members(model, members, context, noise, verb, turns, **within)
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
