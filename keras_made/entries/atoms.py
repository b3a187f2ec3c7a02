"""Numbers that take few values: a class for each, heard as a number."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.checks import to_array
from keras_made.entries.arithmetic import float_of, raise_first
from keras_made.entries.conditional import tfp_distributions
from keras_made.entries.discrete import Categorical

# How many values an error names.
NAMED = 8


@keras.saving.register_keras_serializable(package="keras_made")
class Atoms(Categorical):
    """A number that takes few values: designed experiments, prices in steps, counts.

        p(x = values[k]) = softmax(params)[k]

    As a `Categorical` it has a parameter for each value, whatever their distances. A
    network hears a value as the number that it is, standardised over the values, and as
    its rank among them, on [-1, 1]: what lies near in either is heard as near, and an
    uneven grid (1, 2, 5, 10, 100) keeps its steps apart.

    Values and entries are compared as float32, in which entries travel.

    Args:
        values: the values, in any order: at least two finite numbers that float32 tells
            apart, such as `np.unique(column)`.

    Raises:
        ValueError: for values that are no such numbers; from `check`, for an entry
            that is none of them.

    Example:
        >>> import numpy as np
        >>> dose = Atoms([0.0, 0.5, 1.0, 5.0])
        >>> dose.num_params, dose.num_features
        (4, 2)
        >>> p = dose.interval_log_prob(np.zeros((1, 4), "float32"), 0.5, 5.0)
        >>> round(float(np.exp(p[0])), 3)
        0.75
    """

    def __init__(self, values: Sequence[float]):
        self.values_in_order = _check_values(values)
        super().__init__(len(self.values_in_order))
        self.num_features = 2
        numbers = self.values_in_order.astype("float64")
        self._middle, self._spread = float(numbers.mean()), float(numbers.std())

    def values(self, dtype="float32"):
        """The values in order, a tensor `(K,)` of float32."""
        return ops.convert_to_tensor(self.values_in_order)

    def log_prob(self, params, x):
        return super().log_prob(params, self._index(x))

    def _index(self, x):
        """The number of each value among all, -1 for what is none; NaN for NaN."""
        x = ops.cast(x, "float32")
        same = ops.equal(x[..., None], self.values())
        index = ops.where(ops.any(same, axis=-1), self._rank(x), -1.0)
        return ops.where(ops.isnan(x), np.nan, index)

    def _rank(self, x):
        """The number of the last value that x reaches, 0 below all, as float32."""
        reached = ops.cast(x[..., None] >= self.values()[1:], "float32")
        return ops.sum(reached, axis=-1)

    def _pick(self, index, params):
        return ops.cast(ops.take(self.values(), index), params.dtype)

    def draw(self, params, uniforms):
        return self._pick(ops.cast(super().draw(params, uniforms), "int32"), params)

    def marginal_params(self, values):
        order = self.values_in_order
        return super().marginal_params(np.searchsorted(order, values.astype("float32")))

    def mean(self, params):
        """Expected value."""
        return ops.sum(
            ops.exp(self.log_probs(params)) * ops.cast(self.values(), params.dtype),
            axis=-1,
        )

    def distribution(self, params):
        values = ops.cast(self.values(), params.dtype)
        return tfp_distributions().FiniteDiscrete(values, logits=params)

    def check(self, x):
        same = np.isin(x.astype("float32"), self.values_in_order)
        raise_first(~same, x, f"one of {self._name_values()}", "")

    def encode(self, x):
        # What is heard of the entries of other columns need only be finite.
        rank = self._rank(ops.cast(x, "float32")) * (2.0 / (self.num_classes - 1)) - 1.0
        x = ops.cast(x, float_of(x))
        number = (x - self._middle) / self._spread
        return ops.stack([number, ops.cast(rank, x.dtype)], axis=-1)

    def _name_values(self):
        named = ", ".join(f"{value:g}" for value in self.values_in_order[:NAMED])
        more = self.num_classes - NAMED
        return f"the values {named}" + (f" and {more} more" if more > 0 else "")

    def get_config(self):
        return {"values": self.values_in_order.tolist()}


def _check_values(values):
    """Values in order, float32, or a ValueError."""
    expected = (
        "`values` must be at least two finite numbers that differ as float32, in which "
        "entries travel, such as `np.unique(column)`."
    )
    array = to_array("values", values)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{expected} Received: shape {array.shape}.")
    with np.errstate(over="ignore"):
        order = np.sort(array.astype("float32"))
    if not np.isfinite(order).all():
        wrong = array[~np.isfinite(array.astype("float64"))]
        raise ValueError(f"{expected} Received: {wrong[0] if len(wrong) else array}.")
    twice = np.flatnonzero(order[1:] == order[:-1])
    if len(twice):
        raise ValueError(f"{expected} Received: {order[twice[0]]:g} twice.")
    return order
