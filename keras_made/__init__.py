"""Autoregressive density estimation in Keras 3, built around MADE."""

from keras_made import flows
from keras_made.autoregressive import Autoregressive
from keras_made.densities.density import AutoregressiveDensity
from keras_made.densities.ensemble import Ensemble
from keras_made.densities.likelihood import LikelihoodModel
from keras_made.entries import (
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
)
from keras_made.export.saved_model import export_saved_model
from keras_made.networks.attention import Attention
from keras_made.networks.average import NetworkAverage
from keras_made.networks.made import MADE
from keras_made.networks.nade import NADE
from keras_made.networks.pixelcnn import PixelCNN
from keras_made.networks.pixelrnn import PixelRNN
from keras_made.networks.recurrent import Recurrent
from keras_made.networks.wavenet import WaveNet

__all__ = [
    "MADE",
    "NADE",
    "Attention",
    "Autoregressive",
    "AutoregressiveDensity",
    "Bernoulli",
    "Categorical",
    "Columns",
    "Conditional",
    "Ensemble",
    "LikelihoodModel",
    "MixtureOfLogistics",
    "MixtureOfNormals",
    "NetworkAverage",
    "Normal",
    "PixelCNN",
    "PixelRNN",
    "Recurrent",
    "WaveNet",
    "export_saved_model",
    "flows",
]
__version__ = "0.2.0"
