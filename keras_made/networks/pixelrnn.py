"""PixelRNN: images row by row, with a memory that runs down the rows."""

import keras
import numpy as np
from keras import ops

from keras_made.checks import check_positive
from keras_made.image_masks import image_mask, image_reach
from keras_made.layers import MaskedConv2D, MaskedDense
from keras_made.networks.images import ImageNetwork, take_row


@keras.saving.register_keras_serializable(package="keras_made")
class PixelRNN(ImageNetwork):
    """The row LSTM: an LSTM over the rows of an image, convolved along each row.

        x_0 = A(x)                            masked convolution, type A
        [o, f, i, g]_r = B(x_(l-1))_r + S(h_(r-1)) + context
        c_r = sigmoid(f) c_(r-1) + sigmoid(i) tanh(g),   h_r = sigmoid(o) tanh(c_r)
        x_l = x_(l-1) + h E_l

    with B masked (type B) along the row, and S a convolution along the row before,
    which is all known. A whole row is computed at once, rows one after the other.

    What an entry hears is narrower than everything before it: as the memory spreads by
    `kernel_size // 2` columns a row, it is a triangle that opens upwards, widened by
    the first convolution and, to the left, by the masked ones. In a wide image, entries
    to the far right in the row just above are beyond it. `connectivity()` shows the
    exact field.

    Args:
        event_shape: `(height, width)`, or `(height, width, channels)`.
        units: number of maps, at least the number of channels.
        num_params: parameters per entry. None: one, without an axis of its own.
        num_layers: number of row LSTM layers.
        kernel_size: width of the kernels along the rows, odd.
        first_kernel_size: width and height of the first convolution, odd.
        **layer_kwargs: `name`, `dtype`, `trainable` of any Keras layer, and `encoder`
            of `Autoregressive`.

    Call arguments:
        x: `(..., *event_shape)`, any number of leading batch axes.
        context: `(..., C)`, such as a class; heard inside every gate.
        structure: not used; there is one.
        training: not used.

    Output shape:
        `(..., *event_shape)`, or `(..., *event_shape, num_params)`.

    Raises:
        ValueError: for an argument outside the above.

    Example:
        >>> import numpy as np
        >>> network = PixelRNN((4, 4), units=8, num_layers=1)
        >>> network(np.zeros((2, 4, 4), "float32")).shape[-1]
        4

    Reference:
        van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural
        Networks", https://arxiv.org/abs/1601.06759
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        units: int = 32,
        num_params: int | None = None,
        *,
        num_layers: int = 2,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        **layer_kwargs,
    ):
        super().__init__(
            event_shape, units, num_params, num_layers, kernel_size, **layer_kwargs
        )
        check_positive("first_kernel_size", first_kernel_size)
        if first_kernel_size % 2 == 0 or first_kernel_size < 3:
            raise ValueError(
                "`first_kernel_size` must be odd and at least 3. Received: "
                f"first_kernel_size={first_kernel_size}."
            )
        self.first_kernel_size = first_kernel_size

    def build_body(self):
        size, degrees = self.first_kernel_size, self.map_degrees
        self.first_layer = MaskedConv2D(
            self.feature_degrees,
            degrees,
            (size, size),
            strict=True,
            dtype=self.dtype_policy,
            name="first",
        )
        self.first_layer.build((None, None, None, len(self.feature_degrees)))
        self.row_layers = []
        for index in range(self.num_layers):
            layer = RowLSTM(
                degrees,
                self.kernel_size,
                self.context_size,
                dtype=self.dtype_policy,
                name=f"row_{index}",
            )
            layer.build()
            self.row_layers.append(layer)

    def hear(self, x, context):
        x = self.first_layer(x)
        for layer in self.row_layers:
            x = x + layer.out(layer.remember(x, context)[0])
        return x

    def hear_above(self, x, context, r):
        x = self.first_layer(x)
        above = {"first": take_row(x, r)}
        for index, layer in enumerate(self.row_layers):
            h, c = layer.remember(x, context)
            above[f"h_{index}"] = take_row(row_before(h), r)
            above[f"c_{index}"] = take_row(row_before(c), r)
            x = x + layer.out(h)
        return above

    def hear_row(self, x, context, above):
        # The convolution is linear: rows above and this one are heard apart, and the
        # bias is in both.
        bias = ops.cast(self.first_layer.bias, self.compute_dtype)
        x = above["first"] + (self.first_layer(x) - bias)
        for index, layer in enumerate(self.row_layers):
            before = above[f"h_{index}"][:, 0], above[f"c_{index}"][:, 0]
            x = x + layer.out(layer.remember(x, context, before)[0])
        return x

    def reach(self):
        height, width = self.event_shape[:2]
        channels = np.arange(self.num_channels)
        first = (self.first_kernel_size, self.first_kernel_size)
        reach = image_reach(image_mask(first, channels, channels, True), height, width)
        # From one row to the next, all channels of the kernel's columns are heard.
        whole = (3, self.kernel_size)
        down = image_mask(whole, channels, channels, strict=True, by_row=True)
        along = image_mask((1, self.kernel_size), channels, channels)
        down, along = (image_reach(mask, height, width) for mask in (down, along))
        for _ in range(self.num_layers):
            reach = reach @ along
            for _ in range(height - 1):
                reach = reach | reach @ down
        return reach

    def get_config(self):
        return {**super().get_config(), "first_kernel_size": self.first_kernel_size}


class RowLSTM(keras.layers.Layer):
    """One layer of `PixelRNN`, without the residual connection around it.

    Args:
        degrees: channel of each map.
        kernel_size: width of the kernels along the rows, odd.
        context_size: width of the context, 0 for none.
    """

    def __init__(self, degrees, kernel_size, context_size, **kwargs):
        super().__init__(**kwargs)
        self.context_size = context_size
        self.units = len(degrees)
        gates = np.tile(degrees, 4)
        self.along = MaskedConv2D(
            degrees, gates, (1, kernel_size), dtype=self.dtype_policy
        )
        self.down = keras.layers.Conv1D(
            4 * self.units,
            kernel_size,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            dtype=self.dtype_policy,
        )
        self.out = MaskedDense(degrees, degrees, dtype=self.dtype_policy)
        # A layer that nothing calls does not exist: Keras would try to quantize it.
        self.context = None
        if context_size:
            self.context = keras.layers.Dense(
                4 * self.units, use_bias=False, dtype=self.dtype_policy
            )

    def build(self):
        self.along.build((None, None, None, self.units))
        self.down.build((None, None, self.units))
        self.out.build((None, self.units))
        if self.context is not None:
            self.context.build((None, self.context_size))
        self.built = True

    def remember(self, x, context, before=None):
        """h and c of every row of x, given those of the row before it, or zeros."""
        gates = self.along(x)
        if context is not None:
            gates = gates + self.context(context)[:, None, None, :]
        h, c = before or (ops.zeros_like(x[:, 0]),) * 2
        rows = []
        for r in range(x.shape[1]):
            o, f, i, g = ops.split(gates[:, r] + self.down(h), 4, axis=-1)
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
            rows.append((h, c))
        h, c = zip(*rows, strict=True)
        return ops.stack(h, axis=1), ops.stack(c, axis=1)


def row_before(maps):
    """Each row of the maps one lower; zeros come first."""
    return ops.pad(maps, [(0, 0), (1, 0), (0, 0), (0, 0)])[:, :-1]
