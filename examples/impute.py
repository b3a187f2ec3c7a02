"""Fill in digits with half of their pixels hidden, by exact draws.

An order-agnostic MADE can be run in any ordering, so also in one that has the pixels
which are seen first. What it then draws is a sample of what is hidden given what is
seen, another at every call: the picture shows five for each digit. Their average is an
estimate of the hidden pixels, compared with two of scikit-learn's imputers.

    python examples/impute.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer, SimpleImputer

import keras_made as km


def load(seed):
    x = (load_digits().data > 7.5).astype("float32")
    order = np.random.RandomState(seed).permutation(len(x))
    return x[order[:1500]], x[order[1500:]]


def fit(x, epochs):
    keras.utils.set_random_seed(0)
    # Orderings cost only integers: with thousands, any other is like one of them.
    network = km.MADE(
        [400, 400],
        ordering="random",
        num_masks=3000,
        activation="gelu",
        residual=True,
        dropout=0.4,
    )
    # Scored as the mixture of eight of them, a density too.
    model = km.AutoregressiveDensity(network, "bernoulli", structures=range(8))
    steps = epochs * -(-len(x) // 50)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))
    )
    model.fit(x, epochs=epochs, batch_size=50, verbose=0)
    return model


def errors(model, train, test, observed, num_copies):
    """Mean squared error on hidden pixels, for each way to fill them in."""
    missing = np.where(observed, test, np.nan)
    copies = np.asarray(model.impute(missing, num_copies=num_copies, seed=0, verbose=0))
    filled = {
        f"MADE, mean of {num_copies} draws": copies.mean(axis=0),
        "MADE, one draw": copies[0],
        "10 nearest neighbours": KNNImputer(n_neighbors=10)
        .fit(train)
        .transform(missing),
        "column means": SimpleImputer().fit(train).transform(missing),
    }
    hidden = ~observed
    return {
        name: float(np.mean((x[hidden] - test[hidden]) ** 2))
        for name, x in filled.items()
    }, copies


def draw(test, observed, copies, path, rows=8, draws=5):
    figure, axes = plt.subplots(rows, 2 + draws, figsize=(7.2, 8.4))
    titles = ["digit", "seen", *[f"draw {i + 1}" for i in range(draws)]]
    for i in range(rows):
        # Hidden pixels are blue-grey; what is seen is black on white.
        seen = np.stack([1 - test[i]] * 3, axis=-1)
        seen[~observed[i]] = [0.72, 0.78, 0.88]
        images = [np.stack([1 - test[i]] * 3, -1), seen]
        images += [np.stack([1 - c[i]] * 3, -1) for c in copies[:draws]]
        for axis, image in zip(axes[i], images, strict=True):
            axis.imshow(image.reshape(8, 8, 3).clip(0, 1))
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    figure.tight_layout(h_pad=0.3, w_pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/impute.png"))
    args = parser.parse_args()
    train, test = load(seed=0)
    model = fit(train, 10 if args.quick else 200)
    print(f"test: {model.evaluate(test, verbose=0):.2f} nats")
    observed = np.random.RandomState(1).uniform(size=test.shape) < 0.5
    result, copies = errors(model, train, test, observed, 5 if args.quick else 50)
    for name, error in result.items():
        print(f"{name:24s} squared error of a hidden pixel {error:.4f}")
    draw(test, observed, copies, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
