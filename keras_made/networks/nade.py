"""NADE: hidden layers of shared weights, kept up to date entry by entry."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.autoregressive import Autoregressive
from keras_made.checks import check_positive, check_rate
from keras_made.generation import FIRST
from keras_made.layers.initializers import another_initializer
from keras_made.masks import check_ordering, check_seed, connect, make_orderings

# Entries to a block of the full pass: long enough for matrix products, short enough
# that the masked half of the block's triangle costs little.
BLOCK = 16
# Entries up to which a step computes all and keeps one, where rows differ in order.
MOST_ENTRIES = 64
# Added to the seed of a kernel's initializer, so that no two kernels start alike.
KERNEL_SEED, CONTEXT_SEED, OUTPUT_SEED, HIDDEN_SEED = range(4)


@keras.saving.register_keras_serializable(package="keras_made")
class NADE(Autoregressive):
    """A hidden layer for every entry, all of them sharing one matrix.

    The pre-activations of the hidden layers are a running sum, which hears one more
    entry at each step. Likelihood and sampling therefore both cost O(D x units), for
    any ordering:

        a_0 = b + context U,   a_(t+1) = a_t + x_o(t) W_o(t)
        parameters of entry o(t) = activation(a_t) V_o(t) + c_o(t)

    with o(t) the entry that is generated at step t. The weights belong to entries and
    not to steps: one NADE serves every ordering. `ordering="random"` with `num_masks`
    = K trains it on a cycle of K orderings, and the density is then their exact
    mixture, EoNADE. With `MixtureOfNormals` it is RNADE.

    With `num_blocks` it is deep (DeepNADE): residual blocks, the same ones at every
    step and for every entry, between a_t and the parameters,

        a_t <- a_t + dense(activation(dense(activation(a_t))))

    so that what an entry is like given others depends on which they are and on their
    values alone, not on the order that they came in. A step costs O(units^2) then, and
    a full pass D of them: the network for tables and other small events that are asked
    for any part given any other.

    All D steps of a full pass are computed at once, in blocks of 16 entries: what was
    heard before a block is a cumulated sum over blocks, what is heard inside it a
    product with a triangle. It holds `(batch, D, units)` activations; one step holds
    `(batch, units)`.

    Args:
        units: width of the hidden layer.
        num_params: parameters per entry. None: one, without an axis of its own.
        ordering: `"natural"`, `"reversed"`, `"random"`, or D ints: the position, from 0
            to D-1, at which each variable is generated.
        num_masks: number K of orderings, a fixed cycle of which each training step
            uses the next. More than one needs `ordering="random"`.
        activation: of the hidden layers.
        num_blocks: number of residual blocks between the hidden layer and the output.
        dropout: rate, within the blocks and before the output.
        kernel_initializer: of W and U; V starts likewise, and so do the blocks.
        kernel_regularizer: penalty on W, U, V and the kernels of the blocks.
        seed: of random orderings, and of dropout.
        **layer_kwargs: `name`, `dtype`, `trainable` of any Keras layer, and `encoder`
            of `Autoregressive`.

    Call arguments:
        x: `(..., D)`.
        context: `(..., C)`. It is there before the first entry, and so is heard,
            non-linearly, by all.
        structure: which ordering to use; None: the next of the cycle when training,
            structure 0 otherwise.
        training: whether to advance the cycle and apply dropout.

    Output shape:
        `(..., D)`, or `(..., D, num_params)`.

    Raises:
        ValueError: for an argument outside the above.

    Example:
        >>> import numpy as np
        >>> NADE(16)(np.zeros((2, 5), "float32")).shape[-1]
        5

    Reference:
        Larochelle, Murray 2011, "The Neural Autoregressive Distribution Estimator",
        https://proceedings.mlr.press/v15/larochelle11a.html; Uria, Murray, Larochelle
        2014, "A Deep and Tractable Density Estimator", https://arxiv.org/abs/1310.1757;
        Uria, Côté, Gregor, Murray, Larochelle 2016, "Neural Autoregressive Distribution
        Estimation", https://arxiv.org/abs/1605.02226
    """

    orderings_only = True
    hears_sets = True

    def __init__(
        self,
        units: int,
        num_params: int | None = None,
        *,
        ordering: str | Sequence[int] = "natural",
        num_masks: int = 1,
        activation="sigmoid",
        num_blocks: int = 0,
        dropout: float = 0.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        seed: int = 0,
        **layer_kwargs,
    ):
        super().__init__(num_params, num_masks=num_masks, **layer_kwargs)
        check_positive("units", units)
        if num_blocks != 0:
            check_positive("num_blocks", num_blocks)
        self.num_blocks = num_blocks
        self.dropout = check_rate("dropout", dropout)
        self.units = units
        self.ordering = ordering = check_ordering(ordering)
        if num_masks > 1 and ordering != "random":
            raise ValueError(
                f"With ordering={ordering!r}, all {num_masks} structures of the cycle "
                "would be the same. Make it 'random', or leave `num_masks` at 1."
            )
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = check_seed(seed)
        # Two to a block.
        self.hidden = [self._make_dense(i) for i in range(2 * self.num_blocks)]
        self.drop = keras.layers.Dropout(
            self.dropout, seed=self.seed, dtype=self.variable_dtype
        )

    def _make_dense(self, number):
        seed = HIDDEN_SEED + number
        return keras.layers.Dense(
            self.units,
            kernel_initializer=another_initializer(self.kernel_initializer, seed),
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=f"hidden_{number}",
        )

    @property
    def order_agnostic(self) -> bool:
        return self.num_masks > 1

    @property
    def gains_by_xla(self) -> bool:
        """Whether XLA on TensorFlow and a CPU may pay for a large one in training.

        It would draw the dropout of all steps anew for every column that reads them.
        """
        return not self.dropout

    def make_ranks(self):
        shape = (self.num_masks, *self.event_shape)
        size, masks = self.event_size, self.num_masks
        return make_orderings(self.ordering, size, masks, self.seed).reshape(shape)

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        size = self.event_size
        # Named by what they are in the formula: W, U, b, V, c.
        self.kernel = self._add_kernel(
            "kernel", size * self.num_features, self.units, KERNEL_SEED
        )
        self.context_kernel = None
        if self.context_size:
            self.context_kernel = self._add_kernel(
                "context_kernel", self.context_size, self.units, CONTEXT_SEED
            )
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer="zeros"
        )
        self.output_kernel = self._add_kernel(
            "output_kernel", size * self.params_per_entry, self.units, OUTPUT_SEED
        )
        self.output_bias = self.add_weight(
            name="output_bias",
            shape=(size, self.params_per_entry),
            initializer="zeros",
        )
        for layer in self.hidden:
            layer.build((None, self.units))

    def _add_kernel(self, name, rows, units, seed):
        return self.add_weight(
            name=name,
            shape=(rows, units),
            initializer=another_initializer(self.kernel_initializer, seed),
            regularizer=self.kernel_regularizer,
        )

    def _weights_by_entry(self, dtype):
        """W `(D, features, units)`, V `(D, params, units)` and c `(D, params)`."""
        size, units = self.event_size, self.units
        kernel = ops.reshape(ops.cast(self.kernel, dtype), (size, -1, units))
        output = ops.reshape(ops.cast(self.output_kernel, dtype), (size, -1, units))
        return kernel, output, ops.cast(self.output_bias, dtype)

    def _first_sum(self, context, dtype):
        """a_0: `(..., units)`, or `(units,)` without context."""
        a = ops.cast(self.bias, dtype)
        if context is None:
            return a
        kernel = ops.cast(self.context_kernel, dtype)
        return a + ops.matmul(ops.cast(context, dtype), kernel)

    def _hidden_of(self, a, training=False):
        """The last hidden layer, `(..., units)`, from sums of what has been heard."""
        for i in range(0, len(self.hidden), 2):
            h = self.hidden[i](self.activation(a))
            h = self.drop(self.activation(h), training=training)
            a = a + ops.cast(self.hidden[i + 1](h), a.dtype)
        return self.drop(self.activation(a), training=training)

    # All entries at once ------------------------------------------------------------

    def compute_params(self, features, context, structure, training):
        batch = ops.shape(features)[: -1 - len(self.event_shape)]
        size, width = self.event_size, self.num_features
        order = ops.take(self.orders(), structure, axis=0)
        # A running sum of many terms is kept in the precision of the weights.
        dtype = self.variable_dtype
        x = ops.reshape(ops.cast(features, dtype), (-1, size, width))
        x = ops.take(x, order, axis=1)
        kernel, output, bias = [
            ops.take(w, order, axis=0) for w in self._weights_by_entry(dtype)
        ]
        a = self._running_sums(x, kernel)
        start = self._first_sum(context, dtype)
        if context is not None:
            start = ops.reshape(start, (-1, 1, self.units))
        h = self._hidden_of(a + start, training)
        params = ops.einsum("btu,tpu->btp", h, output) + bias
        params = ops.take(params, ops.argsort(order), axis=1)
        params = ops.cast(params, self.compute_dtype)
        return ops.reshape(params, (*batch, *self.event_shape, self.params_per_entry))

    def _running_sums(self, x, kernel):
        """What each step has heard of the entries before it: `(batch, D, units)`."""
        size, width, units = self.event_size, self.num_features, self.units
        length = min(BLOCK, size)
        padding = -size % length
        number = (size + padding) // length
        triangle = connect(np.arange(length), np.arange(length), strict=True).T
        triangle = ops.convert_to_tensor(triangle.astype("float32"), x.dtype)
        if width == 1:
            x = ops.pad(x, [(0, 0), (0, padding), (0, 0)])
            x = ops.reshape(x, (-1, number, 1, length))
            kernel = ops.pad(kernel, [(0, padding), (0, 0), (0, 0)])
            kernel = ops.reshape(kernel, (number, length, units))
            blocks = ops.einsum("bnqi,niu->bnqu", x, kernel)
            inside = ops.einsum("bnqi,niu->bnqu", x * triangle, kernel)
        else:
            # The triangle would have `width` copies of each row: sum features first.
            terms = ops.einsum("btf,tfu->btu", x, kernel)
            terms = ops.pad(terms, [(0, 0), (0, padding), (0, 0)])
            terms = ops.reshape(terms, (-1, number, length, units))
            blocks = ops.sum(terms, axis=2, keepdims=True)
            inside = ops.matmul(triangle, terms)
        # A sum that leaves its own block out; to subtract it would leak by rounding.
        before = ops.cumsum(ops.pad(blocks, [(0, 0), (1, 0), (0, 0), (0, 0)]), axis=1)
        sums = before[:, :-1] + inside
        return ops.reshape(sums, (-1, size + padding, units))[:, :size]

    # One step at a time -------------------------------------------------------------

    @property
    def floats_per_event(self) -> int:
        return (4 + 3 * self.num_blocks) * self.event_size * self.units

    def start(self, batch, context=None, structure=0, order=None, heard=None):
        """As `Autoregressive.start`; a step costs O(units).

        `heard` is `(x, which)`, entries `(batch, event_size)` and bools of that shape:
        what is heard before the first step, and not again at its own.
        """
        if order is None:
            order = ops.take(self.orders(), structure, axis=0)[None]
        a = self._first_sum(context, self.variable_dtype)
        state = {
            "sum": ops.broadcast_to(a, (batch, self.units)),
            "order": ops.cast(order, "int32"),
        }
        if heard is None:
            return state
        x, which = heard
        features = self.encode(ops.reshape(x, (-1, *self.event_shape)))
        features = ops.reshape(features, (-1, self.event_size, self.num_features))
        features = ops.cast(features, self.variable_dtype)
        features = ops.where(which[..., None], features, 0.0)
        features = ops.reshape(features, (batch, -1))
        before = ops.matmul(features, ops.cast(self.kernel, features.dtype))
        return {**state, "sum": state["sum"] + before, "was_heard": which}

    def step(self, state, x_last, t):
        last = self._entry(state, ops.maximum(t - 1, 0))
        x = self.encode_entries(x_last, last)[:, 0]
        is_new = t > 0
        if "was_heard" in state:
            was_heard = ops.take(state["was_heard"], last[0], axis=1)
            is_new = ops.logical_and(is_new, ops.logical_not(was_heard))
        a = state["sum"] + ops.where(is_new, self._heard(x, last[:, 0]), 0.0)
        now = self._entry(state, t)[:, 0]
        params = self._params_of(self._hidden_of(a), now)
        return params[:, None, :], {**state, "sum": a}

    # Rows of one order share a product. Those with an order each hear and give other
    # entries: where there are few of them, a product with the weights of all is less
    # than fetching some for every row.

    @property
    def _is_small(self) -> bool:
        return self.event_size <= MOST_ENTRIES

    def _heard(self, x, entries):
        """What features `(batch, features)` of entries `(1 or batch,)` add to a sum."""
        kernel, _, _ = self._weights_by_entry(self.variable_dtype)
        x = ops.cast(x, kernel.dtype)
        if entries.shape[0] == 1:
            return ops.matmul(x, ops.take(kernel, entries[0], axis=0))
        if self._is_small:
            which = ops.one_hot(entries, self.event_size, dtype=kernel.dtype)
            spread = which[:, :, None] * x[:, None, :]
            spread = ops.reshape(spread, (-1, self.event_size * self.num_features))
            return ops.matmul(spread, ops.reshape(kernel, (-1, self.units)))
        return ops.sum(x[:, :, None] * ops.take(kernel, entries, axis=0), axis=1)

    def _params_of(self, h, entries):
        """Parameters `(batch, params)` of entries `(1 or batch,)`."""
        _, output, bias = self._weights_by_entry(self.variable_dtype)
        h = ops.cast(h, output.dtype)
        bias = ops.take(bias, entries, axis=0)
        if entries.shape[0] == 1:
            own = ops.take(output, entries[0], axis=0)
            return ops.matmul(h, ops.transpose(own)) + bias
        if self._is_small:
            every = ops.matmul(h, ops.transpose(ops.reshape(output, (-1, self.units))))
            every = ops.reshape(every, (-1, self.event_size, self.params_per_entry))
            own = ops.take_along_axis(every, entries[:, None, None], axis=1)
            return own[:, 0] + bias
        return ops.sum(h[:, None, :] * ops.take(output, entries, axis=0), -1) + bias

    def _entry(self, state, t):
        """The entry of rank t in the order of each example: ints `(1 or batch, 1)`."""
        order = state["order"]
        return ops.slice(order, (FIRST, t), (ops.shape(order)[0], 1))

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "ordering": self.ordering,
            "activation": keras.activations.serialize(self.activation),
            "num_blocks": self.num_blocks,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }
