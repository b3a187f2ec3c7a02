"""A table of mixed columns: score its rows, find odd ones, write synthetic rows.

The table is made by a process stated here, so that what is odd is known: people with
an age, an income that grows with age and schooling, a number of visits, a region and a
subscription that depends on both. Planted rows have values that are common in every
column and wrong together: each column is shuffled among the planted rows. A detector
that looks at columns one by one cannot see them.

    python examples/table.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import keras_made as km

NAMES = ["age", "log income", "schooling", "visits", "region", "subscribed"]
KINDS = [
    km.MixtureOfNormals(5, min_scale=0.02),
    km.MixtureOfNormals(5, min_scale=0.02),
    km.Categorical(4),
    km.MixtureOfLogistics(3, 21),
    km.Categorical(5),
    km.Bernoulli(),
]


def make_table(num_rows, seed):
    rng = np.random.RandomState(seed)
    age = np.where(
        rng.uniform(size=num_rows) < 0.6,
        rng.normal(34, 7, num_rows),
        rng.normal(62, 9, num_rows),
    )
    schooling = np.minimum(rng.poisson(np.where(age < 48, 1.9, 0.9)), 3)
    income = (
        9.3 + 0.35 * schooling + 0.8 * np.sin(age / 22) + rng.normal(0, 0.15, num_rows)
    )
    region = (rng.poisson(0.7, num_rows) + 2 * (age > 48)) % 5
    rate = 2 + 9 * (region == 1) + 5 * np.maximum(0, income - 10)
    visits = np.minimum(rng.poisson(rate), 20)
    subscribed = rng.uniform(size=num_rows) < 1 / (1 + np.exp(6 - visits))
    columns = [age, income, schooling, visits, region, subscribed]
    return np.stack(columns, axis=1).astype("float32")


def plant(x, share, seed):
    """Shuffle each column among some rows; returns which rows these are."""
    rng = np.random.RandomState(seed)
    odd = rng.uniform(size=len(x)) < share
    x = x.copy()
    for column in range(x.shape[1]):
        x[odd, column] = rng.permutation(x[odd, column])
    return x, odd


def fit(x, valid, epochs):
    keras.utils.set_random_seed(0)
    columns = km.Columns(KINDS)
    network = km.MADE(
        [128, 128],
        columns.num_params,
        ordering="random",
        num_masks=16,
        activation="gelu",
    )
    model = km.AutoregressiveDensity(network, columns)
    model.adapt(x)
    steps = epochs * -(-len(x) // 200)
    rate = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3, clipnorm=1.0))
    model.fit(x, epochs=epochs, batch_size=200, verbose=0)
    print(f"validation: {model.evaluate(valid, verbose=0):.3f} nats a row")
    return model


def draw(x, synthetic, path):
    figure = plt.figure(figsize=(11, 6.2))
    grid = figure.add_gridspec(2, 5)
    for i, name in enumerate(NAMES):
        axis = figure.add_subplot(grid[i // 3, i % 3])
        levels = len(np.unique(x[:, i]))
        bins = np.arange(levels + 1) - 0.5 if levels < 30 else 40
        bins = np.histogram_bin_edges(x[:, i], bins)
        axis.hist(x[:, i], bins, density=True, color="#bbbbbb", label="data")
        axis.hist(
            synthetic[:, i],
            bins,
            density=True,
            histtype="step",
            color="#b5367a",
            linewidth=1.6,
            label="synthetic",
        )
        axis.set(title=name, yticks=[])
    axis.legend(fontsize=8)
    for row, (title, rows) in enumerate({"data": x, "synthetic": synthetic}.items()):
        axis = figure.add_subplot(grid[row, 3:])
        image = axis.imshow(np.corrcoef(rows.T), cmap="RdBu_r", vmin=-1, vmax=1)
        axis.set(title=f"correlations, {title}", xticks=range(6), yticks=range(6))
        axis.set_yticklabels(NAMES, fontsize=8)
        axis.set_xticklabels(NAMES, fontsize=8, rotation=35, ha="right")
        figure.colorbar(image, ax=axis, shrink=0.9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/table.png"))
    args = parser.parse_args()
    x = make_table(2000 if args.quick else 6000, seed=0)
    valid = make_table(2000, seed=1)
    model = fit(x, valid, 8 if args.quick else 80)
    mixed, odd = plant(make_table(4000, seed=2), 0.05, seed=3)
    score = -np.asarray(model.log_prob(mixed, verbose=0))
    forest = IsolationForest(random_state=0).fit(x)
    theirs = -forest.score_samples(mixed)
    print(
        f"ROC-AUC of planted rows: log p {roc_auc_score(odd, score):.3f}, "
        f"IsolationForest {roc_auc_score(odd, theirs):.3f}"
    )
    synthetic = np.asarray(model.sample(len(x), seed=4, verbose=0))
    difference = np.abs(np.corrcoef(x.T) - np.corrcoef(synthetic.T)).max()
    print(f"largest difference of a correlation: {difference:.3f}")
    draw(x, synthetic, args.out)
    path = args.out.with_suffix(".csv")
    formats = ["%.1f", "%.3f", "%d", "%d", "%d", "%d"]
    np.savetxt(path, synthetic, formats, ",", header=",".join(NAMES), comments="")
    print(f"wrote {args.out} and {path}")


if __name__ == "__main__":
    main()
