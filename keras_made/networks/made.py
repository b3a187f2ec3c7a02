"""MADE: a masked autoencoder that estimates a distribution."""

import itertools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.checks import check_positive, check_rate
from keras_made.layers import (
    MaskedDense,
    Shrunk,
    another_initializer,
    check_kernel_form,
)
from keras_made.networks.accumulating import Accumulating
from keras_made.networks.incremental import Incremental, block_length
from keras_made.networks.structured import Structured
from keras_made.networks.windowed import Windowed

# Up to so many products of two numbers, D steps that recompute what they need are
# faster than steps in blocks, and compile in half the time (measured on two cores, D
# from 3 to 64, 16 to 1024 rows). A unit of the first layer costs as much as so many.
SMALL_WORK = 2**23
WORK_OF_UNIT = 16
# Up to so many variables in the network's only order, steps without blocks are faster
# than either, or as fast with half of the compiling (D from 3 to 64, 1000 rows).
MOST_WINDOWS = 64


@keras.saving.register_keras_serializable(package="keras_made")
class MADE(Structured):
    """A dense network whose output i hears only the variables generated before x_i.

    One pass gives the parameters of all D conditionals p(x_i | x_before i), and so the
    likelihood; sampling takes D small steps that cost about one pass together.

        h_0 = [x, context]
        h_l = activation(h_(l-1) (W_l * M_l) + 1 (U_l * M_l) + b_l)
        output = h_L (V * M_V) + h_0 (A * M_A) + c

    with masks M that compare degrees (see `keras_made.masks`) or sets
    (`keras_made.graph_masks`), U only for `companion=True` and A only for
    `direct=True`.

    Args:
        hidden_units: width of each hidden layer. `()` with `direct=True` is the fully
            visible sigmoid belief net (FVSBN).
        num_params: parameters per variable. None: one, without an axis of its own.
        ordering: `"natural"`, `"reversed"`, `"random"`, or D ints: the rank, from 0, at
            which each variable is generated. Variables of equal rank are generated
            together, and independent given the earlier.
        hidden_degrees: `"even"` (sorted, no dead unit, keeps the most dependencies) or
            `"random"` (the paper's).
        num_masks: number K of structures, a fixed cycle of which each training step
            uses the next. With `ordering="random"` this is order-agnostic training,
            with `hidden_degrees="random"` connectivity-agnostic training.
        adjacency: bools (D, D) without a cycle, `[i, j]`: variable i hears variable j,
            and no other, in place of an ordering. Ranks are depths in the graph, and
            drawing takes as many steps as it is deep. Hidden units hear the parents of
            some variable each; where there are more different ones than the narrowest
            layer has units, some edges may be heard directly alone, or not at all.
        context_adjacency: bools (D, C), `[i, c]`: variable i hears column c of the
            context, of an ordering or a graph. None: all of it.
        direct: masked connections from inputs to outputs, zero at the start.
        residual: a hidden layer is added to the one before it when both have the same
            width, and so the same degrees.
        companion: the paper's weights U, through which a unit hears which of its inputs
            are connected.
        activation: of the hidden layers.
        dropout: rate, after each hidden layer.
        kernel_initializer: of all kernels but the direct one.
        kernel_regularizer: penalty on the connected weights of every kernel.
        direct_params: to how many of a variable's parameters, the first ones, direct
            connections go. None: to all.
        output_scale: spread of the output kernel at the start, as a part of what its
            initializer gives: near zero, outputs start near their biases, which is
            the best start for most data (`benchmarks/README.md`).
        kernel_form: of `MaskedDense`: `"auto"`, `"masked"` or `"staircase"`, which
            stores and multiplies only what the masks keep.
        seed: of random orderings and degrees, and of dropout.
        **layer_kwargs: `name`, `dtype`, `trainable` of any Keras layer, and `encoder`
            of `Autoregressive`.

    Call arguments:
        x: `(..., D)`, any number of leading batch axes.
        context: `(..., C)`. Without `context_adjacency` every hidden unit hears all of
            it, and every output hears units that hear it, the first output included.
        structure: which of the K to use; None: the next of the cycle when training,
            structure 0 otherwise.
        training: whether to advance the cycle and apply dropout.

    Output shape:
        `(..., D)`, or `(..., D, num_params)` with the parameters of one variable
        adjacent.

    Raises:
        ValueError: for an argument outside the above, a graph with a cycle.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((784,)), MADE([500, 500])])
        >>> model.output_shape
        (None, 784)

        A cause and its two effects, which are independent given it:

        >>> made = MADE([16], adjacency=[[0, 0, 0], [1, 0, 0], [1, 0, 0]])
        >>> made.build((None, 3))
        >>> made.ranks().tolist()
        [0, 1, 1]

    Reference:
        Germain, Gregor, Murray, Larochelle 2015, "MADE: Masked Autoencoder for
        Distribution Estimation", https://arxiv.org/abs/1502.03509
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        num_params: int | None = None,
        *,
        ordering: str | Sequence[int] = "natural",
        hidden_degrees: str = "even",
        num_masks: int = 1,
        adjacency=None,
        context_adjacency=None,
        direct: bool = True,
        residual: bool = False,
        companion: bool = False,
        activation="relu",
        dropout: float = 0.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        kernel_form: str = "auto",
        direct_params: int | None = None,
        output_scale: float = 0.01,
        seed: int = 0,
        **layer_kwargs,
    ):
        super().__init__(
            hidden_units,
            num_params,
            ordering=ordering,
            hidden_degrees=hidden_degrees,
            num_masks=num_masks,
            adjacency=adjacency,
            context_adjacency=context_adjacency,
            residual=residual,
            seed=seed,
            **layer_kwargs,
        )
        self.direct = direct
        self.companion = companion
        self.activation = keras.activations.get(activation)
        self.dropout = check_rate("dropout", dropout)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_form = check_kernel_form(kernel_form)
        self.direct_params = direct_params
        self.output_scale = output_scale
        self._check_direct()

    def _check_direct(self):
        if not self.hidden_units and not self.direct:
            raise ValueError(
                "Without hidden layers and with `direct=False`, nothing connects the "
                "inputs to the outputs. Pass `hidden_units` or `direct=True`."
            )
        if self.direct_params is None:
            return
        check_positive("direct_params", self.direct_params)
        if not self.hidden_units or self.direct_params > self.params_per_entry:
            raise ValueError(
                "`direct_params` must be at most the parameters of a variable, "
                f"{self.params_per_entry}, and None without hidden layers. Received: "
                f"direct_params={self.direct_params}, hidden_units={self.hidden_units}."
            )

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        self._make_layers()
        for layer in self.masked_layers:
            layer.build((None, layer.source_degrees.shape[1]))
        self.dropouts = [
            keras.layers.Dropout(
                self.dropout, seed=self.seed + index, dtype=self.dtype_policy
            )
            for index in range(len(self.hidden_layers) if self.dropout else 0)
        ]
        self._choose_steps()

    def _choose_steps(self):
        """Which ways to generate there are: for steps of one entry three, else one."""
        self.accumulating = self.incremental = self.windowed = None
        if self.has_graph or self.has_ties:
            self.windowed = Windowed(self) if self.num_masks == 1 else None
            return
        self.accumulating, self.incremental = Accumulating(self), Incremental(self)
        one_order = self.num_masks == 1 and not self.companion
        if one_order and self.hidden_layers and self.num_ranks <= MOST_WINDOWS:
            self.windowed = Windowed(self)

    def _make_layers(self):
        """Layers of these degrees, those of the outputs and features repeated."""
        degrees, size = self.degrees, self.event_size
        features, context = np.split(degrees.inputs, [size], axis=1)
        features = np.repeat(features, self.num_features, axis=1)
        inputs = np.concatenate([features, context], axis=1)
        outputs = np.repeat(degrees.outputs, self.params_per_entry, axis=1)
        shared = {
            "hears": degrees.hears,
            "kernel_regularizer": self.kernel_regularizer,
            "kernel_form": self.kernel_form,
            "dtype": self.dtype_policy,
        }
        self.hidden_layers, sources = [], inputs
        for index, units in enumerate(degrees.hidden):
            layer = MaskedDense(
                sources,
                units,
                activation=self.activation,
                companion=self.companion,
                kernel_initializer=self._initializer(index),
                name=f"hidden_{index}",
                **shared,
            )
            self.hidden_layers.append(layer)
            sources = units
        self.output_layer = self.direct_layer = None
        if self.hidden_layers:
            self.output_layer = MaskedDense(
                sources,
                outputs,
                strict=True,
                kernel_initializer=self._output_initializer(),
                name="output",
                **shared,
            )
        if self.direct:
            each = self.direct_params or self.params_per_entry
            self.direct_layer = MaskedDense(
                inputs,
                np.repeat(degrees.outputs, each, axis=1),
                strict=True,
                use_bias=not self.hidden_layers,
                kernel_initializer="zeros",
                name="direct",
                **shared,
            )

    def _initializer(self, index):
        return another_initializer(self.kernel_initializer, index)

    def _output_initializer(self):
        initializer = self._initializer(len(self.hidden_layers))
        if self.output_scale == 1.0:
            return initializer
        return Shrunk(initializer, self.output_scale)

    @property
    def masked_layers(self) -> list[MaskedDense]:
        layers = [*self.hidden_layers, self.output_layer, self.direct_layer]
        return [layer for layer in layers if layer is not None]

    @property
    def output_bias(self):
        """Of all parameters of all entries, `(D x parameters,)`."""
        return (self.output_layer or self.direct_layer).bias

    def compute_params(self, features, context, structure, training):
        batch = ops.shape(features)[: -1 - len(self.event_shape)]
        width = self.event_size * self.num_features
        inputs = ops.reshape(features, (*batch, width))
        if context is not None:
            inputs = ops.concatenate([inputs, context], axis=-1)
        h = inputs
        for index, layer in enumerate(self.hidden_layers):
            hidden = layer(h, structure=structure)
            if self.dropout:
                hidden = self.dropouts[index](hidden, training=training)
            h = hidden + h if self.is_residual(index) else hidden
        outputs, shape = 0.0, (*batch, *self.event_shape)
        if self.output_layer is not None:
            outputs = self.output_layer(h, structure=structure)
            outputs = ops.reshape(outputs, (*shape, self.params_per_entry))
        if self.direct_layer is not None:
            direct = self.direct_layer(inputs, structure=structure)
            each = self.direct_layer.units // self.event_size
            direct = ops.reshape(direct, (*shape, each))
            outputs = outputs + self.beside_zeros(direct)
        return outputs

    def beside_zeros(self, direct):
        """What goes to the first parameters of each variable, as if it went to all.

        Args:
            direct: `(..., n, direct_params)`.

        Returns:
            `(..., n, params_per_entry)`, zero for the other parameters.
        """
        missing = self.params_per_entry - direct.shape[-1]
        if not missing:
            return direct
        return ops.pad(direct, [(0, 0)] * (len(direct.shape) - 1) + [(0, missing)])

    @property
    def floats_per_event(self) -> int:
        width = self.num_features + self.params_per_entry
        return 4 * (self.event_size * width + sum(self.hidden_units))

    @property
    def floats_per_order(self) -> int:
        # The output kernels' columns of one block, gathered and laid out anew.
        rows = self.event_size * (self.num_features + self.companion)
        rows += sum(self.hidden_units[-1:])
        return 3 * rows * block_length(self.event_size) * self.params_per_entry

    def start(self, batch, context=None, structure=0, order=None):
        """As `Autoregressive.start`; all D steps cost about one pass together."""
        can_be_told = self.orderings_only or self.order_agnostic
        if self._recomputes or (order is not None and not can_be_told):
            return super().start(batch, context, structure, order)
        structure = ops.convert_to_tensor(structure, "int32")
        if order is None and self.windowed is not None:
            return self.windowed.start(batch, context)
        steps = self.accumulating if self._is_small(batch) else self.incremental
        return steps.start(batch, context, structure, order)

    def _is_small(self, batch) -> bool:
        """Whether steps that recompute hidden layers are faster than those of blocks.

        Of a batch whose size is not known when it is compiled they are not.
        """
        units = self.hidden_units
        products = sum(m * n for m, n in itertools.pairwise(units))
        work = self.event_size * (products + WORK_OF_UNIT * sum(units[:1]))
        return isinstance(batch, int) and batch * work <= SMALL_WORK

    @property
    def _recomputes(self) -> bool:
        """Is there no other way to generate than to recompute the network?"""
        return self.windowed is None and self.incremental is None

    def _steps_of(self, state):
        if "x_block" in state:
            return self.incremental
        if "heard" in state:
            return self.windowed
        return super() if self._recomputes else self.accumulating

    @property
    def block_length(self) -> int:
        return self.incremental.length if self.incremental else self.num_ranks

    def open(self, state, x_last, t):
        return self._steps_of(state).open(state, x_last, t)

    def step(self, state, x_last, t):
        return self._steps_of(state).step(state, x_last, t)

    def get_config(self):
        return {
            **super().get_config(),
            "direct": self.direct,
            "companion": self.companion,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_form": self.kernel_form,
            "direct_params": self.direct_params,
            "output_scale": self.output_scale,
        }
