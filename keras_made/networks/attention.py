"""Attention: a causal transformer over entries, in any order."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.autoregressive import Autoregressive
from keras_made.checks import check_positive, check_rate
from keras_made.generation import FIRST
from keras_made.layers import Shrunk
from keras_made.masks import check_ordering, check_seed, make_orderings

# Queries to a block of the full pass, which hear no keys after it: half of the products
# are never made, and one block's weights are held at a time.
BLOCK = 128
# Its exponential is zero whatever the others are, and it is finite in half precision.
UNHEARD = -1e9
# Output kernels start near zero, and with them the parameters near their biases.
OUTPUT_SCALE = 0.01


@keras.saving.register_keras_serializable(package="keras_made")
class Attention(Autoregressive):
    """A transformer whose tokens are entries, each told which entry comes next.

    Token t, in order of generation, is the entry generated last, where it stands, and
    the place of the one to be generated now; it attends to itself and to the tokens
    before it:

        h_t = g_o(t-1) * (x_o(t-1) W + b) + p_o(t-1) + n_o(t) + context U
        h_t = h_t + attention(norm(h_0), ..., norm(h_t)),   h_t = h_t + mlp(norm(h_t))
        parameters of entry o(t) = norm(h_t) V + c_o(t)

    with o(t) the entry that is generated at step t, the second line `num_layers` times,
    and a learned start in place of an entry at t = 0. All weights belong to entries
    and none to steps: one network serves every order. `ordering="random"` with
    `num_masks` = K trains it on a cycle of K orders; with many, it knows any.

    To generate, every layer keeps the keys and values of the tokens so far, and a step
    computes one token: D steps cost a few passes, where recomputing costs D. A pass
    takes O(D^2 width + D width^2) a layer, and holds D^2 `num_heads` weights a layer
    to be trained: of few variables and little time, a `MADE` makes more.

    Args:
        event_shape: shape of one x, whose entries are the tokens, in C order.
        width: numbers of a token.
        num_layers: number of blocks of attention and of a dense net.
        num_heads: number of heads; it divides `width`.
        num_params: parameters per entry. None: one, without an axis of its own.
        ordering: `"natural"`, `"reversed"`, `"random"`, or D ints: the position, from 0
            to D-1, at which each entry is generated.
        num_masks: number K of orders, a fixed cycle of which each training step uses
            the next. More than one needs `ordering="random"`.
        mlp_units: width of the hidden layer of a block's dense net. None: 4 `width`.
        activation: of that layer.
        dropout: rate, of what each half of a block adds.
        seed: of random orders, and of dropout.
        **layer_kwargs: `name`, `dtype`, `trainable` of any Keras layer, and `encoder`
            of `Autoregressive`.

    Call arguments:
        x: `(..., *event_shape)`, any number of leading batch axes.
        context: `(..., C)`, added to every token: heard, non-linearly, by all entries.
        structure: which order to use; None: the next of the cycle when training,
            structure 0 otherwise.
        training: whether to advance the cycle and apply dropout.

    Output shape:
        `(..., *event_shape)`, or `(..., *event_shape, num_params)`.

    Raises:
        ValueError: for an argument outside the above.

    Example:
        >>> import numpy as np
        >>> network = Attention((8, 8), 16, 2, ordering="random", num_masks=1000)
        >>> network(np.zeros((2, 8, 8), "float32")).shape[1:] == (8, 8)
        True

    Reference:
        Vaswani et al. 2017, "Attention Is All You Need",
        https://arxiv.org/abs/1706.03762; norms before, Xiong et al. 2020, "On Layer
        Normalization in the Transformer Architecture",
        https://arxiv.org/abs/2002.04745; of root mean squares, Zhang, Sennrich 2019,
        https://arxiv.org/abs/1910.07467; tokens told what comes next, Yang et al. 2019,
        "XLNet", https://arxiv.org/abs/1906.08237
    """

    orderings_only = True

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 64,
        num_layers: int = 4,
        num_heads: int = 4,
        num_params: int | None = None,
        *,
        ordering: str | Sequence[int] = "natural",
        num_masks: int = 1,
        mlp_units: int | None = None,
        activation="silu",
        dropout: float = 0.0,
        seed: int = 0,
        **layer_kwargs,
    ):
        shape = _check_shape(event_shape)
        super().__init__(
            num_params, event_shape=shape, num_masks=num_masks, **layer_kwargs
        )
        check_positive("width", width)
        check_positive("num_layers", num_layers)
        check_positive("num_heads", num_heads)
        if width % num_heads:
            raise ValueError(
                "`num_heads` must divide `width`, which the heads share. "
                f"Received: width={width}, num_heads={num_heads}."
            )
        if mlp_units is not None:
            check_positive("mlp_units", mlp_units)
        check_rate("dropout", dropout)
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.ordering = check_ordering(ordering)
        self.mlp_units = mlp_units
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.seed = check_seed(seed)
        if num_masks > 1 and self.ordering != "random":
            raise ValueError(
                f"With ordering={ordering!r}, all {num_masks} structures of the cycle "
                "would be the same. Make it 'random', or leave `num_masks` at 1."
            )
        # An ordering of another size is refused here rather than by the first call.
        self._require_orderings()

    def _require_orderings(self):
        make_orderings(self.ordering, self.event_size)

    @property
    def order_agnostic(self) -> bool:
        return self.num_masks > 1

    def make_ranks(self):
        shape = (self.num_masks, *self.event_shape)
        size, masks = self.event_size, self.num_masks
        return make_orderings(self.ordering, size, masks, self.seed).reshape(shape)

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        size, width, policy = self.event_size, self.width, self.dtype_policy
        # Named by what they are in the formula: W and b, g, p, n, the start, U, V, c.
        self.entry_layer = keras.layers.Dense(width, dtype=policy, name="entry")
        self.entry_layer.build((None, self.num_features))
        self.gain = self._add_table("gain", (size, width), "ones")
        self.place = self._add_table("place", (size, width))
        self.next_place = self._add_table("next_place", (size, width))
        self.first_token = self._add_table("first_token", (width,))
        self.context_layer = None
        if self.context_size:
            self.context_layer = keras.layers.Dense(
                width, use_bias=False, dtype=policy, name="context"
            )
            self.context_layer.build((None, self.context_size))
        self.blocks = [self._make_block(index) for index in range(self.num_layers)]
        self.norm = keras.layers.RMSNormalization(dtype=policy, name="norm")
        self.norm.build((None, width))
        self.output_layer = keras.layers.Dense(
            self.params_per_entry,
            use_bias=False,
            kernel_initializer=Shrunk("glorot_uniform", OUTPUT_SCALE),
            dtype=policy,
            name="output",
        )
        self.output_layer.build((None, width))
        shape = (size, self.params_per_entry)
        self.output_bias = self._add_table("output_bias", shape, "zeros")

    def _add_table(self, name, shape, initializer=None):
        """Numbers of each place; a token's parts start about as long as each other."""
        start = initializer or keras.initializers.RandomNormal(stddev=self.width**-0.5)
        return self.add_weight(name=name, shape=shape, initializer=start)

    def _make_block(self, index):
        block = AttentionBlock(
            self.width,
            self.num_heads,
            self.mlp_units or 4 * self.width,
            activation=self.activation,
            dropout=self.dropout,
            seed=self.seed + 2 * index,
            dtype=self.dtype_policy,
            name=f"block_{index}",
        )
        block.build()
        return block

    def _at(self, table, entries):
        """Rows of a table, in the compute dtype."""
        return ops.take(ops.cast(table, self.compute_dtype), entries, axis=0)

    # All entries at once ------------------------------------------------------------

    def compute_params(self, features, context, structure, training):
        batch = ops.shape(features)[: -1 - len(self.event_shape)]
        size = self.event_size
        order = ops.take(self.orders(), structure, axis=0)
        x = ops.reshape(features, (-1, size, self.num_features))
        # The last entry is heard by no other.
        h = self._tokens(ops.take(x, order[:-1], axis=1), order[:-1])
        first = ops.cast(self.first_token, self.compute_dtype)
        first = ops.broadcast_to(first, (ops.shape(h)[0], 1, self.width))
        h = ops.concatenate([first, h], axis=1) + self._at(self.next_place, order)
        if context is not None:
            context = ops.reshape(context, (-1, 1, self.context_size))
            h = h + self.context_layer(context)
        for block in self.blocks:
            h = block(h, training=training)
        params = self.output_layer(self.norm(h)) + self._at(self.output_bias, order)
        params = ops.take(params, ops.argsort(order), axis=1)
        return ops.reshape(params, (*batch, *self.event_shape, self.params_per_entry))

    def _tokens(self, features, entries):
        """What is heard of entries `(..., n)` and where they stand: `(..., width)`."""
        heard = self.entry_layer(features) * self._at(self.gain, entries)
        return heard + self._at(self.place, entries)

    # One step at a time -------------------------------------------------------------

    def start(self, batch, context=None, structure=0, order=None):
        """As `Autoregressive.start`; all D steps cost a few passes together."""
        if order is None:
            order = ops.take(self.orders(), structure, axis=0)[None]
        state = {"order": ops.cast(order, "int32")}
        for index, block in enumerate(self.blocks):
            state[f"keys_{index}"] = block.no_keys(batch, self.event_size)
            state[f"values_{index}"] = block.no_values(batch, self.event_size)
        if context is None:
            return state
        context = ops.cast(context, self.compute_dtype)
        return state | {"context": self.context_layer(context)}

    def step(self, state, x_last, t):
        last = self._entry(state, ops.maximum(t - 1, 0))
        features = self.encode_entries(x_last, last[:, None])[:, 0]
        h = self._tokens(ops.cast(features, self.compute_dtype), last)
        first = ops.cast(self.first_token, self.compute_dtype)
        now, new = self._entry(state, t), {}
        h = ops.where(ops.equal(t, 0), first, h) + self._at(self.next_place, now)
        if "context" in state:
            h = h + state["context"]
        for index, block in enumerate(self.blocks):
            names = f"keys_{index}", f"values_{index}"
            h, *kept = block.step(h, *(state[name] for name in names), t)
            new |= zip(names, kept, strict=True)
        params = self.output_layer(self.norm(h)) + self._at(self.output_bias, now)
        return params[:, None, :], {**state, **new}

    def _entry(self, state, t):
        """The entry of rank t in the order of each example: ints `(1 or batch,)`."""
        return ops.take(state["order"], t, axis=1)

    @property
    def floats_per_event(self) -> int:
        # Weights of one block of queries; tokens and keys, values of all layers.
        weights = self.num_heads * min(BLOCK, self.event_size)
        return self.event_size * (weights + (8 + 2 * self.num_layers) * self.width)

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "ordering": self.ordering,
            "mlp_units": self.mlp_units,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "seed": self.seed,
        }


