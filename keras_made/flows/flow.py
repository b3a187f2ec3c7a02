"""A flow: an invertible map of a simple distribution, as a Keras model.

x = step_1(step_2(... step_n(u))),   u from a base distribution
log p(x) = log base(u) + log |det du/dx|
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from keras.config import backend

from keras_made.checks import check_positive
from keras_made.compiling import as_floats, run_in_chunks
from keras_made.densities import inputs
from keras_made.densities.likelihood import LikelihoodModel
from keras_made.densities.support import Units
from keras_made.flows import bases
from keras_made.flows.looped import looped
from keras_made.flows.steps import FlowStep, Linear
from keras_made.flows.transforms import check_min_scale
from keras_made.generation import noise_generator
from keras_made.layers import another_initializer
from keras_made.masks import check_seed, make_orderings

# Between the seeds of neighbouring steps: far more than a network has layers. It is
# odd, so that modulo a power of two no multiple of it comes back.
STREAM_STRIDE = 1_640_531_527
# The same between seeds of initializers, which are not taken modulo anything.
INITIALIZER_STRIDE = 1000


class Flow(LikelihoodModel):
    """Base of the flows.

    `fit`, `evaluate`, `predict` and `log_prob` are those of every density here. A
    subclass writes `make_step(index)`.

    Every step starts near the identity: its output kernel has a hundredth of the usual
    spread. That is worth more likelihood than anything else tried.

    Args:
        event_size: number of variables D, from 1.
        num_steps: number of steps of the flow.
        hidden_units: widths of the hidden layers of each step's network. None: two of
            eight times the variables and the context, from 64 to 512.
        context_size: width C of the context, 0 for none. Every step hears it, and its
            effect on every variable is non-linear.
        permutation: `"reverse"`: every other step takes the variables in reverse;
            `"random"`: every step but the first in an order drawn with `seed`; `"lu"`:
            in reverse, and a learned linear mixing between every two steps.
        base: distribution of u. None: standard normal. A density of this package over
            events `(D,)`, trained along with the flow (and given the context, if it was
            built with one). On TensorFlow also a `tfd.Distribution` with constant
            parameters, scalar (repeated for each variable) or over events `(D,)`.
        support: `(low, high)` of the data, each a number or one for each variable,
            infinite where there is no bound: sigmoid, exp or the identity (see
            `densities.bounds`). Draws are always inside.
        normalization: a `keras.layers.Normalization` of the data, behind the bounds:
            the flow works on standardised values, log p stays in the data's own units.
            None: `adapt` learns one.
        min_scale: floor of the scale of each step, between 0 and 1; its ceiling is
            1 / min_scale.
        activation: of the hidden layers.
        dropout: rate, after each hidden layer. The direction that goes entry by entry
            (scoring with IAF) is without dropout, also in training.
        kernel_initializer: of the networks' kernels, counting only what is connected.
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
        hidden_units: Sequence[int] | None = None,
        *,
        context_size: int = 0,
        permutation: str = "reverse",
        base=None,
        support=None,
        normalization=None,
        min_scale: float = 1e-2,
        activation="relu",
        dropout: float = 0.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive("event_size", event_size)
        check_positive("num_steps", num_steps)
        if context_size:
            check_positive("context_size", context_size)
        if permutation not in ("reverse", "random", "lu"):
            raise ValueError(
                "`permutation` must be 'reverse', 'random' or 'lu'. Received: "
                f"permutation={permutation!r}."
            )
        self.event_size = event_size
        self.num_steps = num_steps
        if hidden_units is None:
            hidden_units = 2 * (min(max(8 * (event_size + context_size), 64), 512),)
        self.hidden_units = tuple(hidden_units)
        self._context_size = context_size
        self.permutation = permutation
        self.min_scale = check_min_scale(min_scale)
        self._base = bases.get(base, event_size)
        # Keras finds the weights of a density only in an attribute of the flow's own.
        self._base_model = getattr(self._base, "model", None)
        self.units = Units(support, normalization, dtype=self.density_dtype)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = check_seed(seed)
        self.steps = self.make_steps()

    def make_step(self, index: int) -> FlowStep:
        """Step `index` of the flow, counted from the data."""
        raise NotImplementedError

    def make_steps(self) -> list[FlowStep]:
        """All steps, from the data to the noise."""
        steps = []
        for index in range(self.num_steps):
            if index and self.permutation == "lu":
                order = np.arange(self.event_size)[::-1]
                mixing = Linear(order, dtype=self.dtype_policy, name=f"mixing_{index}")
                steps.append(mixing)
            steps.append(self.make_step(index))
        return steps

    @property
    def base(self):
        """As it was passed: None, a density, or the config of a `tfd.Distribution`."""
        return getattr(self._base, "model", self._base.get_config())

    @property
    def networks(self) -> list[keras.layers.Layer]:
        """The networks of the steps that have one."""
        return [step.network for step in self.steps if hasattr(step, "network")]

    @property
    def event_shape(self) -> tuple[int]:
        return (self.event_size,)

    @property
    def context_size(self) -> int:
        return self._context_size

    def check_support(self, x):
        self.units.bounds.check(x)

    def causes_of_no_density(self):
        if not self._base.is_bounded():
            return []
        return [
            "a base with bounded support, outside which noise has no density (for "
            "bounded data leave `base` out, and pass `support=(low, high)`)"
        ]

    def typical_event(self):
        nothing = ops.zeros((1, self.event_size), self.density_dtype)
        return ops.convert_to_numpy(self.units.restore(nothing)[0])[0]

    def stream(self, index: int) -> int:
        """Seed of the dropout of step `index`: that of its first hidden layer.

        The layers after it count on from there, and steps start far apart, so that no
        two layers of a flow drop the same units.
        """
        return (self.seed + (index + 1) * STREAM_STRIDE) % 2**31

    def initializer(self, index: int):
        """Of the kernels of step `index`: apart from those of the other steps."""
        return another_initializer(self.kernel_initializer, index * INITIALIZER_STRIDE)

    def ordering(self, index: int) -> np.ndarray:
        """Position of each variable in the order of step `index`: ints (D,)."""
        kind = "natural"
        if self.permutation == "reverse" and index % 2:
            kind = "reversed"
        elif self.permutation == "random" and index:
            kind = "random"
        return make_orderings(kind, self.event_size, 1, self.seed + index)[0]

    def build(self, input_shape):
        x_shape, context_shape = inputs.split_shapes(input_shape)
        size = context_shape[-1] if context_shape else 0
        if x_shape[-1] != self.event_size or (size and size != self.context_size):
            raise ValueError(
                f"The flow was made with event_size={self.event_size} and "
                f"context_size={self.context_size}. Received: input of shape "
                f"{tuple(x_shape)} and context of size {size}."
            )
        shapes = (None, self.event_size), None
        if self.context_size:
            shapes = (None, self.event_size), (None, self.context_size)
        for step in self.steps:
            if not step.built:
                step.build(*shapes)
                step.built = True
        self.units.build_for(self.event_shape)
        if isinstance(self._base, bases.DensityBase) and not self._base.model.built:
            self._base.model.build(shapes if self.context_size else shapes[0])
        self.built = True

    # Both directions ------------------------------------------------------------------

    def compute_log_prob(self, x, context, training):
        known = self._known_context(context)
        u, log_det = self._run_to_noise(self.steps, x, known, training)
        return self._base.log_prob(u, context, training) + log_det

    def score(self, x, context=None):
        # Not through a call: no scope of half precision is open here.
        x, context = ops.cast(x, self.density_dtype), self._known_context(context)
        u, log_det = self._run_to_noise(self._compiled_steps(), x, context)
        return self._base.log_prob(u, context) + log_det

    def to_noise(self, x, context=None):
        """The noise that a row comes from.

        Args:
            x: `(..., D)`.
            context: `(..., C)`; its leading axes are broadcast with those of x.

        Returns:
            `(u, log_det)`: `(..., D)` and `(...)`, log |det du/dx|.
        """
        x, context = self._as_tensors(x, context)
        return self._run_to_noise(self.steps, x, context)

    def to_data(self, u, context=None):
        """The row that noise becomes; the reverse of `to_noise`.

        Returns:
            `(x, log_det)`: `(..., D)` and `(...)`, log |det dx/du|.
        """
        u, context = self._as_tensors(u, context)
        return self._run_to_data(self.steps, u, context)

    def _run_to_noise(self, steps, x, context, training=False):
        x, log_slope = self.units.standardize(x)
        total = ops.sum(log_slope, axis=-1)
        for step in steps:
            x, log_det = step.to_noise(x, context, training)
            total = total + log_det
        return x, total

    def _run_to_data(self, steps, u, context):
        total = 0.0
        for step in reversed(steps):
            u, log_det = step.to_data(u, context)
            total = total + log_det
        x, log_slope = self.units.restore(u)
        return x, total + ops.sum(log_slope, axis=-1)

    def _compiled_steps(self):
        """The steps inside a function that is compiled and not differentiated."""
        # Where nothing is compiled, a loop has nothing to save.
        return self.steps if backend() == "torch" else looped(self.steps)

    def _as_tensors(self, x, context):
        self.require_built()
        x = ops.convert_to_tensor(x, self.density_dtype)
        if x.shape[-1] not in (None, self.event_size):
            raise ValueError(
                f"Events must have size {self.event_size}. Received: shape "
                f"{tuple(x.shape)}."
            )
        return x, self._known_context(context)

    def _known_context(self, context):
        """Context as a tensor of the right size, or a ValueError."""
        if context is None:
            if self.context_size:
                raise ValueError(
                    f"The flow has a context of size {self.context_size}. Pass "
                    f"`context` of shape (..., {self.context_size}): fit((x, context))"
                    ", log_prob(x, context)."
                )
            return None
        context = ops.convert_to_tensor(context)
        if context.shape[-1] != self.context_size:
            raise ValueError(
                f"`context` must have size {self.context_size}. Received: shape "
                f"{tuple(context.shape)}."
            )
        return ops.cast(context, self.density_dtype)

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
        self.require_built()
        self.units.check()
        if context is not None:
            context = inputs.check_context(self, context, num_samples)
        self._known_context(context)
        noise = noise_generator(seed)
        function = self.compiled_function("sample", _draw)

        def run(rows, context):
            context = as_floats(context, self.density_dtype)
            u = self._base.draw(len(rows), context, noise, self.density_dtype)
            return function(u, context, verbose=verbose)

        rows = np.zeros((num_samples, 1), "float32")
        return run_in_chunks(run, [rows, context], self.floats_per_row(), verbose)

    def floats_per_row(self) -> int:
        return 16 * self.event_size + 2 * sum(self.hidden_units)

    # Both faces of TFP ----------------------------------------------------------------

    def bijector(self, context=None):
        """The map from u to x as a `tfb.Bijector` (TensorFlow).

        It reads the weights as they are at each call.

        Args:
            context: None, or `(..., C)`, which is broadcast with the batch of x.
        """
        from keras_made.tfp.bijectors import FlowBijector

        self.require_built()
        context = self._known_context(context)
        return FlowBijector(self, context=context, name=self.name)

    def distribution(self, context=None):
        """This density as a `tfd.Distribution`, with its `trainable_variables`.

        Args:
            context: None, `(C,)`, or a batch `(..., C)`, which is its batch shape.
        """
        from keras_made.tfp.distributions import flow_distribution

        return flow_distribution(self, self._base, self._known_context(context))

    def get_config(self):
        return {
            **keras.Model.get_config(self),
            "event_size": self.event_size,
            "num_steps": self.num_steps,
            "hidden_units": list(self.hidden_units),
            "context_size": self.context_size,
            "permutation": self.permutation,
            "base": self._base.get_config(),
            **self.get_units_config(),
            "min_scale": self.min_scale,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
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


def _draw(flow, u, context):
    """The rows that noise becomes; nobody differentiates them."""
    context = flow._known_context(context)
    return flow._run_to_data(flow._compiled_steps(), u, context)[0]
