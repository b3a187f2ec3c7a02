"""The contract: a layer that maps an event to the parameters of its conditionals.

Everything else in the package (likelihood, sampling, imputation, flows, export) is
written once, against `Autoregressive`, and works for every network that keeps it.
"""

import math

import keras
import numpy as np
from keras import ops


class Autoregressive(keras.layers.Layer):
    """Base of the networks that give p(x_i | the entries generated before x_i).

    A network maps an event x to the parameters of every entry at once; those of entry
    i depend only on entries of smaller rank (and on the context). To add one, write
    `compute_params`, and `ranks` when the order is not that of the entries. Everything
    that samples works from there, recomputing the network at every step; override
    `start` and `step` to reuse what is already computed.

    Args:
        num_params: parameters per entry. None: one, without an axis of its own.
        event_shape: shape of one x. None: its last axis, read from the first input.
        num_masks: number K of structures in the cycle, one per training step.
        encoder: object with `num_features` and `encode(x)` that turns each entry of x
            into features, `(..., *event_shape)` to `(..., *event_shape, num_features)`,
            such as a `Categorical` conditional. None: the number itself is the feature.
            `AutoregressiveDensity` sets the one that its conditional wants.

    Call arguments:
        x: `(..., *event_shape)`, any number of leading batch axes.
        context: `(..., C)`, known before the first entry. Needed at every call when it
            was there at the first.
        row: structure to use, from 0 to K-1. None: the next of the cycle when training,
            row 0 otherwise.
        training: whether to advance the cycle and apply dropout.

    Output shape:
        `(..., *event_shape, num_params)`, or `(..., *event_shape)` for None.

    Raises:
        ValueError: for a wrong shape, a missing or undeclared context, a row that is
            not there.
    """

    # The density asks these two: do the structures of the cycle differ in nothing but
    # their ordering, and was the network trained on random orderings? If either holds,
    # `start` takes an `order` for each example.
    orderings_only = False
    order_agnostic = False

    def __init__(
        self,
        num_params: int | None = None,
        *,
        event_shape: tuple[int, ...] | None = None,
        num_masks: int = 1,
        encoder=None,
        **kwargs,
    ):
        # Entries are cast by `encode`, once they are features: half precision would
        # round the integers above 256 that stand for classes and levels.
        super().__init__(autocast=False, **kwargs)
        if num_params is not None:
            check_positive("num_params", num_params)
        check_positive("num_masks", num_masks)
        self.num_params = num_params
        self.num_masks = num_masks
        if isinstance(encoder, dict):
            encoder = keras.saving.deserialize_keras_object(encoder)
        self.encoder = encoder
        self.event_shape = event_shape and tuple(event_shape)
        self.context_size = 0

    def build(self, x_shape, context_shape=None):
        if self.event_shape is None:
            if not x_shape or x_shape[-1] is None:
                raise ValueError(
                    "The last axis of the input must have a known width, the number of "
                    f"variables. Received: input of shape {tuple(x_shape)}."
                )
            self.event_shape = (int(x_shape[-1]),)
        self._check_event(x_shape)
        self.context_size = int(context_shape[-1]) if context_shape else 0
        if self.num_masks > 1:
            # One position for all replicas: the cycle advances once per global step.
            self.position = self.add_weight(
                name="position",
                shape=(),
                dtype="int32",
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )

    @property
    def event_size(self) -> int:
        """Number of entries of one event."""
        return math.prod(self._require_event_shape())

    @property
    def value_dtype(self) -> str:
        """Of entries step by step: float64 under a float64 policy, else float32."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    @property
    def params_per_entry(self) -> int:
        return self.num_params or 1

    @property
    def num_features(self) -> int:
        """Features in which one entry reaches the network."""
        return self.encoder.num_features if self.encoder else 1

    def ranks(self, row: int = 0) -> np.ndarray:
        """The step at which each entry is generated, ints of `event_shape`."""
        self._check_row(row)
        return np.arange(self.event_size).reshape(self.event_shape)

    def compute_params(self, features, context, row, training):
        """The parameters of every entry: what a new network writes.

        Args:
            features: floats `(..., *event_shape, num_features)`.
            context: floats `(..., C)` with the same leading axes, or None.
            row: integer scalar, a number or a tensor.
            training: bool.

        Returns:
            Floats `(..., *event_shape, num_params)`.
        """
        raise NotImplementedError

    def call(self, x, context=None, row=None, training=False):
        self._check_event(x.shape)
        row = self._resolve_row(row, training)
        context = self._check_context(context, x)
        params = self.compute_params(self.encode(x), context, row, training)
        # What is made of layers of another precision still keeps to its own.
        params = ops.cast(params, self.compute_dtype)
        return params if self.num_params else params[..., 0]

    def compute_output_shape(self, x_shape, context_shape=None):
        return (*x_shape, self.num_params) if self.num_params else tuple(x_shape)

    def encode(self, x):
        """Entries `(...)` to features `(..., num_features)`, in the compute dtype."""
        features = self.encoder.encode(x) if self.encoder else x[..., None]
        return ops.cast(features, self.compute_dtype)

    def encode_entries(self, x, entries):
        """Features of single entries, in the dtype of the weights.

        Args:
            x: `(batch, n)`.
            entries: which entries of the event these are, ints `(1 or batch, n)`.

        Returns:
            Floats `(batch, n, num_features)`.
        """
        features = self.encoder.at(entries).encode(x) if self.encoder else x[..., None]
        return ops.cast(features, self.variable_dtype)

    @property
    def floats_per_event(self) -> int:
        """About how many floats one event takes while its parameters are computed."""
        return 16 * self.event_size

    @property
    def floats_per_order(self) -> int:
        """About how many floats more it takes when it is drawn in its own `order`."""
        return 0

    # One step at a time -------------------------------------------------------------

    @property
    def num_steps(self) -> int:
        """Number of steps in which an event is generated."""
        return int(self.ranks().max()) + 1

    @property
    def step_size(self) -> int:
        """Number of entries generated together: the same at every step."""
        counts = np.bincount(self.ranks().ravel())
        if len(set(counts.tolist())) != 1:
            raise ValueError(
                "Every rank must hold the same number of entries to be generated step "
                f"by step. Received: counts={counts.tolist()}. Give entries of their "
                "own rank, or as many to each."
            )
        return int(counts[0])

    def orders(self) -> np.ndarray:
        """Entries in order of generation, for all structures: ints (K, event_size)."""
        rows = range(self.num_masks)
        return np.stack(
            [np.argsort(self.ranks(row).ravel(), kind="stable") for row in rows]
        ).astype("int32")

    def start(self, batch, context=None, row=0, order=None):
        """The state before the first step.

        Args:
            batch: number of examples.
            context: `(batch, C)` or None.
            row: structure to use: an integer scalar.
            order: entries in the order in which each example wants them, ints
                `(batch, event_size)` or `(1, event_size)`, for networks that are
                `orderings_only` or `order_agnostic`. None: that of `row`.

        Returns:
            A dict of tensors.
        """
        if order is not None:
            raise ValueError(
                f"{type(self).__name__} generates in the orderings that it was made "
                "with. Pass `row` instead of `order`."
            )
        state = {
            "x": ops.zeros((batch, self.event_size), self.value_dtype),
            "row": ops.convert_to_tensor(row, "int32"),
        }
        return state if context is None else {**state, "context": context}

    def step(self, state, x_last, t):
        """The parameters of the entries of rank t.

        The default recomputes the whole network: `num_steps` passes for an event.

        Args:
            state: what `start` or the last `step` returned.
            x_last: entries of rank t-1, `(batch, step_size)`; not looked at for t = 0.
            t: integer scalar, a number or a tensor.

        Returns:
            `(params, state)`, params being `(batch, step_size, num_params)`.
        """
        size, width = self.event_size, self.step_size
        order = ops.take(self.orders(), state["row"], axis=0)
        place = ops.argsort(order)
        is_last = ops.equal(place // width, t - 1)
        x = ops.where(is_last, ops.take(x_last, place % width, axis=1), state["x"])
        params = self(
            ops.reshape(x, (-1, *self.event_shape)),
            state.get("context"),
            row=state["row"],
        )
        params = ops.reshape(params, (-1, size, self.params_per_entry))
        now = ops.slice(order, (t * width,), (width,))
        return ops.take(params, now, axis=1), {**state, "x": x}

    # Generation runs in blocks of steps. A network whose steps share work opens each
    # block once and advances cheaply inside it; for others there is one block.

    @property
    def block_length(self) -> int:
        """Number of steps between two calls of `open`."""
        return self.num_steps

    def open(self, state, x_last, t):
        """The state at the beginning of the block whose first step is t."""
        return state

    def advance(self, state, x_last, t):
        """As `step`, inside a block that is open."""
        return self.step(state, x_last, t)

    # Checks ---------------------------------------------------------------------------

    def _require_event_shape(self):
        if self.event_shape is None:
            raise ValueError(
                f"{type(self).__name__} does not know its number of variables yet. "
                "Call it on data, or `build((None, D))`, first."
            )
        return self.event_shape

    def _check_event(self, shape):
        expected = self.event_shape
        if tuple(shape[len(shape) - len(expected) :]) != tuple(expected):
            raise ValueError(
                f"{type(self).__name__} was made for events of shape {expected}. "
                f"Received: input of shape {tuple(shape)}."
            )

    def _check_context(self, context, x):
        if context is None:
            if self.context_size:
                raise ValueError(
                    f"{type(self).__name__} was built with a context of size "
                    f"{self.context_size}. Pass `context` of shape "
                    f"(..., {self.context_size})."
                )
            return None
        if context.shape[-1] != self.context_size:
            raise ValueError(
                f"`context` must have size {self.context_size}, as when the network "
                f"was built. Received: context of shape {tuple(context.shape)}. "
                "A network first called without context has none."
            )
        context = ops.cast(context, self.compute_dtype)
        batch_rank = len(x.shape) - len(self.event_shape)
        if len(context.shape) == batch_rank + 1:
            return context
        shape = (*ops.shape(x)[:batch_rank], self.context_size)
        return ops.broadcast_to(context, shape)

    def _check_row(self, row):
        if isinstance(row, int | np.integer) and not 0 <= row < self.num_masks:
            raise ValueError(
                f"`row` must be from 0 to {self.num_masks - 1}, one of the "
                f"{self.num_masks} structures (`num_masks`). Received: row={row}."
            )

    def _resolve_row(self, row, training):
        self._check_row(row)
        if row is not None:
            return row
        if self.num_masks == 1 or not training:
            return 0
        row = ops.mod(ops.convert_to_tensor(self.position), self.num_masks)
        self.position.assign(ops.mod(row + 1, self.num_masks))
        return row

    def get_config(self):
        config = {
            **super().get_config(),
            "num_params": self.num_params,
            "num_masks": self.num_masks,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
        }
        config.pop("autocast", None)
        return config


def generate(network, draw, batch, context=None, row=0, order=None, dtype="float32"):
    """The one generation loop: sampling, imputation and inversion are its uses.

    Args:
        network: an `Autoregressive` layer that is built.
        draw: function of `(params, t)`, with params `(batch, step_size, num_params)`,
            that returns the entries of step t, `(batch, step_size)`, and what to add to
            each example's total, `(batch,)`.
        batch: number of examples.
        context: `(batch, C)` or None.
        row: structure to use, an integer scalar.
        order: ints `(batch, event_size)`, or None for that of `row`.
        dtype: of the parameters that `draw` is given and of what it returns.

    Returns:
        `(values, total)`: floats `(num_steps, batch, step_size)` in order of
        generation, and floats `(batch,)`.
    """
    num_steps, width = network.num_steps, network.step_size

    def advance(t, x_last, values, total, state):
        params, state = network.advance(state, x_last, t)
        x_last, increment = draw(ops.cast(params, dtype), t)
        values = ops.slice_update(values, (t, 0, 0), x_last[None])
        return t + 1, x_last, values, total + increment, state

    def run_block(t, x_last, values, total, state):
        state = network.open(state, x_last, t)
        end = ops.minimum(t + network.block_length, num_steps)
        loop = (t, x_last, values, total, state)
        return ops.while_loop(lambda t, *_: t < end, advance, loop)

    loop = (
        ops.convert_to_tensor(0, "int32"),
        ops.zeros((batch, width), dtype),
        ops.zeros((num_steps, batch, width), dtype),
        ops.zeros((batch,), dtype),
        network.start(batch, context, row, order),
    )
    loop = ops.while_loop(lambda t, *_: t < num_steps, run_block, loop)
    return loop[2], loop[3]


def check_event_shape(event_shape, *axes):
    """The event shape as a tuple, or a ValueError; `axes` names what it may hold."""
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    for size in shape:
        check_positive("event_shape", size)
    if len(shape) not in [len(names.split(", ")) for names in axes]:
        expected = " or ".join(f"({names})" for names in axes)
        raise ValueError(
            f"`event_shape` must be {expected}. Received: event_shape={event_shape}."
        )
    return shape


def check_positive(name, value):
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be an int of at least 1. Received: {value!r}.")
