"""Where a flow begins: the distributions of the noise u.

A base scores noise and draws it. The standard normal is one; any density of ours, with
its weights trained along, is another; on TensorFlow, so is a constant distribution of
TensorFlow Probability.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_made.densities.likelihood import LikelihoodModel
from keras_made.generation import clip

# In scales: log p is about -1e30 there.
FARTHEST = 1e15
# Where any base over all numbers has a density, and one with bounds is left.
FAR = 1e3


class StandardNormal:
    """u_i normal with mean 0 and scale 1, each by itself."""

    def __init__(self, event_size: int):
        self.event_size = event_size

    def log_prob(self, u, context=None, training=False):
        """log p of noise `(n, D)`, in nats: `(n,)`."""
        # The square of an outlier must be finite, and so must its gradient.
        squares = ops.sum(ops.square(clip(u, -FARTHEST, FARTHEST)), axis=-1)
        return -0.5 * (squares + self.event_size * math.log(2.0 * math.pi))

    def draw(self, num_rows, context, noise, dtype):
        """u, `(num_rows, D)`, of a `numpy.random.Generator`."""
        return noise.standard_normal((num_rows, self.event_size), dtype)

    def is_bounded(self) -> bool:
        """Whether there is noise that it cannot give."""
        return False

    def distribution(self, dtype, context=None):
        """The same as a `tfd.Distribution` over events `(D,)`."""
        from keras_made.tfp.bases import standard_normal

        return standard_normal(self.event_size, dtype)

    def get_config(self):
        return None


class DensityBase:
    """A density of ours, trained with the rest of the flow."""

    def __init__(self, model: LikelihoodModel):
        self.model = model

    def log_prob(self, u, context=None, training=False):
        inputs = u if context is None or not self.model.context_size else (u, context)
        return self.model(inputs, training=training)

    def draw(self, num_rows, context, noise, dtype):
        context = context if self.model.context_size else None
        u = self.model.sample(num_rows, context, seed=noise, verbose=0)
        return ops.cast(u, dtype)

    def is_bounded(self):
        return self.model.is_bounded()

    def distribution(self, dtype, context=None):
        return self.model.distribution(context if self.model.context_size else None)

    def get_config(self):
        return keras.saving.serialize_keras_object(self.model)


class ConstantBase:
    """A `tfd.Distribution` with constant parameters, kept as plain values."""

    def __init__(self, config: dict, event_size: int):
        self.config = config
        self.event_size = event_size
        self.distribution("float32")

    def log_prob(self, u, context=None, training=False):
        return self.distribution(keras.backend.standardize_dtype(u.dtype)).log_prob(u)

    def draw(self, num_rows, context, noise, dtype):
        # Of the shape that TFP's stateless draws want.
        pair = noise.integers(2**31 - 1, size=2, dtype="int32")
        return self.distribution(dtype).sample(num_rows, seed=pair)

    def is_bounded(self):
        far = np.outer([-FAR, FAR], np.ones(self.event_size))
        scores = self.log_prob(ops.convert_to_tensor(far, "float32"))
        return not np.all(np.isfinite(scores))

    def distribution(self, dtype, context=None):
        from keras_made.tfp import bases

        return bases.over_events(bases.from_config(self.config, dtype), self.event_size)

    def get_config(self):
        return self.config


def get(base, event_size: int):
    """The base of what a user passed: None, a density, a `tfd.Distribution`, a config.

    Raises:
        ValueError: for anything else, or events of another size.
    """
    if base is None:
        return StandardNormal(event_size)
    if isinstance(base, dict) and "arguments" in base:
        return ConstantBase(base, event_size)
    if isinstance(base, dict):
        base = keras.saving.deserialize_keras_object(base)
    if isinstance(base, LikelihoodModel):
        if base.event_shape not in (None, (event_size,)):
            raise ValueError(
                f"`base` must be a density over events of size {event_size}. Received: "
                f"one over events of shape {base.event_shape}."
            )
        return DensityBase(base)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`base` must be None (standard normal) or a density of this package; a "
            "distribution of TensorFlow Probability needs Keras on TensorFlow. "
            f"Received: {base!r} on {keras.backend.backend()!r}."
        )
    from keras_made.tfp import bases

    return ConstantBase(bases.to_config(base), event_size)
