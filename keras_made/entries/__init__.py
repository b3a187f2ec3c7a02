"""Entries: what one variable is like, given the parameters that a network computes."""

from keras_made.entries.atoms import Atoms
from keras_made.entries.columns import Columns, get
from keras_made.entries.conditional import Conditional
from keras_made.entries.discrete import Bernoulli, Categorical, MixtureOfLogistics
from keras_made.entries.encoder import Bounded, Encoder
from keras_made.entries.incomplete import Incomplete
from keras_made.entries.piecewise_linear import PiecewiseLinear
from keras_made.entries.real import MixtureOfNormals, Normal
from keras_made.entries.transformed import Transformed

__all__ = [
    "Atoms",
    "Bernoulli",
    "Bounded",
    "Categorical",
    "Columns",
    "Conditional",
    "Encoder",
    "Incomplete",
    "MixtureOfLogistics",
    "MixtureOfNormals",
    "Normal",
    "PiecewiseLinear",
    "Transformed",
    "get",
]
