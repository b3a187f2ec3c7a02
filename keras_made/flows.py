"""Normalizing flows as Keras models, with TensorFlow Probability's mathematics.

    x = step_1(step_2(... step_n(u))),   u from a base distribution
    log p(x) = log base(u) + log |det du/dx|

The models own Keras networks. Bijectors and distributions are made from the weights as
they are now, whenever they are asked for, and never stored.
"""

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_made.flows needs Keras on TensorFlow, where TensorFlow Probability "
        f"runs. The backend is {keras.backend.backend()!r}: set the environment "
        "variable KERAS_BACKEND=tensorflow before Keras is imported."
    )

import tensorflow as tf
import tensorflow_probability as tfp

from keras_made import bases, conditionals
from keras_made.autoregressive import check_positive
from keras_made.bijectors import (
    Affine,
    Coupling,
    MaskedAutoregressiveFlow,
    Shift,
    Spline,
    Units,
    step_floor,
)
from keras_made.compiling import run_in_chunks
from keras_made.likelihood import LikelihoodModel, seed_generator, split_shapes
from keras_made.networks.made import MADE
from keras_made.masks import check_seed, make_orderings
from keras_made.units import full_precision, loc_and_scale

tfb, tfd = tfp.bijectors, tfp.distributions

# Between the seeds of neighbouring steps: far more than a network has layers. It is
# odd, so that modulo a power of two no multiple of it comes back.
STREAM_STRIDE = 1_640_531_527

__all__ = [
    "IAF",
    "MAF",
    "NICE",
    "Flow",
    "MaskedAutoregressiveFlow",
    "RealNVP",
    "SplineMAF",
]


@keras.saving.register_keras_serializable(package="keras_made")
class Bounded(conditionals.Conditional):
    """What a network of a flow hears of an entry: x, smoothly kept within a limit.

        feature = limit tanh(x / limit)

    Far outside the data the steps are then affine with bounded parameters: an outlier
    is not amplified by step after step of a deep stack.
    """

    def __init__(self, limit: float = 100.0):
        self.limit = limit

    def encode(self, x):
        return (self.limit * ops.tanh(x / self.limit))[..., None]

    def get_config(self):
        return {"limit": self.limit}


