"""What a table holds, column by column: read from a frame, printed, overridden."""

import contextlib

import keras
import numpy as np

from keras_made.checks import require
from keras_made.tables.column import Column, numbers_of
from keras_made.tables.names import Boolean, Category, Constant, OrderedCategory
from keras_made.tables.quantities import (
    MOST_CLASSES,
    DateTime,
    Integer,
    Real,
    Values,
)

# Names of more kinds than this share of the rows are no categories, but names.
MOST_CATEGORIES = 0.5
# Numbers are a few values, and not points of a line, when each comes so often.
ROWS_OF_A_VALUE = 10
# Fewer whole numbers are a scale; a longer range may hold others than were seen.
FEW_LEVELS = 10
# From this skewness on, positive numbers are modelled by their logarithms, where those
# are less skewed.
SKEWED = 1.0


@keras.saving.register_keras_serializable(package="keras_made")
class Schema:
    """The columns of a table: how each becomes a number, and comes back.

    Args:
        columns: dict of name to `Column`, in order.
        num_rows: of the table that it was read from; the default network goes by it.

    Example:
        >>> import pandas as pd
        >>> from keras_made.tables import Schema
        >>> frame = pd.DataFrame({"sex": ["F", "M", "F"], "age": [31, 54, 29]})
        >>> print(Schema.from_frame(frame))
        sex  Category  2 categories: F, M
        age  Integer   whole numbers from 22 to 61
    """

    def __init__(self, columns: dict[str, Column], num_rows: int | None = None):
        for name, column in columns.items():
            if not isinstance(column, Column):
                raise ValueError(
                    f"Column {name!r} must be a kind of column, such as "
                    f"keras_made.tables.Real(). Received: {column!r}."
                )
        self.columns = dict(columns)
        self.num_rows = num_rows
        # Those with variance: the entries of an event, in order.
        self.modelled = [n for n, c in self.columns.items() if c.conditional()]
        if not self.modelled:
            raise ValueError(
                "A table needs a column that varies. Received: columns "
                f"{list(self.columns)}, all of them constant or never observed."
            )

    @classmethod
    def from_frame(cls, frame, overrides: dict[str, Column] | None = None) -> "Schema":
        """Guess the columns of a frame; `print` it, and override what is wrong.

        Args:
            frame: a pandas DataFrame with unique names; missing values are those of
                `isna`.
            overrides: columns by name that are not to be guessed.

        Raises:
            ValueError: by name, for a column that cannot be guessed.
        """
        frame = as_frame(frame)
        overrides = dict(overrides or {})
        unknown = [name for name in overrides if name not in frame.columns]
        if unknown:
            raise ValueError(
                f"`overrides` names column {unknown[0]!r}, which the frame has not. "
                f"Its columns are {list(frame.columns)}."
            )
        columns = {}
        for name in frame.columns:
            with named(name):
                columns[name] = overrides.get(name) or guess(frame[name])
                # Where the frame says so, it gets back the dtype that it came with.
                if name in overrides:
                    columns[name].dtype = str(frame[name].dtype)
        return cls(columns, len(frame))

    def replace(self, columns: dict[str, Column]) -> "Schema":
        """The same schema with other kinds for some columns, by name."""
        for name in columns:
            self.check_name(name)
        return Schema({**self.columns, **columns}, self.num_rows)

    def check_name(self, name):
        if name not in self.columns:
            raise ValueError(
                f"There is no column {name!r}. The columns are {list(self.columns)}."
            )

    def conditionals(self) -> list:
        """The conditional of each modelled column."""
        return [self.columns[name].conditional() for name in self.modelled]

    def support(self):
        """`(low, high)` of the modelled columns, or None where none is bounded."""
        ends = [self.columns[name].support for name in self.modelled]
        if all(end == (None, None) for end in ends):
            return None
        low = [-np.inf if low is None else low for low, _ in ends]
        high = [np.inf if high is None else high for _, high in ends]
        return low, high

    def encode(self, frame) -> np.ndarray:
        """The modelled columns of a frame as float64 `(n, D)`, NaN where missing.

        Raises:
            ValueError: by name, for columns that are missing or unknown, and for values
                that a column cannot have.
        """
        frame = self.check(frame)
        encoded = {}
        for name, column in self.columns.items():
            with named(name):
                encoded[name] = column.encode(frame[name])
        return np.stack([encoded[name] for name in self.modelled], axis=1)

    def check(self, frame):
        """The frame, with its columns in order, or a ValueError."""
        frame = as_frame(frame)
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise ValueError(
                f"Column {missing[0]!r} is missing. The columns are "
                f"{list(self.columns)}; one of which nothing is known holds NaN."
            )
        unknown = [name for name in frame.columns if name not in self.columns]
        if unknown:
            raise ValueError(
                f"Column {unknown[0]!r} is unknown. The columns are "
                f"{list(self.columns)}; drop it, or make the schema anew."
            )
        return frame[list(self.columns)]

    def decode(self, codes: np.ndarray, index=None):
        """A DataFrame from numbers `(n, D)`, in the dtypes that came."""
        pd = require("pandas")
        places = {name: place for place, name in enumerate(self.modelled)}
        data = {}
        for name, column in self.columns.items():
            own = codes[:, places[name]] if name in places else np.zeros(len(codes))
            data[name] = pd.Series(column.decode(own)).set_axis(range(len(codes)))
        frame = pd.DataFrame(data, columns=list(self.columns))
        return frame if index is None else frame.set_axis(index)

    def boxes(self, event: dict) -> tuple[np.ndarray, np.ndarray]:
        """Conditions by name as disjoint boxes: ends `(m, D)`, infinite where free.

        Raises:
            ValueError: by name, for an unknown column and for an empty condition.
        """
        if not isinstance(event, dict) or not event:
            raise ValueError(
                "Conditions must be a dict of one column or more, such as "
                f"{{'age': (50, None)}}. Received: {event!r}."
            )
        boxes = [
            (np.full(len(self.modelled), -np.inf), np.full(len(self.modelled), np.inf))
        ]
        for name, condition in event.items():
            self.check_name(name)
            with named(name):
                intervals = self.columns[name].intervals(condition)
            place = self.modelled.index(name)
            boxes = [_narrow(box, place, i) for box in boxes for i in intervals]
        low, high = zip(*boxes, strict=True)
        return np.array(low), np.array(high)

    def __getitem__(self, name):
        self.check_name(name)
        return self.columns[name]

    def __str__(self):
        rows = [
            (str(name), type(column).__name__, column.describe())
            for name, column in self.columns.items()
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {text}"
            for name, kind, text in rows
        )

    __repr__ = __str__

    def get_config(self):
        columns = [
            [name, keras.saving.serialize_keras_object(column)]
            for name, column in self.columns.items()
        ]
        return {"columns": columns, "num_rows": self.num_rows}

    @classmethod
    def from_config(cls, config):
        columns = {
            name: keras.saving.deserialize_keras_object(column)
            for name, column in config["columns"]
        }
        return cls(columns, config["num_rows"])


