"""Rows, contexts and streams as a density takes them, checked against the model."""

import keras
import numpy as np

from keras_made.checks import (
    check_finite,
    check_pieces,
    check_weights,
    first_batch,
    is_stream,
    refuse_target,
    to_array,
)

# Of which float64 copies are made at a time.
ROWS_AT_ONCE = 65536


def check_data(model, x, y=None, sample_weight=None):
    """What Keras's loop is given: `(x, y, sample_weight)`."""
    if y is not None:
        raise ValueError(
            "A density has no target. Received: y. For a conditional density pass "
            "one tuple, (x, context); a `tf.data` dataset yields ((x, context),)."
        )
    if is_stream(x):
        stream = _look_at(model, x)
        if model.built:
            model.units.check()
        return stream, y, sample_weight
    x, context = split_inputs(x)
    if context is not None:
        context = _per_row(to_array("context", context))
    x, context = check_inputs(model, x, context)
    if sample_weight is not None:
        sample_weight = check_weights(sample_weight, len(x))
        # Keras drops the weights when there is no target: one without columns.
        y = np.zeros((len(x), 0), "float32")
    return x if context is None else (x, context), y, sample_weight


def _look_at(model, stream):
    """The stream, whose first batch was looked at, once after each `compile`.

    A model that is not built learns its sizes here, before Keras asks how many
    weights it has, and a target is refused before Keras builds with half the data.
    """
    if model.built and model._stream_seen:
        return stream
    # In a `tf.distribute` strategy Keras builds, where variables belong to it.
    if getattr(model, "_distribute_strategy", None) is not None:
        return stream
    batch, stream = first_batch(stream)
    if batch is None:
        return stream
    refuse_target(batch)
    model._stream_seen = True
    if not model.built:
        x, context = _inputs_of(batch)
        shapes = tuple(tuple(a.shape) for a in (x, context) if a is not None)
        model.build(shapes if len(shapes) == 2 else shapes[0])
    return stream


