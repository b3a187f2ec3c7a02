"""Rows drawn from a density: which structure draws which row, and in what order."""

import math

import numpy as np
from keras import ops

from keras_made.checks import is_tensor
from keras_made.compiling import LENGTHS, as_floats, join_chunks
from keras_made.entries.intervals import within
from keras_made.generation import FIRST, draw_uniforms, generate

# Where rows may run in two ways, each has two lengths of chunks, so that no verb is
# compiled more than four times: rows with orders of their own, whose weights are
# gathered row by row, and rows that share one.
SHARED_LENGTHS = LENGTHS[1:3]
# What is gathered for a chunk should stay where it is near: more is slower (1024 rows
# of two layers of 256, 34 ms, eight times 128 rows, 20 ms).
GATHERED_FLOATS = 2**20
# From so many rows to a structure on, rows that share one run faster.
ROWS_APART = 64


def choose_members(model, num_samples, noise):
    """A structure for each draw, evenly; which comes first is left to chance."""
    rows = np.array(model.members, "int32")
    if len(rows) > 1:
        rows = rows[np.argsort(draw_uniforms((len(rows),), noise))]
    return rows[np.arange(num_samples) % len(rows)]


def draw_members(
    model,
    members,
    context,
    noise,
    verb,
    turns=None,
    known=None,
    observed=None,
    counted=None,
    low=None,
    high=None,
    alike=None,
    verbose="auto",
):
    """Rows generated structure by structure, or together when each has its order.

    Args:
        model: an `AutoregressiveDensity`, built.
        members: structure of each row, ints `(n,)`.
        context: `(n, C)` or None.
        noise: a `numpy.random.Generator`.
        verb: what is asked of the model; each verb compiles its own functions.
        turns: bools or ints `(n, *event_shape)`: entries of lower turn come first,
            and those of one turn in the order of the row's structure. None: all do.
        known: values to keep where `observed`, `(n, *event_shape)`.
        observed: bools of that shape.
        counted: bools of that shape: the entries whose log-probability is summed.
        low: floats of that shape: where to draw every entry, in [low, high]; the log
            of what lies there is summed. Not with `known` and `counted`.
        high: as `low`.
        alike: ints `(n,)`, equal for rows of one structure and equal `turns`; None:
            found out, where all have equal `turns`.
        verbose: as in `sample`.

    Returns:
        `(x, total)`: arrays `(n, *event_shape)` and `(n,)`; the latter is None when
        nothing is `counted` and no interval given.
    """
    heard = None
    if model.network.hears_sets and turns is not None and turns.dtype == bool:
        # What comes first is heard as a set, and then one order serves all rows.
        heard, turns = ~turns, None
        own, groups, lengths = False, _groups(members), SHARED_LENGTHS
    else:
        own, groups, lengths = _plan(model, members, turns, alike)
    summed = counted is not None or low is not None
    function = model.compiled_function(verb, generate_rows)
    flat = (-1, model.network.event_size)
    typical = None if known is None else np.reshape(model.typical_event(), flat)

    def run(members, context, turns, *masks):
        known, observed, counted, low, high, heard = (
            None if a is None else np.reshape(a, flat) for a in masks
        )
        order = None
        if turns is not None:
            rows = slice(None) if own else slice(1)
            order = in_turns(model, turns[rows], members[rows]).astype("int32")
        elif own:
            order = model.network.orders()[members]
        shape = (len(members), *noise_shape(model))
        uniforms = draw_uniforms(shape, noise, model.density_dtype)
        if known is not None:
            # What lies under a missing entry is not looked at, and may be NaN.
            known = np.where(observed, known, typical)
        context, known, low, high = (
            as_floats(a, model.density_dtype) for a in (context, known, low, high)
        )
        tensors = (uniforms, context, order, known, observed, counted, low, high, heard)
        rows = function(np.int32(members[0]), *tensors, verbose=verbose)
        # Without sums to keep, their column is left out before chunks are joined.
        rows = ops.convert_to_numpy(rows)
        return rows if summed else rows[:, :-1]

    floats = model.floats_per_row() + math.prod(noise_shape(model))
    if own:
        floats += model.network.floats_per_order
    arrays = [members, context, turns, known, observed, counted, low, high, heard]
    joined = join_chunks(run, arrays, floats, verbose, lengths, groups)
    x, total = (joined[:, :-1], joined[:, -1]) if summed else (joined, None)
    return np.reshape(x, (-1, *model.event_shape)), total


def _plan(model, members, turns, alike):
    """How rows are run: `(own, groups, lengths)`.

    `own` is whether each row brings an order; `groups` and `lengths` are those of
    `join_chunks`.
    """
    own_lengths = LENGTHS[0], _longest_of_own_orders(model)
    if turns is not None:
        # One order for all of a group: weights are gathered once, not for each row,
        # which pays where they are many.
        small = _longest_of_own_orders(model) == LENGTHS[2]
        if small and not _is_one(turns, members):
            return True, None, own_lengths
        groups = _patterns(turns, members) if alike is None else _groups(alike)
        if len(members) <= _few(groups):
            return True, None, own_lengths
        return False, groups, SHARED_LENGTHS
    groups, orderings = _groups(members), model.network.orderings_only
    if len(model.members) == 1:
        return False, None, LENGTHS
    if orderings and len(members) < ROWS_APART * len(groups):
        return True, None, own_lengths
    return False, groups, SHARED_LENGTHS if orderings else LENGTHS


def _groups(keys):
    """The numbers of the rows that have each of the keys."""
    rows = np.argsort(keys, kind="stable")
    return np.split(rows, np.flatnonzero(np.diff(keys[rows])) + 1)


def _few(groups):
    """So many rows in all are too few to share orders by groups."""
    return LENGTHS[0] if len(groups) == 1 else ROWS_APART * len(groups)


