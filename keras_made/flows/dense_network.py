"""The network of a coupling step, which need not be autoregressive."""

import keras
from keras import ops

from keras_made.entries.encoder import Bounded
from keras_made.layers import Shrunk, another_initializer


@keras.saving.register_keras_serializable(package="keras_made")
class DenseNetwork(keras.layers.Layer):
    """The plain dense network of a coupling step.

    It hears entries through `Bounded`, and the context as it is.

    Args:
        hidden_units: width of each hidden layer.
        num_outputs: width of the output.
        activation: of the hidden layers.
        dropout: rate, after each hidden layer.
        output_scale: spread of the output kernel at the start, as a part of what its
            initializer gives.
        kernel_initializer: of every kernel.
        kernel_regularizer: penalty on every kernel.
        seed: of dropout.

    Call arguments:
        x: `(..., d)`.
        context: `(..., C)` or None, with the same leading axes.
        training: whether to apply dropout.
    """

    def __init__(
        self,
        hidden_units,
        num_outputs,
        *,
        activation="relu",
        dropout=0.0,
        output_scale=1.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        seed=0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.hidden_units = tuple(hidden_units)
        self.num_outputs = num_outputs
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.output_scale = output_scale
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed

    def build(self, x_shape, context_shape=None):
        shared = {
            "kernel_regularizer": self.kernel_regularizer,
            "dtype": self.dtype_policy,
        }
        starts = [
            another_initializer(self.kernel_initializer, index)
            for index in range(len(self.hidden_units) + 1)
        ]
        self.layers = [
            keras.layers.Dense(
                units, activation=self.activation, kernel_initializer=start, **shared
            )
            for units, start in zip(self.hidden_units, starts, strict=False)
        ]
        start = Shrunk(starts[-1], self.output_scale)
        self.layers.append(
            keras.layers.Dense(self.num_outputs, kernel_initializer=start, **shared)
        )
        width = x_shape[-1] + (context_shape[-1] if context_shape else 0)
        for layer in self.layers:
            layer.build((None, width))
            width = layer.units
        self.dropouts = [
            keras.layers.Dropout(
                self.dropout, seed=self.seed + index, dtype=self.dtype_policy
            )
            for index in range(len(self.hidden_units) if self.dropout else 0)
        ]

    def call(self, x, context=None, training=False):
        heard = [Bounded().encode(x)[..., 0]] if x.shape[-1] else []
        heard = heard if context is None else [*heard, context]
        h = [ops.cast(part, self.compute_dtype) for part in heard]
        h = ops.concatenate(h, axis=-1)
        # Keras's layers want a batch axis, and an event may come without.
        batch = ops.shape(h)[:-1]
        h = ops.reshape(h, (-1, h.shape[-1])) if not batch else h
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if index < len(self.dropouts):
                h = self.dropouts[index](h, training=training)
        return h if batch else h[0]

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_units": list(self.hidden_units),
            "num_outputs": self.num_outputs,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "output_scale": self.output_scale,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }
