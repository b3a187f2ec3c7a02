"""Bounded entries on an unbounded scale, and back.

    g(x) = x | log(x - low) | -log(high - x) | log(x - low) - log(high - x)

for an entry without bounds, with a lower one, an upper one, or both.
"""

import keras
import numpy as np
from keras import ops


class Bounds:
    """Where the entries of an event may lie.

    Args:
        support: `(low, high)`: numbers, or arrays with one for each entry; None or
            infinite where there is no bound. None: no bounds at all.

    Raises:
        ValueError: for what is no such pair, or holds nothing between its ends.
    """

    def __init__(self, support=None):
        self.low, self.high = _ends(support)
        self.has_low, self.has_high = np.isfinite(self.low), np.isfinite(self.high)

    @property
    def exist(self) -> np.ndarray:
        """Which entries have a bound."""
        return self.has_low | self.has_high

    def spread(self, event_shape: tuple[int, ...]) -> None:
        """Let there be a pair for each entry of an event."""
        try:
            ends = [np.broadcast_to(a, event_shape) for a in (self.low, self.high)]
        except ValueError:
            raise ValueError(
                "`support` must hold a number for each entry of an event of shape "
                f"{event_shape}, or one for all. Received: bounds of shapes "
                f"{self.low.shape} and {self.high.shape}."
            ) from None
        self.low, self.high = ends
        self.has_low, self.has_high = np.isfinite(self.low), np.isfinite(self.high)

    def _numbers(self, dtype):
        """Low, high and width, 0, 0 and 1 where there is none; the log of the width."""
        low = np.where(self.has_low, self.low, 0.0)
        high = np.where(self.has_high, self.high, 0.0)
        width = np.where(self.has_low & self.has_high, high - low, 1.0)
        return [a.astype(dtype) for a in (low, high, width, np.log(width))]

    def unbound(self, x, arrays=ops):
        """g(x) and log g'(x), elementwise.

        A value on a bound counts as the nearest inside that arithmetic can tell from
        it; outside, the log slope is minus infinity. NaN stays NaN, and its derivative
        is zero.

        Args:
            x: `(n, *event_shape)`.
            arrays: `keras.ops` for tensors, `numpy` for arrays.
        """
        dtype = keras.backend.standardize_dtype(x.dtype)
        low, high, width, log_width = self._numbers(dtype)
        both, number = self.has_low & self.has_high, np.finfo(dtype)
        nearest = np.where(both, width * number.eps, number.tiny).astype(dtype)
        below, above = arrays.subtract(x, low), arrays.subtract(high, x)
        outside = arrays.logical_or(
            arrays.logical_and(self.has_low, below < 0),
            arrays.logical_and(self.has_high, above < 0),
        )
        # Keras on torch would round `maximum(tensor, array)` to float32; and NaN goes
        # where `maximum` would keep it, for the logarithm has no derivative there.
        below, above = (
            arrays.where(arrays.greater(d, nearest), d, nearest) for d in (below, above)
        )
        # Where a bound is missing, the distance to it is 1, whose logarithm is 0.
        below = arrays.where(self.has_low, below, 1.0)
        above = arrays.where(self.has_high, above, 1.0)
        below, above = arrays.log(below), arrays.log(above)
        log_slope = arrays.subtract(log_width, below + above)
        kept = arrays.logical_or(np.logical_not(self.exist), arrays.isnan(x))
        return (
            arrays.where(kept, x, below - above),
            arrays.where(outside, -np.inf, log_slope),
        )

    def bound(self, y):
        """x with g(x) = y, strictly between the bounds, and log dx/dy."""
        dtype = keras.backend.standardize_dtype(y.dtype)
        low, high, width, log_width = map(ops.convert_to_tensor, self._numbers(dtype))
        both = self.has_low & self.has_high
        # From the nearer bound: a difference to the other would be rounded.
        part = width * ops.sigmoid(-ops.abs(y))
        between = ops.where(y < 0, low + part, high - part)
        # An exponential that is not chosen must be finite, for the gradient's sake.
        most = float(np.log(np.finfo(dtype).max)) - 1.0
        power = ops.clip(ops.where(self.has_low, y, -y), -most, most)
        distance = ops.exp(power)
        beyond = ops.where(self.has_low, low + distance, high - distance)
        x = ops.where(both, between, ops.where(self.exist, beyond, y))
        log_slope = ops.where(self.exist, power, 0.0)
        of_both = log_width - ops.softplus(y) - ops.softplus(-y)
        log_slope = ops.where(both, of_both, log_slope)
        return ops.where(self.exist, ops.clip(x, *self._inside(dtype)), x), log_slope

    def _inside(self, dtype):
        """The least and the greatest numbers between the bounds."""
        number = np.finfo(dtype)
        low, high = self.low.astype(dtype), self.high.astype(dtype)
        first = np.where(low > self.low, low, np.nextafter(low, number.max))
        last = np.where(high < self.high, high, np.nextafter(high, number.min))
        # Back ends flush what is smaller than the smallest normal number to zero.
        first = np.where((first > 0) & (first < number.tiny), number.tiny, first)
        last = np.where((last < 0) & (last > -number.tiny), -number.tiny, last)
        return first.astype(dtype), last.astype(dtype)

    def check(self, x: np.ndarray) -> None:
        """Raise a ValueError for the first value outside, by its index."""
        if not self.exist.any():
            return
        self.spread(x.shape[1:])
        # As the density sees them: 0.1 of float32 is not above 0.1 of float64.
        low, high = self.low.astype(x.dtype), self.high.astype(x.dtype)
        wrong = np.argwhere((x < low) | (x > high))
        if not len(wrong):
            return
        row, *entry = (int(i) for i in wrong[0])
        entry = tuple(entry)
        raise ValueError(
            "Rows must lie within `support`. Received: "
            f"{x[(row, *entry)]} in row {row}, entry {index(entry)}, where it is "
            f"({self.low[entry]}, {self.high[entry]})."
        )


def _ends(support):
    if support is None:
        return np.asarray(-np.inf), np.asarray(np.inf)
    error = ValueError(
        "`support` must be a tuple `(low, high)`, each a number or one for each entry, "
        f"with low below high. Received: support={support!r}."
    )
    if not isinstance(support, tuple | list) or len(support) != 2:
        raise error
    low, high = support
    try:
        low = np.asarray(-np.inf if low is None else low, "float64")
        high = np.asarray(np.inf if high is None else high, "float64")
        holds = bool(np.all(low < high))
    except (TypeError, ValueError):
        raise error from None
    if not holds:
        raise error
    return low, high


def index(entry: tuple):
    """The index of an entry, as a user would write it."""
    return entry[0] if len(entry) == 1 else entry
