"""A garden whose causes and effects are known: ten binary variables and their graph.

Rows are drawn from the garden itself, 100, 1,000 and 10,000 of them. A `MADE` over the
graph hears 12 of the 45 connections that a full one has: with few rows it is nearer to
the truth, and it can be asked what happens if somebody turns the sprinkler on. To see
it on is something else: then it is probably dry, and snails are few. The full network
is in the alphabetical order of the columns, which is that of no causes.

    python examples/graph.py
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_made as km
from keras_made import plots

# Each variable, its causes, and how probable it is in every state of them: the first
# cause is the last to change, as in binary numbers.
GARDEN = {
    "dry spell": ([], [0.4]),
    "clouds": (["dry spell"], [0.7, 0.2]),
    "rain": (["clouds"], [0.02, 0.6]),
    "sprinkler": (["dry spell", "clouds"], [0.15, 0.02, 0.8, 0.4]),
    "wet lawn": (["rain", "sprinkler"], [0.05, 0.9, 0.95, 0.99]),
    "water bill": (["sprinkler"], [0.1, 0.7]),
    "slippery path": (["wet lawn"], [0.03, 0.7]),
    "snails": (["dry spell", "wet lawn"], [0.3, 0.9, 0.05, 0.4]),
    "lettuce eaten": (["snails"], [0.1, 0.75]),
    "a fall": (["slippery path"], [0.01, 0.25]),
}
NAMES = sorted(GARDEN)
CAUSE, EFFECT = NAMES.index("sprinkler"), NAMES.index("snails")


def graph():
    """Bools (10, 10): `[i, j]`, variable j is a cause of variable i."""
    return np.array([[cause in GARDEN[name][0] for cause in NAMES] for name in NAMES])


def probability(name, x):
    """Of one variable being on, in every row."""
    causes, table = GARDEN[name]
    state = np.zeros(len(x), int)
    for cause in causes:
        state = 2 * state + x[:, NAMES.index(cause)].astype(int)
    return np.array(table)[state]


def draw(rows, seed, **is_set):
    """Rows of the garden, some variables being set."""
    rng, x = np.random.RandomState(seed), np.zeros((rows, len(NAMES)), "float32")
    for name in GARDEN:
        on = rng.rand(rows) < probability(name, x)
        x[:, NAMES.index(name)] = is_set.get(name, on)
    return x


def log_prob(x):
    total = 0.0
    for name in GARDEN:
        p = probability(name, x)
        total = total + np.log(np.where(x[:, NAMES.index(name)] > 0, p, 1 - p))
    return total


def fit(network, x, epochs):
    """Train until a fifth of the rows, held out, is no better for ten epochs."""
    keras.utils.set_random_seed(0)
    model = km.AutoregressiveDensity(network, "bernoulli")
    model.compile(keras.optimizers.Adam(3e-3))
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=10, restore_best_weights=True
    )
    held_out = len(x) // 5
    model.fit(
        x[held_out:],
        validation_data=x[:held_out],
        batch_size=50,
        epochs=epochs,
        callbacks=[stop],
        verbose=0,
    )
    return model


def report(sizes, epochs):
    """Print a line for every network and number of rows.

    The effect of turning the sprinkler on is asked of 20,000 draws.
    """
    test, num_draws = draw(20_000, seed=1), 20_000
    truth = log_prob(test).mean()
    on = draw(num_draws, seed=2, sprinkler=1)[:, EFFECT].mean()
    print(f"the garden itself: {truth:.3f} nats a row")
    print(f"snails: {test[:, EFFECT].mean():.2f} of all rows,", end=" ")
    seen = test[test[:, CAUSE] > 0, EFFECT].mean()
    print(f"{seen:.2f} of those with the sprinkler on, {on:.2f} if it is turned on\n")
    print(f"{'rows':>6} {'network':8} {'edges':>5} {'nats':>8} {'short':>7}", end=" ")
    print("snails | do(sprinkler)")
    for size in sizes:
        x = draw(size, seed=3)
        for name, adjacency in (("full", None), ("graph", graph())):
            model = fit(km.MADE([100], adjacency=adjacency), x, epochs)
            nats = float(np.mean(model.log_prob(test, verbose=0)))
            turned_on = model.intervene(num_draws, {CAUSE: 1.0}, seed=0, verbose=0)
            effect = np.asarray(turned_on)[:, EFFECT].mean()
            edges = model.network.connectivity().sum()
            print(f"{size:6} {name:8} {edges:5} {nats:8.3f}", end=" ")
            print(f"{truth - nats:7.3f} {effect:10.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows and epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/graph.png"))
    options = parser.parse_args()
    sizes, epochs = [100, 1000, 10_000], 150
    if options.quick:
        sizes, epochs = [100, 1000], 5
    report(sizes, epochs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    masks = options.out.with_stem(f"{options.out.stem}_masks")
    plots.plot_graph(graph(), NAMES).savefig(options.out, dpi=120)
    small = km.MADE([10], adjacency=graph(), direct=False)
    small.build((None, len(NAMES)))
    plots.plot_connectivity(small).savefig(masks, dpi=120)
    print(f"Pictures: {options.out} (the graph), {masks} (a small network over it)")


if __name__ == "__main__":
    main()