class Flow(LikelihoodModel):
    """Base of the flows: an invertible map of a simple distribution, as a Keras model.

    `fit`, `evaluate`, `predict` and `log_prob` are those of every density here. A
    subclass writes `make_network(index)` and `make_step(index, context)`.

    Forward of inverse gives x back to 1e-4 in float32, and to 1e-9 in float64, for five
    trained steps on 64 standardised variables. Weights can be set so that steps amplify
    rounding without bound: such a flow is better run under `dtype="float64"`.

    Args:
        event_size: number of variables D, from 1.
        num_steps: number of steps of the flow.
        hidden_units: widths of the hidden layers of each step's network.
        context_size: width C of the context, 0 for none. Every step hears it, and its
            effect on every variable is non-linear.
        permutation: `"reverse"`: every other step takes the variables in reverse;
            `"random"`: every step but the first in an order drawn with `seed`.
        base: distribution of u: a `tfd.Distribution` with constant parameters, scalar
            (repeated for each variable) or over events `(D,)`. None: standard normal.
        normalization: a `keras.layers.Normalization` adapted to the data: the flow
            works on standardised values, log p stays in the data's own units.
        min_scale: floor of the product of the scales of all steps. Each step has its
            `num_steps`-th root, so that deep stacks cannot amplify without bound.
        activation: of the hidden layers.
        dropout: rate, after each hidden layer.
        kernel_regularizer: penalty on the kernels.
        seed: of random permutations and of dropout.
        **kwargs: `name`, `dtype` of any Keras model.

    Input shape:
        `(n, D)`, or a tuple with a context `(n, C)`.

    Output shape:
        `(n,)`: log p of each row in nats.

    Raises:
        ValueError: for an argument outside the above; from `fit`, when the loss is no
            longer finite.
    """

    def __init__(
        self,
        event_size: int,
        num_steps: int = 5,
        hidden_units: Sequence[int] = (512, 512),
        *,
        context_size: int = 0,
        permutation: str = "reverse",
        base=None,
        normalization=None,
        min_scale: float = 1e-3,
        activation="relu",
        dropout: float = 0.0,
        kernel_regularizer=None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive("event_size", event_size)
        check_positive("num_steps", num_steps)
        if context_size:
            check_positive("context_size", context_size)
        if permutation not in ("reverse", "random"):
            raise ValueError(
                "`permutation` must be 'reverse' or 'random'. Received: "
                f"permutation={permutation!r}."
            )
        if not 0 < min_scale <= 1:
            raise ValueError(f"`min_scale` must be in (0, 1]. Received: {min_scale!r}.")
        self.event_size = event_size
        self.num_steps = num_steps
        self.hidden_units = tuple(hidden_units)
        self._context_size = context_size
        self.permutation = permutation
        self.min_scale = min_scale
        self.base = self._check_base(base)
        self.normalization = normalization
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = check_seed(seed)
        self.networks = [self.make_network(index) for index in range(num_steps)]

    # There is no normalisation of activations between steps: each step has a location
    # and a scale of its own for every variable. A data-dependent one was tried: the gap
    # to the entropy of a ring, 8 steps, went from 0.126 and 0.079 (two seeds) to 0.115
    # and 0.060, the NLL of wine from 9.56 and 9.78 to 9.85 and 9.75: less than a seed.

    # What a subclass writes -----------------------------------------------------------

    def make_network(self, index: int) -> keras.layers.Layer:
        """The Keras network of one step."""
        raise NotImplementedError

    def make_step(self, index: int, context) -> tfb.Bijector:
        """The bijector of one step, from u to x, over the network as it is now."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------

    def _check_base(self, base):
        if base is None:
            base = tfd.Normal(0.0, 1.0)
        config = base if isinstance(base, dict) else bases.to_config(base)
        bases.over_events(bases.from_config(config, "float32"), self.event_size)
        return config

    @property
    def event_shape(self) -> tuple[int]:
        return (self.event_size,)

    @property
    def context_size(self) -> int:
        return self._context_size

    def ordering(self, index: int) -> np.ndarray:
        """Position of each variable in the order of step `index`: ints (D,)."""
        if self.permutation == "reverse" or index == 0:
            kind = "reversed" if index % 2 else "natural"
        else:
            kind = "random"
        return make_orderings(kind, self.event_size, 1, self.seed + index)[0]

    def stream(self, index: int) -> int:
        """Seed of the dropout of step `index`: that of its first hidden layer.

        The layers after it count on from there, and steps start far apart, so that no
        two layers of a flow drop the same units.
        """
        return (self.seed + (index + 1) * STREAM_STRIDE) % 2**31

    def build(self, input_shape):
        x_shape, context_shape = split_shapes(input_shape)
        size = context_shape[-1] if context_shape else 0
        if x_shape[-1] != self.event_size or (size and size != self.context_size):
            raise ValueError(
                f"The flow was made with event_size={self.event_size} and "
                f"context_size={self.context_size}. Received: input of shape "
                f"{tuple(x_shape)} and context of size {size}."
            )
        for index, network in enumerate(self.networks):
            if not network.built:
                self._build_network(index, network)
        if self.normalization is not None and not self.normalization.built:
            self.normalization.build((None, self.event_size))
        self.built = True

    def _build_network(self, index, network):
        context = (None, self.context_size) if self.context_size else None
        network.build((None, self.event_size), context)

    def compute_log_prob(self, x, context, training):
        if self.context_size and context is None:
            raise ValueError(
                f"The flow has a context of size {self.context_size}. Pass the tuple "
                "(x, context)."
            )
        with full_precision():
            return self._transformed(self._base(), context).log_prob(x)

    # Both faces of TFP ----------------------------------------------------------------

    def bijector(self, context=None) -> tfb.Bijector:
        """The map from u to x, over the weights as they are at each call.

        Args:
            context: None, or `(..., C)`, which is broadcast with the batch of x.
        """
        self._require_built()
        context = self._context_tensor(context)
        steps = [self.make_step(index, context) for index in range(self.num_steps)]
        return tfb.Chain([*self._data_units(), *steps])

    def distribution(self, context=None) -> tfd.TransformedDistribution:
        """This density as a `tfd.Distribution`, with its `trainable_variables`.

        Args:
            context: None, `(C,)`, or a batch `(..., C)`, which is its batch shape.
        """
        base, context = self._base(), self._context_tensor(context)
        if context is not None and len(context.shape) > 1:
            base = tfd.BatchBroadcast(base, with_shape=tf.shape(context)[:-1])
        return self._transformed(base, context)

    def _transformed(self, base, context):
        return tfd.TransformedDistribution(base, self.bijector(context))

    def _base(self):
        base = bases.from_config(self.base, self.density_dtype)
        return bases.over_events(base, self.event_size)

    def _context_tensor(self, context):
        if context is None:
            if self.context_size:
                raise ValueError(
                    f"The flow has a context of size {self.context_size}. Pass "
                    f"`context` of shape (..., {self.context_size})."
                )
            return None
        context = tf.convert_to_tensor(context)
        if context.shape[-1] != self.context_size:
            raise ValueError(
                f"`context` must have size {self.context_size}. Received: shape "
                f"{tuple(context.shape)}."
            )
        return tf.cast(context, self.density_dtype)

    def _data_units(self):
        """Bijectors from what the steps give to the data's own units."""
        layer, shape, dtype = self.normalization, self.event_shape, self.density_dtype
        if layer is None:
            return []
        read = functools.partial(loc_and_scale, layer, shape, dtype)
        weights = layer.weights
        return [Units(self.event_size, read, variables=weights, name="normalization")]

    # Draws ----------------------------------------------------------------------------

    def sample(self, num_samples, context=None, seed=None, verbose="auto"):
        """Exact draws.

        Args:
            num_samples: number of draws, at least 1.
            context: `(C,)` for all draws or `(num_samples, C)`.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: 0, 1, or `"auto"` for a progress bar when there are many chunks.

        Returns:
            A float tensor `(num_samples, D)`.
        """
        check_positive("num_samples", num_samples)
        self._require_built()
        if context is not None:
            context = self.check_context(context, num_samples)
        elif self.context_size:
            self._context_tensor(None)
        seeds, base = seed_generator(seed), self._base()
        function = self._function(
            "sample", lambda u, context: self.bijector(context).forward(u)
        )

        def run(rows, context):
            # Of the shape that TFP's stateless draws want.
            pair = keras.random.randint((2,), 0, 2**31 - 1, seed=seeds)
            return function(base.sample(len(rows), seed=pair), context)

        rows = np.zeros((num_samples, 1), "float32")
        return run_in_chunks(run, [rows, context], self.floats_per_row(), verbose)

    def floats_per_row(self) -> int:
        return 16 * self.event_size + 2 * sum(self.hidden_units)

    # Training -------------------------------------------------------------------------

    def fit(self, *args, callbacks=None, **kwargs):
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [*_as_list(callbacks), _NameTheCause()]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    fit.__doc__ = LikelihoodModel.fit.__doc__

    def get_config(self):
        return {
            **keras.Model.get_config(self),
            "event_size": self.event_size,
            "num_steps": self.num_steps,
            "hidden_units": list(self.hidden_units),
            "context_size": self.context_size,
            "permutation": self.permutation,
            "base": self.base,
            "normalization": keras.saving.serialize_keras_object(self.normalization),
            "min_scale": self.min_scale,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["normalization"] = keras.saving.deserialize_keras_object(
            config["normalization"], custom_objects
        )
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_made")
class MAF(Flow):
    """Masked autoregressive flow: scores in one pass, draws incrementally.

    Each step is `MaskedAutoregressiveFlow` over a `MADE`. A flow of one step is
    `AutoregressiveDensity(MADE(...), Normal())`.

    Arguments are those of `Flow`.

    Example:
        >>> flow = MAF(2, num_steps=2, hidden_units=[16])
        >>> flow.compile("adam")
        >>> history = flow.fit(np.zeros((32, 2)), epochs=1, verbose=0)
        >>> flow.sample(3).shape
        TensorShape([3, 2])

    Reference:
        Papamakarios, Pavlakou, Murray 2017, https://arxiv.org/abs/1705.07057
    """

    def make_transformer(self):
        """What the parameters of an entry do to it."""
        return Affine(step_floor(self.min_scale, self.num_steps))

    def make_network(self, index):
        return MADE(
            self.hidden_units,
            self.make_transformer().num_params,
            ordering=self.ordering(index),
            activation=self.activation,
            dropout=self.dropout,
            kernel_regularizer=self.kernel_regularizer,
            encoder=Bounded(),
            seed=self.stream(index),
            dtype=self.dtype_policy,
            name=f"step_{index}",
        )

    def make_step(self, index, context):
        return MaskedAutoregressiveFlow(
            self.networks[index],
            transformer=self.make_transformer(),
            context=context,
            name=f"step_{index}",
        )


@keras.saving.register_keras_serializable(package="keras_made")
class IAF(MAF):
    """Inverse autoregressive flow: draws in one pass, scores incrementally.

    The steps are those of `MAF`, inverted: u = loc(x) + scale(x) x. Drawing, and
    scoring its own draws, is one pass: the family for variational inference. The
    gradient of scoring other rows costs up to D backward passes.

    Arguments are those of `Flow`.

    Reference:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, "Improving
        Variational Inference with Inverse Autoregressive Flow",
        https://arxiv.org/abs/1606.04934
    """

    def make_step(self, index, context):
        return tfb.Invert(super().make_step(index, context), name=f"step_{index}")


@keras.saving.register_keras_serializable(package="keras_made")
class SplineMAF(MAF):
    """`MAF` whose entries are moved by rational-quadratic splines and an affine map.

    Args:
        event_size: as in `Flow`, like all arguments that follow but two.
        *args: `num_steps`, `hidden_units`.
        num_bins: number of pieces of each spline.
        bound: splines act on [-bound, bound]; outside only the affine map does.
        **kwargs: as in `Flow`.

    Reference:
        Durkan, Bekasov, Murray, Papamakarios 2019, "Neural Spline Flows",
        https://arxiv.org/abs/1906.04032
    """

    def __init__(
        self,
        event_size: int,
        *args,
        num_bins: int = 8,
        bound: float = 5.0,
        **kwargs,
    ):
        if not 2 <= num_bins <= 50 or not bound > 0:
            raise ValueError(
                "`num_bins` must be from 2 to 50 and `bound` positive. Received: "
                f"num_bins={num_bins}, bound={bound}."
            )
        # The base makes the networks, which need to know these.
        self.num_bins, self.bound = num_bins, bound
        super().__init__(event_size, *args, **kwargs)

    def make_transformer(self):
        floor = step_floor(self.min_scale, self.num_steps)
        return Spline(self.num_bins, self.bound, floor)

    def get_config(self):
        return {**super().get_config(), "num_bins": self.num_bins, "bound": self.bound}


@keras.saving.register_keras_serializable(package="keras_made")
class RealNVP(Flow):
    """Affine coupling layers: both directions in one pass of plain dense networks.

    Each step moves one half of the variables given the other; halves alternate. One
    step alone leaves a half as it is.

    Arguments are those of `Flow`.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803
    """

    def make_transformer(self):
        """What the parameters of an entry do to it."""
        return Affine(step_floor(self.min_scale, self.num_steps))

    def num_masked(self, index: int) -> int:
        """Size of the half that step `index` hears; negative: of the last entries."""
        half = self.event_size // 2
        return -half if index % 2 else half

    def make_network(self, index):
        moved = self.event_size - abs(self.num_masked(index))
        dense = {
            "kernel_regularizer": self.kernel_regularizer,
            "dtype": self.dtype_policy,
        }
        layers = []
        for depth, units in enumerate(self.hidden_units):
            layers.append(
                keras.layers.Dense(units, activation=self.activation, **dense)
            )
            if self.dropout:
                seed = self.stream(index) + depth
                layers.append(keras.layers.Dropout(self.dropout, seed=seed))
        outputs = moved * self.make_transformer().num_params
        layers.append(keras.layers.Dense(outputs, **dense))
        return DenseNetwork(
            layers,
            abs(self.num_masked(index)),
            name=f"step_{index}",
            dtype=self.dtype_policy,
        )

    def _build_network(self, index, network):
        network.build((None, abs(self.num_masked(index)) + self.context_size))

    def make_step(self, index, context):
        given = self.permutation == "reverse" or index == 0
        return Coupling(
            self.networks[index],
            self.num_masked(index),
            transformer=self.make_transformer(),
            order=None if given else self.ordering(index),
            event_size=self.event_size,
            context=context,
            name=f"step_{index}",
        )


@keras.saving.register_keras_serializable(package="keras_made")
class NICE(RealNVP):
    """Additive coupling layers, volume preserving, and a scale for each variable.

    Arguments are those of `Flow`; the learned scales are e to a weight of each
    variable.

    Reference:
        Dinh, Krueger, Bengio 2014, "NICE: Non-linear Independent Components
        Estimation", https://arxiv.org/abs/1410.8516
    """

    def make_transformer(self):
        return Shift()

    def build(self, input_shape):
        if not self.built:
            self.log_scale = self.add_weight(
                name="log_scale", shape=(self.event_size,), initializer="zeros"
            )
        super().build(input_shape)

    def _data_units(self):
        weight = self.log_scale
        read = functools.partial(_learned_units, weight, self.density_dtype)
        scales = Units(self.event_size, read, variables=[weight], name="log_scale")
        return [*super()._data_units(), scales]


def _learned_units(log_scale, dtype):
    log_scale = ops.cast(log_scale, dtype)
    return ops.zeros_like(log_scale), ops.exp(log_scale)


@keras.saving.register_keras_serializable(package="keras_made")
class DenseNetwork(keras.layers.Layer):
    """Dense layers in a row, which hear the first entries through `Bounded`.

    Where there is nothing to hear, they hear a zero, and give constants: the other half
    of a single variable is empty, and TensorFlow aborts on a product of no terms.
    """

    def __init__(self, layers, num_bounded, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.layers, self.num_bounded = layers, num_bounded

    def build(self, input_shape):
        input_shape = (*input_shape[:-1], max(1, input_shape[-1]))
        for layer in self.layers:
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, x, training=False):
        entries = Bounded().encode(x[..., : self.num_bounded])[..., 0]
        x = ops.concatenate([entries, x[..., self.num_bounded :]], axis=-1)
        if x.shape[-1] == 0:
            x = ops.zeros((*ops.shape(x)[:-1], 1), x.dtype)
        x = ops.cast(x, self.compute_dtype)
        for layer in self.layers:
            x = layer(x, training=training) if _drops(layer) else layer(x)
        return x

    def get_config(self):
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        config = {
            **super().get_config(),
            "layers": layers,
            "num_bounded": self.num_bounded,
        }
        config.pop("autocast", None)
        return config

    @classmethod
    def from_config(cls, config):
        layers = keras.saving.deserialize_keras_object(config["layers"])
        return cls(**{**config, "layers": layers})


class _NameTheCause(keras.callbacks.Callback):
    """Stops a training whose loss is not finite, and says what usually helps."""

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if np.isfinite(loss):
            return
        broken = [v.path for v in self.model.weights if not _is_finite(v)]
        where = (
            f"weights are not finite ({broken[0]}, ...)"
            if broken
            else ("all weights are finite, so some row has no finite log p")
        )
        raise ValueError(
            f"The loss became {loss} in epoch {epoch + 1}; {where}. The likely causes: "
            "data far from unit scale (pass normalization=keras.layers.Normalization "
            "adapted to it), rows with outliers beyond 1e12 or not finite, or steps "
            "that are too large (a smaller learning rate than "
            f"{float(self.model.optimizer.learning_rate):g}, or "
            "optimizer clipnorm=1.0)."
        )


def _is_finite(variable):
    return bool(np.all(np.isfinite(ops.convert_to_numpy(variable).astype("float64"))))


def _drops(layer):
    return isinstance(layer, keras.layers.Dropout)


def _as_list(callbacks):
    if callbacks is None:
        return []
    return callbacks if isinstance(callbacks, list | tuple) else [callbacks]
