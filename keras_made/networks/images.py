"""What autoregressive networks over images share."""

import math

import numpy as np
from keras import ops

from keras_made.autoregressive import Autoregressive
from keras_made.checks import check_event_shape, check_positive
from keras_made.generation import FIRST
from keras_made.layers import MaskedDense


class ImageNetwork(Autoregressive):
    """Base of PixelCNN and PixelRNN: pixels in raster order, channels within each.

    Every map of the network belongs to a channel, and hears that of its own and of
    earlier channels; a subclass writes the part that hears other pixels, `hear`, with
    its layers in `build_body`, and `reach`, which says what they let through.

    An image is generated row by row. `hear_above` keeps what a row hears of the rows
    above it, once for the row; every step then computes that one row, by `hear_row`.
    An image costs about height + width x channels passes, not one for every entry.

    Args:
        event_shape: `(height, width)`, or `(height, width, channels)`.
        units: number of maps, at least the number of channels.
        num_params: parameters per entry. None: one, without an axis of its own.
        num_layers: number of layers.
        kernel_size: width of the kernels, odd.
        **layer_kwargs: as for `Autoregressive`.
    """

    def __init__(
        self, event_shape, units, num_params, num_layers, kernel_size, **layer_kwargs
    ):
        shape = check_event_shape(
            event_shape, "height, width", "height, width, channels"
        )
        super().__init__(num_params, event_shape=shape, **layer_kwargs)
        check_positive("units", units)
        check_positive("num_layers", num_layers)
        check_positive("kernel_size", kernel_size)
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ValueError(
                "`kernel_size` must be odd and at least 3, so that a kernel has a "
                f"middle and neighbours. Received: kernel_size={kernel_size}."
            )
        if units < self.num_channels:
            raise ValueError(
                f"`units` must be at least the number of channels, "
                f"{self.num_channels}: each needs a map of its own. Received: "
                f"units={units}."
            )
        self.units = units
        self.num_layers = num_layers
        self.kernel_size = kernel_size

    @property
    def num_channels(self) -> int:
        return self.event_shape[2] if len(self.event_shape) == 3 else 1

    @property
    def map_degrees(self) -> np.ndarray:
        """The channel that each map belongs to, sorted, in equal shares."""
        return np.arange(self.units) * self.num_channels // self.units

    @property
    def feature_degrees(self) -> np.ndarray:
        """The channel that each feature of a pixel belongs to."""
        return np.repeat(np.arange(self.num_channels), self.num_features)

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        self.build_body()
        degrees, outputs = self.map_degrees, np.arange(self.num_channels)
        outputs = np.repeat(outputs, self.params_per_entry)
        self.head = [
            MaskedDense(degrees, degrees, activation="relu", dtype=self.dtype_policy),
            MaskedDense(degrees, outputs, dtype=self.dtype_policy),
        ]
        for layer in self.head:
            layer.build((None, self.units))

    def build_body(self):
        """Make and build the layers that `hear` calls."""
        raise NotImplementedError

    def hear(self, x, context):
        """Maps that have heard what comes before each entry, and not the entry.

        Args:
            x: floats `(batch, height, width, channels x num_features)`.
            context: floats `(batch, C)` or None.

        Returns:
            Floats `(batch, height, width, units)`.
        """
        raise NotImplementedError

    def reach(self) -> np.ndarray:
        """Which entries `hear` lets every entry hear: bools `[input, output]`."""
        raise NotImplementedError

    def hear_above(self, x, context, r) -> dict:
        """What row r hears of the rows above it: a dict of tensors for `hear_row`.

        Args:
            x: as for `hear`, with zeros in row r and below.
            context: as for `hear`.
            r: integer scalar, a number or a tensor.
        """
        raise NotImplementedError

    def hear_row(self, x, context, above):
        """`hear` for one row.

        Args:
            x: floats `(batch, 1, width, channels x num_features)`.
            context: as for `hear`.
            above: what `hear_above` returned.

        Returns:
            Floats `(batch, 1, width, units)`.
        """
        raise NotImplementedError

    def compute_params(self, features, context, structure, training):
        batch = ops.shape(features)[: len(features.shape) - len(self.event_shape) - 1]
        x = self._as_maps(features, self.event_shape[0])
        if context is not None:
            context = ops.reshape(context, (-1, self.context_size))
        params = self._finish(self.hear(x, context))
        return ops.reshape(params, (*batch, *self.event_shape, self.params_per_entry))

    def _as_maps(self, features, height):
        width = len(self.feature_degrees)
        return ops.reshape(features, (-1, height, self.event_shape[1], width))

    def _finish(self, maps):
        maps = ops.relu(maps)
        for layer in self.head:
            maps = layer(maps)
        return maps

    # One step at a time: a row is a block -------------------------------------------

    @property
    def block_length(self) -> int:
        """Number of entries of a row."""
        return math.prod(self.event_shape[1:])

    def start(self, batch, context=None, structure=0, order=None):
        """As `Autoregressive.start`; a step costs one row of the image."""
        state = super().start(batch, context, structure, order)
        if context is not None:
            state["context"] = ops.cast(context, self.compute_dtype)
        return {**state, **self._above(state, FIRST)}

    def open(self, state, x_last, t):
        state = self._write(state, x_last, t)
        return {**state, **self._above(state, t // self.block_length)}

    def step(self, state, x_last, t):
        state, length = self._write(state, x_last, t), self.block_length
        first = t // length * length
        entries = first + ops.arange(length, dtype="int32")[None]
        x = ops.slice(state["x"], (FIRST, first), (ops.shape(x_last)[0], length))
        features = ops.cast(self.encode_entries(x, entries), self.compute_dtype)
        maps = self.hear_row(self._as_maps(features, 1), state.get("context"), state)
        params = ops.reshape(self._finish(maps), (-1, length, self.params_per_entry))
        return ops.take(params, ops.reshape(t - first, (1,)), axis=1), state

    def _write(self, state, x_last, t):
        """The state once x_last is known; before the first step there is none."""
        is_last = ops.equal(ops.arange(self.event_size), t - 1)
        return {**state, "x": ops.where(is_last, x_last, state["x"])}

    def _above(self, state, r):
        x = ops.reshape(state["x"], (-1, *self.event_shape))
        x = self._as_maps(self.encode(x), self.event_shape[0])
        # A class that is not known yet is encoded too: as class 0, which is not zero.
        is_known = ops.arange(self.event_shape[0]) < r
        x = x * ops.cast(is_known, x.dtype)[:, None, None]
        return self.hear_above(x, state.get("context"), r)

    def connectivity(self, structure: int = 0) -> np.ndarray:
        """What the network lets through: bools (event_size, event_size).

        `[i, j]` says whether the parameters of entry i can hear entry j.
        """
        self.check_structure(structure)
        return self.reach().T

    @property
    def floats_per_event(self) -> int:
        return 8 * self.units * math.prod(self.event_shape[:2])

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
        }


def take_row(maps, r):
    """Row r of maps, as an image of one row: `(batch, 1, width, units)`."""
    batch, _, width, units = ops.shape(maps)
    return ops.slice(maps, (FIRST, r, FIRST, FIRST), (batch, 1, width, units))
