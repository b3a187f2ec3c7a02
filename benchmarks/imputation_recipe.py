"""One recipe for small tables with holes: from rows with NaN to trained densities.

A column is the values that it takes, weighed by their frequency and by smooth curves
that the network gives (`ValueTable`); sizes follow from the number of rows. Networks
are trained on all folds but one, each with another fold to say when to stop, so that
every row trains some of them. The choice was made by held-out log p of incomplete rows.
"""

import keras
import numpy as np
from imputation_values import ValueTable

import keras_made as km

FOLDS, ORDERS = 3, 512
STEPS_BETWEEN_LOOKS, MOST_STEPS, PATIENCE = 50, 1000, 2
RATE, BATCH, HIDDEN = 2e-3, 256, 0.3


def make_entries(rows, kinds):
    """What the columns are like, from incomplete rows and the columns' kinds."""
    count, size = rows.shape
    return ValueTable(
        list(rows.T),
        kinds,
        cells=128 if size <= 12 else 64,
        knots=int(np.clip(count // 32, 4, 32)),
        heard=int(np.clip(count // 16, 8, 32)),
    )


def make_network(entries, count):
    """An order-agnostic MADE of a size that such a number of rows can train."""
    units = 128 if count < 500 else 256
    return km.MADE(
        [units, units],
        entries.num_params,
        ordering="random",
        num_masks=ORDERS,
        residual=True,
        direct=False,
        dropout=0.2,
    )


def make_density(network, entries):
    # Eight of the orders are enough to say when to stop.
    density = km.AutoregressiveDensity(
        network, km.Incomplete(entries), structures=list(range(8))
    )
    density.build((None, len(entries.columns)))
    return density


def hide(rows, rng):
    """Rows of which each lacks another share of its entries, up to twice `HIDDEN`."""
    share = 2 * HIDDEN * rng.uniform(size=(len(rows), 1))
    return np.where(rng.uniform(size=rows.shape) < share, np.nan, rows)


def train(density, rows, valid, rng):
    """Until held-out rows say that it gets worse, at two learning rates."""
    best, weights, worse, rate = -np.inf, density.get_weights(), 0, RATE
    batch = min(BATCH, len(rows))
    number = STEPS_BETWEEN_LOOKS * batch
    density.optimizer.learning_rate.assign(rate)
    for _ in range(MOST_STEPS // STEPS_BETWEEN_LOOKS):
        turns = [rng.permutation(len(rows)) for _ in range(number // len(rows) + 1)]
        chosen = hide(rows[np.concatenate(turns)[:number]], rng).astype("float32")
        density.fit(chosen, batch_size=batch, shuffle=False, verbose=0)
        score = float(np.mean(np.asarray(density.log_prob(valid, verbose=0))))
        worse += 1
        if score > best + 0.01:
            best, weights, worse = score, density.get_weights(), 0
        if worse > PATIENCE:
            density.set_weights(weights)
            rate, worse = 0.2 * rate, 0
            if rate < 0.1 * RATE:
                break
            density.optimizer.learning_rate.assign(rate)
    density.set_weights(weights)
    return best


def fit_table(rows, kinds, seed):
    """A density of all networks, each of which some fold told when to stop.

    Args:
        rows: floats `(n, D)` with NaN for what is missing.
        kinds: D words: real, integer, binary or categorical.
        seed: an int.

    Returns:
        `(density, score)`: an `AutoregressiveDensity` and the mean log p of the rows
        held out, as masses over the columns' values.
    """
    keras.utils.set_random_seed(seed)
    rng, rows = np.random.RandomState(seed), rows.astype("float32")
    entries = make_entries(rows, kinds)
    networks = [make_network(entries, len(rows)) for _ in range(FOLDS)]
    whole = make_density(km.NetworkAverage(networks), entries)
    # One model in all folds is compiled once; its weights and its optimizer start anew.
    density = make_density(make_network(entries, len(rows)), entries)
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=1e-3, clipnorm=1.0)
    density.compile(optimizer, steps_per_execution=STEPS_BETWEEN_LOOKS)
    fold = rng.permutation(len(rows)) % FOLDS
    scores = []
    for held_out, network in enumerate(networks):
        density.network.set_weights(network.get_weights())
        for variable in optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        split = rows[fold != held_out], rows[fold == held_out]
        scores.append(train(density, *split, rng))
        network.set_weights(density.network.get_weights())
    return whole, float(np.mean(scores))


def complete(density, rows, copies, seed):
    """Completions `(copies, n, D)`: what is observed stays as it is."""
    result = np.stack([rows] * copies)
    holes = np.isnan(rows)
    some = np.flatnonzero(holes.any(axis=1))
    drawn = density.impute(
        rows[some].astype("float32"), num_copies=copies, seed=seed, verbose=0
    )
    result[:, some] = np.asarray(drawn)
    return np.where(holes, result, rows)


def point(completions, kinds):
    """The median of a number, the most frequent class, `(n, D)`."""
    result = np.median(completions, axis=0)
    for column, kind in enumerate(kinds):
        if kind in ("categorical", "binary"):
            drawn = completions[:, :, column]
            classes = np.unique(drawn)
            counts = (drawn[None] == classes[:, None, None]).sum(axis=1)
            result[:, column] = classes[np.argmax(counts, axis=0)]
    return result
