"""What is tried on rows of a kind: networks with their rates, and why each of them."""

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
    MixtureOfNormals,
    PiecewiseLinear,
)
from keras_made.flows import SplineMAF
from keras_made.networks.made import MADE
from keras_made.networks.nade import NADE

# Orders of a cycle; as many of them are mixed at the end, and while training.
NUM_ORDERS, MIXED_AT_END, MIXED_IN_TRAINING = 512, 64, 8
# From so many rows on, wide layers with little dropout are better.
MANY_ROWS, FEW_ROWS = 15_000, 8_000
# Real entries: components, and knots of what is heard, on the standardised scale.
NUM_COMPONENTS, MIN_SCALE, KNOTS = 8, 1e-2, np.linspace(-3.0, 3.0, 25)
# Up to so many variables, a pass of a deep NADE for each is paid for.
MOST_PASSES = 48


class Candidate(NamedTuple):
    """A model to be tried.

    `make(seed)` gives a built density or flow; `finish` the same with as many members
    as are mixed in the end, or None where that is the same one.
    """

    name: str
    why: str
    make: Callable
    finish: Callable | None = None
    rate: float = 1e-3
    decay: float = 0.01
    steps: int = 6000
    batch_size: int = 100


def default_conditional(x):
    """What entries are like, by their values: bits, or levels, or real numbers."""
    seen = x[~np.isnan(x)]
    if np.all((seen == 0) | (seen == 1)):
        conditional = Bernoulli()
    elif x.ndim == 2:
        conditional = Columns([_of_column(column) for column in x.T])
    else:
        conditional = real_entry()
    return Incomplete(conditional) if np.isnan(x).any() else conditional


def _of_column(column):
    seen = column[~np.isnan(column)]
    if len(seen) and np.all((seen == 0) | (seen == 1)):
        return Bernoulli()
    return real_entry()


def real_entry():
    # Columns are often rounded: narrower components would sit on single values.
    return PiecewiseLinear(MixtureOfNormals(NUM_COMPONENTS, MIN_SCALE), KNOTS)


def candidates(x, conditional, context_size=0):
    """Those that suit such rows, the likeliest first."""
    size, rows = int(np.prod(x.shape[1:])), len(x)
    found = []
    bits = isinstance(conditional, Bernoulli)
    holes = bool(np.any(conditional.incomplete))
    if not holes:
        found.append(_one_order(x, conditional, context_size))
    if bits:
        found.append(_many_orders(x, context_size))
        if rows < FEW_ROWS:
            found.append(_sparse(x, context_size))
    elif size <= MOST_PASSES or holes:
        found.append(_any_order(x, conditional, context_size))
    real = np.all(np.broadcast_to(conditional.continuous, x.shape[1:]))
    if real and not holes and x.ndim == 2 and size > 1:
        found.append(_flow(x, context_size))
    return found


def _build(network, conditional, x, context_size, structures=None):
    model = AutoregressiveDensity(network, conditional, structures=structures)
    shapes = (None, *x.shape[1:])
    model.build((shapes, (None, context_size)) if context_size else shapes)
    if model.units.real.any():
        model.adapt(x if not context_size else (x, np.zeros((len(x), context_size))))
    if isinstance(conditional, Bernoulli) and isinstance(network, MADE):
        _start_at_means(network, x)
    return model


def _start_at_means(network, x):
    last = network.output_layer or network.direct_layer
    means = (x.reshape(len(x), -1).sum(axis=0) + 0.5) / (len(x) + 1.0)
    last.bias.assign((np.log(means) - np.log1p(-means)).astype("float32"))


def _num_params(conditional):
    return None if isinstance(conditional, Bernoulli) else conditional.num_params


def _one_order(x, conditional, context_size):
    rows = len(x)
    many = rows >= MANY_ROWS
    units = 1000 if many else 500
    dropout = 0.1 if many else 0.3 if rows >= FEW_ROWS else 0.5

    def make(seed):
        ordering = ("natural", "reversed", "random")[min(seed, 2)]
        network = MADE(
            [units, units],
            _num_params(conditional),
            ordering=ordering,
            residual=True,
            dropout=dropout,
            seed=seed,
        )
        return _build(network, conditional, x, context_size)

    why = f"{rows} rows train one order well: {units} units, dropout {dropout}"
    return Candidate("one order", why, make, steps=8000 if many else 6000)


def _many_orders(x, context_size):
    # Near zero at first: few rows and many variables overfit later.
    start = keras.initializers.VarianceScaling(0.125, "fan_avg", "uniform")

    def make(seed):
        network = MADE(
            [500, 500],
            ordering="random",
            num_masks=NUM_ORDERS,
            residual=True,
            dropout=0.5,
            kernel_initializer=start,
            encoder=Categorical(2),
            seed=seed,
        )
        return _build(network, Bernoulli(), x, context_size, range(MIXED_IN_TRAINING))

    def finish(model):
        return _of_more_orders(model, x, context_size)

    why = "a mixture over orders, against overfitting"
    return Candidate("many orders", why, make, finish, decay=0.03, steps=10_000)


def _of_more_orders(model, x, context_size):
    mixed = range(min(MIXED_AT_END, model.network.num_masks))
    whole = AutoregressiveDensity(model.network, model.conditional, structures=mixed)
    shapes = (None, *x.shape[1:])
    whole.build((shapes, (None, context_size)) if context_size else shapes)
    return whole


def _sparse(x, context_size):
    def make(seed):
        network = MADE(
            [],
            ordering="random",
            num_masks=NUM_ORDERS,
            kernel_regularizer=keras.regularizers.L1(2e-3),
            encoder=Categorical(2),
            seed=seed,
        )
        return _build(network, Bernoulli(), x, context_size, range(MIXED_IN_TRAINING))

    def finish(model):
        return _of_more_orders(model, x, context_size)

    why = "logistic regressions with few weights, for few rows"
    return Candidate("sparse", why, make, finish, rate=2e-2, decay=0.0, steps=10_000)


def _any_order(x, conditional, context_size):
    few = len(x) < 2000
    units, num_blocks = (256, 1) if few else (128, 2)

    def make(seed):
        network = NADE(
            units,
            conditional.num_params,
            ordering="random",
            num_masks=NUM_ORDERS,
            activation="gelu",
            num_blocks=num_blocks,
            dropout=0.2,
            seed=seed,
        )
        structures = range(MIXED_IN_TRAINING)
        return _build(network, conditional, x, context_size, structures)

    why = "a deep NADE, whose orders train one function: for few variables"
    return Candidate(
        "any order", why, make, rate=2e-3, decay=1e-3, batch_size=128, steps=4000
    )


def _flow(x, context_size):
    def make(seed):
        size = x.shape[1]
        flow = SplineMAF(size, 3, [128, 128], context_size=context_size, seed=seed)
        flow.adapt(x)
        return flow

    why = "a flow of splines, for real numbers"
    return Candidate("flow", why, make, rate=1e-3, decay=1e-3, steps=6000)
