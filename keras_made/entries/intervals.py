"""Closed intervals of one entry: what every conditional does about their ends."""

import numpy as np
from keras import ops

from keras_made.entries.arithmetic import draw_class


def on_intervals(log_mass, low, high, dtype, log_prob=None):
    """`log_mass(low, high)`, and what needs no parameters said exactly.

    Without ends the mass is one, and log P exactly 0. An interval that holds nothing
    has -inf, and one with an end of NaN has NaN. Gradients are finite for all of them.

    Args:
        log_mass: function of floats low <= high, of which not both are infinite where
            it matters.
        low: lower ends, -inf for none.
        high: upper ends, inf for none.
        dtype: of the parameters.
        log_prob: of a continuous entry: what an interval of one point is given, the
            density. None: a point is an interval like others.
    """
    low, high = ends(low, high, dtype)
    whole, empty = (low == -np.inf) & (high == np.inf), _is_empty(low, high)
    told = whole | empty
    if log_prob is not None:
        point = ops.equal(low, high) & ~empty
        told = told | point
    # What is not used is computed where it is finite: so are gradients, then.
    result = log_mass(ops.where(told, -np.inf, low), ops.where(told, np.inf, high))
    if log_prob is not None:
        result = ops.where(point, log_prob(ops.where(point, low, 0.0)), result)
    result = ops.where(whole, 0.0, result)
    result = ops.where(empty, -np.inf, result)
    return ops.where(ops.isnan(low) | ops.isnan(high), np.nan, result)


def draw_on_intervals(draw, low, high, dtype):
    """`draw(low, high)`, which rounding must not leave outside.

    Where an interval holds nothing, the draw is one without ends: finite, and of a
    mass of zero.
    """
    low, high = ends(low, high, dtype)
    empty = _is_empty(low, high)
    low, high = ops.where(empty, -np.inf, low), ops.where(empty, np.inf, high)
    return within(draw(low, high), low, high)


def ends(low, high, dtype):
    """Both ends as floats of a dtype."""
    return [ops.cast(ops.convert_to_tensor(end), dtype) for end in (low, high)]


def _is_empty(low, high):
    # Ends of NaN are no ends, and hold nothing either.
    return ~(low <= high) | (low == np.inf) | (high == -np.inf)


def within(x, low, high):
    """x, or the nearer end of [low, high]."""
    # Not `clip` or `maximum`, which on torch are rounded to float32.
    x = ops.where(x < low, low, x)
    return ops.where(x > high, high, x)


# Listed values ------------------------------------------------------------------------


def log_mass_among(log_probs, inside):
    """log of the summed probability of the values that are `inside`: `(...)`.

    Args:
        log_probs: of every value, `(..., K)`.
        inside: bools of that shape.
    """
    chosen = ops.where(inside, log_probs, -np.inf)
    # Where all are -inf, so is the sum; `logsumexp` would have NaN for a gradient.
    possible = ops.max(chosen, axis=-1) > -np.inf
    chosen = ops.where(possible[..., None], chosen, 0.0)
    result = ops.where(possible, ops.logsumexp(chosen, axis=-1), -np.inf)
    return ops.where(ops.all(inside, axis=-1), 0.0, result)


def draw_among(log_probs, inside, uniforms):
    """Index of a value that is `inside`, or of any where none is possible."""
    chosen = ops.where(inside, log_probs, -np.inf)
    possible = ops.max(chosen, axis=-1, keepdims=True) > -np.inf
    return draw_class(ops.where(possible, chosen, log_probs), uniforms)
