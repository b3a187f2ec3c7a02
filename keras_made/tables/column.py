"""What one column of a table holds: its values as numbers, and back as they came.

A kind of column turns a pandas Series into numbers, NaN for what is missing, says by
which conditional they are modelled, and turns numbers back into a Series of the dtype
that came. pandas is imported when a column is used, not before.
"""

import datetime
import numbers
from typing import ClassVar

import numpy as np

from keras_made.checks import require


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
        """A Series or Categorical of the column's dtype from numbers, none missing."""
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
            return runs(values, self.step)
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


def runs(values, step):
    """Neighbouring values in one interval each."""
    runs = [[values[0], values[0]]]
    for value in values[1:]:
        if step and value - runs[-1][1] <= step:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return [tuple(run) for run in runs]


def series_of(values, dtype):
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


def plain(value):
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


def shorten(values, between=", ", most=6):
    shown = between.join(str(value) for value in values[:most])
    return shown + (f"{between}..." if len(values) > most else "")
