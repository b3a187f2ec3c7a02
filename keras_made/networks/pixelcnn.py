"""PixelCNN: images by convolutions that look up and to the left."""

import keras
import numpy as np
from keras import ops

from keras_made.image_masks import image_mask, image_reach
from keras_made.layers import MaskedConv2D, MaskedDense
from keras_made.networks.images import ImageNetwork, take_row


@keras.saving.register_keras_serializable(package="keras_made")
class PixelCNN(ImageNetwork):
    """Gated convolutions over an image, in two stacks that leave no blind spot.

    One stack of masked convolutions never hears a wedge of pixels above and to the
    right, however deep it is. Two together hear it: the vertical stack all columns of
    the rows above, the horizontal one the row of the pixel itself, and at every layer
    the vertical one.

        v_l = gate(a_l),   a_l = rows(v_(l-1)) + context
        h_l = h_(l-1) + gate(row(h_(l-1)) + a_l D_l + context) E_l
        gate([a, b]) = tanh(a) sigmoid(b)

    The first layer is strict in both (mask type A), the others are not (type B). Each
    map belongs to a channel of the image, and channel c of a pixel hears the channels
    before it. The receptive field grows by `kernel_size // 2` rows and columns a layer:
    `connectivity()` shows it.

    Args:
        event_shape: `(height, width)`, or `(height, width, channels)`.
        units: number of maps, at least the number of channels.
        num_params: parameters per entry. None: one, without an axis of its own.
        num_layers: number of gated layers.
        kernel_size: width of the kernels, odd.
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
        >>> network = PixelCNN((4, 4), units=8, num_layers=3)
        >>> network(np.zeros((2, 4, 4), "float32")).shape[-1]
        4
        >>> int(network.connectivity().sum())
        120

    Reference:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016,
        "Conditional Image Generation with PixelCNN Decoders",
        https://arxiv.org/abs/1606.05328
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        units: int = 32,
        num_params: int | None = None,
        *,
        num_layers: int = 6,
        kernel_size: int = 3,
        **layer_kwargs,
    ):
        super().__init__(
            event_shape, units, num_params, num_layers, kernel_size, **layer_kwargs
        )

    def build_body(self):
        self.gated_layers, sources = [], self.feature_degrees
        for index in range(self.num_layers):
            layer = GatedLayer(
                sources,
                self.map_degrees,
                self.kernel_size,
                self.context_size,
                strict=index == 0,
                dtype=self.dtype_policy,
                name=f"gated_{index}",
            )
            layer.build()
            self.gated_layers.append(layer)
            sources = self.map_degrees

    def hear(self, x, context):
        vertical = horizontal = x
        for layer in self.gated_layers:
            rows = layer.look_up(vertical, context)
            vertical, horizontal = (
                gate(rows),
                layer.look_left(horizontal, rows, context),
            )
        return horizontal

    def hear_above(self, x, context, r):
        above, vertical = {}, x
        for index, layer in enumerate(self.gated_layers):
            rows = layer.look_up(vertical, context)
            above[f"rows_{index}"], vertical = take_row(rows, r), gate(rows)
        return above

    def hear_row(self, x, context, above):
        for index, layer in enumerate(self.gated_layers):
            x = layer.look_left(x, above[f"rows_{index}"], context)
        return x

    def reach(self):
        height, width = self.event_shape[:2]
        size, channels = self.kernel_size, np.arange(self.num_channels)
        vertical = horizontal = np.eye(self.event_size, dtype=bool)
        for strict in [True] + [False] * (self.num_layers - 1):
            rows = image_mask((size, size), channels, channels, strict, by_row=True)
            row = image_mask((1, size), channels, channels, strict)
            vertical = vertical @ image_reach(rows, height, width)
            horizontal = horizontal @ image_reach(row, height, width) | vertical
        return horizontal


class GatedLayer(keras.layers.Layer):
    """One layer of both stacks.

    Args:
        source_degrees: channel of each input map.
        degrees: channel of each unit.
        kernel_size: width of the kernels, odd.
        context_size: width of the context, 0 for none.
        strict: whether this is the first layer, which must not hear the entry itself.
    """

    def __init__(
        self, source_degrees, degrees, kernel_size, context_size, strict, **kwargs
    ):
        super().__init__(**kwargs)
        self.context_size = context_size
        self.strict = strict
        self.units, self.inputs = len(degrees), len(source_degrees)
        gates = np.tile(degrees, 2)
        shared = {"strict": strict, "dtype": self.dtype_policy}
        size = (kernel_size, kernel_size)
        self.rows = MaskedConv2D(source_degrees, gates, size, by_row=True, **shared)
        self.row = MaskedConv2D(source_degrees, gates, (1, kernel_size), **shared)
        # Rows above are earlier in all their channels: this connection needs no mask.
        self.down = keras.layers.Dense(2 * self.units, dtype=self.dtype_policy)
        self.out = MaskedDense(degrees, degrees, dtype=self.dtype_policy)
        # A layer that nothing calls does not exist: Keras would try to quantize it.
        self.context = None
        if context_size:
            self.context = keras.layers.Dense(
                4 * self.units, use_bias=False, dtype=self.dtype_policy
            )

    def build(self):
        self.rows.build((None, None, None, self.inputs))
        self.row.build((None, None, None, self.inputs))
        self.down.build((None, 2 * self.units))
        self.out.build((None, self.units))
        if self.context is not None:
            self.context.build((None, self.context_size))
        self.built = True

    def look_up(self, vertical, context):
        """What the vertical stack hears, before the gate."""
        return self._add_context(self.rows(vertical), context, 0)

    def look_left(self, horizontal, rows, context):
        """The horizontal stack, which hears `rows`, the vertical one, too."""
        row = self._add_context(self.row(horizontal), context, 1)
        row = self.out(gate(row + self.down(rows)))
        return row if self.strict else row + horizontal

    def _add_context(self, x, context, half):
        if context is None:
            return x
        return x + ops.split(self.context(context)[:, None, None, :], 2, axis=-1)[half]


def gate(x):
    """`tanh` of the first half of the units, each let through by one of the second."""
    a, b = ops.split(x, 2, axis=-1)
    return ops.tanh(a) * ops.sigmoid(b)