def _is_one(turns, members):
    """Whether all rows want one order."""
    return bool((members == members[0]).all() and (turns == turns[:1]).all())


def _patterns(turns, members):
    """The rows of each structure that want one order."""
    flat = np.reshape(turns, (len(turns), -1)).astype("uint8")
    keys = [flat, members.astype("int32")[:, None].view("uint8")]
    keys = np.ascontiguousarray(np.concatenate(keys, axis=1))
    # As one value each: to compare rows axis by axis takes several times longer.
    keys = keys.view(np.dtype((np.void, keys.shape[1]))).ravel()
    return _groups(np.unique(keys, return_inverse=True)[1])


def _longest_of_own_orders(model) -> int:
    gathered = LENGTHS[2] * model.network.floats_per_order
    return LENGTHS[2] if gathered <= GATHERED_FLOATS else LENGTHS[1]


def observed_first(model, observed):
    """The ordering in which each row is completed: observed entries first.

    Args:
        model: an `AutoregressiveDensity`, built.
        observed: bools `(n, *event_shape)`, an array or a tensor.

    Returns:
        Entries in order of generation, ints `(n, event_size)`; an array of an array,
        a tensor of a tensor.
    """
    return in_turns(model, ~observed)


def in_turns(model, turns, members=None):
    """The ordering of each row: turn by turn, within one as in a structure.

    Args:
        model: an `AutoregressiveDensity`, built.
        turns: bools or ints `(n, *event_shape)`, an array or a tensor.
        members: the structure of each row, ints `(n,)`. None: the first for all.

    Returns:
        As `observed_first`.
    """
    # NumPy sorts the rows of a large table several times faster than a back end does.
    arrays = ops if is_tensor(turns) else np
    places = np.argsort(model.network.orders(), axis=1).astype("int32")
    places = places[model.members[:1] if members is None else members]
    size = places.shape[1]
    turns = arrays.reshape(turns, (-1, size))
    turns = ops.cast(turns, "int32") if arrays is ops else turns.astype("int32")
    # No two of these are equal, and so any sort gives the one order.
    return arrays.argsort(arrays.add(places, turns * size), axis=1)


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
    low=None,
    high=None,
    heard=None,
):
    """Tensors in, tensors out: what `sample`, `impute` and their kin compile.

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
        low: lower ends `(n, event_size)` of where entries are drawn, or None.
        high: upper ends.
        heard: bools `(n, event_size)`, which of those `known` are heard before all
            others, by a network that `hears_sets`; or None.

    Returns:
        `(n, event_size + 1)`, in the density's dtype: the entries, and in the last
        column the summed log-probability of those `counted`, or of the intervals.
    """
    network, dtype = model.network, model.density_dtype
    batch, width = ops.shape(noise)[0], network.step_size
    noise = ops.transpose(ops.cast(noise, dtype), (1, 0, 2, 3))
    orders, places, counts = order, None, None
    if order is None:
        steps = network.step_layout()
        orders = ops.take(steps.entries, structure, axis=0)[None]
        places = ops.take(steps.places, structure, axis=0)[None]
        if not steps.counts().all():
            counts = ops.take(steps.counts(), structure, axis=0)
    if known is not None:
        raw = ops.cast(known, dtype)
        known, _ = model.units.standardize(ops.reshape(raw, (-1, *model.event_shape)))
        known = ops.reshape(known, (-1, network.event_size))
    if low is not None:
        box = ops.cast(low, dtype), ops.cast(high, dtype)
        shape = (-1, *model.event_shape)
        ends = model.units.standardize_ends(*(ops.reshape(a, shape) for a in box))
        low, high = (ops.reshape(a, (-1, network.event_size)) for a in ends)
    if context is not None:
        context = ops.cast(context, dtype)

    def draw(params, t):
        start = (FIRST, t * width)
        entries = ops.slice(orders, start, (ops.shape(orders)[0], width))
        conditional = model.conditional.at(entries)
        if low is not None:
            ends = _pick(low, entries), _pick(high, entries)
            x = conditional.draw_within(params, ops.take(noise, t, axis=0), *ends)
            log_prob = conditional.interval_log_prob(params, *ends)
            return x, ops.sum(log_prob, axis=-1)
        x = conditional.draw(params, ops.take(noise, t, axis=0))
        total = ops.zeros((batch,), dtype)
        if known is not None:
            x = ops.where(_pick(observed, entries), _pick(known, entries), x)
        if counted is not None:
            log_prob = conditional.log_prob(params, x)
            is_counted = _pick(counted, entries)
            if counts is not None:
                is_counted = is_counted & ops.slice(counts, (t * width,), (width,))
            log_prob = ops.where(is_counted, log_prob, 0.0)
            total = ops.sum(log_prob, axis=-1)
        return x, total

    if heard is not None:
        heard = known, heard
    values, total = generate(
        network, draw, batch, context, structure, order, dtype, heard
    )
    values = ops.reshape(ops.transpose(values, (1, 0, 2)), (batch, -1))
    if places is None:
        places = ops.argsort(orders, axis=-1)
    x = _pick(values, places)
    x, _ = model.units.restore(ops.reshape(x, (-1, *model.event_shape)))
    x = ops.reshape(x, (batch, -1))
    if known is not None:
        x = ops.where(observed, raw, x)
    if low is not None:
        # Rounding on the way back must not lead outside.
        x = within(x, *box)
    return ops.concatenate([x, total[:, None]], axis=-1)


def _pick(values, entries):
    """Columns of `values (n, size)`; `entries` are shared `(1, k)` or `(n, k)`."""
    if entries.shape[0] == 1:
        return ops.take(values, entries[0], axis=1)
    return ops.take_along_axis(values, entries, axis=1)
