"""Where kernels start: spreads that count only what is connected."""

import keras
import numpy as np
from keras import ops


class OnHeard(keras.initializers.Initializer):
    """An initializer of scaled variance, with fans that count only what is connected.

    Args:
        initializer: any; one whose scale does not follow from fans is left alone.
        fan_in: number of inputs that each unit hears, `(units,)`.
        fan_out: number of units that hear each input, `(inputs,)`.
    """

    def __init__(self, initializer, fan_in, fan_out):
        self.initializer = initializer
        self.fan_in = fan_in
        self.fan_out = fan_out

    def __call__(self, shape, dtype=None):
        kernel = self.initializer(shape, dtype=dtype)
        return self._scale(kernel, self.fan_in, self.fan_out)

    def panel(self, staircase, index, dtype=None):
        """One panel, cut from what the kernel would have been, so as to start alike."""
        shape = len(self.fan_out), len(self.fan_in)
        kernel = staircase.split(self.initializer(shape, dtype=dtype))[index]
        start, stop, height = staircase.panels[index]
        fan_in = self.fan_in[staircase.unit_order[start:stop]]
        fan_out = self.fan_out[staircase.source_order[:height]]
        return self._scale(kernel, fan_in, fan_out)

    def _scale(self, kernel, fan_in, fan_out):
        initializer = getattr(self.initializer, "initializer", self.initializer)
        if not isinstance(initializer, keras.initializers.VarianceScaling):
            return kernel
        inputs, units = len(self.fan_out), len(self.fan_in)
        # A large kernel's scales are as large as itself: not in double precision.
        fan_in = fan_in[None, :].astype("float32")
        fan_out = fan_out[:, None].astype("float32")
        full, heard = {
            "fan_in": (inputs, fan_in),
            "fan_out": (units, fan_out),
            "fan_avg": (inputs + units, fan_in + fan_out),
        }[initializer.mode]
        scale = np.sqrt(full / np.maximum(heard, 1))
        return kernel * ops.cast(scale, kernel.dtype)


@keras.saving.register_keras_serializable(package="keras_made")
class Shrunk(keras.initializers.Initializer):
    """What another initializer gives, times a factor."""

    def __init__(self, initializer, factor: float):
        self.initializer = keras.initializers.get(initializer)
        self.factor = factor

    def __call__(self, shape, dtype=None):
        return self.factor * self.initializer(shape, dtype=dtype)

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, "factor": self.factor}


def another_initializer(initializer, index: int):
    """One more of its kind: called again, a Keras initializer repeats itself."""
    if not isinstance(getattr(initializer, "seed", None), int):
        return initializer
    config = {**initializer.get_config(), "seed": initializer.seed + index}
    return type(initializer).from_config(config)
