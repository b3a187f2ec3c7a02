"""The units of the data: a location and a scale of every entry."""

import keras
import numpy as np
from keras import ops

from keras_made.compiling import is_traced
from keras_made.precision import full_precision


def loc_and_scale(layer, event_shape: tuple[int, ...], dtype: str):
    """What a `keras.layers.Normalization` subtracts and divides by, as it is now.

    It is read from the layer's variables, or from the numbers that the layer was made
    with. Its `mean` and `variance` are copies, rounded to its compute dtype, which a
    compiled function would keep when the layer is adapted or loaded again.

    Args:
        layer: a `keras.layers.Normalization` that is built.
        event_shape: shape of one row.
        dtype: of the result, whatever the precision of networks is.

    Returns:
        `(loc, scale)`: two tensors of `event_shape`. An entry without variance has no
        scale of its own, and keeps that of the data: its scale is 1.
    """
    if layer.input_mean is None:
        mean, variance = layer.adapt_mean, layer.adapt_variance
    else:
        mean, variance = layer.input_mean, layer.input_variance
    mean = _over_events(mean, layer.axis, event_shape, dtype)
    variance = _over_events(variance, layer.axis, event_shape, dtype)
    return mean, ops.sqrt(ops.where(variance > 0, variance, 1.0))


def check_normalization(layer) -> None:
    """Raise a ValueError for what is no `Normalization` that standardises.

    Args:
        layer: as it was passed to a constructor; None is no normalization.
    """
    if layer is None:
        return
    if not isinstance(layer, keras.layers.Normalization) or layer.invert:
        inverted = " with invert=True" if getattr(layer, "invert", False) else ""
        raise ValueError(
            "`normalization` must be a `keras.layers.Normalization`, adapted to "
            f"the data and not inverted. Received: {layer!r}{inverted}."
        )
    if layer.input_mean is not None:
        _check_numbers(layer.input_mean, layer.input_variance)
    elif layer.built and not is_traced():
        _check_numbers(layer.adapt_mean, layer.adapt_variance)


def _check_numbers(mean, variance):
    for name, values in (("mean", mean), ("variance", variance)):
        values = np.asarray(ops.convert_to_numpy(values)).astype("float64")
        wrong = np.argwhere(~np.isfinite(values))
        if not len(wrong):
            continue
        index = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"`normalization` must have finite numbers. Received: {name}"
            f"{list(index) or ''} = {values[index]}, as after `adapt` on rows that are "
            "not finite. Adapt it to complete rows, `x[np.isfinite(x).all(axis=1)]`."
        )


def _over_events(values, axes, event_shape, dtype):
    """`values`, which lie along some axes of the rows, for every entry of an event."""
    with full_precision():
        values = ops.cast(ops.convert_to_tensor(values, dtype), dtype)
    rank = 1 + len(event_shape)
    sizes, shape = list(values.shape), [1] * rank
    # As Keras aligns them: fewer values than axes belong to the last ones.
    for axis in sorted((axis % rank for axis in axes), reverse=True)[: len(sizes)]:
        shape[axis] = sizes.pop()
    return ops.broadcast_to(ops.reshape(values, shape)[0], event_shape)