def _inputs_of(batch):
    """`(x, context)` of a batch; some loaders make lists of tuples."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return split_inputs(tuple(x) if isinstance(x, list) else x)


def check_validation(model, data):
    if isinstance(data, tuple) and len(data) == 3:
        x, y, sample_weight = data
    else:
        x, y, sample_weight = data, None, None
    x, y, sample_weight = check_data(model, x, y, sample_weight)
    return (x,) if sample_weight is None else (x, y, sample_weight)


def check_inputs(model, x, context=None, missing=False):
    """Rows and context as arrays of the right shape, or a ValueError.

    Args:
        model: a `LikelihoodModel`.
        x: array-like `(n, *event_shape)`, a table or a tensor.
        context: array-like `(n, C)` or `(C,)`, or None.
        missing: whether NaN is allowed in `x`; a typical value takes its place.

    Returns:
        `(x, context)`, NumPy; context `(n, C)` or None. Builds the model.
    """
    x = _as_rows(model, x, missing)
    if context is not None:
        context = check_context(model, context, len(x))
    if not model.built:
        model.build(x.shape if context is None else (x.shape, context.shape))
    if context is None and model.context_size:
        raise ValueError(
            f"The model has a context of size {model.context_size}. Pass it: "
            "fit((x, context)), log_prob(x, context)."
        )
    model.units.check()
    if missing:
        x = np.where(np.isnan(x), model.typical_event(), x)
    check_pieces(model.check_support, x)
    return x, context


def rows_of(model, x):
    """The rows of data, or of a stream to its end, checked, as arrays.

    Yields batches `(n, *event_shape)`. A context is let go by, and nothing is built.
    """
    if not is_stream(x):
        x = _as_rows(model, split_inputs(x)[0])
        check_pieces(model.check_support, x)
        for start in range(0, len(x), ROWS_AT_ONCE):
            yield x[start : start + ROWS_AT_ONCE]
        return
    indexed = isinstance(x, keras.utils.PyDataset)
    for batch in (x[i] for i in range(len(x))) if indexed else x:
        refuse_target(batch)
        yield from rows_of(model, _inputs_of(batch)[0])


def _as_rows(model, x, missing=False):
    """Numbers of the right shape, finite but for what may be missing, as an array."""
    x = to_array("x", x)
    _check_shape(model, x)
    check_finite("x", x, missing or model.may_be_missing())
    return x


def _check_shape(model, x):
    event_shape = model.event_shape or model.units.event_shape
    if event_shape is None and x.ndim == 2 and x.size:
        return
    if event_shape is None or x.ndim != 1 + len(event_shape) or not x.size:
        expected = "D," if event_shape is None else str(event_shape)[1:-1]
        raise ValueError(
            f"`x` must have shape (n, {expected.rstrip(',')}), with n at least 1. "
            f"Received: shape {x.shape}.{_several_axes(event_shape, x)}"
        )
    if x.shape[1:] != tuple(event_shape):
        raise ValueError(
            f"`x` must hold events of shape {tuple(event_shape)}, as the model was "
            f"made for. Received: shape {x.shape}."
        )


def _several_axes(event_shape, x):
    if event_shape is not None or x.ndim < 3:
        return ""
    whole = x.shape[1:]
    return (
        f" Make the network with event_shape={whole}, take `PixelCNN({whole}, ...)` "
        "for images, or pass `x.reshape(len(x), -1)`."
    )


def check_context(model, context, num_rows):
    """Context as an array `(num_rows, C)`, or a ValueError."""
    context = to_array("context", context)
    if model.built or context.ndim == 1:
        check_context_size(model, context.shape)
    if context.ndim == 1:
        context = np.tile(context, (num_rows, 1))
    if context.ndim != 2 or len(context) != num_rows:
        raise ValueError(
            f"`context` must have shape ({num_rows}, C), one row for each row, or "
            f"(C,). Received: shape {context.shape}."
        )
    check_finite("context", context)
    return context


def check_context_size(model, shape):
    if shape[-1:] == (model.context_size,):
        return
    if model.built or model.context_size:
        declared = f"of size {model.context_size}" if model.context_size else "none"
        raise ValueError(
            f"The context that the model was built with is {declared}. Received: "
            f"context of shape {tuple(shape)}."
        )
    raise ValueError(
        "The model does not know the size of its context yet, and takes one for "
        f"each row, (n, C). Received: context of shape {tuple(shape)}."
    )


def split_inputs(inputs):
    """`(x, context)` of what a model was called with; context None when absent."""
    if not isinstance(inputs, tuple):
        return inputs, None
    if len(inputs) == 1:
        return inputs[0], None
    if len(inputs) != 2:
        raise ValueError(
            "A model is called with rows `x` or with one tuple `(x, context)`. "
            f"Received: a tuple of {len(inputs)}."
        )
    return inputs


def split_shapes(input_shape):
    """Likewise for the shapes that `build` receives."""
    if input_shape and isinstance(input_shape[0], list | tuple):
        x_shape, context_shape = input_shape
        return tuple(x_shape), tuple(context_shape)
    return tuple(input_shape), None


def any_batch(shape, event_shape):
    """A shape of rows, whatever their number; that of the first says nothing."""
    leading = max(0, len(shape) - len(event_shape)) if event_shape else 1
    return (*[None] * leading, *shape[leading:])


def _per_row(context):
    """The context itself, when it has a row for each row of the data."""
    if context.ndim != 1:
        return context
    raise ValueError(
        "`context` must have shape (n, C), one row for each row of `x`. Received: "
        f"shape {context.shape}. Labels are a column of numbers, `labels[:, None]`, or "
        "classes, `keras.utils.to_categorical(labels)`."
    )


def one_batch(x):
    """The rows themselves, and no stream of them."""
    if not is_stream(x):
        return x
    raise ValueError(
        "Rows must be an array, a table or a tensor here. Received: "
        f"{type(x).__name__}. Streams of batches are for `fit`, `evaluate` and "
        "`predict`."
    )
