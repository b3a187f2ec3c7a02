"""The steps of a flow: invertible maps of events, as Keras layers.

A step maps noise to data and back, and gives the log-determinant of the map with every
value:

    x, log |det dx/du| = step.to_data(u, context)
    u, log |det du/dx| = step.to_noise(x, context)
"""

import keras
import numpy as np
from keras import ops

from keras_made.autoregressive import Autoregressive
from keras_made.broadcasting import broadcast_axes, broadcast_batches
from keras_made.flows.dense_network import DenseNetwork
from keras_made.flows.gradients import attach
from keras_made.flows.transforms import Transform
from keras_made.generation import generate
from keras_made.networks.made import MADE
from keras_made.networks.slicing import moved_weights

# What decides what a `MADE` computes, but for its weights, degrees and ordering.
SHARED_BY_NETWORKS = (
    "hidden_units",
    "num_params",
    "direct",
    "direct_params",
    "residual",
    "activation",
    "kernel_form",
    "encoder",
    "compute_dtype",
)


class FlowStep(keras.layers.Layer):
    """Base of the steps.

    Call arguments:
        x: `(..., *event_shape)`.
        context: `(..., C)` or None; its leading axes are broadcast with those of x.
        training: whether to apply dropout.

    A call is `to_noise`.

    Output shape:
        `(..., *event_shape)` and `(...)`: the noise, and the log-determinant.
    """

    event_rank = 1

    def __init__(self, **kwargs):
        # Networks cast what they hear; the values keep their precision.
        super().__init__(autocast=False, **kwargs)

    def to_noise(self, x, context=None, training=False):
        """u `(..., *event_shape)` and log |det du/dx| `(...)`."""
        raise NotImplementedError

    def to_data(self, u, context=None, training=False):
        """x `(..., *event_shape)` and log |det dx/du| `(...)`."""
        raise NotImplementedError

    def call(self, x, context=None, training=False):
        return self.to_noise(x, context, training)

    def compute_output_shape(self, x_shape, context_shape=None):
        rank = len(x_shape) - self.event_rank
        batch, event = tuple(x_shape[:rank]), tuple(x_shape[rank:])
        if context_shape is not None:
            batch = broadcast_axes(batch, tuple(context_shape[:-1]))
        return (*batch, *event), batch

    def floats_per_event(self) -> int:
        """About how many floats one event takes on its way through."""
        return 0

    # What `keras_made.flows.looped` asks.

    def form(self):
        """What this step has in common with others but for weights and an order.

        Two steps of equal form are one computation. None: no other step is alike.
        """
        return None

    def entry_order(self):
        """The entries in the order in which the step takes them: ints `(D,)`."""
        raise NotImplementedError

    def weights_at(self, places):
        """Values of `variables`, if entry n were what is now entry `places[n]`."""
        return [v.value for v in self.variables]

    def _form_of(self, *parts):
        kinds = [(v.name, tuple(v.shape), v.dtype) for v in self.variables]
        return (type(self), *parts, kinds)


