"""MADE one variable at a time, for few variables: one small loop, and no blocks.

A hidden unit of degree d is final once the variable of rank d is known. With the units
in order of degree, what step t has to compute of a layer is a window of neighbours: the
window's columns of the masked kernel, times all units of the layer before. The masks
keep out what is not known yet. All windows of a layer are as wide as the widest; a unit
that is computed too early is computed again in its own time, before it may be heard.

A step reads whole layers, where `Incremental` reads a block of them: with many
variables that is most of the work, with few it is less than the blocks' bookkeeping.
"""

import numpy as np
from keras import ops

from keras_made.generation import FIRST
from keras_made.networks.slicing import take_columns


class Windowed:
    """The steps of a `MADE` of one structure, as those of `Incremental`.

    `open` does nothing. Companion weights are not heard.

    Args:
        made: the layer, built.
    """

    def __init__(self, made):
        self.made = made
        order = made.orders()[0]
        self.order = order[None]
        heard, self.windows = _places(order, made.num_features), {}
        entries = heard
        for i, (layer, degrees) in enumerate(
            zip(made.hidden_layers, made.unit_degrees, strict=True)
        ):
            units = np.argsort(degrees[0], kind="stable")
            # A unit of degree d is final at step d + 1.
            final = degrees[0][units] + 1
            self._add(f"{i}", layer, heard, units, final)
            heard = units
        for name, layer, sources in (
            ("out", made.output_layer, heard),
            ("direct", made.direct_layer, entries),
        ):
            if layer is not None:
                each = layer.units // made.event_size
                spoken = np.repeat(np.arange(made.num_ranks), each)
                self._add(name, layer, sources, _places(order, each), spoken)

    def _add(self, name, layer, rows, columns, steps):
        window = _Window(layer, rows, columns, steps, self.made.num_ranks)
        self.windows[name] = window

    def start(self, batch, context):
        made = self.made
        state = {"heard": self._zeros(batch, made.num_ranks * made.num_features)}
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
                params = params + self.made.beside_zeros(said[:, None, :])
        batch = ops.shape(x_last)[0]
        return ops.broadcast_to(params, (batch, *params.shape[1:])), state

    def _hear(self, heard, x_last, t):
        """Write the features of the entry of rank t-1; for t = 0 there is none."""
        last = ops.maximum(t - 1, 0)
        entry = take_columns(self.order, last, 1)
        features = self.made.encode_entries(x_last, entry)[:, 0]
        features = ops.cast(features, heard.dtype)
        features = features * ops.cast(ops.greater(t, 0), heard.dtype)
        place = (FIRST, last * self.made.num_features)
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
    """

    def __init__(self, layer, rows, columns, steps, num_steps):
        self.layer, self.rows, self.columns = layer, rows, columns
        starts = np.searchsorted(steps, np.arange(num_steps))
        ends = np.searchsorted(steps, np.arange(num_steps), side="right")
        self.width = max(1, int((ends - starts).max()))
        self.starts = np.minimum(starts, layer.units - self.width).astype("int32")

    def weights(self, context):
        """The masked kernel `(inputs, units)`, and the bias `(1 or batch, units)`."""
        layer = self.layer
        kernel = ops.convert_to_tensor(layer.kernel)
        kernel = kernel * ops.cast(layer.mask(0), kernel.dtype)
        bias = ops.zeros((1, layer.units), kernel.dtype)
        if layer.use_bias:
            bias = ops.convert_to_tensor(layer.bias)[None]
        if context is not None and kernel.shape[0] > len(self.rows):
            context = ops.cast(context, kernel.dtype)
            bias = bias + ops.matmul(context, kernel[len(self.rows) :])
        kernel = _reorder(kernel[: len(self.rows)], self.rows, 0)
        return _reorder(kernel, self.columns, 1), _reorder(bias, self.columns, 1)


def _places(order, width):
    """Where the `width` numbers of each entry stand, in an order of entries."""
    return (order[:, None] * width + np.arange(width)).ravel()


def _reorder(array, places, axis):
    """Take `places` along an axis, and nothing where that is what is there."""
    if np.array_equal(places, np.arange(array.shape[axis])):
        return array
    return ops.take(array, places, axis=axis)
