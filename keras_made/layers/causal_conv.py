"""A dilated convolution over sequences that hears the present and the past."""

import keras
from keras import ops


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
    length = ops.shape(x)[-2]
    if x.shape[-2] is not None:
        steps = min(steps, length)
    pairs = [(0, 0)] * (len(x.shape) - 2) + [(steps, 0), (0, 0)]
    return ops.pad(x, pairs)[..., :length, :]
