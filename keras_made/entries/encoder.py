"""In what form entries reach a network."""

import keras

from keras_made.configured import Configured
from keras_made.generation import clip


class Encoder(Configured):
    """Turns each entry into features; this one hands the number itself on.

    A network hears features, `(..., *event_shape, num_features)`. What it hears of an
    entry need not be its number: a class says nothing by its size.
    """

    num_features = 1

    def encode(self, x):
        """Features `(..., num_features)` of entries `(...)`."""
        return x[..., None]

    def at(self, entries):
        """The encoder of the entries with these indices, ints `(..., n)`."""
        return self


@keras.saving.register_keras_serializable(package="keras_made")
class Bounded(Encoder):
    """The number itself, kept within a limit, as networks of flows hear it.

        feature = x, within [-limit, limit]

    Far outside the data the steps of a flow are then affine with bounded parameters: an
    outlier is not amplified by step after step of a deep stack.
    """

    def __init__(self, limit: float = 100.0):
        self.limit = limit

    def encode(self, x):
        return clip(x, -self.limit, self.limit)[..., None]

    def get_config(self):
        return {"limit": self.limit}


def is_same_form(encoder, other) -> bool:
    """Do entries reach a network alike through both? None stands for plain numbers."""
    if encoder is None or other is None or type(encoder) is not type(other):
        return encoder is other
    return encoder is other or encoder.get_config() == other.get_config()


def describe_form(encoder) -> str:
    """The form in words, for an error."""
    return "plain numbers" if encoder is None else f"entries through {encoder!r}"
