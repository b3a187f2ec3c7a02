"""Reading variables as they are stored, whatever the policy."""

# Keras shows no public way out of a scope of half precision.
from keras.src.backend import AutocastScope


def full_precision():
    """A scope in which Keras variables are read as they are stored.

    A model that is called under a policy such as `mixed_float16` opens one in which
    they are rounded. That is for the layers of networks, which open it again: location
    and scale of data far from unit scale would be rounded to nothing.
    """
    return AutocastScope(None)
