"""Layers that multiply weights with structure, and do nothing else."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.masks import connect, image_mask


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


@keras.saving.register_keras_serializable(package="keras_made")
class MaskedConv2D(keras.layers.Layer):
    """A convolution over images that hears only what comes earlier in raster order.

    Every input map and every unit belongs to a channel of the image; with channels in
    order within a pixel, their place in the order is their degree (see
    `keras_made.masks.image_mask`). The mask acts inside `call`.

    Args:
        source_degrees: channel of each input map, ints `(inputs,)`.
        degrees: channel of each unit, ints `(units,)`.
        kernel_size: height and width, odd ints. The rows below the middle one, which
            are never heard, are not stored.
        strict: mask type A of the papers, which leaves out the entry itself; else
            type B.
        by_row: only rows are compared, so that all of a row is heard at once.
        use_bias: whether to add a bias.
        kernel_initializer: initializer of the kernel.

    Call arguments:
        x: floats `(batch, height, width, inputs)`.

    Output shape:
        `(batch, height, width, units)`; outside the image there are zeros.

    Raises:
        ValueError: if the kernel size is not odd.

    Example:
        >>> import numpy as np
        >>> layer = MaskedConv2D([0], [0, 0], (3, 3), strict=True)
        >>> layer(np.ones((1, 4, 4, 1), "float32")).shape[-1]
        2

    Reference:
        van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural
        Networks", https://arxiv.org/abs/1601.06759
    """

    def __init__(
        self,
        source_degrees: Sequence[int],
        degrees: Sequence[int],
        kernel_size: tuple[int, int],
        *,
        strict: bool = False,
        by_row: bool = False,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.source_degrees = _degree_rows("source_degrees", source_degrees)[0]
        self.degrees = _degree_rows("degrees", degrees)[0]
        self.kernel_size = tuple(kernel_size)
        if len(self.kernel_size) != 2 or any(n < 1 or n % 2 == 0 for n in kernel_size):
            raise ValueError(
                "`kernel_size` must be two odd ints, so that the kernel has a middle. "
                f"Received: kernel_size={kernel_size}."
            )
        self.strict = strict
        self.by_row = by_row
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        mask = self.mask()
        self.kernel = self.add_weight(
            name="kernel", shape=mask.shape, initializer=self.kernel_initializer
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(len(self.degrees),), initializer="zeros"
            )

    def mask(self) -> np.ndarray:
        """Booleans of the kernel's shape: `(rows, columns, inputs, units)`."""
        return image_mask(
            self.kernel_size,
            self.source_degrees,
            self.degrees,
            self.strict,
            self.by_row,
        )

    def call(self, x):
        height, width = self.kernel_size
        kernel = ops.multiply(self.kernel, ops.cast(self.mask(), self.compute_dtype))
        sides = (width // 2, width // 2)
        x = ops.pad(x, [(0, 0), (height // 2, 0), sides, (0, 0)])
        y = ops.conv(x, kernel, padding="valid", data_format="channels_last")
        return y + self.bias if self.use_bias else y

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], len(self.degrees))

    def get_config(self):
        return {
            **super().get_config(),
            "source_degrees": self.source_degrees.tolist(),
            "degrees": self.degrees.tolist(),
            "kernel_size": list(self.kernel_size),
            "strict": self.strict,
            "by_row": self.by_row,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_made")
class CausalConv1D(keras.layers.Layer):
    """A dilated convolution over a sequence that hears the present and the past.

        y_t = sum_j x_(t - (kernel_size - 1 - j) dilation) W_j + b

    Args:
        units: width of the output.
        kernel_size: number of places heard.
        dilation: distance between them.
        kernel_initializer: initializer of the kernel.

    Call arguments:
        x: floats `(..., length, inputs)`.

    Output shape:
        `(..., length, units)`; before the sequence there are zeros.

    Example:
        >>> import numpy as np
        >>> layer = CausalConv1D(1, 2, dilation=4, kernel_initializer="ones")
        >>> np.asarray(layer(np.ones((6, 1), "float32")))[:, 0].tolist()
        [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]

    Reference:
        van den Oord et al. 2016, "WaveNet", https://arxiv.org/abs/1609.03499
    """

    def __init__(
        self,
        units: int,
        kernel_size: int = 2,
        *,
        dilation: int = 1,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        shape = (self.kernel_size, input_shape[-1], self.units)
        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer="zeros"
        )

    @property
    def delays(self) -> list[int]:
        """How far back each place of the kernel hears, the furthest first."""
        return [j * self.dilation for j in reversed(range(self.kernel_size))]

    def call(self, x):
        return self.join([delay(x, steps) for steps in self.delays])

    def join(self, heard):
        """The output, given what is heard at each of the `delays`."""
        y = ops.cast(self.bias, self.compute_dtype)
        for j, x in enumerate(heard):
            y = y + ops.matmul(x, ops.cast(self.kernel, self.compute_dtype)[j])
        return y

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def delay(x, steps: int):
    """A sequence `(..., length, width)` some steps later, zeros before it."""
    length = x.shape[-2]
    pairs = [(0, 0)] * (len(x.shape) - 2) + [(min(steps, length), 0), (0, 0)]
    return ops.pad(x, pairs)[..., :length, :]


class _OnConnected(keras.regularizers.Regularizer):
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
