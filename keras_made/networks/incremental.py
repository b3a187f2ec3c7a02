"""MADE one variable at a time, for the price of about one pass instead of D.

A hidden unit of degree d is final once the variable of rank d is known, so a step needs
to compute only what became final since the last. To keep the steps few and large, the
ranks are cut into blocks of about sqrt(D). Opening a block, one matrix product per
layer brings in everything that earlier blocks decided; within the block, a step only
touches the block's own units and entries, the diagonal blocks of the kernels. Together
that is every connected weight about once, and D small steps.

Hidden units are kept in order of degree, so what becomes final in a block, or at a
step, is a window of neighbours. All windows of a layer are as wide as the widest, and
reach over what else lies there: a unit computed too early is computed again in its own
time, and until then no mask lets it be heard.

The order of the variables is `(1, D)`, shared by the batch, or `(batch, D)`, each
example's own. A shared one sorts the kernels once, and all that a block needs lies
together; else each example gathers its own entries.

Companion weights of the first layer say which entries are known, and that depends on
the order: an entry then brings, beside its features, a one that is there once it is
known, and the companion weights are the row of the kernel that hears it.
"""

import math
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_made.generation import FIRST
from keras_made.networks.slicing import is_shared, places_of, take_columns, take_rows


def block_length(size: int) -> int:
    """Number of ranks to a block: about sqrt(size), a divisor of it if one is near."""
    root = math.sqrt(size)
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    nearest = min(divisors, key=lambda n: abs(n - root))
    return nearest if abs(nearest - root) <= 0.5 * root else round(root)


class Windows(NamedTuple):
    """Which of a layer's units become final where, in any of K structures.

    `order` `(K, units)` sorts the units by degree; of the sorted ones, block b begins
    at `starts[b]` and holds at most `width`; step t begins at `offsets[t]` within its
    block, and computes `step_width`. Windows hold what belongs there in any structure:
    were they looked up by structure, TensorFlow would compile slices for each.
    """

    order: np.ndarray
    starts: np.ndarray
    width: int
    offsets: np.ndarray
    step_width: int


