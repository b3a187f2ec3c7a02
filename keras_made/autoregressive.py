"""The contract: a layer that maps an event to the parameters of its conditionals.

Everything else in the package (likelihood, sampling, imputation, flows, export) is
written once, against `Autoregressive`, and works for every network that keeps it.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_made import quantized
from keras_made.broadcasting import broadcast_axes, broadcast_batches
from keras_made.checks import check_positive, warn
from keras_made.entries.encoder import describe_form, is_same_form
from keras_made.generation import Steps, make_steps


class Autoregressive(keras.layers.Layer):
    """Base of the networks that give p(x_i | the entries generated before x_i).

    A network maps an event x to the parameters of every entry at once; those of entry
    i depend only on entries of smaller rank (and on the context). To add one, write
    `compute_params`, and `make_ranks` when the order is not that of the entries.
    Everything that samples works from there, recomputing the network at every step;
    override `start`, `open` and `step` to reuse what is already computed.

    Args:
        num_params: parameters per entry. None: one, without an axis of its own.
        event_shape: shape of one x. None: its last axis, read from the first input,
            with a warning when that has more axes than the batch and one. `(28,)`
            for sequences of rows, each an event, keeps it silent.
        num_masks: number K of structures in the cycle, one per training step.
        encoder: object with `num_features` and `encode(x)` that turns each entry of x
            into features, `(..., *event_shape)` to `(..., *event_shape, num_features)`,
            such as a `Categorical` conditional. None: the first owner decides, such as
            an `AutoregressiveDensity` whose conditional wants one; else the number
            itself is the feature. See `hear_through`.

    Call arguments:
        x: `(..., *event_shape)`, any number of leading batch axes. An axis of unknown
            width is taken to be as wide as the network's events.
        context: `(..., C)`, known before the first entry. Needed at every call when it
            was there at the first. Its leading axes and those of x are broadcast.
        structure: which of the K to use, from 0 to K-1. None: the next of the cycle
            when training, structure 0 otherwise.
        training: whether to advance the cycle and apply dropout.

    Output shape:
        `(..., *event_shape, num_params)`, or `(..., *event_shape)` for None; the
        leading axes are those of x and context, broadcast.

    Raises:
        ValueError: for a wrong shape, a missing or undeclared context, a structure that
            is not there, an owner that wants entries heard in another form than they
            are.
    """

    # The density asks these: do the structures of the cycle differ in nothing but
    # their ordering, and was the network trained on random orderings? If either holds,
    # `start` takes an `order` for each example. Is what an entry is like a function of
    # which others have been heard, and not of their order? Then it takes `heard`.
    orderings_only = False
    order_agnostic = False
    hears_sets = False

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
        # A form that the caller chose holds for every owner.
        self._form_is_given = self._form_is_fixed = encoder is not None
        self._given_event_shape = event_shape and tuple(event_shape)
        self.event_shape = self._given_event_shape
        self.context_size = 0
        self._all_ranks = None
        self._is_loading = False

    def build(self, x_shape, context_shape=None):
        if self.event_shape is None:
            if not x_shape or x_shape[-1] is None:
                raise ValueError(
                    "The last axis of the input must have a known width, the number of "
                    f"variables. Received: input of shape {tuple(x_shape)}."
                )
            self.event_shape = (int(x_shape[-1]),)
            # An event cannot be of unknown length: those are sequences.
            known = len(x_shape) > 2 and None not in x_shape[1:]
            if known and not self._is_loading:
                self._warn_of_axes(tuple(x_shape))
        self._check_event(x_shape)
        if context_shape and context_shape[-1] is None:
            raise ValueError(
                "The last axis of `context` must have a known width. Received: context "
                f"of shape {tuple(context_shape)}."
            )
        self.context_size = int(context_shape[-1]) if context_shape else 0
        if not self._form_is_fixed:
            self.hear_through(self.encoder)
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

    def hear_through(self, encoder) -> None:
        """Fix the form in which entries reach the network, as its owners do.

        A network hears entries in one form only. The first owner that asks (a density,
        an average, a flow) fixes it, and so does building, to plain numbers. An encoder
        that was passed to the constructor stays, whatever an owner would like.

        Args:
            encoder: as for the constructor; None: plain numbers.

        Raises:
            ValueError: if the network hears entries in another form already.
        """
        self._check_form(encoder)
        if not self._form_is_fixed:
            self.encoder, self._form_is_fixed = encoder, True

    def _check_form(self, encoder):
        if not self._form_is_fixed or self._form_is_given:
            return
        if not is_same_form(self.encoder, encoder):
            raise ValueError(
                f"A network hears entries in one form, and this {type(self).__name__} "
                f"hears {describe_form(self.encoder)}, as its first owner or the call "
                f"that built it had it. Received: an owner that wants it to hear "
                f"{describe_form(encoder)}. Give each a network of its own, make the "
                "density before the network is called, or make the network with "
                "encoder=<what all its owners are to use>."
            )

    def make_ranks(self) -> np.ndarray:
        """When each entry is generated, in every structure: ints (K, *event_shape)."""
        return np.arange(self.event_size).reshape(1, *self.event_shape)

    @property
    def all_ranks(self) -> np.ndarray:
        """What `make_ranks` gave, made once."""
        if self._all_ranks is None:
            self._require_event_shape()
            self._all_ranks = self.make_ranks()
        return self._all_ranks

    def ranks(self, structure: int = 0) -> np.ndarray:
        """The step at which each entry is generated, ints of `event_shape`."""
        self.check_structure(structure)
        return self.all_ranks[structure].copy()

    def orders(self) -> np.ndarray:
        """Entries in order of generation, for all structures: ints (K, event_size)."""
        ranks = self.all_ranks.reshape(self.num_masks, -1)
        return np.argsort(ranks, axis=1, kind="stable").astype("int32")

    def compute_params(self, features, context, structure, training):
        """The parameters of every entry: what a new network writes.

        Args:
            features: floats `(..., *event_shape, num_features)`.
            context: floats `(..., C)` with the same leading axes, or None.
            structure: integer scalar, a number or a tensor.
            training: bool.

        Returns:
            Floats `(..., *event_shape, num_params)`.
        """
        raise NotImplementedError

    def call(self, x, context=None, structure=None, training=False):
        self._check_event(x.shape)
        structure = self._resolve_structure(structure, training)
        features = self.encode(self._of_known_shape(x))
        context = self._check_context(context)
        if context is not None:
            context = ops.cast(context, self.compute_dtype)
            axes = len(self.event_shape) + 1
            features, context = broadcast_batches(features, context, axes)
        params = self.compute_params(features, context, structure, training)
        # What is made of layers of another precision still keeps to its own.
        params = ops.cast(params, self.compute_dtype)
        return params if self.num_params else params[..., 0]

    def with_params_axis(self, params):
        """What a call gave, `(..., *event_shape, params_per_entry)`."""
        return params if self.num_params else params[..., None]

    def _of_known_shape(self, x):
        """x with the width of its event, where TensorFlow does not know it."""
        rank = len(x.shape) - len(self.event_shape)
        if None not in x.shape[rank:]:
            return x
        return ops.reshape(x, (*ops.shape(x)[:rank], *self.event_shape))

    def compute_output_shape(self, x_shape, context_shape=None):
        event = self.event_shape or tuple(x_shape[-1:])
        batch = tuple(x_shape[: len(x_shape) - len(event)])
        if context_shape is not None:
            batch = broadcast_axes(batch, tuple(context_shape[:-1]))
        return (*batch, *event, self.num_params) if self.num_params else batch + event

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

    def connectivity(self, structure: int = 0) -> np.ndarray:
        """Which entries may hear which: bools (D, D), `[i, j]` = entry i hears j."""
        ranks = self.ranks(structure).ravel()
        return ranks[:, None] > ranks[None, :]

    # One rank at a time: `start` once, `open` at the first step of every block, and
    # `step` for every rank inside an open block. A network whose steps share work does
    # it when a block is opened; for others there is one block.

    @property
    def num_ranks(self) -> int:
        """Number of steps in which an event is generated."""
        return int(self.all_ranks[0].max()) + 1

    @property
    def block_length(self) -> int:
        """Number of steps between two calls of `open`."""
        return self.num_ranks

    @property
    def step_size(self) -> int:
        """Number of entries generated together, where they are most."""
        return max(int(np.bincount(r.ravel()).max()) for r in self.all_ranks)

    def step_layout(self) -> Steps:
        """Which entries are generated at which step, in every structure."""
        return make_steps(self.all_ranks.reshape(self.num_masks, -1))

    def start(self, batch, context=None, structure=0, order=None):
        """The state before the first step.

        Args:
            batch: number of examples.
            context: `(batch, C)` or None.
            structure: which of the K to use: an integer scalar.
            order: entries in the order in which each example wants them, ints
                `(batch, event_size)` or `(1, event_size)`, for networks that are
                `orderings_only` or `order_agnostic`. None: that of `structure`.

        Returns:
            A dict of tensors.
        """
        if order is not None:
            raise ValueError(
                f"{type(self).__name__} generates in the orderings that it was made "
                "with. Pass `structure` instead of `order`."
            )
        state = {
            "x": ops.zeros((batch, self.event_size), self.value_dtype),
            "structure": ops.convert_to_tensor(structure, "int32"),
        }
        return state if context is None else {**state, "context": context}

    def open(self, state, x_last, t):
        """The state at the beginning of the block whose first step is t.

        Args:
            state: what `start` or the last `step` returned.
            x_last: entries of rank t-1, `(batch, step_size)`; not looked at for t = 0.
            t: integer scalar, a number or a tensor.
        """
        return state

    def step(self, state, x_last, t):
        """The parameters of the entries of rank t, inside a block that is open.

        The default recomputes the whole network: `num_ranks` passes for an event.

        Args:
            state: what `open` or the last `step` returned.
            x_last: as for `open`.
            t: as for `open`.

        Returns:
            `(params, state)`, params being `(batch, step_size, num_params)`.
        """
        size, width, steps = self.event_size, self.step_size, self.step_layout()
        entries = ops.take(steps.entries, state["structure"], axis=0)
        place = ops.take(steps.places, state["structure"], axis=0)
        is_last = ops.equal(place // width, t - 1)
        x = ops.where(is_last, ops.take(x_last, place % width, axis=1), state["x"])
        params = self(
            ops.reshape(x, (-1, *self.event_shape)),
            state.get("context"),
            structure=state["structure"],
        )
        params = ops.reshape(params, (-1, size, self.params_per_entry))
        now = ops.slice(entries, (t * width,), (width,))
        return ops.take(params, now, axis=1), {**state, "x": x}

    # Checks ---------------------------------------------------------------------------

    def _warn_of_axes(self, shape):
        width, whole = shape[-1], shape[1:]
        warn(
            f"{type(self).__name__} models only the last axis, events of shape "
            f"({width},): what lies along the others is independent. Received: input "
            f"of shape {shape}. If an event is the whole {whole}, put a "
            "`keras.layers.Flatten()` before it, pass "
            f"`event_shape={whole}` to generate it entry by entry, or use "
            "`PixelCNN` for images. If not, pass "
            f"`event_shape=({width},)`."
        )

    def _require_event_shape(self):
        if self.event_shape is None:
            raise ValueError(
                f"{type(self).__name__} does not know its number of variables yet. "
                "Call it on data, or `build((None, D))`, first."
            )
        return self.event_shape

    def _check_event(self, shape):
        expected = self.event_shape
        event = tuple(shape[max(0, len(shape) - len(expected)) :])
        pairs = zip(event, expected, strict=False)
        if len(event) < len(expected) or any(n not in (None, m) for n, m in pairs):
            raise ValueError(
                f"{type(self).__name__} was made for events of shape {expected}. "
                f"Received: input of shape {tuple(shape)}."
            )

    def _check_context(self, context):
        if context is None:
            if self.context_size:
                raise ValueError(
                    f"{type(self).__name__} was built with a context of size "
                    f"{self.context_size}. Pass `context` of shape "
                    f"(..., {self.context_size})."
                )
            return None
        if context.shape[-1] not in (None, self.context_size):
            raise ValueError(
                f"`context` must have size {self.context_size}, as when the network "
                f"was built. Received: context of shape {tuple(context.shape)}. "
                "A network first called without context has none."
            )
        if context.shape[-1] is None:
            context = ops.reshape(
                context, (*ops.shape(context)[:-1], self.context_size)
            )
        return context

    def check_structure(self, structure):
        """Raise a ValueError for the number of a structure that is not there."""
        known = isinstance(structure, int | np.integer)
        if known and not 0 <= structure < self.num_masks:
            raise ValueError(
                f"`structure` must be from 0 to {self.num_masks - 1}, one of the "
                f"{self.num_masks} structures (`num_masks`). Received: structure="
                f"{structure}."
            )

    def _resolve_structure(self, structure, training):
        self.check_structure(structure)
        if structure is not None:
            return structure
        if self.num_masks == 1 or not training:
            return 0
        structure = ops.mod(ops.convert_to_tensor(self.position), self.num_masks)
        self.position.assign(ops.mod(structure + 1, self.num_masks))
        return structure

    def get_build_config(self):
        return quantized.add_layers(self, super().get_build_config())

    def build_from_config(self, config):
        config, layers = quantized.split_layers(config)
        # Who made the network was told.
        self._is_loading = True
        super().build_from_config(config)
        self._is_loading = False
        quantized.quantize_layers(self, layers)

    def get_config(self):
        config = {
            **super().get_config(),
            "num_params": self.num_params,
            "num_masks": self.num_masks,
            "event_shape": self._given_event_shape and list(self._given_event_shape),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
        }
        config.pop("autocast", None)
        return config
