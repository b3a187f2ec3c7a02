"""MADE one variable at a time, for the price of about one pass instead of D.

A hidden unit of degree d is final once the variable of rank d is known, so a step needs
to compute only what became final since the last. To keep the steps few and large, the
ranks are cut into blocks of about sqrt(D). Opening a block, one matrix product per
layer brings in everything that earlier blocks decided; within the block, a step only
touches the block's own units and entries, the diagonal blocks of the kernels. Together
that is every connected weight about once, and D small steps.

Hidden units are addressed by *slots*: the units of block 0, then those of block 1, and
so on, padded to equal length with units whose weights are zero. No mask is needed
between blocks, where every unit may hear all that came before; inside the diagonal
blocks degrees are compared as everywhere else.

The order of the variables is `(1, D)`, one for the batch, or `(batch, D)`, each
example's own: the same code serves both by broadcasting.
"""

import math

import numpy as np
from keras import ops


def block_length(size: int) -> int:
    """Number of ranks to a block."""
    return max(1, min(size, round(math.sqrt(size))))


def make_slots(degrees: np.ndarray, size: int) -> np.ndarray:
    """Which hidden unit sits in which slot.

    Args:
        degrees: degrees of one hidden layer in K structures, ints `(K, units)`.
        size: number of variables D.

    Returns:
        Ints `(K, blocks, slots per block)`; `units`, one too many, marks padding.
        Block b holds the units that become final during its steps.
    """
    length = block_length(size)
    num_blocks = -(-size // length)
    # A unit of degree d is heard from step d + 1 on.
    blocks = (degrees + 1) // length
    rows, units = degrees.shape
    counts = np.stack([np.bincount(row, minlength=num_blocks) for row in blocks])
    slots = np.full((rows, num_blocks, max(1, counts.max())), units, dtype="int32")
    for row in range(rows):
        for block in range(num_blocks):
            members = np.flatnonzero(blocks[row] == block)
            slots[row, block, : len(members)] = members
    return slots


class Incremental:
    """The steps of one `MADE`, compiled into whatever loop calls them.

    Args:
        made: the layer, built.
    """

    def __init__(self, made):
        self.made = made
        self.size = made.event_size
        self.features = made.num_features
        self.params = made.params_per_entry
        self.length = block_length(self.size)
        self.slots = [make_slots(d, self.size) for d in made.hidden_degree_rows]

    def start(self, batch, context, row, order):
        made = self.made
        if order is None:
            order = ops.take(made.orders(), row, axis=0)[None]
        padding = -self.size % self.length
        # Padded steps never run; whichever entry they name stays zero.
        order = ops.pad(ops.cast(order, "int32"), ((0, 0), (0, padding)))
        state = {"order": order, "x": self._zeros(batch, self.size * self.features)}
        state["x_block"] = self._zeros(batch, self.length * self.features)
        slots, width = None, self.size * self.features
        for i, layer in enumerate(made.hidden_layers):
            sources = None if i == 0 else slots
            slots = ops.reshape(ops.take(self.slots[i], row, axis=0), (-1,))
            kernel = ops.convert_to_tensor(layer.kernel)
            bias = ops.convert_to_tensor(layer.bias)[None]
            if layer.companion:
                mask = ops.cast(layer.mask(row), kernel.dtype)
                companion = ops.multiply(layer.companion_kernel, mask)
                bias = bias + ops.sum(companion, axis=0)
            if i == 0 and context is not None:
                bias = bias + ops.matmul(
                    ops.cast(context, kernel.dtype), kernel[width:]
                )
            kernel = kernel[:width] if i == 0 else _take_padded(kernel, sources, 0)
            degrees = ops.take(made.hidden_degree_rows[i], row, axis=0)
            state[f"kernel_{i}"] = _take_padded(kernel, slots, 1)
            state[f"bias_{i}"] = _take_padded(bias, slots, 1)
            state[f"degrees_{i}"] = _take_padded(degrees, slots, 0)
            state[f"h_{i}"] = self._zeros(batch, self.slots[i][0].size)
            state[f"h_block_{i}"] = self._zeros(batch, self.slots[i].shape[2])
        state |= self._start_outputs(context, slots)
        return state | self._open_block(state, ops.convert_to_tensor(0, "int32"))

    def _start_outputs(self, context, slots):
        made, shape = self.made, (-1, self.size, self.params)
        outputs, state = 0.0, {}
        if made.output_layer is not None:
            kernel = _take_padded(made.output_layer.kernel, slots, 0)
            state["kernel_out"] = ops.transpose(ops.reshape(kernel, shape), (1, 0, 2))
            outputs = outputs + ops.convert_to_tensor(made.output_layer.bias)[None]
        if made.direct_layer is not None:
            kernel = ops.convert_to_tensor(made.direct_layer.kernel)
            width = self.size * self.features
            direct = ops.reshape(kernel[:width], shape)
            state["kernel_direct"] = ops.transpose(direct, (1, 0, 2))
            if context is not None:
                context = ops.cast(context, kernel.dtype)
                outputs = outputs + ops.matmul(context, kernel[width:])
            if made.direct_layer.use_bias:
                outputs = outputs + ops.convert_to_tensor(made.direct_layer.bias)[None]
        state["bias_out"] = ops.reshape(outputs, shape)
        return state

    def step(self, state, x_last, t):
        opens = ops.equal(t % self.length, 0)
        state = ops.cond(
            opens, lambda: self.open(state, x_last, t), lambda: dict(state)
        )
        return self.advance(state, x_last, t)

    def open(self, state, x_last, t):
        """Begin the block whose first step is t, and hear the entry of rank t-1."""
        state = self._hear(state, x_last, t, ops.greater(t, 0))
        return state | self._open_block(state, t)

    def advance(self, state, x_last, t):
        """Step t of a block that is open."""
        state = self._hear(state, x_last, t, ops.greater(t % self.length, 0))
        return self._compute(state, t)

    def _hear(self, state, x_last, t, is_new):
        """Write the entry of rank t-1 into its block, or zero if it is not new."""
        entry = ops.slice(
            state["order"],
            (0, ops.maximum(t - 1, 0)),
            (ops.shape(state["order"])[0], 1),
        )
        features = ops.reshape(
            self.made.encode_entries(x_last, entry), (-1, self.features)
        )
        dtype = state["x"].dtype
        features = ops.cast(features, dtype) * ops.cast(is_new, dtype)
        place = ((t - 1) % self.length) * self.features
        x_block = ops.slice_update(state["x_block"], (0, place), features)
        return {**state, "x_block": x_block}

    def _open_block(self, state, t):
        """Put the last block away and bring in what this one hears from before it."""
        last = ops.maximum(t // self.length - 1, 0)
        block = t // self.length
        new = {"x": self._store_entries(state, last * self.length)}
        new["x_block"] = ops.zeros_like(state["x_block"])
        entries = self._block_entries(state["order"], t)
        ranks = t + ops.arange(self.length, dtype="int32")
        inputs, degrees = new["x"], ops.repeat(ranks, self.features)
        inner = ops.reshape(
            entries[..., None] * self.features
            + ops.arange(self.features, dtype="int32"),
            (-1, self.length * self.features),
        )
        for i, slots in enumerate(self.slots):
            width = slots.shape[2]
            new[f"h_{i}"] = ops.slice_update(
                state[f"h_{i}"], (0, last * width), state[f"h_block_{i}"]
            )
            new[f"h_block_{i}"] = ops.zeros_like(state[f"h_block_{i}"])
            columns = _columns(state[f"kernel_{i}"], block * width, width)
            bias = _columns(state[f"bias_{i}"], block * width, width)
            targets = ops.slice(state[f"degrees_{i}"], (block * width,), (width,))
            mask = targets[None, :] >= degrees[:, None]
            if i == 0:
                rows = _squeeze_shared(ops.take(columns, inner, axis=0))
            else:
                size = self.slots[i - 1].shape[2]
                rows = ops.slice(columns, (block * size, 0), (size, width))
            new[f"before_{i}"] = ops.matmul(inputs, columns) + bias
            new[f"inside_{i}"] = rows * ops.cast(mask, rows.dtype)
            inputs, degrees = new[f"h_{i}"], targets
        return new | self._open_outputs(state, new, entries, inner, ranks, block)

    def _open_outputs(self, state, new, entries, inner, ranks, block):
        flat = (-1, self.length * self.params)
        targets = ops.repeat(ranks, self.params)
        bias = ops.take(state["bias_out"], entries[0], axis=1)
        if entries.shape[0] != 1:
            bias = ops.take_along_axis(state["bias_out"], entries[:, :, None], axis=1)
        before = ops.reshape(bias, flat)
        result = {}
        if self.slots:
            last = len(self.slots) - 1
            width = self.slots[last].shape[2]
            kernel = self._output_kernel(state["kernel_out"], entries)
            h = new[f"h_{last}"]
            before = before + _apply(h, kernel)
            degrees = ops.slice(state[f"degrees_{last}"], (block * width,), (width,))
            mask = targets[None, :] > degrees[:, None]
            inside = _rows(kernel, block * width, width)
            result["inside_out"] = inside * ops.cast(mask, inside.dtype)
        if "kernel_direct" in state:
            kernel = self._output_kernel(state["kernel_direct"], entries)
            before = before + _apply(new["x"], kernel)
            sources = ops.repeat(ranks, self.features)
            mask = targets[None, :] > sources[:, None]
            if len(kernel.shape) == 2:
                inside = ops.take(kernel, inner[0], axis=0)
            else:
                inside = ops.take_along_axis(kernel, inner[:, :, None], axis=1)
            result["inside_direct"] = inside * ops.cast(mask, inside.dtype)
        return result | {"before_out": before}

    def _compute(self, state, t):
        """The block's units, as far as they are known, and the outputs of rank t."""
        inputs, new = state["x_block"], {}
        for i, layer in enumerate(self.made.hidden_layers):
            h = _apply(inputs, state[f"inside_{i}"]) + state[f"before_{i}"]
            h = layer.activation(h)
            if self.made.is_residual(i):
                h = h + inputs
            new[f"h_block_{i}"] = inputs = h
        place = (t % self.length) * self.params
        params = _columns(state["before_out"], place, self.params)
        if self.slots:
            params = params + _apply(
                inputs, _columns(state["inside_out"], place, self.params)
            )
        if "inside_direct" in state:
            params = params + _apply(
                state["x_block"], _columns(state["inside_direct"], place, self.params)
            )
        return params[:, None, :], {**state, **new}

    def _store_entries(self, state, first_rank):
        """`x` with the entries of the last block in their places."""
        entries = self._block_entries(state["order"], first_rank)
        places = ops.one_hot(entries, self.size, dtype=state["x"].dtype)
        shape = (-1, self.length, self.features)
        x_block = ops.reshape(state["x_block"], shape)
        if places.shape[0] == 1:
            stored = ops.einsum("bsf,sd->bdf", x_block, places[0])
        else:
            stored = ops.einsum("bsf,bsd->bdf", x_block, places)
        return state["x"] + ops.reshape(stored, ops.shape(state["x"]))

    def _block_entries(self, order, first_rank):
        return ops.slice(order, (0, first_rank), (ops.shape(order)[0], self.length))

    def _output_kernel(self, kernel, entries):
        """Columns of the block's entries: (inputs, block) or (batch, inputs, block)."""
        kernel = ops.take(kernel, entries, axis=0)
        kernel = ops.transpose(kernel, (0, 2, 1, 3))
        flat = (*ops.shape(kernel)[:2], self.length * self.params)
        return _squeeze_shared(ops.reshape(kernel, flat))

    def _zeros(self, batch, width):
        return ops.zeros((batch, width), self.made.variable_dtype)


def _take_padded(array, index, axis):
    """`take`, where the index one past the end finds zero."""
    array = ops.convert_to_tensor(array)
    padding = [(0, int(i == axis)) for i in range(len(array.shape))]
    return ops.take(ops.pad(array, padding), index, axis=axis)


def _columns(kernel, start, width):
    """`kernel[..., start : start + width]` for a `start` known only when run."""
    rank = len(kernel.shape)
    shape = ops.shape(kernel)
    return ops.slice(kernel, (0,) * (rank - 1) + (start,), (*shape[:-1], width))


def _rows(kernel, start, width):
    """`kernel[..., start : start + width, :]`, likewise."""
    rank, shape = len(kernel.shape), ops.shape(kernel)
    return ops.slice(
        kernel, (0,) * (rank - 2) + (start, 0), (*shape[:-2], width, shape[-1])
    )


def _squeeze_shared(kernel):
    """Drop the example axis of a kernel that all examples share."""
    return kernel[0] if kernel.shape[0] == 1 else kernel


def _apply(x, kernel):
    """`x @ kernel`, the kernel being shared `(i, j)` or each example's own."""
    if len(kernel.shape) == 2:
        return ops.matmul(x, kernel)
    return ops.einsum("bi,bij->bj", x, kernel)
