"""Draws under do(x_j = v): set entries, and what follows from them."""

import numbers

import numpy as np

from keras_made.checks import check_positive, to_array
from keras_made.densities.drawing import draw_members
from keras_made.densities.imputation import check_missing
from keras_made.graph_masks import ancestors


def intervene(model, x, values, context, noise, verbose):
    """As `AutoregressiveDensity.intervene`, an array."""
    _check_members(model)
    model.require_built()
    model.units.check()
    if isinstance(x, numbers.Integral) and not isinstance(x, bool):
        check_positive("x", x)
        x = np.full((x, *model.event_shape), np.nan, "float32")
    x = to_array("x", x)
    _check_shape(model, x)
    values = _as_rows(model, values, x)
    kept = ~(np.isnan(x) | _follow(model, ~np.isnan(values)))
    known = np.where(np.isnan(values), x, values)
    # What is set and what is left alone; all else is drawn.
    fixed = kept | ~np.isnan(values)
    known, fixed, context = check_missing(model, known, fixed, context)
    members = np.full(len(x), model.members[0], "int32")
    drawn, _ = draw_members(
        model,
        members,
        context,
        noise,
        "intervene",
        known=known,
        observed=fixed,
        verbose=verbose,
    )
    return drawn


def _follow(model, is_set):
    """Which entries are descendants of one that is set: bools of the shape of it."""
    above = ancestors(model.network.connectivity(model.members[0]))
    flat = is_set.reshape(len(is_set), -1).astype("float32")
    return (flat @ above.T.astype("float32") > 0).reshape(is_set.shape)


def _as_rows(model, values, x):
    """The values that are set in every row, of the shape of x, NaN elsewhere."""
    if not isinstance(values, dict):
        values = np.asarray(to_array("values", values))
        try:
            return np.broadcast_to(values, x.shape)
        except ValueError:
            raise ValueError(
                f"`values` must be a dict, or fit rows of shape {x.shape}. Received: "
                f"shape {values.shape}."
            ) from None
    size = model.network.event_size
    rows = np.full((len(x), size), np.nan, x.dtype if x.dtype.kind == "f" else float)
    for entry, value in values.items():
        known = isinstance(entry, numbers.Integral) and not isinstance(entry, bool)
        if not known or not 0 <= entry < size:
            raise ValueError(
                f"`values` must name entries from 0 to {size - 1}. Received: {entry!r}."
            )
        rows[:, entry] = value
    return rows.reshape(x.shape)


def _check_shape(model, x):
    if x.ndim != 1 + len(model.event_shape) or x.shape[1:] != model.event_shape:
        raise ValueError(
            f"`x` must be rows of shape (n, *{tuple(model.event_shape)}), or a number "
            f"of rows. Received: shape {x.shape}."
        )


def _check_members(model):
    if len(model.members) > 1:
        raise ValueError(
            "An intervention needs one structure: others of a cycle differ in what "
            f"comes before what. Received: a density of {len(model.members)} of them. "
            "Pass `structures=[k]` to the density, or `adjacency=` to the network."
        )
