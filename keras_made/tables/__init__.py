"""Tables: from an incomplete DataFrame to a density, and back. Needs pandas."""

from keras_made.tables.columns import (
    Boolean,
    Category,
    Column,
    Constant,
    DateTime,
    Integer,
    OrderedCategory,
    Real,
    Values,
)
from keras_made.tables.schema import Schema
from keras_made.tables.table_density import Estimate, TableDensity, columns_of

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
