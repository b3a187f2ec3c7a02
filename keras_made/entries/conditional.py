"""What one entry is like, given the parameters that the network computes for it.

A conditional is a small object with `num_params` parameters to an entry. Its numbers
are exact log-probabilities (or densities) in nats, and its samples are a deterministic
map of uniform noise: `draw`. That keeps every way of generating an event the same, and
lets noise be drawn once, outside the loop.

To add one, subclass `Conditional`, set `num_params`, write `log_prob` and `draw`, and
register the class with Keras; `get_config` when its constructor takes arguments;
`num_uniforms`, `mean`, `check`, `encode` and `distribution` where the defaults do not
fit; `interval_log_prob` and `draw_within` when it is to be asked for intervals;
`marginal_params` where training had better start at what the entry is like alone. None
of them need take NaN: `Incomplete(conditional)` keeps it from them.
"""

import inspect

import keras
import numpy as np
from keras import ops

from keras_made.entries.arithmetic import float_of
from keras_made.entries.encoder import Encoder
from keras_made.generation import draw_uniforms


class Conditional(Encoder):
    """Base: the family of p(x_i | the entries before it).

    Parameters have one axis more than the entries: `(..., num_params)`.
    """

    num_params = 1
    num_uniforms = 1
    # Whether log_prob is a density, so that data may be standardised around it.
    continuous = False
    # Whether entries may be NaN, which is missing; see `Incomplete`.
    incomplete = False

    def log_prob(self, params, x):
        """Log-probability of each entry in nats, the shape of `x`.

        What is no value of a discrete entry (a level that is not there, a number
        between two) has probability zero, and the logarithm -inf, whose gradient is
        zero; NaN has NaN.
        """
        raise NotImplementedError

    def draw(self, params, uniforms):
        """Entries from uniform noise `(..., num_uniforms)` in (0, 1): exact draws."""
        raise NotImplementedError

    def sample(self, params, seed=None):
        """One draw of each entry; `seed` is an int, a `SeedGenerator` or None."""
        shape = (*ops.shape(params)[:-1], self.num_uniforms)
        return self.draw(params, draw_uniforms(shape, seed, float_of(params)))

    def interval_log_prob(self, params, low, high):
        """log P(low <= x <= high) of each entry in nats.

        Ends belong to the interval. One that holds no value has -inf, and one without
        ends exactly 0. Of a continuous entry, `low == high` is a value that was
        observed: the result is its log density, what `log_prob` gives.

        Args:
            params: `(..., num_params)`.
            low: lower ends, `(...)`, -inf for none.
            high: upper ends, `(...)`, inf for none.
        """
        raise NotImplementedError(self._without_intervals())

    def draw_within(self, params, uniforms, low, high):
        """Exact draws given low <= x <= high, which never lie outside.

        Args:
            params: as for `interval_log_prob`.
            uniforms: noise `(..., num_uniforms)` in (0, 1).
            low: as for `interval_log_prob`.
            high: as for `interval_log_prob`.

        Returns:
            Entries `(...)`. Where no value is within, any.
        """
        raise NotImplementedError(self._without_intervals())

    def _without_intervals(self):
        return (
            f"{type(self).__name__} does not say what an interval holds. Write its "
            "`interval_log_prob` and `draw_within` to ask for intervals."
        )

    def marginal_params(self, values: np.ndarray) -> np.ndarray:
        """Parameters `(num_params,)` that say what these values of one entry are like.

        Where training may start; zeros where a conditional knows none.
        """
        return np.zeros(self.num_params)

    def mean(self, params):
        """Expectation of each entry."""
        raise NotImplementedError

    def distribution(self, params):
        """The same conditional as a `tfd.Distribution` (TensorFlow)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no TensorFlow Probability counterpart. "
            "Write its `distribution` method to give it one."
        )

    def check(self, x: np.ndarray) -> None:
        """Raise a ValueError that names the first value outside the support."""

    def check_shape(self, event_shape: tuple) -> None:
        """Raise a ValueError when events of this shape are not what it is for."""

    @property
    def encoder(self) -> Encoder | None:
        """In what form a network hears such entries; None: as plain numbers."""
        return None if type(self).encode is Encoder.encode else self


def check_config(conditional):
    """Refuse a conditional whose config does not say what it was made with.

    Two of them could not be told apart, and a file would hold neither.
    """
    cls = type(conditional)
    own = getattr(cls.from_config, "__func__", None)
    if own is not Encoder.from_config.__func__:
        return
    config = conditional.get_config()
    # What comes as `*args` or `**kwargs` may be said under any name, but not by an
    # empty config.
    unsaid = [
        p.name
        for p in inspect.signature(cls).parameters.values()
        if p.name not in config
        and (not config or p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    ]
    if unsaid:
        raise ValueError(
            f"{cls.__name__} takes the arguments {unsaid}, and its `get_config` does "
            "not return them: conditionals of other arguments would be taken for it, "
            "and it would be loaded with its defaults. Write a `get_config` that "
            "returns every argument of the constructor by its name."
        )


def tfp_distributions():
    """`tfp.distributions`, or an ImportError that says what it needs."""
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "TensorFlow Probability distributions need Keras on TensorFlow. The "
            f"backend is {keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow."
        )
    import tensorflow_probability as tfp

    return tfp.distributions
