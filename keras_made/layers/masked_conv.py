"""A masked convolution over images."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.image_masks import image_mask
from keras_made.layers.masked_dense import degree_rows


@keras.saving.register_keras_serializable(package="keras_made")
class MaskedConv2D(keras.layers.Layer):
    """A convolution over images that hears only what comes earlier in raster order.

    Every input map and every unit belongs to a channel of the image; with channels in
    order within a pixel, their place in the order is their degree (see
    `keras_made.image_masks.image_mask`). The mask acts inside `call`.

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
        self.source_degrees = degree_rows("source_degrees", source_degrees)[0]
        self.degrees = degree_rows("degrees", degrees)[0]
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
