"""Layers: weights times structure, and nothing else."""

from keras_made.layers.causal_conv import CausalConv1D, delay
from keras_made.layers.initializers import Shrunk, another_initializer
from keras_made.layers.kernels import check_kernel_form
from keras_made.layers.masked_conv import MaskedConv2D
from keras_made.layers.masked_dense import MaskedDense

__all__ = [
    "CausalConv1D",
    "MaskedConv2D",
    "MaskedDense",
    "Shrunk",
    "another_initializer",
    "check_kernel_form",
    "delay",
]
