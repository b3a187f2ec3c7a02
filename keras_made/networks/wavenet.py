"""WaveNet: long sequences by dilated causal convolutions."""

import keras
from keras import ops

from keras_made.autoregressive import Autoregressive
from keras_made.checks import check_event_shape, check_positive
from keras_made.generation import FIRST
from keras_made.layers import CausalConv1D, delay


@keras.saving.register_keras_serializable(package="keras_made")
class WaveNet(Autoregressive):
    """Gated convolutions whose reach doubles with every layer.

    The sequence is delayed by one place, so that an entry is never heard by its own
    parameters; every convolution after that hears the present and the past.

        h_0 = W x_(t-1)
        a_l = conv(h_(l-1), dilation d_l) + context
        z_l = tanh(first half of a_l) sigmoid(second half)
        h_l = h_(l-1) + z_l R_l,   output = head(sum_l z_l S_l)

    with dilations 1, 2, 4, ..., 2^(num_layers-1), the whole list `num_stacks` times.
    An entry hears the `receptive_field` entries before it.

    To generate, every layer keeps what its kernel will hear again in a ring, and a
    step computes one column of the network: its cost does not grow with the length.

    Args:
        event_shape: `(length,)`.
        units: width of the residual stream and of the gates.
        num_params: parameters per entry. None: one, without an axis of its own.
        num_layers: number of layers in a stack.
        num_stacks: number of stacks.
        kernel_size: places heard by each convolution.
        skip_units: width of the skip connections and of the head. None: `units`.
        **layer_kwargs: `name`, `dtype`, `trainable` of any Keras layer, and `encoder`
            of `Autoregressive`.

    Call arguments:
        x: `(..., length)`, any number of leading batch axes.
        context: `(..., C)`, one for the whole sequence; heard inside every gate.
        structure: not used; there is one.
        training: not used.

    Output shape:
        `(..., length)`, or `(..., length, num_params)`.

    Raises:
        ValueError: for an argument outside the above.

    Example:
        >>> import numpy as np
        >>> network = WaveNet((64,), units=8, num_layers=4)
        >>> network.receptive_field
        16
        >>> network(np.zeros((2, 64), "float32")).shape[-1]
        64

    Reference:
        van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio",
        https://arxiv.org/abs/1609.03499; Paine et al. 2016, "Fast Wavenet Generation
        Algorithm", https://arxiv.org/abs/1611.09482
    """

    def __init__(
        self,
        event_shape: tuple[int],
        units: int = 32,
        num_params: int | None = None,
        *,
        num_layers: int = 8,
        num_stacks: int = 1,
        kernel_size: int = 2,
        skip_units: int | None = None,
        **layer_kwargs,
    ):
        shape = check_event_shape(event_shape, "length,")
        super().__init__(num_params, event_shape=shape, **layer_kwargs)
        check_positive("units", units)
        check_positive("num_layers", num_layers)
        check_positive("num_stacks", num_stacks)
        check_positive("kernel_size", kernel_size)
        if skip_units is not None:
            check_positive("skip_units", skip_units)
        self.units = units
        self.num_layers = num_layers
        self.num_stacks = num_stacks
        self.kernel_size = kernel_size
        self.skip_units = skip_units

    @property
    def dilations(self) -> list[int]:
        return [2**layer for layer in range(self.num_layers)] * self.num_stacks

    @property
    def receptive_field(self) -> int:
        """Number of entries before an entry that its parameters hear."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        policy, skip_units = self.dtype_policy, self.skip_units or self.units
        self.first_layer = keras.layers.Dense(self.units, dtype=policy)
        self.first_layer.build((None, self.num_features))
        self.gated_layers = []
        for index, dilation in enumerate(self.dilations):
            layer = ResidualLayer(
                self.units,
                skip_units,
                self.kernel_size,
                dilation,
                self.context_size,
                is_last=index == len(self.dilations) - 1,
                dtype=policy,
                name=f"residual_{index}",
            )
            layer.build()
            self.gated_layers.append(layer)
        self.head = [
            keras.layers.Dense(skip_units, activation="relu", dtype=policy),
            keras.layers.Dense(self.params_per_entry, dtype=policy),
        ]
        for layer in self.head:
            layer.build((None, skip_units))

    def compute_params(self, features, context, structure, training):
        h, skip = self.first_layer(delay(features, 1)), 0.0
        if context is not None:
            context = context[..., None, :]
        for layer in self.gated_layers:
            conv = layer.conv
            h, skipped = layer(h, [delay(h, n) for n in conv.delays[:-1]], context)
            skip = skip + skipped
        return self._finish(skip)

    def _finish(self, skip):
        x = ops.relu(skip)
        for layer in self.head:
            x = layer(x)
        return x

    def start(self, batch, context=None, structure=0, order=None):
        """As `Autoregressive.start`; a step costs the depth and not the length."""
        if order is not None:
            return super().start(batch, context, structure, order)
        state = {
            f"ring_{index}": ops.zeros(
                (layer.conv.delays[0], batch, self.units), self.compute_dtype
            )
            for index, layer in enumerate(self.gated_layers)
            if self.kernel_size > 1
        }
        if context is not None:
            state["context"] = ops.cast(context, self.compute_dtype)
        # A state is never empty.
        return {**state, "batch": ops.zeros((batch,))}

    def step(self, state, x_last, t):
        features = self.encode_entries(x_last, ops.reshape(t - 1, (1, 1)))[:, 0]
        is_known = ops.cast(t > 0, self.compute_dtype)
        features = ops.cast(features, self.compute_dtype) * is_known
        h, skip, new = self.first_layer(features), 0.0, {}
        for index, layer in enumerate(self.gated_layers):
            past = []
            if self.kernel_size > 1:
                ring = state[f"ring_{index}"]
                length = layer.conv.delays[0]
                past = [
                    ops.take(ring, (t - n) % length, axis=0)
                    for n in layer.conv.delays[:-1]
                ]
                # What is `length` steps old has been heard for the last time.
                new[f"ring_{index}"] = ops.slice_update(
                    ring, (t % length, FIRST, FIRST), h[None]
                )
            h, skipped = layer(h, past, state.get("context"))
            skip = skip + skipped
        return self._finish(skip)[:, None, :], {**state, **new}

    @property
    def floats_per_event(self) -> int:
        return 8 * self.units * self.event_size

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_layers": self.num_layers,
            "num_stacks": self.num_stacks,
            "kernel_size": self.kernel_size,
            "skip_units": self.skip_units,
        }


class ResidualLayer(keras.layers.Layer):
    """One dilated, gated convolution with its residual and its skip connection.

    Args:
        units: width of the residual stream and of the gates.
        skip_units: width of the skip connection.
        kernel_size: places heard.
        dilation: distance between them.
        context_size: width of the context, 0 for none.
        is_last: no layer hears the residual stream after this one.
    """

    def __init__(
        self, units, skip_units, kernel_size, dilation, context_size, is_last, **kwargs
    ):
        super().__init__(**kwargs)
        self.units = units
        self.context_size = context_size
        self.is_last = is_last
        policy = self.dtype_policy
        self.conv = CausalConv1D(
            2 * units, kernel_size, dilation=dilation, dtype=policy
        )
        # A layer that nothing calls does not exist: Keras would try to quantize it.
        self.context = self.residual = None
        if context_size:
            self.context = keras.layers.Dense(2 * units, use_bias=False, dtype=policy)
        if not is_last:
            self.residual = keras.layers.Dense(units, dtype=policy)
        self.skip = keras.layers.Dense(skip_units, dtype=policy)

    def build(self):
        self.conv.build((None, self.units))
        self.skip.build((None, self.units))
        if self.residual is not None:
            self.residual.build((None, self.units))
        if self.context is not None:
            self.context.build((None, self.context_size))
        self.built = True

    def call(self, h, past, context):
        """The stream and the skip, given `h` now and at the delays of the kernel."""
        a = self.conv.join([*past, h])
        if context is not None:
            a = a + self.context(context)
        a, b = ops.split(a, 2, axis=-1)
        z = ops.tanh(a) * ops.sigmoid(b)
        return h if self.is_last else h + self.residual(z), self.skip(z)
