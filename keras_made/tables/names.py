"""Columns of names: categories with and without an order, booleans, constants."""

import keras
import numpy as np

from keras_made.checks import require
from keras_made.entries import Atoms, Bernoulli, Categorical
from keras_made.tables.column import Column, numbers_of, plain, series_of, shorten


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
        self.categories = [plain(value) for value in categories]
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
                    f"for: {shorten(self.categories)}"
                )
            codes[row] = places[value]
        return codes

    def decode(self, codes):
        pd = require("pandas")
        values = [self.categories[int(code)] for code in np.round(codes)]
        if self.dtype == "category":
            return pd.Categorical(values, self.categories, ordered=self.ordered)
        return series_of(values, self.dtype)

    ordered = False

    def describe(self):
        return f"{len(self.categories)} categories: {shorten(self.categories)}"

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
        return f"{len(self.categories)} ordered: {shorten(self.categories, ' < ')}"


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
        return series_of(np.round(codes).astype(bool), self.dtype)

    def describe(self):
        return "False or True"


@keras.saving.register_keras_serializable(package="keras_made")
class Constant(Column):
    """A column of one value, which is no variable: it is put back, and not modelled.

    Args:
        value: the value; None for a column that was never observed.
        dtype: as in `Column`.
    """

    def __init__(self, value=None, dtype: str = "object"):
        super().__init__(dtype)
        self.value = plain(value)

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
