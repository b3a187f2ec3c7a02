"""Autoregressive density estimation in Keras 3, built around MADE."""

from keras_made import flows
from keras_made.autoregressive import Autoregressive
from keras_made.densities.density import AutoregressiveDensity
from keras_made.densities.ensemble import Ensemble
from keras_made.densities.likelihood import LikelihoodModel
from keras_made.entries import (
    Atoms,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    Incomplete,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
    PiecewiseLinear,
    Transformed,
)
from keras_made.export.saved_model import export_saved_model
from keras_made.fitting import fit_density
from keras_made.networks.attention import Attention
from keras_made.networks.average import NetworkAverage
from keras_made.networks.made import MADE
from keras_made.networks.nade import NADE
from keras_made.networks.pixelcnn import PixelCNN
from keras_made.networks.pixelrnn import PixelRNN
from keras_made.networks.recurrent import Recurrent
from keras_made.networks.wavenet import WaveNet
from keras_made.tables.table_density import TableDensity

__all__ = [
    "MADE",
    "NADE",
    "Atoms",
    "Attention",
    "Autoregressive",
    "AutoregressiveDensity",
    "Bernoulli",
    "Categorical",
    "Columns",
    "Conditional",
    "Ensemble",
    "Incomplete",
    "LikelihoodModel",
    "MixtureOfLogistics",
    "MixtureOfNormals",
    "NetworkAverage",
    "Normal",
    "PiecewiseLinear",
    "PixelCNN",
    "PixelRNN",
    "Recurrent",
    "TableDensity",
    "Transformed",
    "WaveNet",
    "export_saved_model",
    "fit_density",
    "flows",
]
__version__ = "0.2.0"


def __getattr__(name):
    # `keras_made.estimators` needs scikit-learn, and is loaded when it is asked for.
    if name == "estimators":
        import importlib

        return importlib.import_module("keras_made.estimators")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
