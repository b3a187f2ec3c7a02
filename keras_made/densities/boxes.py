"""Boxes, an interval for each entry: as they are given, checked and rounded."""

import numpy as np
from keras import ops

from keras_made.checks import to_array
from keras_made.compiling import most_at_once
from keras_made.densities.inputs import check_context


def check_boxes(model, low, high, context, num_rows=None):
    """Both ends and the context of every box, or a ValueError.

    Args:
        model: an `AutoregressiveDensity`.
        low: lower ends, `(n, *event_shape)` or what is repeated to that, such as an
            event or a number; None for no ends.
        high: upper ends, likewise.
        context: `(n, C)`, `(C,)` or None.
        num_rows: number of boxes; None: as many as `low`, `high` and `context` have.

    Returns:
        `(low, high, context)`: floats `(n, *event_shape)` in the density's dtype, and
        `(n, C)` or None.
    """
    model.require_built()
    model.units.check()
    low, high = _broadcast(model, low, high, num_rows)
    context = _context_of(model, context, low, num_rows)
    num_rows = num_rows or (len(low) if context is None else len(context))
    _check_order(low, high)
    low, high = _round(model, low, high)
    low, high = (
        np.broadcast_to(a, (num_rows, *model.event_shape)) for a in (low, high)
    )
    return low, high, context


def _broadcast(model, low, high, num_rows):
    """Both ends with the axes of rows of events, float64."""
    event = tuple(model.event_shape)
    low = to_array("low", -np.inf if low is None else low).astype("float64")
    high = to_array("high", np.inf if high is None else high).astype("float64")
    try:
        shape = np.broadcast_shapes(low.shape, high.shape, (1, *event))
    except ValueError:
        shape = ()
    fits = num_rows is None or shape[:1] in [(1,), (num_rows,)]
    if shape[1:] != event or not shape[0] or not fits:
        rows = "n" if num_rows is None else num_rows
        raise ValueError(
            f"`low` and `high` must have the shape of an event, {event}, or that of "
            f"rows of them, ({rows}, {str(event)[1:-1].rstrip(',')}). Received: shapes "
            f"{low.shape} and {high.shape}."
        )
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def _context_of(model, context, low, num_rows):
    if context is None:
        if model.context_size:
            raise ValueError(
                f"The model has a context of size {model.context_size}. Pass "
                f"`context`, ({model.context_size},) for all boxes, or one for each."
            )
        return None
    if num_rows is None:
        context = to_array("context", context)
        rows = len(context) if context.ndim == 2 else 1
        num_rows = rows if len(low) == 1 else len(low)
    return check_context(model, context, num_rows)


def _check_order(low, high):
    for name, end in (("low", low), ("high", high)):
        if np.isnan(end).any():
            row, index = _first(np.isnan(end))
            raise ValueError(
                f"`{name}` must hold numbers, infinite for no end. Received: nan in "
                f"row {row}, at index {index}."
            )
    _refuse(low > high, low, high, "must not lie above `high`")


def _refuse(wrong, low, high, what):
    if np.any(wrong):
        row, index = _first(wrong)
        raise ValueError(
            f"`low` {what}. Received: low={low[index]} and high={high[index]} in row "
            f"{row}, at index {index}."
        )


def _first(wrong):
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    return index[0], index


def _round(model, low, high):
    """Both ends in the density's dtype; a ValueError where nothing is within."""
    dtype, real = model.density_dtype, model.units.real
    with np.errstate(over="ignore"):
        start, end = low.astype(dtype), high.astype(dtype)
    # Real numbers between the rounded ends lie between the ends; levels are themselves.
    inwards = real & (low < high)
    start = np.where(inwards & (start < low), np.nextafter(start, np.inf), start)
    end = np.where(inwards & (end > high), np.nextafter(end, -np.inf), end)
    start, end = start.astype(dtype), end.astype(dtype)
    _refuse(
        inwards & (start >= end),
        low,
        high,
        f"and `high` must differ in {dtype}, in which the density computes; equal ones "
        "are an observed value",
    )
    bounds, point = model.units.bounds, low == high
    outside = (start > bounds.high) | (end < bounds.low)
    touching = (start >= bounds.high) | (end <= bounds.low)
    outside = outside | (~point & touching & bounds.exist)
    _refuse(outside, low, high, "and `high` must have some of `support` between them")
    _check_values(model, start, end, low, high)
    return start, end


def _check_values(model, start, end, low, high):
    """Raise a ValueError for an interval that holds no value of its entry."""
    conditional = model.conditional
    floats = model.network.event_size * conditional.num_params
    step = most_at_once(4 * floats)
    for first in range(0, len(start), step):
        rows = slice(first, first + step)
        ends = [ops.convert_to_tensor(a[rows]) for a in (start, end)]
        params = ops.zeros((*ends[0].shape, conditional.num_params), ends[0].dtype)
        found = conditional.interval_log_prob(
            params, *model.units.standardize_ends(*ends)
        )
        empty = np.zeros(start.shape, bool)
        empty[rows] = ops.convert_to_numpy(found) == -np.inf
        _refuse(
            empty, low, high, f"and `high` must have a value of {conditional!r} between"
        )
