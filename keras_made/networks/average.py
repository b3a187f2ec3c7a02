"""Several networks as one: the mean of their parameters, in an ordering they share."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.autoregressive import Autoregressive
from keras_made.entries.encoder import describe_form, is_same_form


@keras.saving.register_keras_serializable(package="keras_made")
class NetworkAverage(Autoregressive):
    """The mean of the parameters that several networks give in the same ordering.

    Networks that were trained apart err apart, and their mean errs less than each.

        params_i = mean_k network_k(x)_i

    Every network hears of x only what comes before entry i, and so does their mean:
    p(x) = product_i p(x_i; params_i) sums to one. That holds because they share one
    ordering, which is checked; networks in different orderings can only be mixed, joint
    by joint. For classes and binary entries, whose parameters are logits, it is the
    geometric mean of the conditionals, normalised entry by entry, and log p of a row is
    at least the mean of the networks' own.

    The networks may be of different kinds, and of different precision: each computes in
    its own, and the mean is taken in that of the average, its `dtype`. They go on being
    layers of their own: what trains or changes one of them changes the average. They
    all hear entries in one form, that of those which have one already.

    Args:
        networks: at least one `Autoregressive`, with the same `num_params` and
            `num_masks`, built or not. Events of several axes reach a network that has
            no `event_shape` of its own, such as an unbuilt `MADE`, as vectors.
        event_shape: of the average, whose entries reach each network in its own shape,
            in C order: `(784,)` for networks of 28 x 28 images. None: that of the
            networks with most axes.
        **layer_kwargs: `name`, `dtype`, `trainable` of any Keras layer.

    Call arguments:
        As those of `Autoregressive`; `structure` is the structure of every network.

    Output shape:
        `(..., *event_shape)`, or `(..., *event_shape, num_params)`.

    Raises:
        ValueError: if the networks do not fit together; for their orderings, when they
            are built.

    Example:
        >>> import numpy as np
        >>> from keras_made import MADE, AutoregressiveDensity, PixelCNN
        >>> x = np.random.RandomState(0).randint(2, size=(32, 4, 4)).astype("float32")
        >>> networks = [PixelCNN((4, 4), 8), MADE([16])]
        >>> model = AutoregressiveDensity(NetworkAverage(networks))
        >>> tuple(model.log_prob(x).shape), tuple(model.sample(3).shape)
        ((32,), (3, 4, 4))

    Reference:
        Hinton 2002, "Training Products of Experts by Minimizing Contrastive
        Divergence", https://doi.org/10.1162/089976602760128018 (the product, here
        normalised entry by entry); Lakshminarayanan, Pritzel, Blundell 2017, "Simple
        and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
        https://arxiv.org/abs/1612.01474
    """

    def __init__(
        self,
        networks: Sequence[Autoregressive],
        *,
        event_shape: tuple[int, ...] | None = None,
        **layer_kwargs,
    ):
        if not isinstance(networks, list | tuple):
            raise ValueError(
                f"`networks` must be a sequence of networks. Received: {networks!r}."
            )
        networks = [_deserialized(network) for network in networks]
        first = _check_networks(networks)
        super().__init__(
            first.num_params,
            num_masks=first.num_masks,
            event_shape=event_shape or _shared_event_shape(networks),
            **layer_kwargs,
        )
        self.networks = networks
        self._share_form()

    def _share_form(self):
        """Let all networks hear entries as those do whose form is fixed, if any."""
        fixed = [network for network in self.networks if network._form_is_fixed]
        if fixed:
            self.hear_through(fixed[0].encoder)
            self._form_is_given = any(n._form_is_given for n in self.networks)

    def hear_through(self, encoder) -> None:
        """As `Autoregressive.hear_through`, for all networks or for none."""
        super().hear_through(encoder)
        if not self._form_is_given:
            for network in self.networks:
                network.hear_through(encoder)

    def _check_form(self, encoder):
        super()._check_form(encoder)
        if not self._form_is_given:
            for network in self.networks:
                network._check_form(encoder)

    def build(self, x_shape, context_shape=None):
        self._share_form()
        super().build(x_shape, context_shape)
        for network in self.networks:
            if not network.built:
                shape = network.event_shape or (self.event_size,)
                network.build((None, *shape), context_shape)
        self._check_built()

    @property
    def order_agnostic(self) -> bool:
        return all(network.order_agnostic for network in self.networks)

    @property
    def orderings_only(self) -> bool:
        return all(network.orderings_only for network in self.networks)

    def make_ranks(self):
        shape = (self.num_masks, *self.event_shape)
        return self.networks[0].all_ranks.reshape(shape)

    def connectivity(self, structure: int = 0) -> np.ndarray:
        """What any of the networks lets through: bools (D, D)."""
        return np.any([n.connectivity(structure) for n in self.networks], axis=0)

    def call(self, x, context=None, structure=None, training=False):
        self._check_event(x.shape)
        structure = self._resolve_structure(structure, training)
        context = self._check_context(context)
        batch = ops.shape(x)[: len(x.shape) - len(self.event_shape)]
        params = []
        # Each network hears x itself: in its own precision, as it does step by step.
        for network in self.networks:
            heard = ops.reshape(x, (*batch, *network.event_shape))
            own = network(heard, context, structure=structure, training=training)
            params.append(self._in_own_shape(own, network))
        return self._mean(params)

    def _in_own_shape(self, params, network):
        """The parameters of one network, in the shape of the average's events."""
        trailing = (self.num_params,) if self.num_params else ()
        axes = len(network.event_shape) + len(trailing)
        batch = ops.shape(params)[: len(params.shape) - axes]
        return ops.reshape(params, (*batch, *self.event_shape, *trailing))

    def _mean(self, params):
        # Divided first: a sum of large logits could leave the range of half precision.
        return sum(ops.cast(own, self.compute_dtype) / len(params) for own in params)

    @property
    def floats_per_event(self) -> int:
        return sum(network.floats_per_event for network in self.networks)

    @property
    def floats_per_order(self) -> int:
        return sum(network.floats_per_order for network in self.networks)

    # One step at a time: each network in its own way ----------------------------------

    def start(self, batch, context=None, structure=0, order=None):
        return {
            str(k): network.start(batch, context, structure, order)
            for k, network in enumerate(self.networks)
        }

    @property
    def block_length(self) -> int:
        # Blocks that do not begin together are opened by `step`, each in its time.
        lengths = self._block_lengths()
        return lengths.pop() if len(lengths) == 1 else self.num_ranks

    def _block_lengths(self):
        """Of the networks that open blocks at all."""
        return {network.block_length for network in self.networks if _opens(network)}

    def open(self, state, x_last, t):
        if len(self._block_lengths()) > 1:
            return state
        return {
            str(k): network.open(state[str(k)], x_last, t)
            for k, network in enumerate(self.networks)
        }

    def step(self, state, x_last, t):
        apart, params, states = len(self._block_lengths()) > 1, [], {}
        for k, network in enumerate(self.networks):
            own = state[str(k)]
            if apart and _opens(network):
                own = _open_in_time(network, own, x_last, t)
            own_params, states[str(k)] = network.step(own, x_last, t)
            params.append(own_params)
        return self._mean(params), states

    # Checks ---------------------------------------------------------------------------

    def _check_built(self):
        first, *others = self.networks
        if first.event_size != self.event_size:
            raise ValueError(
                f"`event_shape` must hold as many entries as the networks' events, "
                f"{first.event_size}. Received: event_shape={self.event_shape}."
            )
        for k, network in enumerate(others, start=1):
            for name in ("event_size", "num_features", "context_size"):
                _check_equal(name, getattr(first, name), getattr(network, name), k)
            for structure in range(self.num_masks):
                ranks = [n.ranks(structure).ravel().tolist() for n in (first, network)]
                if ranks[0] != ranks[1]:
                    raise ValueError(
                        "Networks in different orderings have no average that is a "
                        f"density. Expected, in structure {structure}, ranks="
                        f"{ranks[0]}, as in networks[0]. Received: ranks={ranks[1]} in "
                        f"networks[{k}]. Give them one `ordering` and `seed`, or mix "
                        "their densities instead."
                    )

    def get_config(self):
        config = super().get_config()
        # These are the networks' own.
        for name in ("num_params", "num_masks", "encoder"):
            config.pop(name)
        networks = [keras.saving.serialize_keras_object(n) for n in self.networks]
        for network in networks if self.built else []:
            network.pop("build_config", None)  # They are built with the average.
        return {**config, "networks": networks}


