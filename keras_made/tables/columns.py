"""What one column of a table holds: its values as numbers, and back as they came.

A kind of column turns a pandas Series into numbers, NaN for what is missing, says by
which conditional they are modelled, and turns numbers back into a Series of the dtype
that came. pandas is imported when a column is used, not before.
"""

import datetime
import numbers
from typing import ClassVar

import keras
import numpy as np

from keras_made.checks import require
from keras_made.entries import (
    Atoms,
    Bernoulli,
    Categorical,
    MixtureOfLogistics,
    MixtureOfNormals,
)

# Integers of so many levels have a class each; of more, up to the second number, a
# discretised mixture; beyond, they are numbers on a line, rounded when drawn.
MOST_CLASSES = 64
MOST_LEVELS = 1000
NUM_COMPONENTS = 5
# Seconds of a day: dates without a time of day are counted in days.
DAY = 86400.0


class Column:
    """Base: a column of one kind.

    Args:
        dtype: of the pandas Series that came, as a string: what goes back out.
    """

    # Whether "the middle" of several values is their median; else it is the mode.
    numeric = True
    # What the data may be, for the density's `support`.
    support: ClassVar = (None, None)

    def __init__(self, dtype: str = "float64"):
        self.dtype = str(dtype)

    def conditional(self):
        """What an entry of the column is like; None for a column without variance."""
        raise NotImplementedError

    def encode(self, series) -> np.ndarray:
        """float64 numbers `(n,)`, NaN where missing; a ValueError for what is none."""
        raise NotImplementedError

    def decode(self, codes: np.ndarray):
        """A Series (or Categorical) of the column's dtype from numbers, none missing."""
        raise NotImplementedError

    def intervals(self, condition) -> list[tuple[float, float]]:
        """The closed intervals of numbers that a condition allows, none of them empty.

        Args:
            condition: a value; a range `(low, high)`, None where it has no end; or a
                list of values.
        """
        if isinstance(condition, tuple):
            if len(condition) != 2:
                raise ValueError(
                    "a range must be (low, high), None for no end. Received: "
                    f"{condition!r}"
                )
            low, high = (None if c is None else self.number(c) for c in condition)
            low, high = self.clip(low, high)
            if low > high:
                raise ValueError(
                    f"the interval {condition!r} is empty: it holds none of "
                    f"{self.describe()}"
                )
            return [(low, high)]
        if isinstance(condition, list | set | np.ndarray):
            values = sorted({self.number(value) for value in condition})
            if not values:
                raise ValueError("a list of values must hold one. Received: none")
            return _runs(values, self.step)
        value = self.number(condition)
        return [(value, value)]

    # Between one number and the next; 0 on a line.
    step = 0.0

    def number(self, value) -> float:
        """The number that stands for a value, or a ValueError."""
        series = require("pandas").Series([value])
        number = float(self.encode(series)[0])
        if np.isnan(number):
            raise ValueError(f"a condition needs a value. Received: {value!r}")
        return number

    def clip(self, low, high):
        """The ends of a range as numbers, infinite where it has none."""
        return -np.inf if low is None else low, np.inf if high is None else high

    def middle(self, codes: np.ndarray) -> np.ndarray:
        """What stands for several draws `(copies, n)`: one of them for each row."""
        if self.numeric:
            # The lower of two middles, so that it is a value that was drawn.
            return np.sort(codes, axis=0)[(len(codes) - 1) // 2]
        values = np.arange(codes.max() + 1)
        counts = (codes[..., None] == values).sum(axis=0)
        return values[counts.argmax(axis=-1)].astype(codes.dtype)

    def describe(self) -> str:
        """What it holds, in a few words."""
        raise NotImplementedError

    def get_config(self) -> dict:
        return {"dtype": self.dtype}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        told = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({told})"


def _runs(values, step):
    """Neighbouring values in one interval each."""
    runs = [[values[0], values[0]]]
    for value in values[1:]:
        if step and value - runs[-1][1] <= step:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return [tuple(run) for run in runs]


def _series(values, dtype):
    pd = require("pandas")
    return pd.Series(values, dtype=dtype)


def numbers_of(series) -> np.ndarray:
    """A Series of numbers as float64, NaN where missing, or a ValueError."""
    pd = require("pandas")
    if pd.api.types.is_numeric_dtype(series.dtype):
        return series.to_numpy("float64", na_value=np.nan)
    for place, value in enumerate(series):
        number = isinstance(value, numbers.Real)
        if not (number or value is None or value is pd.NA):
            raise ValueError(
                f"numbers are expected. Received: {value!r} in row {place}, of dtype "
                f"{series.dtype}"
            )
    missing = series.isna().to_numpy()
    return np.where(missing, np.nan, series.where(~missing, 0)).astype("float64")


def check_finite(values):
    wrong = np.flatnonzero(np.isinf(values))
    if len(wrong):
        raise ValueError(f"numbers must be finite. Received: inf in row {wrong[0]}")
    return values


@keras.saving.register_keras_serializable(package="keras_made")
class Category(Column):
    """One of several names, without an order.

    Args:
        categories: the values, at least two.
        dtype: as in `Column`.
    """

    numeric = False
    step = 1.0

    def __init__(self, categories, dtype: str = "object"):
        super().__init__(dtype)
        self.categories = [_plain(value) for value in categories]
        if len(self.categories) < 2 or len(set(self.categories)) < len(self.categories):
            raise ValueError(
                "`categories` must be at least two different values. Received: "
                f"{self.categories!r}."
            )

    def conditional(self):
        return Categorical(len(self.categories))

    def encode(self, series):
        missing = series.isna().to_numpy()
        places = {value: place for place, value in enumerate(self.categories)}
        codes = np.full(len(series), np.nan)
        for row in np.flatnonzero(~missing):
            value = series.iloc[row]
            if value not in places:
                raise ValueError(
                    f"{value!r} in row {row} is none of the categories it was made "
                    f"for: {_shorten(self.categories)}"
                )
            codes[row] = places[value]
        return codes

    def decode(self, codes):
        pd = require("pandas")
        values = [self.categories[int(code)] for code in np.round(codes)]
        if self.dtype == "category":
            return pd.Categorical(values, self.categories, ordered=self.ordered)
        return _series(values, self.dtype)

    ordered = False

    def describe(self):
        return f"{len(self.categories)} categories: {_shorten(self.categories)}"

    def get_config(self):
        return {"categories": self.categories, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_made")
class OrderedCategory(Category):
    """One of several names in an order; a range of them is a condition, too."""

    numeric = True
    ordered = True

    def conditional(self):
        return Atoms(np.arange(len(self.categories)))

    def clip(self, low, high):
        last = len(self.categories) - 1.0
        return 0.0 if low is None else low, last if high is None else high

    def describe(self):
        return f"{len(self.categories)} ordered: {_shorten(self.categories, ' < ')}"


@keras.saving.register_keras_serializable(package="keras_made")
class Boolean(Column):
    """False or True."""

    numeric = False
    step = 1.0

    def __init__(self, dtype: str = "bool"):
        super().__init__(dtype)

    def conditional(self):
        return Bernoulli()

    def encode(self, series):
        codes = numbers_of(series)
        wrong = np.flatnonzero(~np.isin(codes, (0.0, 1.0)) & ~np.isnan(codes))
        if len(wrong):
            raise ValueError(
                f"False or True is expected. Received: {series.iloc[wrong[0]]!r} in "
                f"row {wrong[0]}"
            )
        return codes

    def decode(self, codes):
        return _series(np.round(codes).astype(bool), self.dtype)

    def describe(self):
        return "False or True"


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
            return Atoms(np.arange(self.levels))
        if self.levels <= MOST_LEVELS:
            return MixtureOfLogistics(NUM_COMPONENTS, self.levels)
        return MixtureOfNormals(NUM_COMPONENTS)

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
        return _series(values.astype(float) if "float" in self.dtype.lower() else values,
                       self.dtype)

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
        return Atoms(self._own())

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
                f"was made for: {_shorten(self.values)}. Override the column by Real() "
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
        return _series(np.asarray(self.values)[nearest], self.dtype)

    def describe(self):
        return f"{len(self.values)} values: {_shorten(self.values)}"

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
        return MixtureOfNormals(NUM_COMPONENTS)

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
        return _series(values, self.dtype)

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
    def _seconds(self):
        return DAY if self.unit == "D" else 1.0

    def _zero(self):
        return require("pandas").Timestamp(self.origin)

    def conditional(self):
        return MixtureOfNormals(NUM_COMPONENTS)

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
        return passed.to_numpy("float64", na_value=np.nan) / self._seconds

    def number(self, value):
        pd = require("pandas")
        if not isinstance(value, str | datetime.date | np.datetime64):
            raise ValueError(f"a date is expected. Received: {value!r}")
        value = pd.Timestamp(value)
        if value.tzinfo is None and self._zero().tzinfo is not None:
            value = value.tz_localize(self._zero().tzinfo)
        return (value - self._zero()).total_seconds() / self._seconds

    def decode(self, codes):
        pd = require("pandas")
        seconds = np.round(np.asarray(codes, "float64")) * self._seconds
        return pd.Series(self._zero() + pd.to_timedelta(seconds, unit="s")).astype(
            self.dtype
        )

    def describe(self):
        unit = "days" if self.unit == "D" else "seconds"
        return f"a date, in {unit} since {self.origin}"

    def get_config(self):
        return {"origin": self.origin, "unit": self.unit, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_made")
class Constant(Column):
    """A column of one value, which is no variable: it is put back, and not modelled.

    Args:
        value: the value; None for a column that was never observed.
        dtype: as in `Column`.
    """

    def __init__(self, value=None, dtype: str = "object"):
        super().__init__(dtype)
        self.value = _plain(value)

    def conditional(self):
        return None

    def encode(self, series):
        values = series.dropna()
        if self.value is not None and len(values):
            own = self.decode_one(series.dtype)
            wrong = values[values != own]
            if len(wrong):
                raise ValueError(
                    f"it is constant, {self.value!r}. Received: {wrong.iloc[0]!r}"
                )
        elif len(values):
            raise ValueError(
                "it was never observed, and nothing is known of it. Received: "
                f"{values.iloc[0]!r}"
            )
        return np.zeros(len(series))

    def decode_one(self, dtype):
        pd = require("pandas")
        if pd.api.types.is_datetime64_any_dtype(dtype):
            return pd.Timestamp(self.value)
        return self.value

    def decode(self, codes):
        pd = require("pandas")
        if self.value is None:
            return pd.Series([None] * len(codes), dtype=self.dtype)
        return pd.Series([self.value] * len(codes)).astype(self.dtype)

    def intervals(self, condition):
        raise ValueError("it is constant, and nothing can be asked of it")

    def describe(self):
        return "never observed" if self.value is None else f"always {self.value!r}"

    def get_config(self):
        return {"value": self.value, **super().get_config()}


def _plain(value):
    """A value as a file of JSON keeps it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime.datetime | datetime.date):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(
        f"values of a column must be strings, numbers, booleans or dates. Received: "
        f"{value!r}, a {type(value).__name__}."
    )


def _shorten(values, between=", ", most=6):
    shown = between.join(str(value) for value in values[:most])
    return shown + (f"{between}..." if len(values) > most else "")
