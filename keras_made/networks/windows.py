"""MADE one variable at a time, for few variables: one small loop, and no blocks.

A hidden unit of degree d is final once the variable of rank d is known. With the units
in order of degree, what step t has to compute of a layer is a window of neighbours: the
window's columns of the masked kernel, times all units of the layer before. The masks
keep out what is not known yet. All windows of a layer are as wide as the widest; a unit
that is computed too early is computed again in its own time, before it may be heard.

A step reads whole layers, where `Incremental` reads a block of them: with many
variables that is most of the work, with few it is less than the blocks' bookkeeping.
"""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_made.generation import FIRST

# Up to here no blocks are faster, or as fast with half of the compiling.
MOST_RANKS = 64


class Layer(NamedTuple):
    """What a layer computes at step t: `width` units from `starts[t]` on.

    `kernel` `(inputs, units)` is masked; `bias` is `(1 or batch, units)`.
    """

    kernel: object
    bias: object
    starts: object
    width: int

    def at(self, inputs, t):
        """The units of step t, before the activation, and where they begin."""
        start = ops.take(self.starts, t)
        heard = ops.matmul(inputs, _columns(self.kernel, start, self.width))
        return heard + _columns(self.bias, start, self.width), start


def has_windows(network) -> bool:
    """Whether `generate_in_windows` can take the place of `generate`."""
    return (
        hasattr(network, "unit_degrees")
        and network.num_masks == 1
        and not network.companion
        and network.num_ranks <= MOST_RANKS
    )


def generate_in_windows(made, draw, batch, context=None, dtype="float32"):
    """As `generate`, for a `MADE` of one structure without companion weights."""
    hidden, outputs = _make_layers(made, context)
    order = ops.convert_to_tensor(made.orders()[0][None])

    def step(t, heard, layers, values, total):
        inputs, new = heard, []
        for i, layer in enumerate(hidden):
            units, start = layer.at(inputs, t)
            units = made.hidden_layers[i].activation(units)
            if made.is_residual(i):
                # Both layers have the same degrees, and so the same windows.
                units = units + _columns(inputs, start, layer.width)
            inputs = ops.slice_update(layers[i], (FIRST, start), units)
            new.append(inputs)
        sources = new[-1:] if made.output_layer is not None else []
        sources = [*sources, heard][: len(outputs)]
        params = sum(o.at(x, t)[0] for o, x in zip(outputs, sources, strict=True))
        params = ops.broadcast_to(params, (batch, made.params_per_entry))
        now, increment = draw(ops.cast(params, dtype)[:, None, :], t)
        features = made.encode_entries(now, _columns(order, t, 1))
        place = (FIRST, t * made.num_features)
        heard = ops.slice_update(heard, place, features[:, 0])
        values = ops.slice_update(values, (t, FIRST, FIRST), now[None])
        return t + 1, heard, tuple(new), values, total + increment

    def nothing(width):
        return ops.zeros((batch, width), made.variable_dtype)

    size = made.num_ranks
    loop = (
        ops.convert_to_tensor(0, "int32"),
        nothing(size * made.num_features),
        tuple(nothing(layer.units) for layer in made.hidden_layers),
        ops.zeros((size, batch, 1), dtype),
        ops.zeros((batch,), dtype),
    )
    return ops.while_loop(lambda t, *_: t < size, step, loop)[3:]


def _make_layers(made, context):
    """The hidden layers, and those that give the outputs, each as a `Layer`."""
    units = [np.argsort(d[0], kind="stable") for d in made.unit_degrees]
    order = made.orders()[0]
    entries = _places(order, made.num_features)
    params = _places(order, made.params_per_entry)
    # A unit of degree d is final at step d + 1.
    final = [np.sort(degrees[0]) + 1 for degrees in made.unit_degrees]
    spoken = np.repeat(np.arange(made.num_ranks), made.params_per_entry)
    hidden = [
        _make_layer(layer, rows, columns, steps, made.num_ranks, context)
        for layer, rows, columns, steps in zip(
            made.hidden_layers, [entries, *units], units, final, strict=False
        )
    ]
    outputs = [
        _make_layer(layer, rows, params, spoken, made.num_ranks, context)
        for layer, rows in (
            (made.output_layer, units[-1] if units else None),
            (made.direct_layer, entries),
        )
        if layer is not None
    ]
    return hidden, outputs


def _make_layer(layer, rows, columns, steps, num_steps, context):
    """A `MaskedDense` with its inputs and its units in an order.

    Args:
        layer: the layer; inputs that are not among `rows` are the context.
        rows: the inputs in order.
        columns: the units in order.
        steps: when each of the units in order is final.
        num_steps: number of steps.
        context: `(batch, C)` or None.
    """
    kernel = ops.convert_to_tensor(layer.kernel)
    kernel = kernel * ops.cast(layer.mask(0), kernel.dtype)
    bias = ops.zeros((1, layer.units), kernel.dtype)
    if layer.use_bias:
        bias = ops.convert_to_tensor(layer.bias)[None]
    if context is not None and kernel.shape[0] > len(rows):
        heard = ops.matmul(ops.cast(context, kernel.dtype), kernel[len(rows) :])
        bias = bias + heard
    starts = np.searchsorted(steps, np.arange(num_steps))
    ends = np.searchsorted(steps, np.arange(num_steps), side="right")
    width = max(1, int((ends - starts).max()))
    starts = np.minimum(starts, layer.units - width).astype("int32")
    kernel = _reorder(_reorder(kernel[: len(rows)], rows, 0), columns, 1)
    bias = _reorder(bias, columns, 1)
    return Layer(kernel, bias, ops.convert_to_tensor(starts), width)


def _columns(array, start, width):
    """`array[:, start : start + width]` for a `start` known only when run."""
    return ops.slice(array, (FIRST, start), (ops.shape(array)[0], width))


def _places(order, width):
    """Where the `width` numbers of each entry stand, in an order of entries."""
    return (order[:, None] * width + np.arange(width)).ravel()


def _reorder(array, places, axis):
    """Take `places` along an axis, and nothing where that is what is there."""
    if np.array_equal(places, np.arange(array.shape[axis])):
        return array
    return ops.take(array, places, axis=axis)
