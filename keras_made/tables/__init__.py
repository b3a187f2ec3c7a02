"""Tables: from an incomplete DataFrame to a density, and back. Needs pandas."""

from keras_made.tables.column import Column
from keras_made.tables.estimate import Estimate
from keras_made.tables.names import Boolean, Category, Constant, OrderedCategory
from keras_made.tables.quantities import DateTime, Integer, Real, Values
from keras_made.tables.schema import Schema
from keras_made.tables.table_density import TableDensity, columns_of

__all__ = [
    "Boolean",
    "Category",
    "Column",
    "Constant",
    "DateTime",
    "Estimate",
    "Integer",
    "OrderedCategory",
    "Real",
    "Schema",
    "TableDensity",
    "Values",
    "columns_of",
]