def _opens(network):
    """Does the network do anything when a block begins?"""
    return type(network).open is not Autoregressive.open


def _open_in_time(network, state, x_last, t):
    begins = ops.equal(t % network.block_length, 0)
    return ops.cond(begins, lambda: network.open(state, x_last, t), lambda: dict(state))


def _deserialized(network):
    if isinstance(network, dict):
        return keras.saving.deserialize_keras_object(network)
    return network


def _check_networks(networks):
    """The first of them, once all are known to fit as far as constructors tell."""
    for network in networks:
        if not isinstance(network, Autoregressive):
            raise ValueError(
                "`networks` must hold Autoregressive layers such as MADE. Received: "
                f"{network!r}."
            )
    if not networks or len({id(network) for network in networks}) < len(networks):
        raise ValueError(
            "`networks` must hold at least one network, and each once. Received: "
            f"networks={networks!r}."
        )
    first, *others = networks
    for k, network in enumerate(others, start=1):
        for name in ("num_params", "num_masks"):
            _check_equal(name, getattr(first, name), getattr(network, name), k)
    fixed = [(k, n) for k, n in enumerate(networks) if n._form_is_fixed]
    for k, network in fixed[1:]:
        if not is_same_form(fixed[0][1].encoder, network.encoder):
            expected, received = (
                f"{describe_form(n.encoder)} (num_features={n.num_features})"
                for n in (fixed[0][1], network)
            )
            raise ValueError(
                "All networks must hear entries in one form, through one `encoder`. "
                f"Expected: {expected}, as in networks[{fixed[0][0]}]. Received: "
                f"{received} in networks[{k}]."
            )
    return first


def _check_equal(name, expected, received, k):
    if expected != received:
        raise ValueError(
            f"All networks must have the same `{name}`. Expected: {expected!r}, as in "
            f"networks[0]. Received: {received!r} in networks[{k}]."
        )


def _shared_event_shape(networks):
    """The one with most axes among those known; None when none is."""
    shapes = [network.event_shape for network in networks if network.event_shape]
    return max(shapes, key=len, default=None)
