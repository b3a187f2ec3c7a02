"""What TensorFlow has to see of a Keras model: variables, and wrong shapes early."""

import tensorflow as tf

from keras_made.precision import full_precision


def tf_variables(variables) -> list[tf.Variable]:
    """The `tf.Variable` of each Keras variable, for a `tf.Module` to find.

    One that was frozen in Keras is left out: TensorFlow would have it trained.
    """
    # Within a scope of half precision Keras shows copies instead.
    with full_precision():
        pairs = [(v.trainable, v.value) for v in variables]
    return [
        value
        for trained, value in pairs
        if isinstance(value, tf.Variable) and (trained or not value.trainable)
    ]


def module_variables(layer) -> list[tf.Variable]:
    """Those of the weights of a Keras layer, trained or not."""
    return tf_variables(layer.weights)


def check_event(taker: str, x, event_shape):
    """`x` again, or a ValueError when it cannot hold events of this shape.

    Axes that are not known before a graph runs pass, and are known from here on.
    """
    rank, expected = len(event_shape), tf.TensorShape(event_shape)
    if x.shape.rank is None:
        return x
    batch, event = x.shape[:-rank], x.shape[-rank:]
    if x.shape.rank < rank or not expected.is_compatible_with(event):
        axes = ", ".join(["...", *map(str, event_shape)])
        raise ValueError(
            f"{taker} takes events of shape {tuple(event_shape)}: tensors of shape "
            f"({axes}). Received: shape {tuple(x.shape)}."
        )
    known = event.is_fully_defined()
    return x if known else tf.ensure_shape(x, batch.concatenate(expected))
