"""Parts of kernels and of events that are known by number only when a step runs."""

import numpy as np
from keras import ops

from keras_made.generation import FIRST


def take_columns(array, start, width):
    """`array[..., start : start + width]` for a `start` known only when run."""
    rank, shape = len(array.shape), ops.shape(array)
    return ops.slice(array, (FIRST,) * (rank - 1) + (start,), (*shape[:-1], width))


def take_rows(array, start, width):
    """`array[..., start : start + width, :]`, likewise."""
    rank, shape = len(array.shape), ops.shape(array)
    starts = (FIRST,) * (rank - 2) + (start, FIRST)
    return ops.slice(array, starts, (*shape[:-2], width, shape[-1]))


def places_of(entries, width):
    """Where the `width` numbers of each entry stand: `(..., k)` to `(..., k width)`."""
    places = entries[..., None] * width + ops.arange(width, dtype="int32")
    return ops.reshape(places, (*ops.shape(entries)[:-1], -1))


def is_shared(entries) -> bool:
    """Whether entries, `(1, ...)` or `(batch, ...)`, are the same for all examples."""
    return entries.shape[0] == 1


def moved_weights(made, entries) -> dict:
    """The weights of a `MADE` that stand elsewhere when its entries are permuted.

    Args:
        made: the network, built, without companion weights.
        entries: the entry that is to stand at each place: a tensor of ints `(D,)`.

    Returns:
        The id of each weight that moves, and where it is moved to: a network of one
        whose entry n is entry `entries[n]` of this one.
    """
    heard = places_of(entries, made.num_features)
    context = made.event_size * made.num_features + np.arange(made.context_size)
    rows = ops.concatenate([heard, ops.convert_to_tensor(context.astype("int32"))])
    moved = {}
    for layer in {*made.hidden_layers[:1], made.output_layer, made.direct_layer}:
        if layer is None:
            continue
        speaks = layer in (made.output_layer, made.direct_layer)
        columns = places_of(entries, layer.units // made.event_size) if speaks else None
        # Panels are stored in order of degree, which is that of ranks, not of entries.
        if not layer.is_staircase:
            kernel = layer.kernel
            if layer is not made.output_layer:
                kernel = ops.take(kernel, rows, axis=0)
            if speaks:
                kernel = ops.take(kernel, columns, axis=1)
            moved[id(layer.kernel)] = kernel
        if speaks and layer.use_bias:
            moved[id(layer.bias)] = ops.take(layer.bias, columns, axis=0)
    return moved