def make_windows(degrees: np.ndarray, size: int) -> Windows:
    """The windows of one hidden layer.

    Args:
        degrees: ints `(K, units)`.
        size: number of variables D.
    """
    length, units = block_length(size), degrees.shape[1]
    order = np.argsort(degrees, axis=1, kind="stable")
    # A unit of degree d is final at step d + 1.
    final = np.take_along_axis(degrees, order, axis=1) + 1
    steps = np.arange(size)
    first_steps = steps[::length]
    starts = _count_below(final, first_steps).min(axis=0)
    ends = _count_below(final, np.append(first_steps[1:], size + 1)).max(axis=0)
    width = max(1, (ends - starts).max())
    starts = np.minimum(starts, units - width)
    firsts = _count_below(final, steps).min(axis=0)
    step_width = (_count_below(final, steps + 1).max(axis=0) - firsts).max()
    step_width = min(width, max(1, step_width))
    offsets = np.clip(firsts - starts[steps // length], 0, width - step_width)
    tables = (table.astype("int32") for table in (order, starts, offsets))
    order, starts, offsets = tables
    return Windows(order, starts, int(width), offsets, int(step_width))


def _count_below(rows, values):
    return np.stack([np.searchsorted(row, values) for row in rows])


class Incremental:
    """The steps of one `MADE`, compiled into whatever loop calls them.

    Args:
        made: the layer, built.
    """

    def __init__(self, made):
        self.made = made
        self.size = made.event_size
        # What an entry brings: its features, and a one for companion weights to hear.
        self.companion = made.companion and len(made.hidden_units) > 0
        self.features = made.num_features + self.companion
        self.params = made.params_per_entry
        self.length = block_length(self.size)
        self.windows = [make_windows(d, self.size) for d in made.unit_degrees]
        self.orders = made.orders()
        self.natural = np.all(self.orders == np.arange(self.size))

    def start(self, batch, context, structure, order):
        made, padding = self.made, -self.size % self.length
        # The natural order needs no sorting.
        in_place = order is None and self.natural and not padding
        if order is None:
            order = ops.take(self.orders, structure, axis=0)[None]
        # Padded steps never run; whichever entry they name stays zero.
        state = {"order": ops.pad(ops.cast(order, "int32"), ((0, 0), (0, padding)))}
        state["x"] = self._zeros(batch, (self.size + padding) * self.features)
        state["x_block"] = self._zeros(batch, self.length * self.features)
        order = None if in_place else state["order"]
        for i, layer in enumerate(made.hidden_layers):
            state |= self._start_layer(i, layer, batch, context, structure, order)
        state |= self._start_outputs(context, structure, order)
        return state | self._open_block(state, ops.convert_to_tensor(0, "int32"))

    def _start_layer(self, i, layer, batch, context, structure, order):
        windows = self.windows[i]
        kernel = ops.convert_to_tensor(layer.kernel)
        bias = ops.convert_to_tensor(layer.bias)[None]
        companion = None
        if layer.companion:
            companion = ops.convert_to_tensor(layer.companion_kernel)
        if i == 0:
            kernel, heard = self._split_context(kernel, context)
            bias = bias + heard
            if companion is not None:
                ones = ops.ones((1, self.made.context_size), kernel.dtype)
                companion, heard = self._split_context(companion, ones)
                bias = bias + heard
            kernel = self._with_known(kernel, companion)
            kernel = self._entries_by_rank(kernel, self.features, 0, order)
        else:
            if companion is not None:
                # Between hidden layers the mask is that of the degrees, in any order.
                mask = ops.cast(layer.mask(structure), kernel.dtype)
                bias = bias + ops.sum(ops.multiply(companion, mask), axis=0)
            kernel = self._units_by_degree(kernel, i - 1, structure, 0)
        degrees = ops.take(self.made.unit_degrees[i], structure, axis=0)
        return {
            f"kernel_{i}": self._units_by_degree(kernel, i, structure, 1),
            f"bias_{i}": self._units_by_degree(bias, i, structure, 1),
            f"degrees_{i}": self._units_by_degree(degrees, i, structure, 0),
            f"h_{i}": self._zeros(batch, layer.units),
            f"h_block_{i}": self._zeros(batch, windows.width),
        }

    def _split_context(self, kernel, context):
        """The rows of a kernel that hear entries, and what the others hear."""
        width = self.size * self.made.num_features
        if context is None or not self.made.context_size:
            return kernel[:width], 0.0
        return kernel[:width], ops.matmul(
            ops.cast(context, kernel.dtype), kernel[width:]
        )

    def _with_known(self, kernel, companion=None):
        """A kernel over entries, with a row for the one that comes with each.

        Args:
            kernel: `(D x num_features, units)`.
            companion: weights of that shape, or None for a layer that has none.
        """
        if not self.companion:
            return kernel
        units = kernel.shape[1]
        kernel = ops.reshape(kernel, (self.size, -1, units))
        known = ops.zeros((self.size, 1, units), kernel.dtype)
        if companion is not None:
            known = ops.reshape(companion, (self.size, -1, units))
            known = ops.sum(known, axis=1, keepdims=True)
        return ops.reshape(ops.concatenate([kernel, known], axis=1), (-1, units))

    def _start_outputs(self, context, structure, order):
        made = self.made
        bias, state = 0.0, {}
        if made.output_layer is not None:
            kernel = ops.convert_to_tensor(made.output_layer.kernel)
            state["kernel_out"] = self._units_by_degree(
                kernel, len(self.windows) - 1, structure, 0
            )
            bias = bias + ops.convert_to_tensor(made.output_layer.bias)[None]
        if made.direct_layer is not None:
            kernel = ops.convert_to_tensor(made.direct_layer.kernel)
            shape = (kernel.shape[0], self.size, made.direct_layer.units // self.size)
            kernel = made.beside_zeros(ops.reshape(kernel, shape))
            kernel = ops.reshape(kernel, (kernel.shape[0], -1))
            kernel, heard = self._split_context(kernel, context)
            bias = bias + heard
            state["kernel_direct"] = self._entries_by_rank(
                self._with_known(kernel), self.features, 0, order
            )
            if made.direct_layer.use_bias:
                bias = bias + ops.convert_to_tensor(made.direct_layer.bias)[None]
        if order is None or is_shared(order):
            state = {
                name: self._entries_by_rank(kernel, self.params, 1, order)
                for name, kernel in state.items()
            }
        else:
            # One example's columns are gathered as rows.
            state = {name: ops.transpose(kernel) for name, kernel in state.items()}
        return state | {"bias_out": self._entries_by_rank(bias, self.params, 1, order)}

    def _units_by_degree(self, array, layer, structure, axis):
        """Put the units of a hidden layer, along `axis`, in order of degree."""
        order = self.windows[layer].order
        if np.all(order == np.arange(order.shape[1])):
            return array
        return ops.take(array, ops.take(order, structure, axis=0), axis=axis)

    def _entries_by_rank(self, array, width, axis, order):
        """Put the entries, `width` numbers each, in the order that the batch shares.

        An order of None is the one that they are in.
        """
        if order is None or not is_shared(order):
            return array
        return ops.take(array, places_of(order[0], width), axis=axis)

    def open(self, state, x_last, t):
        """Begin the block whose first step is t, and hear the entry of rank t-1."""
        state = self._hear(state, x_last, t, ops.greater(t, 0))
        return state | self._open_block(state, t)

    def step(self, state, x_last, t):
        """Step t of a block that is open."""
        state = self._hear(state, x_last, t, ops.greater(t % self.length, 0))
        return self._compute(state, t)

    def _hear(self, state, x_last, t, is_new):
        """Write the entry of rank t-1 into its block, or zero if it is not new."""
        entry = take_columns(state["order"], ops.maximum(t - 1, 0), 1)
        features = self.made.encode_entries(x_last, entry)
        features = ops.reshape(features, (-1, self.made.num_features))
        if self.companion:
            one = ops.ones_like(features[:, :1])
            features = ops.concatenate([features, one], axis=1)
        dtype = state["x"].dtype
        features = ops.cast(features, dtype) * ops.cast(is_new, dtype)
        place = ((t - 1) % self.length) * self.features
        x_block = ops.slice_update(state["x_block"], (FIRST, place), features)
        return {**state, "x_block": x_block}

    def _open_block(self, state, t):
        """Put the last block away and bring in what this one hears from before it."""
        block = t // self.length
        last = ops.maximum(block - 1, 0)
        place = last * self.length * self.features
        new = {"x": ops.slice_update(state["x"], (FIRST, place), state["x_block"])}
        new["x_block"] = ops.zeros_like(state["x_block"])
        ranks = t + ops.arange(self.length, dtype="int32")
        inputs = self._entries(new["x"], state)
        sources = ops.repeat(ranks, self.features)
        for i, windows in enumerate(self.windows):
            width, start = windows.width, ops.take(windows.starts, block)
            new[f"h_{i}"] = self._store_units(state, i, last, t)
            new[f"h_block_{i}"] = ops.zeros_like(state[f"h_block_{i}"])
            columns = take_columns(state[f"kernel_{i}"], start, width)
            bias = take_columns(state[f"bias_{i}"], start, width)
            targets = take_columns(state[f"degrees_{i}"], start, width)
            mask = targets[None, :] >= sources[:, None]
            if i == 0:
                rows = self._entry_rows(columns, state["order"], t)
            else:
                heard = ops.take(self.windows[i - 1].starts, block)
                rows = take_rows(columns, heard, self.windows[i - 1].width)
                mask = mask & self._in_block(sources, t)[:, None]
            new[f"before_{i}"] = ops.matmul(inputs, columns) + bias
            new[f"inside_{i}"] = rows * ops.cast(mask, rows.dtype)
            inputs, sources = new[f"h_{i}"], targets
        return new | self._open_outputs(state, new, t)

    def _open_outputs(self, state, new, t):
        block, result = t // self.length, {}
        ranks = t + ops.arange(self.length, dtype="int32")
        targets = ops.repeat(ranks, self.params)
        before = self._entry_bias(state["bias_out"], state["order"], t)
        if "kernel_out" in state:
            last = len(self.windows) - 1
            width = self.windows[last].width
            start = ops.take(self.windows[last].starts, block)
            kernel = self._entry_columns(state["kernel_out"], state["order"], t)
            before = before + _apply(new[f"h_{last}"], kernel)
            sources = take_columns(state[f"degrees_{last}"], start, width)
            mask = targets[None, :] > sources[:, None]
            mask = mask & self._in_block(sources, t)[:, None]
            inside = take_rows(kernel, start, width)
            result["inside_out"] = inside * ops.cast(mask, inside.dtype)
        if "kernel_direct" in state:
            kernel = self._entry_columns(state["kernel_direct"], state["order"], t)
            before = before + _apply(self._entries(new["x"], state), kernel)
            sources = ops.repeat(ranks, self.features)
            mask = targets[None, :] > sources[:, None]
            inside = self._entry_rows(kernel, state["order"], t)
            result["inside_direct"] = inside * ops.cast(mask, inside.dtype)
        return result | {"before_out": before}

    def _store_units(self, state, i, block, t):
        """The units of layer i with those of a block that ends before step t."""
        width = self.windows[i].width
        start = ops.take(self.windows[i].starts, block)
        degrees = take_columns(state[f"degrees_{i}"], start, width)
        ended = self._in_block(degrees, block * self.length) & (degrees + 1 < t)
        stored = take_columns(state[f"h_{i}"], start, width)
        stored = ops.where(ended, state[f"h_block_{i}"], stored)
        return ops.slice_update(state[f"h_{i}"], (FIRST, start), stored)

    def _in_block(self, degrees, first_step):
        """Which units of a window are not already final before its block."""
        return degrees + 1 >= first_step

    def _compute(self, state, t):
        """The units that are final at step t, and the outputs of rank t."""
        inputs, new = state["x_block"], {}
        for i, layer in enumerate(self.made.hidden_layers):
            width = self.windows[i].step_width
            offset = ops.take(self.windows[i].offsets, t)
            inside = take_columns(state[f"inside_{i}"], offset, width)
            h = _apply(inputs, inside) + take_columns(
                state[f"before_{i}"], offset, width
            )
            h = layer.activation(h)
            if self.made.is_residual(i):
                # Both layers have the same degrees, and so the same windows.
                h = h + take_columns(inputs, offset, width)
            inputs = ops.slice_update(state[f"h_block_{i}"], (FIRST, offset), h)
            new[f"h_block_{i}"] = inputs
        place = (t % self.length) * self.params
        params = take_columns(state["before_out"], place, self.params)
        if self.windows:
            params = params + _apply(
                inputs, take_columns(state["inside_out"], place, self.params)
            )
        if "inside_direct" in state:
            inside = take_columns(state["inside_direct"], place, self.params)
            params = params + _apply(state["x_block"], inside)
        return params[:, None, :], {**state, **new}

    def _entries(self, x, state):
        """The entries so far, zero elsewhere, in the order of the kernels' rows."""
        if is_shared(state["order"]):
            return x
        ranks = ops.argsort(state["order"][:, : self.size], axis=1)
        places = places_of(ops.cast(ranks, "int32"), self.features)
        return ops.take_along_axis(x, places, axis=1)

    def _entry_rows(self, kernel, order, t):
        """The rows of a kernel that hear the block of step t."""
        width = self.length * self.features
        if is_shared(order):
            return take_rows(kernel, t * self.features, width)
        places = self._own_places(order, t, self.features)
        if len(kernel.shape) == 2:
            return ops.take(kernel, places, axis=0)
        return ops.take_along_axis(kernel, places[:, :, None], axis=1)

    def _entry_bias(self, bias, order, t):
        width = self.length * self.params
        if is_shared(order):
            return take_columns(bias, t * self.params, width)
        places = self._own_places(order, t, self.params)
        return ops.take_along_axis(bias, places, axis=1)

    def _entry_columns(self, kernel, order, t):
        """The columns of a kernel that speak for the block of step t."""
        width = self.length * self.params
        if is_shared(order):
            return take_columns(kernel, t * self.params, width)
        places = self._own_places(order, t, self.params)
        return ops.transpose(ops.take(kernel, places, axis=0), (0, 2, 1))

    def _own_places(self, order, t, width):
        """Where each example's entries of the block of step t stand, `width` each."""
        return places_of(take_columns(order, t, self.length), width)

    def _zeros(self, batch, width):
        return ops.zeros((batch, width), self.made.variable_dtype)


def _apply(x, kernel):
    """`x @ kernel`, the kernel being shared `(i, j)` or each example's own."""
    if len(kernel.shape) == 2:
        return ops.matmul(x, kernel)
    return ops.einsum("bi,bij->bj", x, kernel)