class AttentionBlock(keras.layers.Layer):
    """Causal attention and a dense net, each normed before and added to the stream.

    Args:
        width: numbers of a token.
        num_heads: number of heads, which share them.
        mlp_units: width of the dense net's hidden layer.
        activation: of that layer.
        dropout: rate, of what each half adds.
        seed: of dropout.
    """

    def __init__(
        self, width, num_heads, mlp_units, activation, dropout, seed, **kwargs
    ):
        super().__init__(**kwargs)
        self.width = width
        self.num_heads = num_heads
        policy = self.dtype_policy
        # Not of means: on TensorFlow Keras lets no derivative through them, and the
        # second derivatives of a density would be wrong.
        self.norms = [keras.layers.RMSNormalization(dtype=policy) for _ in range(2)]
        # Queries, keys and values, one product.
        self.attend_layer = keras.layers.Dense(3 * width, dtype=policy, name="attend")
        self.join_layer = keras.layers.Dense(width, dtype=policy, name="join")
        self.mlp = [
            keras.layers.Dense(mlp_units, activation, dtype=policy, name="mlp"),
            keras.layers.Dense(width, dtype=policy, name="mlp_out"),
        ]
        self.dropouts = [
            keras.layers.Dropout(dropout, seed=seed + half, dtype=policy)
            for half in range(2 if dropout else 0)
        ]

    def build(self):
        shape = (None, self.width)
        for layer in (*self.norms, self.attend_layer, self.join_layer, self.mlp[0]):
            layer.build(shape)
        self.mlp[1].build((None, self.mlp[0].units))
        self.built = True

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    def call(self, h, training=False):
        """Tokens `(batch, D, width)`, each having heard those up to itself."""
        length = h.shape[1]
        parts = self._split(h, (-1, length, self.num_heads, self.head_width))
        q, k, v = (ops.transpose(part, (0, 2, 1, 3)) for part in parts)
        heard = [
            self._hear(
                q[:, :, start : start + BLOCK],
                ops.transpose(k[:, :, : start + BLOCK], (0, 1, 3, 2)),
                v[:, :, : start + BLOCK],
                causal_mask(start, min(start + BLOCK, length)),
            )
            for start in range(0, length, BLOCK)
        ]
        heard = ops.transpose(ops.concatenate(heard, axis=2), (0, 2, 1, 3))
        return self._finish(h, ops.reshape(heard, (-1, length, self.width)), training)

    def _split(self, h, shape):
        """Queries, keys and values of tokens; queries in the units of their scores."""
        parts = ops.split(self.attend_layer(self.norms[0](h)), 3, axis=-1)
        q, k, v = (ops.reshape(part, shape) for part in parts)
        return q * self.head_width**-0.5, k, v

    def _hear(self, q, k, v, mask):
        """Values `(..., keys, n)` weighted for queries `(..., queries, n)`.

        Args:
            q: queries.
            k: keys, `(..., n, keys)`.
            v: values.
            mask: bools `(queries, keys)`; what is not heard has weight zero, exactly.
        """
        if v.shape[-2] == 1:
            # All there is to hear; Keras warns of a softmax over it.
            return ops.broadcast_to(v, ops.shape(q))
        # Half precision is for products: a softmax sums many small numbers.
        scores = ops.cast(ops.matmul(q, k), self.variable_dtype)
        unheard = ops.convert_to_tensor(UNHEARD, self.variable_dtype)
        weights = ops.softmax(ops.where(mask, scores, unheard), axis=-1)
        return ops.matmul(ops.cast(weights, v.dtype), v)

    def _finish(self, h, heard, training=False):
        h = h + self._drop(0, self.join_layer(heard), training)
        hidden = self.mlp[0](self.norms[1](h))
        return h + self._drop(1, self.mlp[1](hidden), training)

    def _drop(self, half, x, training):
        return self.dropouts[half](x, training=training) if self.dropouts else x

    # One token at a time; keys and values as products want them.

    def no_keys(self, batch, length):
        shape = (batch, self.num_heads, self.head_width, length)
        return ops.zeros(shape, self.compute_dtype)

    def no_values(self, batch, length):
        shape = (batch, self.num_heads, length, self.head_width)
        return ops.zeros(shape, self.compute_dtype)

    def step(self, h, keys, values, t):
        """Token t, `(batch, width)`, and the keys and values with its own."""
        q, k, v = self._split(h, (-1, self.num_heads, 1, self.head_width))
        k = ops.transpose(k, (0, 1, 3, 2))
        keys = ops.slice_update(keys, (FIRST, FIRST, FIRST, t), k)
        values = ops.slice_update(values, (FIRST, FIRST, t, FIRST), v)
        mask = (ops.arange(keys.shape[-1], dtype="int32") <= t)[None]
        heard = ops.reshape(self._hear(q, keys, values, mask), (-1, self.width))
        return self._finish(h, heard), keys, values


def causal_mask(start, end) -> np.ndarray:
    """Which keys, 0 to end-1, queries start to end-1 hear: bools (queries, keys)."""
    return np.arange(end) <= np.arange(start, end)[:, None]


def _check_shape(event_shape):
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    if not shape:
        raise ValueError(
            "`event_shape` must have at least one axis. Received: event_shape=()."
        )
    for size in shape:
        check_positive("event_shape", size)
    return shape
