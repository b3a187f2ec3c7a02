"""Rows drawn from a density: which structure draws which row, and in what order."""

import math

import numpy as np
from keras import ops

from keras_made.checks import is_tensor
from keras_made.compiling import run_in_chunks
from keras_made.generation import FIRST, draw_uniforms, generate


def choose_members(model, num_samples, seeds):
    """A structure for each draw, evenly; which comes first is left to chance."""
    rows = np.array(model.members, "int32")
    if len(rows) > 1:
        noise = draw_uniforms((len(rows),), seeds)
        rows = rows[np.argsort(ops.convert_to_numpy(noise))]
    return rows[np.arange(num_samples) % len(rows)]


def draw_members(
    model,
    members,
    context,
    seeds,
    order=None,
    known=None,
    observed=None,
    counted=None,
    verbose="auto",
):
    """Rows generated member by member, or all at once when each has its order.

    Args:
        model: an `AutoregressiveDensity`, built.
        members: structure of each row, ints `(n,)`.
        context: `(n, C)` or None.
        seeds: a `SeedGenerator`.
        order: entries in the order each row wants them, `(n, event_size)`.
        known: values to keep where `observed`, `(n, *event_shape)`.
        observed: bools of that shape.
        counted: bools of that shape: the entries whose log-probability is summed.
        verbose: as in `sample`.

    Returns:
        `(x, total)`: tensors `(n, *event_shape)` and `(n,)`, or None when nothing
        is `counted`.
    """
    network, present = model.network, np.unique(members)
    flat = (len(members), network.event_size)
    known, observed, counted = (
        None if a is None else np.reshape(a, flat) for a in (known, observed, counted)
    )
    # Rows with an order of their own run together, but their weights are gathered
    # row by row; many rows to a structure run faster apart.
    together = network.orderings_only and len(members) < 64 * len(present)
    if order is None and len(present) > 1 and together:
        order = network.orders()[members]
        members, present = np.full_like(members, present[0]), present[:1]
    shared = None
    if order is not None and (order == order[0]).all():
        # One order for all rows: weights are gathered once, not for each row.
        shared, order = order[:1], None
    arrays = [members, context, order, known, observed, counted]
    pieces = []
    for member in present:
        rows = np.flatnonzero(members == member)
        piece = [None if a is None else a[rows] for a in arrays]
        pieces.append(_draw_member(model, member, piece, shared, seeds, verbose))
    joined = pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)
    if len(pieces) > 1:
        places = np.argsort(np.argsort(members, kind="stable"), kind="stable")
        joined = ops.take(joined, places, axis=0)
    if counted is None:
        return ops.reshape(joined, (-1, *model.event_shape)), None
    x = ops.reshape(joined[:, :-1], (-1, *model.event_shape))
    return x, joined[:, -1]


def _draw_member(model, member, arrays, shared_order, seeds, verbose):
    function = model.compiled_function("generate", generate_rows)
    structure = ops.convert_to_tensor(member, "int32")
    shape = noise_shape(model)

    def run(members, context, order, *rest):
        noise = draw_uniforms((len(members), *shape), seeds, model.density_dtype)
        order = shared_order if order is None else order
        rest = [
            None if a is None else ops.convert_to_tensor(a)
            for a in (context, order, *rest)
        ]
        rows = function(structure, noise, *rest)
        # Without sums to keep, their column is left out before parts are joined.
        return rows[:, :-1] if rest[-1] is None else rows

    floats = model.floats_per_row() + math.prod(shape)
    if arrays[2] is not None:
        floats += model.network.floats_per_order
    return run_in_chunks(run, arrays, floats, verbose)


def observed_first(model, observed):
    """The ordering in which each row is completed: observed entries first.

    Args:
        model: an `AutoregressiveDensity`, built.
        observed: bools `(n, *event_shape)`, an array or a tensor.

    Returns:
        Entries in order of generation, ints `(n, event_size)`; an array of an array,
        a tensor of a tensor.
    """
    # NumPy sorts the rows of a large table several times faster than a back end does.
    arrays = ops if is_tensor(observed) else np
    order = model.network.orders()[model.members[0]]
    size, places = len(order), np.argsort(order).astype("int32")
    late = arrays.where(arrays.reshape(observed, (-1, size)), 0, size)
    # No two of these are equal, and so any sort gives the one order.
    return arrays.argsort(arrays.add(places[None], late), axis=1)


def noise_shape(model):
    """Shape of the uniform noise behind one row."""
    network = model.network
    return network.num_ranks, network.step_size, model.conditional.num_uniforms


def generate_rows(
    model,
    structure,
    noise,
    context=None,
    order=None,
    known=None,
    observed=None,
    counted=None,
):
    """Tensors in, tensors out: what `sample` and `impute` compile.

    Args:
        model: an `AutoregressiveDensity`, built.
        structure: integer scalar.
        noise: uniforms `(n, *noise_shape)`.
        context: `(n, C)` or None.
        order: ints `(n, event_size)`, or `(1, event_size)` for all rows, or None
            for that of `structure`.
        known: values to keep where `observed`, `(n, event_size)`, or None.
        observed: bools `(n, event_size)`, or None.
        counted: bools `(n, event_size)`, or None.

    Returns:
        `(n, event_size + 1)`, in the density's dtype: the entries, and in the last
        column the summed log-probability of those `counted`.
    """
    network, dtype = model.network, model.density_dtype
    batch, width = ops.shape(noise)[0], network.step_size
    noise = ops.transpose(ops.cast(noise, dtype), (1, 0, 2, 3))
    orders = order
    if order is None:
        orders = ops.take(network.orders(), structure, axis=0)[None]
    if known is not None:
        raw = ops.cast(known, dtype)
        known, _ = model.units.standardize(ops.reshape(raw, (-1, *model.event_shape)))
        known = ops.reshape(known, (-1, network.event_size))
    if context is not None:
        context = ops.cast(context, dtype)

    def draw(params, t):
        start = (FIRST, t * width)
        entries = ops.slice(orders, start, (ops.shape(orders)[0], width))
        conditional = model.conditional.at(entries)
        x = conditional.draw(params, ops.take(noise, t, axis=0))
        total = ops.zeros((batch,), dtype)
        if known is not None:
            x = ops.where(_pick(observed, entries), _pick(known, entries), x)
        if counted is not None:
            log_prob = conditional.log_prob(params, x)
            log_prob = ops.where(_pick(counted, entries), log_prob, 0.0)
            total = ops.sum(log_prob, axis=-1)
        return x, total

    values, total = generate(network, draw, batch, context, structure, order, dtype)
    values = ops.reshape(ops.transpose(values, (1, 0, 2)), (batch, -1))
    x = _pick(values, ops.argsort(orders, axis=-1))
    x, _ = model.units.restore(ops.reshape(x, (-1, *model.event_shape)))
    x = ops.reshape(x, (batch, -1))
    if known is not None:
        x = ops.where(observed, raw, x)
    return ops.concatenate([x, total[:, None]], axis=-1)


def _pick(values, entries):
    """Columns of `values (n, size)`; `entries` are shared `(1, k)` or `(n, k)`."""
    if entries.shape[0] == 1:
        return ops.take(values, entries[0], axis=1)
    return ops.take_along_axis(values, entries, axis=1)
