"""What is tried on rows or images of a kind: networks, their rates, and why them."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_made.densities.density import AutoregressiveDensity
from keras_made.entries import (
    Bernoulli,
    Categorical,
    Columns,
    Incomplete,
    MixtureOfLogistics,
    MixtureOfNormals,
)
from keras_made.flows import SplineMAF
from keras_made.networks.average import NetworkAverage
from keras_made.networks.made import MADE
from keras_made.networks.pixelcnn import PixelCNN
from keras_made.recipes import mixed
from keras_made.recipes.gaussians import gaussian_mixture
from keras_made.recipes.images import image_shape
from keras_made.recipes.starts import has_few, start_at_marginals

# Orders of a cycle; as many of them are mixed at the end, and while training.
NUM_ORDERS, MIXED_AT_END, MIXED_IN_TRAINING = 512, 64, 8
# From so many rows on, wide layers with little dropout are better.
MANY_ROWS, FEW_ROWS = 15_000, 8_000
# Of real entries. Columns are often rounded: narrower ones would sit on single values.
NUM_COMPONENTS, MIN_SCALE = 8, 1e-2
# Of grey levels: components, and a byte's levels, which images of more than a few have.
LOGISTICS, FEW_LEVELS, BYTE = 5, 16, 256
# Maps for each channel, layers and width of the kernels of convolutions.
PIXEL_UNITS, PIXEL_LAYERS, PIXEL_KERNEL = 16, 5, 5
# Numbers of Gaussians for few rows, and the rows that one needs for each column.
GAUSSIANS, ROWS_OF_A_GAUSSIAN = (1, 2, 3, 5), 2


class Candidate(NamedTuple):
    """A model to be tried.

    `make(seed)` gives a built density or flow; `finish` the same with as many members
    as are mixed in the end, or None where that is the same one. `continuous`: the
    entries that are real, where rows start at a copula; None: where they do not.
    `steps` of 0: what is made is fitted. `slow`: it learns for as long as there is
    time, which the others leave to it. `averaged`: its network shares an ordering with
    others of the kind, and gives logits, so that their average is a density too.
    """

    name: str
    why: str
    make: Callable
    finish: Callable | None = None
    rate: float = 1e-3
    decay: float = 0.01
    steps: int = 6000
    batch_size: int = 100
    continuous: np.ndarray | bool | None = None
    slow: bool = False
    averaged: bool = False


def default_conditional(x):
    """What entries are like, by their values: bits, or real numbers, by column.

    Those of an image are all alike: bits, levels or real numbers.
    """
    if _are_bits(x):
        conditional = Bernoulli()
    elif x.ndim > 2:
        conditional = _pixel(x[~np.isnan(x)])
    else:
        real = mixed.real_entry(NUM_COMPONENTS, MIN_SCALE)
        conditional = Columns([Bernoulli() if _are_bits(c) else real for c in x.T])
    return Incomplete(conditional) if np.isnan(x).any() else conditional


def _are_bits(x):
    seen = x[~np.isnan(x)]
    return len(seen) > 0 and bool(np.all((seen == 0) | (seen == 1)))


def _pixel(seen):
    levels = seen.max() + 1
    if seen.min() < 0 or levels > BYTE or np.any(seen != np.round(seen)):
        return MixtureOfNormals(NUM_COMPONENTS, MIN_SCALE)
    levels = int(levels) if levels <= FEW_LEVELS + 1 else BYTE
    return MixtureOfLogistics(LOGISTICS, levels)


def candidates(x, conditional, context_size=0):
    """Those that suit such rows, the likeliest first.

    Args:
        x: rows `(n, D)`, or images `(n, height, width)` or `(n, height, width,
            channels)`.
        conditional: of the entries.
        context_size: width of the context, 0 for none.
    """
    bits = isinstance(conditional, Bernoulli)
    image = x.shape[1:] if x.ndim > 2 else image_shape(x) if bits else None
    if image is not None:
        return _of_images(x, conditional, context_size, image)
    rows, size = x.shape
    found = []
    holes = bool(np.any(conditional.incomplete))
    if not holes:
        found.append(_one_order(x, conditional, context_size))
    if bits:
        found.append(_many_orders(x, context_size))
        if rows < FEW_ROWS:
            found.append(_sparse(x, context_size))
    elif size <= mixed.MOST_PASSES or holes:
        found.append(_any_order(x, conditional, context_size))
    real = np.all(np.broadcast_to(conditional.continuous, size))
    if real and not holes and size > 1:
        found.append(_flow(x, context_size))
        if has_few(rows, size) and not context_size:
            # First: they take no time.
            found[:0] = [
                _gaussians(x, number)
                for number in GAUSSIANS
                if number * ROWS_OF_A_GAUSSIAN * (size + 1) <= rows
            ]
    return found


def _of_images(x, conditional, context_size, image):
    """Two whose average is better than either, of images or rows that are such."""
    return [
        _one_order(x, conditional, context_size, is_image=True),
        _neighbours(x, conditional, context_size, image),
    ]


def _start(network, conditional, x, context_size, structures=None):
    """A density that is about to learn rows like these."""
    model = build_density(network, conditional, x, context_size, structures)
    start_at_marginals(network, conditional, x)
    return model


def build_density(network, conditional, x, context_size, structures=None):
    """A density of rows like these, built, and adapted where entries are real."""
    model = AutoregressiveDensity(network, conditional, structures=structures)
    shape = (None, *x.shape[1:])
    model.build((shape, (None, context_size)) if context_size else shape)
    if model.units.real.any():
        model.adapt(x if not context_size else (x, np.zeros((len(x), context_size))))
    return model


def _one_order(x, conditional, context_size, is_image=False):
    rows, bits = len(x), isinstance(conditional, Bernoulli)
    many = rows >= MANY_ROWS
    units = 1000 if many else 500
    dropout = 0.1 if many else 0.3 if rows >= FEW_ROWS else 0.5
    # Images are read as they are by their other network.
    orderings = ("natural",) if is_image else ("natural", "reversed", "random")

    def make(seed):
        network = MADE(
            [units, units],
            None if bits else conditional.num_params,
            event_shape=x.shape[1:],
            ordering=orderings[min(seed, len(orderings) - 1)],
            residual=True,
            dropout=dropout,
            seed=seed,
        )
        return _start(network, conditional, x, context_size)

    why = f"{rows} rows train one order well: {units} units, dropout {dropout}"
    return Candidate(
        "one order",
        why,
        make,
        steps=8000 if many else 6000,
        continuous=None if bits or is_image else conditional.continuous,
        averaged=is_image and _are_logits(conditional),
    )


def _are_logits(conditional):
    return isinstance(conditional, Bernoulli | Categorical)


def _neighbours(x, conditional, context_size, image):
    channels = image[2] if len(image) == 3 else 1
    bits = isinstance(conditional, Bernoulli)

    def make(seed):
        network = PixelCNN(
            image,
            PIXEL_UNITS * channels,
            None if bits else conditional.num_params,
            num_layers=PIXEL_LAYERS,
            kernel_size=PIXEL_KERNEL,
        )
        if x.ndim == 2:
            network = NetworkAverage([network], event_shape=x.shape[1:])
        return build_density(network, conditional, x, context_size)

    size = " x ".join(str(length) for length in image)
    why = f"a PixelCNN of {size}: what is near counts, wherever it is"
    settings = {"rate": 5e-3, "decay": 0.0, "steps": 8000, "batch_size": 50}
    averaged = _are_logits(conditional)
    return Candidate("neighbours", why, make, slow=True, averaged=averaged, **settings)


def _many_orders(x, context_size):
    # Near zero at first: few rows and many variables overfit later.
    start = keras.initializers.VarianceScaling(0.125, "fan_avg", "uniform")
    options = {"residual": True, "dropout": 0.5, "kernel_initializer": start}
    why = "a mixture over orders, against overfitting"
    settings = {"decay": 0.03, "steps": 10_000}
    return _cycle("many orders", why, x, context_size, [500, 500], options, **settings)


def _sparse(x, context_size):
    options = {"kernel_regularizer": keras.regularizers.L1(2e-3)}
    why = "logistic regressions with few weights, for few rows"
    settings = {"rate": 2e-2, "decay": 0.0, "steps": 10_000}
    return _cycle("sparse", why, x, context_size, [], options, **settings)


def _cycle(name, why, x, context_size, hidden_units, options, **settings):
    """MADEs of bits over a cycle of orders, few of them mixed while it is trained."""

    def make(seed):
        network = MADE(
            hidden_units,
            ordering="random",
            num_masks=NUM_ORDERS,
            encoder=Categorical(2),
            seed=seed,
            **options,
        )
        mixed_now = range(MIXED_IN_TRAINING)
        return _start(network, Bernoulli(), x, context_size, mixed_now)

    def finish(model):
        mixed_now = range(MIXED_AT_END)
        return build_density(
            model.network, model.conditional, x, context_size, mixed_now
        )

    return Candidate(name, why, make, finish, **settings)


def _any_order(x, conditional, context_size):
    def make(seed):
        options = {"num_masks": NUM_ORDERS, "seed": seed}
        network = mixed.deep_nade(len(x), conditional.num_params, **options)
        structures = range(MIXED_IN_TRAINING)
        return _start(network, conditional, x, context_size, structures)

    why = "a deep NADE, whose orders train one function: for few variables"
    settings = {"rate": mixed.RATE, "decay": mixed.DECAY, "steps": 4000}
    if not isinstance(conditional, Bernoulli):
        settings["continuous"] = conditional.continuous
    return Candidate("any order", why, make, batch_size=128, **settings)


def _flow(x, context_size):
    def make(seed):
        size = x.shape[1]
        flow = SplineMAF(size, 3, [128, 128], context_size=context_size, seed=seed)
        flow.adapt(x)
        return flow

    why = "a flow of splines, for real numbers"
    return Candidate("flow", why, make, decay=1e-3, continuous=True)


def _gaussians(x, number):
    def make(seed):
        return gaussian_mixture(x, number, MIN_SCALE, seed)

    why = "what few rows say is often linear"
    return Candidate(f"{number} Gaussian{'s' * (number > 1)}", why, make, steps=0)
