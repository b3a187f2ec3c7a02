"""Normalizing flows as Keras models, on every back end."""

from keras_made.entries.encoder import Bounded
from keras_made.flows.families import (
    IAF,
    MAF,
    NICE,
    RealNVP,
    SplineCoupling,
    SplineMAF,
)
from keras_made.flows.flow import Flow
from keras_made.flows.steps import (
    AutoregressiveStep,
    CouplingStep,
    Elementwise,
    FlowStep,
    Inverse,
    Linear,
)
from keras_made.flows.transforms import Affine, Scale, Shift, Spline, Transform

__all__ = [
    "IAF",
    "MAF",
    "NICE",
    "Affine",
    "AutoregressiveStep",
    "Bounded",
    "CouplingStep",
    "Elementwise",
    "Flow",
    "FlowStep",
    "Inverse",
    "Linear",
    "MaskedAutoregressiveFlow",
    "RealNVP",
    "Scale",
    "Shift",
    "Spline",
    "SplineCoupling",
    "SplineMAF",
    "Transform",
]


def __getattr__(name):
    # The one name here that loads TensorFlow Probability.
    if name == "MaskedAutoregressiveFlow":
        from keras_made.flows.masked_autoregressive_flow import (
            MaskedAutoregressiveFlow,
        )

        return MaskedAutoregressiveFlow
    raise AttributeError(f"module 'keras_made.flows' has no attribute {name!r}")