class AutoregressiveStep(FlowStep):
    """Every entry is moved with parameters that hear the entries before it.

        to_noise:  u_i = transform^-1(x_i; network(x)_i)    one call of the network
        to_data:   x_i = transform(u_i; network(x)_i)       entry by entry, incremental

    With a `MADE`, drawing costs a few passes of arithmetic, whatever D. Its gradient is
    the implicit one (see `keras_made.flows.gradients`).

    Args:
        network: an `Autoregressive` layer of one structure, with the `num_params` of
            the transform.
        transform: a `Transform`.

    Raises:
        ValueError: for a network with other `num_params` or several structures.

    Reference:
        Papamakarios, Pavlakou, Murray 2017, "Masked Autoregressive Flow for Density
        Estimation", https://arxiv.org/abs/1705.07057
    """

    def __init__(self, network: Autoregressive, transform: Transform, **kwargs):
        super().__init__(**kwargs)
        _check_network(network, transform)
        # A form that a density fixed for the network, such as classes, does not fit.
        network.hear_through(None)
        self.network = network
        self.transform = transform

    def build(self, x_shape, context_shape=None):
        if not self.network.built:
            self.network.build(x_shape, context_shape)

    @property
    def event_shape(self):
        """Shape of an event; None before the network knows it."""
        return self.network.event_shape

    @property
    def event_rank(self) -> int:
        return len(self.event_shape or (0,))

    def _params(self, x, context, training=False):
        params = self.network(x, context, structure=0, training=training)
        return ops.cast(self.network.with_params_axis(params), x.dtype)

    def _entries_to_noise(self, x, context, training=False):
        """u and the log slopes, each of the shape of x."""
        return self.transform.inverse(self._params(x, context, training), x)

    def to_noise(self, x, context=None, training=False):
        x, context = _broadcast(x, context, self.event_rank)
        u, log_slope = self._entries_to_noise(x, context, training)
        return u, self._sum(log_slope)

    def to_data(self, u, context=None, training=False):
        u, context = _broadcast(u, context, self.event_rank)
        if not self.network.built:
            self._params(u, context)
        x = attach(
            self._substitute(u, context),
            u,
            lambda x: self._entries_to_noise(x, context),
            self.network.num_ranks,
        )
        _, log_slope = self._entries_to_noise(x, context)
        return x, -self._sum(log_slope)

    def _sum(self, log_slope):
        return ops.sum(log_slope, axis=tuple(range(-self.event_rank, 0)))

    def _substitute(self, u, context):
        """x, entry by entry: floats of the shape of u."""
        network, size = self.network, self.network.event_size
        entries, places = (table[0] for table in network.step_layout())
        rows = ops.reshape(u, (-1, size))
        if context is not None:
            context = ops.reshape(context, (-1, network.context_size))
        noise = ops.transpose(ops.take(rows, entries, axis=1))
        noise = ops.reshape(noise, (network.num_ranks, network.step_size, -1))
        nothing = ops.zeros_like(rows[:, 0])

        def draw(params, t):
            now = ops.transpose(ops.take(noise, t, axis=0))
            return self.transform.forward(params, now)[0], nothing

        dtype = keras.backend.standardize_dtype(u.dtype)
        values, _ = generate(network, draw, ops.shape(rows)[0], context, dtype=dtype)
        values = ops.transpose(values, (1, 0, 2))
        values = ops.reshape(values, (-1, len(entries)))
        return ops.reshape(ops.take(values, places, axis=1), ops.shape(u))

    def floats_per_event(self):
        return self.network.floats_per_event

    def form(self):
        network = self.network
        if not isinstance(network, MADE) or network.companion or self.event_rank > 1:
            return None
        degrees = [degrees.tolist() for degrees in network.unit_degrees]
        shared = [getattr(network, name) for name in SHARED_BY_NETWORKS]
        # Sets are compared for entries as they stand: no other order will do.
        order = network.has_graph and self.entry_order().tolist()
        sets = network.has_graph and network.degrees.hears.tolist()
        shared += [order, sets, np.sort(network.ranks()).tolist()]
        return self._form_of(self.transform, shared, degrees)

    def entry_order(self):
        return self.network.orders()[0]

    def weights_at(self, places):
        moved = moved_weights(self.network, places)
        return [moved.get(id(v), v.value) for v in self.variables]


