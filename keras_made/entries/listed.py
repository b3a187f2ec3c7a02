"""Entries that take one of a few values: what they share about intervals."""

import keras
from keras import ops

from keras_made.entries.conditional import Conditional
from keras_made.entries.intervals import draw_among, ends, log_mass_among


class Listed(Conditional):
    """Base of the conditionals whose values can be listed, with their probabilities.

    A subclass writes `log_probs`, and `values` where they are not 0, 1, 2, ...
    """

    def log_probs(self, params):
        """Log-probability of every value in nats: `(..., K)`."""
        raise NotImplementedError

    def values(self, dtype):
        """The values in order, a tensor `(K,)`."""
        raise NotImplementedError

    def interval_log_prob(self, params, low, high):
        inside = self._inside(low, high, params.dtype)
        return log_mass_among(*_alike(self.log_probs(params), inside))

    def draw_within(self, params, uniforms, low, high):
        inside = self._inside(low, high, params.dtype)
        log_probs, inside = _alike(self.log_probs(params), inside)
        return self._pick(draw_among(log_probs, inside, uniforms[..., :1]), params)

    def _pick(self, index, params):
        """The values of these numbers, in the dtype of `params`."""
        return ops.cast(index, params.dtype)

    def _inside(self, low, high, dtype):
        """Which values lie in the closed interval: bools `(..., K)`."""
        values = self.values(dtype)
        low, high = ends(low, high, keras.backend.standardize_dtype(values.dtype))
        return (values >= low[..., None]) & (values <= high[..., None])


def _alike(log_probs, inside):
    """Both with the axes that they have together."""
    inside = inside | ops.zeros_like(log_probs, dtype="bool")
    return log_probs + ops.zeros_like(inside, dtype=log_probs.dtype), inside
