"""Where training starts: at what entries are like, alone and together."""

import math
import time

import numpy as np
from keras import ops

from keras_made.entries import Columns, Incomplete
from keras_made.recipes.copula import GaussianCopula

# Up to so many rows for each column, and so many columns, draws of a copula come first:
# so many steps, in pieces.
ROWS_OF_A_COLUMN, MOST_COLUMNS, STEPS, PIECES = 50, 128, 2500, 25


def start_at_marginals(network, conditional, x) -> None:
    """Output biases by which each discrete entry has its own shares, whatever is heard.

    Without it a network learns first, and for every order, how rare a one is.

    Args:
        network: built, with an `output_bias` of all parameters, which is zero; any
            other, such as one that was trained before, is left as it is.
        conditional: of the entries.
        x: rows `(n, *event_shape)`, NaN where missing.
    """
    bias = getattr(network, "output_bias", None)
    x = x.reshape(len(x), -1)
    start = np.zeros((x.shape[1], network.params_per_entry))
    if bias is None or int(np.prod(bias.shape)) != start.size or was_trained(network):
        return
    conditionals = _by_entry(conditional, x.shape[1])
    for entry, one in enumerate(conditionals):
        own = one.marginal_params(x[:, entry])
        start[entry, : len(own)] = own
    bias.assign(start.reshape(bias.shape).astype("float32"))


def was_trained(network) -> bool:
    """Whether a network's output biases are no longer those that it was made with."""
    bias = getattr(network, "output_bias", None)
    return bias is not None and bool(ops.convert_to_numpy(bias).any())


def start_at_copula(
    model, fit, x, context=None, *, continuous, batch_size, seconds=math.inf
) -> float:
    """Train on draws of a Gaussian copula, before the few rows that it is made of.

    Few rows are soon known by heart. Endless draws with the columns' own values and
    rank correlations are not, and teach a network, for every order, which regressions
    hold; what the rows hold beyond that is then learned from there, at half the rate.
    Nothing is done where rows are many, or columns too many for their correlations.

    Args:
        model: compiled.
        fit: its method that takes numbers, as `keras.Model.fit`.
        x: rows `(n, D)`, NaN where missing.
        context: `(n, C)` or None.
        continuous: a boolean or D, those of the entries that are real.
        batch_size: rows of a step.
        seconds: all that may pass.

    Returns:
        The seconds that it took.
    """
    started = time.perf_counter()
    rows = x
    if context is not None:
        rows = np.concatenate([x, context], axis=1)
        entries = np.broadcast_to(continuous, x.shape[1])
        continuous = np.append(entries, np.ones(context.shape[1], bool))
    size = rows.shape[1]
    if not has_few(len(rows), size):
        return 0.0
    copula, rng = GaussianCopula(rows, continuous), np.random.RandomState(0)
    for _ in range(PIECES):
        drawn = copula.sample(STEPS // PIECES * batch_size, rng).astype(x.dtype)
        parts = drawn[:, : x.shape[1]], drawn[:, x.shape[1] :]
        fit(
            parts[0] if context is None else parts,
            batch_size=batch_size,
            shuffle=False,
            verbose=0,
        )
        if time.perf_counter() - started > seconds:
            break
    rate = model.optimizer.learning_rate
    rate.assign(0.5 * float(rate))
    return time.perf_counter() - started


def has_few(rows: int, columns: int) -> bool:
    """Whether so many rows say little of columns beyond how they go together."""
    return rows <= ROWS_OF_A_COLUMN * columns and columns <= MOST_COLUMNS


def _by_entry(conditional, size):
    """One conditional for each of `size` entries."""
    if isinstance(conditional, Columns):
        return conditional.conditionals
    if isinstance(conditional, Incomplete) and isinstance(
        conditional.conditional, Columns
    ):
        return [Incomplete(one) for one in conditional.conditional.conditionals]
    return [conditional] * size