class CouplingStep(FlowStep):
    """One half of the entries is moved with parameters that hear the other half.

    Both directions are one call of the network.

    Args:
        network: a layer that maps the half that is heard, `(..., d)`, and a context, to
            `(..., (D - d) * num_params)`.
        transform: a `Transform`.
        order: the entries, those that are heard first: ints `(D,)`.
        num_heard: how many are heard, d.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, "Density Estimation using Real NVP",
        https://arxiv.org/abs/1605.08803
    """

    def __init__(self, network, transform: Transform, order, num_heard, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.transform = transform
        self.order = np.asarray(order, "int32")
        self.num_heard = num_heard

    def build(self, x_shape, context_shape=None):
        if not self.network.built:
            self.network.build((None, self.num_heard), context_shape)

    def to_noise(self, x, context=None, training=False):
        return self._move(self.transform.inverse, x, context, training)

    def to_data(self, u, context=None, training=False):
        return self._move(self.transform.forward, u, context, training)

    def _move(self, transform, x, context, training):
        x, context = _broadcast(x, context, 1)
        heard = ops.take(x, self.order[: self.num_heard], axis=-1)
        moved = ops.take(x, self.order[self.num_heard :], axis=-1)
        params = self.network(heard, context, training=training)
        shape = (*ops.shape(moved), self.transform.num_params)
        params = ops.cast(ops.reshape(params, shape), x.dtype)
        moved, log_slope = transform(params, moved)
        x = ops.concatenate([heard, moved], axis=-1)
        return ops.take(x, np.argsort(self.order), axis=-1), ops.sum(log_slope, axis=-1)

    def form(self):
        if not isinstance(self.network, DenseNetwork):
            return None
        modes = [layer.quantization_mode for layer in self.network.layers]
        shared = self.network.activation, self.network.compute_dtype, modes
        return self._form_of(self.transform, shared, self.num_heard)

    def entry_order(self):
        return self.order


class Inverse(FlowStep):
    """A step the other way round: IAF is MAF inverted."""

    def __init__(self, step: FlowStep, **kwargs):
        super().__init__(**kwargs)
        self.step = step

    def build(self, x_shape, context_shape=None):
        if not self.step.built:
            self.step.build(x_shape, context_shape)

    @property
    def network(self):
        return self.step.network

    @property
    def event_rank(self) -> int:
        return self.step.event_rank

    def to_noise(self, x, context=None, training=False):
        return self.step.to_data(x, context, training)

    def to_data(self, u, context=None, training=False):
        return self.step.to_noise(u, context, training)

    def floats_per_event(self):
        return self.step.floats_per_event()

    def form(self):
        form = self.step.form()
        return form and (type(self), form)

    def entry_order(self):
        return self.step.entry_order()

    def weights_at(self, places):
        return self.step.weights_at(places)


class Elementwise(FlowStep):
    """Every entry is moved by a transform with parameters that are weights.

    Args:
        transform: a `Transform`; its parameters start at zero.
    """

    def __init__(self, transform: Transform, **kwargs):
        super().__init__(**kwargs)
        self.transform = transform

    def build(self, x_shape, context_shape=None):
        self.params = self.add_weight(
            name="params",
            shape=(x_shape[-1], self.transform.num_params),
            initializer="zeros",
        )

    def to_noise(self, x, context=None, training=False):
        return self._move(self.transform.inverse, x)

    def to_data(self, u, context=None, training=False):
        return self._move(self.transform.forward, u)

    def _move(self, transform, x):
        x, log_slope = transform(ops.cast(self.params, x.dtype), x)
        return x, ops.sum(ops.broadcast_to(log_slope, ops.shape(x)), axis=-1)


class Linear(FlowStep):
    """A learned linear mixing of the entries, as a product of triangles.

        u = L R x[order],   log |det du/dx| = sum(log diag R)

    L has ones on its diagonal, and both are the identity at the start. Scoring is two
    products, drawing two triangular solutions.

    Args:
        order: the entries in the order in which they are mixed, ints `(D,)`.

    Reference:
        Kingma, Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1
        Convolutions", https://arxiv.org/abs/1807.03039; Durkan et al. 2019
    """

    def __init__(self, order, **kwargs):
        super().__init__(**kwargs)
        self.order = np.asarray(order, "int32")

    def build(self, x_shape, context_shape=None):
        size = x_shape[-1]
        # Below the diagonal L, above it R: the two share one matrix.
        self.kernel = self.add_weight(
            name="kernel", shape=(size, size), initializer="zeros"
        )
        self.log_scale = self.add_weight(
            name="log_scale", shape=(size,), initializer="zeros"
        )

    def form(self):
        return self._form_of()

    def entry_order(self):
        return self.order

    def _triangles(self, x):
        dtype, size = keras.backend.standardize_dtype(x.dtype), len(self.order)
        kernel = ops.cast(self.kernel, dtype)
        below = ops.convert_to_tensor(np.tri(size, k=-1, dtype=dtype))
        lower = kernel * below + ops.eye(size, dtype=dtype)
        upper = kernel * ops.transpose(below)
        log_scale = ops.cast(self.log_scale, dtype)
        return lower, upper + ops.diag(ops.exp(log_scale)), log_scale

    def to_noise(self, x, context=None, training=False):
        lower, upper, log_scale = self._triangles(x)
        x = ops.take(x, self.order, axis=-1)
        u = ops.matmul(ops.matmul(x, ops.transpose(upper)), ops.transpose(lower))
        return u, ops.broadcast_to(ops.sum(log_scale), ops.shape(u)[:-1])

    def to_data(self, u, context=None, training=False):
        lower, upper, log_scale = self._triangles(u)
        shape = ops.shape(u)
        columns = ops.transpose(ops.reshape(u, (-1, len(self.order))))
        columns = ops.solve_triangular(lower, columns, lower=True)
        columns = ops.solve_triangular(upper, columns)
        x = ops.reshape(ops.transpose(columns), shape)
        x = ops.take(x, np.argsort(self.order), axis=-1)
        return x, ops.broadcast_to(-ops.sum(log_scale), shape[:-1])


def _broadcast(x, context, event_rank):
    context = None if context is None else ops.cast(context, x.dtype)
    return broadcast_batches(x, context, event_rank)


def _check_network(network, transform):
    if not isinstance(network, Autoregressive):
        raise ValueError(
            "`network` must be an Autoregressive layer such as MADE. Received: "
            f"{network!r}. For any other callable there is "
            "`tfb.MaskedAutoregressiveFlow`."
        )
    if network.params_per_entry != transform.num_params:
        raise ValueError(
            f"The network must have num_params={transform.num_params}, and has "
            f"{network.num_params}. Make it with num_params={transform.num_params}."
        )
    if network.num_masks != 1:
        raise ValueError(
            "A flow needs one structure: it is inverted in the order in which it was "
            f"evaluated. Received: a network with num_masks={network.num_masks}. "
            "Make it with num_masks=1."
        )
