"""Columns of quantities: whole numbers, few values, real numbers, dates."""

import datetime
import numbers

import keras
import numpy as np

from keras_made.checks import require
from keras_made.entries import Atoms, MixtureOfLogistics, PiecewiseLinear
from keras_made.recipes.mixed import KNOTS, real_entry
from keras_made.tables.column import (
    Column,
    check_finite,
    numbers_of,
    series_of,
    shorten,
)

# Integers of so many levels have a class each; of more, up to the second number, a
# discretised mixture; beyond, they are numbers on a line, rounded when drawn.
MOST_CLASSES = 64
MOST_LEVELS = 1000
NUM_COMPONENTS = 5
# Seconds of a day: dates without a time of day are counted in days.
DAY = 86400.0


def in_pieces(conditional, values):
    """A numeric entry that takes these values, heard in pieces between knots."""
    if len(values) > KNOTS:
        values = np.linspace(values[0], values[-1], KNOTS)
    return PiecewiseLinear(conditional, values)


@keras.saving.register_keras_serializable(package="keras_made")
class Integer(Column):
    """Whole numbers from `low` to `high`.

    Up to 64 values have a class each, up to 1,000 a mixture of discretised logistics;
    a longer range is a line, whose draws are rounded.

    Args:
        low: the least value.
        high: the greatest.
        dtype: as in `Column`.
    """

    step = 1.0

    def __init__(self, low: int, high: int, dtype: str = "int64"):
        super().__init__(dtype)
        self.low, self.high = int(low), int(high)
        if self.low >= self.high:
            raise ValueError(
                f"`low` must be less than `high`. Received: {low!r} and {high!r}."
            )
        # What the network's numbers are counted from.
        self.levels = self.high - self.low + 1

    def conditional(self):
        if self.levels <= MOST_CLASSES:
            return in_pieces(Atoms(np.arange(self.levels)), np.arange(self.levels))
        if self.levels <= MOST_LEVELS:
            logistics = MixtureOfLogistics(NUM_COMPONENTS, self.levels)
            return in_pieces(logistics, np.arange(self.levels))
        return real_entry(NUM_COMPONENTS)

    @property
    def support(self):
        # Half a step beyond the ends, which a draw is rounded back to.
        return (-0.5, self.levels - 0.5) if self.levels > MOST_LEVELS else (None, None)

    def encode(self, series):
        values = numbers_of(series)
        wrong = np.flatnonzero((values != np.round(values)) & ~np.isnan(values))
        if len(wrong):
            raise ValueError(
                f"whole numbers are expected. Received: {series.iloc[wrong[0]]!r} in "
                f"row {wrong[0]}"
            )
        wrong = np.flatnonzero((values < self.low) | (values > self.high))
        if len(wrong):
            raise ValueError(
                f"{series.iloc[wrong[0]]!r} in row {wrong[0]} is not within the range "
                f"it was made for, {self.low} to {self.high}. Override the column by "
                "Integer(low, high) if there may be others"
            )
        return values - self.low

    def number(self, value):
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise ValueError(f"a whole number is expected. Received: {value!r}")
        return float(value) - self.low

    def intervals(self, condition):
        found = super().intervals(condition)
        if self.levels > MOST_LEVELS:
            return [(low - 0.5, high + 0.5) for low, high in found]
        return found

    def clip(self, low, high):
        low = 0.0 if low is None else max(0.0, np.ceil(low))
        last = self.levels - 1.0
        return low, last if high is None else min(last, np.floor(high))

    def decode(self, codes):
        codes = np.clip(np.round(codes), 0, self.levels - 1)
        values = codes.astype("int64") + self.low
        return series_of(
            values.astype(float) if "float" in self.dtype.lower() else values,
            self.dtype,
        )

    def describe(self):
        return f"whole numbers from {self.low} to {self.high}"

    def get_config(self):
        return {"low": self.low, "high": self.high, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_made")
class Values(Column):
    """Numbers of which there are few: doses, sizes, prices in steps.

    Args:
        values: the numbers, at least two.
        dtype: as in `Column`.
    """

    step = 0.0

    def __init__(self, values, dtype: str = "float64"):
        super().__init__(dtype)
        self.values = sorted({float(value) for value in values})
        if len(self.values) < 2:
            raise ValueError(
                f"`values` must be at least two numbers. Received: {values!r}."
            )

    def conditional(self):
        return in_pieces(Atoms(self._own()), self._own())

    def _own(self):
        # As the density sees them, in single precision.
        return np.asarray(self.values, "float32").astype("float64")

    def encode(self, series):
        numbers_ = numbers_of(series)
        known = np.asarray(self.values)
        places = np.clip(np.searchsorted(known, numbers_), 0, len(known) - 1)
        wrong = np.flatnonzero((known[places] != numbers_) & ~np.isnan(numbers_))
        if len(wrong):
            raise ValueError(
                f"{series.iloc[wrong[0]]!r} in row {wrong[0]} is none of the values it "
                f"was made for: {shorten(self.values)}. Override the column by Real() "
                "if it may take others"
            )
        return np.where(np.isnan(numbers_), np.nan, self._own()[places])

    def number(self, value):
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise ValueError(f"a number is expected. Received: {value!r}")
        return float(value)

    def clip(self, low, high):
        known = self._own()
        low = -np.inf if low is None else low
        high = np.inf if high is None else high
        inside = known[(known >= low) & (known <= high)]
        return (inside[0], inside[-1]) if len(inside) else (1.0, 0.0)

    def decode(self, codes):
        nearest = np.abs(np.asarray(codes)[:, None] - self._own()).argmin(axis=1)
        return series_of(np.asarray(self.values)[nearest], self.dtype)

    def describe(self):
        return f"{len(self.values)} values: {shorten(self.values)}"

    def get_config(self):
        return {"values": self.values, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_made")
class Real(Column):
    """A number on a line, or on a part of it.

    Args:
        low: the bound below; None for none. What is positive and skewed has 0.
        high: the bound above.
        origin: what numbers are counted from, in double precision; only without bounds.
        dtype: as in `Column`.
    """

    def __init__(self, low=None, high=None, origin: float = 0.0, dtype="float64"):
        super().__init__(dtype)
        self.low = None if low is None else float(low)
        self.high = None if high is None else float(high)
        if None not in (low, high) and self.low >= self.high:
            raise ValueError(
                f"`low` must be less than `high`. Received: {low!r} and {high!r}."
            )
        self.origin = float(origin)

    @property
    def support(self):
        ends = (self.low, self.high)
        return tuple(None if end is None else end - self.origin for end in ends)

    def conditional(self):
        return real_entry(NUM_COMPONENTS)

    def encode(self, series):
        values = check_finite(numbers_of(series))
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        wrong = np.flatnonzero((values <= low) | (values >= high))
        if len(wrong):
            raise ValueError(
                f"{series.iloc[wrong[0]]!r} in row {wrong[0]} is not between its "
                f"bounds, {self.low} and {self.high}"
            )
        return values - self.origin

    def number(self, value):
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise ValueError(f"a number is expected. Received: {value!r}")
        return float(value) - self.origin

    def decode(self, codes):
        values = np.asarray(codes, "float64") + self.origin
        return series_of(values, self.dtype)

    def describe(self):
        if self.low is None and self.high is None:
            return "a real number"
        ends = ["" if end is None else f"{end:g}" for end in (self.low, self.high)]
        return f"a real number within ({ends[0] or '-inf'}, {ends[1] or 'inf'})"

    def get_config(self):
        return {
            "low": self.low,
            "high": self.high,
            "origin": self.origin,
            **super().get_config(),
        }


@keras.saving.register_keras_serializable(package="keras_made")
class DateTime(Column):
    """A date or a time: a number of days, or of seconds, since one of them.

    Args:
        origin: what is counted from, as a string.
        unit: `"D"` or `"s"`. Draws are whole numbers of it.
        dtype: as in `Column`; with a time zone if it came with one.
    """

    def __init__(self, origin: str, unit: str = "s", dtype: str = "datetime64[ns]"):
        super().__init__(dtype)
        self.origin, self.unit = str(origin), unit
        if unit not in ("D", "s"):
            raise ValueError(f"`unit` must be 'D' or 's'. Received: unit={unit!r}.")

    @property
    def seconds(self) -> float:
        """Of one unit."""
        return DAY if self.unit == "D" else 1.0

    def _zero(self):
        return require("pandas").Timestamp(self.origin)

    def epoch(self) -> float:
        """Seconds from 1970 to the origin."""
        return self._zero().timestamp()

    def conditional(self):
        return real_entry(NUM_COMPONENTS)

    def encode(self, series):
        pd = require("pandas")
        if not pd.api.types.is_datetime64_any_dtype(series.dtype):
            raise ValueError(f"dates are expected. Received: dtype {series.dtype}")
        try:
            passed = (series - self._zero()).dt.total_seconds()
        except TypeError as error:
            raise ValueError(
                f"its time zone is that of {self.dtype}. Received: dtype {series.dtype}"
            ) from error
        return passed.to_numpy("float64", na_value=np.nan) / self.seconds

    def number(self, value):
        pd = require("pandas")
        if not isinstance(value, str | datetime.date | np.datetime64):
            raise ValueError(f"a date is expected. Received: {value!r}")
        value = pd.Timestamp(value)
        if value.tzinfo is None and self._zero().tzinfo is not None:
            value = value.tz_localize(self._zero().tzinfo)
        return (value - self._zero()).total_seconds() / self.seconds

    def decode(self, codes):
        pd = require("pandas")
        seconds = np.round(np.asarray(codes, "float64")) * self.seconds
        return pd.Series(self._zero() + pd.to_timedelta(seconds, unit="s")).astype(
            self.dtype
        )

    def describe(self):
        unit = "days" if self.unit == "D" else "seconds"
        return f"a date, in {unit} since {self.origin}"

    def get_config(self):
        return {"origin": self.origin, "unit": self.unit, **super().get_config()}
