"""Layers that multiply weights with structure, and do nothing else."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.masks import connect


@keras.saving.register_keras_serializable(package="keras_made")
class MaskedDense(keras.layers.Layer):
    """A dense layer whose units hear only the inputs that their degrees allow.

    The mask is two vectors of integers compared, inside `call`: nothing done to the
    weights, by an optimizer, a file or by hand, can open a forbidden connection.

        y = activation(x (W * M) + b),   M[i, j] = degrees[j] >= source_degrees[i]

    With `companion` weights U, a unit also hears which inputs are connected:
    `x (W * M) + 1 (U * M) + b`. With K structures, `row` picks one.

    Args:
        source_degrees: degrees of the inputs, `(K, inputs)` or `(inputs,)` ints.
        degrees: degrees of the units, `(K, units)` or `(units,)` ints.
        strict: a unit hears only inputs of *smaller* degree.
        activation: name or function. None: linear.
        use_bias: whether to add b.
        companion: whether to add the paper's companion weights.
        kernel_initializer: initializer of W and U.
        kernel_regularizer: penalty on the connected weights of W and U.

    Call arguments:
        x: floats `(..., inputs)`.
        row: which of the K structures to use, an int or an integer scalar tensor.

    Output shape:
        `(..., units)`.

    Raises:
        ValueError: if the degrees are not integers, or the input has another width.

    Example:
        >>> import numpy as np
        >>> layer = MaskedDense([0, 1, 2], [0, 1, 2], strict=True)
        >>> layer(np.ones((2, 3), "float32")).shape[-1]
        3

    Reference:
        Germain et al. 2015, https://arxiv.org/abs/1502.03509
    """

    def __init__(
        self,
        source_degrees: Sequence,
        degrees: Sequence,
        *,
        strict: bool = False,
        activation=None,
        use_bias: bool = True,
        companion: bool = False,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.source_degrees = _degree_rows("source_degrees", source_degrees)
        self.degrees = _degree_rows("degrees", degrees)
        if len(self.source_degrees) != len(self.degrees):
            raise ValueError(
                "`source_degrees` and `degrees` must have one row per structure. "
                f"Received: {len(self.source_degrees)} and {len(self.degrees)} rows."
            )
        self.strict = strict
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.companion = companion
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    @property
    def units(self) -> int:
        return self.degrees.shape[1]

    def build(self, input_shape):
        inputs = self.source_degrees.shape[1]
        if input_shape[-1] != inputs:
            raise ValueError(
                f"The layer was made for inputs of width {inputs}, one per entry of "
                f"`source_degrees`. Received: input of shape {tuple(input_shape)}."
            )
        self.kernel = self._add_kernel("kernel")
        if self.companion:
            self.companion_kernel = self._add_kernel("companion_kernel")
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer="zeros"
            )

    def _add_kernel(self, name):
        regularizer = self.kernel_regularizer
        return self.add_weight(
            name=name,
            shape=(self.source_degrees.shape[1], self.units),
            initializer=self.kernel_initializer,
            regularizer=regularizer and _OnConnected(regularizer, self._ever_heard()),
        )

    def _ever_heard(self):
        pairs = zip(self.source_degrees, self.degrees, strict=True)
        return np.any([connect(s, t, self.strict) for s, t in pairs], axis=0)

    def mask(self, row=0):
        """Booleans `(inputs, units)`: what structure `row` lets each unit hear."""
        if len(self.degrees) == 1:
            return connect(self.source_degrees[0], self.degrees[0], self.strict)
        # A table indexed by a scalar would compile once per row; `take` does not.
        sources = ops.take(self.source_degrees, row, axis=0)
        targets = ops.take(self.degrees, row, axis=0)
        compare = ops.greater if self.strict else ops.greater_equal
        return compare(targets[None, :], sources[:, None])

    def call(self, x, row=0):
        mask = ops.cast(self.mask(row), self.compute_dtype)
        y = ops.matmul(x, ops.multiply(self.kernel, mask))
        if self.use_bias:
            y = y + self.bias
        if self.companion:
            y = y + ops.sum(ops.multiply(self.companion_kernel, mask), axis=0)
        return self.activation(y)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "source_degrees": self.source_degrees.tolist(),
            "degrees": self.degrees.tolist(),
            "strict": self.strict,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "companion": self.companion,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


class _OnConnected:
    """A weight penalty that does not count the weights which no structure uses."""

    def __init__(self, regularizer, connected):
        self.regularizer = regularizer
        self.connected = connected

    def __call__(self, kernel):
        connected = ops.cast(self.connected, kernel.dtype)
        return self.regularizer(ops.multiply(kernel, connected))


def _degree_rows(name, degrees):
    rows = np.atleast_2d(np.asarray(degrees))
    if rows.ndim != 2 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"`{name}` must be integers of shape (units,) or (K, units). "
            f"Received: {degrees}."
        )
    return rows.astype("int32")
