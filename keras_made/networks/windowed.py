"""MADE one rank at a time, for few variables or graphs: one small loop, no blocks.

A hidden unit of degree d is final once the variable of rank d is known. With the units
in order of degree, what step t has to compute of a layer is a window of neighbours: the
window's columns of the masked kernel, times all units of the layer before. The masks
keep out what is not known yet. All windows of a layer are as wide as the widest; a unit
that is computed too early is computed again in its own time, before it may be heard.

A step reads whole layers, where `Incremental` reads a block of them: with many
variables that is most of the work, with few it is less than the blocks' bookkeeping.

Ranks may hold several variables, as those of a graph do, and not all as many: each has
as many places as the largest (see `make_steps`), and what is drawn at a place too many
is heard by nobody.
"""

import numpy as np
from keras import ops

from keras_made.generation import FIRST
from keras_made.networks.slicing import take_columns


class Windowed:
    """The steps of a `MADE` of one structure, as those of `Incremental`.

    `open` does nothing.

    Args:
        made: the layer, built.
    """

    def __init__(self, made):
        self.made = made
        steps, self.width = made.step_layout(), made.step_size
        self.order, order = steps.entries, steps.entries[0]
        heard, self.windows = _places(order, made.num_features), {}
        entries = heard
        self.known = np.repeat(steps.counts()[0], made.num_features)
        for i, (layer, degrees) in enumerate(
            zip(made.hidden_layers, made.unit_degrees, strict=True)
        ):
            units = np.argsort(degrees[0], kind="stable")
            # A unit of degree d is final at step d + 1.
            final = degrees[0][units] + 1
            known = None if i else self.known
            self._add(f"{i}", layer, heard, units, final, known)
            heard = units
        for name, layer, sources, known in (
            ("out", made.output_layer, heard, None),
            ("direct", made.direct_layer, entries, self.known),
        ):
            if layer is not None:
                each = layer.units // made.event_size
                spoken = np.repeat(np.arange(made.num_ranks), each * self.width)
                self._add(name, layer, sources, _places(order, each), spoken, known)

    def _add(self, name, layer, rows, columns, steps, known):
        window = _Window(layer, rows, columns, steps, self.made.num_ranks, known)
        self.windows[name] = window

    def start(self, batch, context):
        made = self.made
        state = {"heard": self._zeros(batch, len(self.known))}
        for i, units in enumerate(made.hidden_units):
            state[f"h_{i}"] = self._zeros(batch, units)
        for name, window in self.windows.items():
            kernel, bias = window.weights(context)
            state |= {f"kernel_{name}": kernel, f"bias_{name}": bias}
        return state

    def _zeros(self, batch, width):
        return ops.zeros((batch, width), self.made.variable_dtype)

    def open(self, state, x_last, t):
        return state

    def step(self, state, x_last, t):
        """Hear the entry of rank t-1, and speak for the one of rank t."""
        state = {**state, "heard": self._hear(state["heard"], x_last, t)}
        inputs, params = state["heard"], 0.0
        for i, layer in enumerate(self.made.hidden_layers):
            units, start = self._window_at(f"{i}", state, inputs, t)
            units = layer.activation(units)
            if self.made.is_residual(i):
                # Both layers have the same degrees, and so the same windows.
                units = units + take_columns(inputs, start, units.shape[1])
            inputs = ops.slice_update(state[f"h_{i}"], (FIRST, start), units)
            state[f"h_{i}"] = inputs
        for name, source in (("out", inputs), ("direct", state["heard"])):
            if name in self.windows:
                said, _ = self._window_at(name, state, source, t)
                said = ops.reshape(said, (-1, self.width, said.shape[1] // self.width))
                params = params + self.made.beside_zeros(said)
        batch = ops.shape(x_last)[0]
        return ops.broadcast_to(params, (batch, *params.shape[1:])), state

    def _hear(self, heard, x_last, t):
        """Write the features of the entries of rank t-1; for t = 0 there are none."""
        last, each = ops.maximum(t - 1, 0), self.width * self.made.num_features
        entries = take_columns(self.order, last * self.width, self.width)
        features = self.made.encode_entries(x_last, entries)
        features = ops.cast(ops.reshape(features, (-1, each)), heard.dtype)
        features = features * ops.cast(ops.greater(t, 0), heard.dtype)
        place = (FIRST, last * each)
        return ops.slice_update(heard, place, features)

    def _window_at(self, name, state, inputs, t):
        """The units of step t, before the activation, and where they begin."""
        window = self.windows[name]
        start = ops.take(window.starts, t)
        kernel = take_columns(state[f"kernel_{name}"], start, window.width)
        bias = take_columns(state[f"bias_{name}"], start, window.width)
        return ops.matmul(inputs, kernel) + bias, start


class _Window:
    """What a layer computes at step t: `width` units from `starts[t]` on.

    Args:
        layer: a `MaskedDense`; inputs that are not among `rows` are the context.
        rows: the inputs in order.
        columns: the units in order.
        steps: when each of the units in order is final.
        num_steps: number of steps.
        known: bools of the length of `rows`, False for those that are not heard; None:
            all are.
    """

    def __init__(self, layer, rows, columns, steps, num_steps, known=None):
        self.layer, self.rows, self.columns = layer, rows, columns
        self.unknown = None if known is None or known.all() else ~known
        starts = np.searchsorted(steps, np.arange(num_steps))
        ends = np.searchsorted(steps, np.arange(num_steps), side="right")
        self.width = max(1, int((ends - starts).max()))
        self.starts = np.minimum(starts, len(columns) - self.width).astype("int32")

    def weights(self, context):
        """The masked kernel `(inputs, units)`, and the bias `(1 or batch, units)`."""
        layer, inputs = self.layer, self.rows.max() + 1
        kernel = ops.convert_to_tensor(layer.kernel)
        mask = ops.cast(layer.mask(0), kernel.dtype)
        # What autocasting makes of the kernel is known from the product.
        kernel = kernel * mask
        bias = ops.zeros((1, layer.units), kernel.dtype)
        if layer.use_bias:
            bias = ops.convert_to_tensor(layer.bias)[None]
        if layer.companion:
            # In the only structure there is, they hear the same at every step.
            companion = ops.convert_to_tensor(layer.companion_kernel)
            bias = bias + ops.sum(companion * mask, axis=0)
        if context is not None and kernel.shape[0] > inputs:
            context = ops.cast(context, kernel.dtype)
            bias = bias + ops.matmul(context, kernel[inputs:])
        kernel = _reorder(kernel[:inputs], self.rows, 0)
        if self.unknown is not None:
            kernel = ops.where(self.unknown[:, None], 0.0, kernel)
        return _reorder(kernel, self.columns, 1), _reorder(bias, self.columns, 1)


def _places(order, width):
    """Where the `width` numbers of each entry stand, in an order of entries."""
    return (order[:, None] * width + np.arange(width)).ravel()


def _reorder(array, places, axis):
    """Take `places` along an axis, and nothing where that is what is there."""
    if np.array_equal(places, np.arange(array.shape[axis])):
        return array
    return ops.take(array, places, axis=axis)