def _narrow(box, place, interval):
    low, high = (end.copy() for end in box)
    low[place], high[place] = interval
    return low, high


@contextlib.contextmanager
def named(name):
    """What goes wrong inside is told with the name of the column."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Column {name!r}: {error}") from error


def as_frame(frame):
    """A pandas DataFrame of at least one row, from what can become one."""
    pd = require("pandas")
    if not isinstance(frame, pd.DataFrame) and hasattr(frame, "to_pandas"):
        # polars and Arrow have a conversion of their own.
        frame = frame.to_pandas()
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(
            "A table must be a DataFrame of pandas, or have `to_pandas`. Received: a "
            f"{type(frame).__name__}."
        )
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ValueError(
            f"Column {repeated[0]!r} is there more than once. Names must be unique."
        )
    wrong = [name for name in frame.columns if not isinstance(name, str)]
    if wrong:
        raise ValueError(
            f"Names of columns must be strings. Received: {wrong[0]!r}. Rename them, "
            "`frame.rename(columns=str)`."
        )
    if frame.empty:
        raise ValueError(
            f"The frame is empty: {frame.shape[0]} rows, {frame.shape[1]} columns. "
            "Pass one row and one column at least."
        )
    return frame


def guess(series) -> Column:
    """What kind of column a Series is; a ValueError when that cannot be told."""
    pd = require("pandas")
    dtype, values = str(series.dtype), series.dropna()
    if values.empty:
        return Constant(None, dtype)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _guess_category(series.cat, values, dtype)
    distinct = values.unique()
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return _guess_date(values, distinct, dtype)
    if len(distinct) == 1:
        return Constant(distinct[0], dtype)
    if all(isinstance(value, bool | np.bool_) for value in distinct):
        return Boolean(dtype)
    if pd.api.types.is_numeric_dtype(series.dtype):
        return _guess_number(numbers_of(values), dtype)
    if not all(isinstance(value, str) for value in distinct):
        kinds = sorted({type(value).__name__ for value in distinct})
        raise ValueError(
            f"its kind cannot be told: it holds values of {kinds}. Make them one kind, "
            "or override it"
        )
    if len(distinct) > max(20, MOST_CATEGORIES * len(values)):
        raise ValueError(
            f"it has {len(distinct)} different strings in {len(values)} rows, as names "
            "or keys have. Drop it, or override it by Category(categories)"
        )
    return Category(sorted(distinct), dtype)


def _guess_category(cat, values, dtype):
    categories = list(cat.categories)
    if len(categories) == 1:
        return Constant(categories[0], "object")
    kind = OrderedCategory if cat.ordered else Category
    return kind(categories, "category")


def _guess_date(values, distinct, dtype):
    if len(distinct) == 1:
        return Constant(distinct[0], dtype)
    whole_days = (values == values.dt.normalize()).all()
    return DateTime(str(values.min()), "D" if whole_days else "s", dtype)


def _guess_number(values, dtype):
    if np.isinf(values).any():
        raise ValueError("numbers must be finite. Received: inf")
    low, high, distinct = values.min(), values.max(), np.unique(values)
    if (values == np.round(values)).all() and high - low < 2**53:
        gaps = high - low + 1 > max(MOST_CLASSES, 4 * len(distinct))
        if not gaps or len(values) < ROWS_OF_A_VALUE * len(distinct):
            return Integer(*_widened(int(low), int(high)), dtype)
    if len(values) >= ROWS_OF_A_VALUE * len(distinct) and len(distinct) <= MOST_CLASSES:
        return Values(distinct, dtype)
    return _guess_real(values, dtype)


def _widened(low, high):
    """A range with room for rows that are yet to come; few levels are all there are."""
    if high - low < FEW_LEVELS:
        return low, high
    room = -(-(high - low) // 4)
    # What was never negative stays so.
    return (max(0, low - room) if low >= 0 else low - room), high + room


def _guess_real(values, dtype):
    skewed = values.min() > 0 and skewness(values) > SKEWED
    if skewed and abs(skewness(np.log(values))) < skewness(values):
        return Real(low=0.0, dtype=dtype)
    return Real(origin=float(values.mean()), dtype=dtype)


def skewness(values) -> float:
    """Third standardised moment."""
    centred = values - values.mean()
    spread = np.sqrt(np.mean(centred**2))
    return 0.0 if spread == 0 else float(np.mean(centred**3) / spread**3)
