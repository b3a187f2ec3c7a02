"""Complete digits from any half with one transformer that knows every order.

Its tokens are pixels, each told which pixel comes next. Trained on a thousand random
orders it can be run in any other, so also in one that has the half first which is seen,
another in each row of a batch. What it then draws is a sample of the hidden half given
the other, and the hidden half's score is exact, one pass after another for each half.

    python examples/any_order.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import keras_made as km

ROWS, COLUMNS = np.indices((8, 8))
HALVES = {
    "top": ROWS < 4,
    "bottom": ROWS >= 4,
    "left": COLUMNS < 4,
    "right": COLUMNS >= 4,
    "inside": (np.abs(ROWS - 3.5) < 3) & (np.abs(COLUMNS - 3.5) < 3),
    "chessboard": (ROWS + COLUMNS) % 2 == 0,
}


def load(seed):
    x = (load_digits().images > 7.5).astype("float32")
    order = np.random.RandomState(seed).permutation(len(x))
    return x[order[:1500]], x[order[1500:]]


def fit(x, epochs):
    keras.utils.set_random_seed(0)
    network = km.Attention((8, 8), 64, 2, ordering="random", num_masks=1000)
    # One order tells how well it does: the others are as good.
    model = km.AutoregressiveDensity(network, "bernoulli", structures=[0])
    steps = epochs * (len(x) // 50)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=4e-3, warmup_steps=steps // 20
    )
    model.compile(keras.optimizers.Adam(rate))
    model.fit(x, epochs=epochs, batch_size=50, verbose=0)
    return model


def means_nll(train, test, hidden):
    """Nats of hidden pixels that hear nothing, each with its frequency."""
    p = ((train.sum(axis=0) + 1) / (len(train) + 2))[hidden]
    x = test[:, hidden]
    return -np.mean(np.sum(x * np.log(p) + (1 - x) * np.log(1 - p), axis=1))


def draw(test, copies, path):
    """A digit to a row: what is seen of it by each half, and what was drawn then."""
    figure, axes = plt.subplots(len(test), 1 + 2 * len(HALVES), figsize=(10.4, 6.6))
    for i, digit in enumerate(test):
        images = [np.stack([1 - digit] * 3, axis=-1)]
        for seen, completed in zip(HALVES.values(), copies, strict=True):
            half = np.stack([1 - digit] * 3, axis=-1)
            # Hidden pixels are blue-grey; what is seen is black on white.
            half[~seen] = [0.72, 0.78, 0.88]
            images += [half, np.stack([1 - completed[i]] * 3, axis=-1)]
        for axis, image in zip(axes[i], images, strict=True):
            axis.imshow(image.clip(0, 1))
            axis.set(xticks=[], yticks=[])
    titles = ["digit", *(t for name in HALVES for t in (name, "drawn"))]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    figure.tight_layout(h_pad=0.3, w_pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/any_order.png"))
    args = parser.parse_args()
    train, test = load(seed=0)
    model = fit(train, 3 if args.quick else 40)
    print(f"test: {model.evaluate(test, verbose=0):.2f} nats")
    for name, seen in HALVES.items():
        nats = -np.mean(model.conditional_log_prob(test, seen, verbose=0))
        alone = means_nll(train, test, ~seen)
        print(f"{name:10s} is seen: the rest has {nats:5.2f} nats, alone {alone:5.2f}")
    # Every row with its own half, and so its own order, in one batch.
    digits = test[:8]
    x = np.concatenate([np.where(seen, digits, np.nan) for seen in HALVES.values()])
    completed = np.asarray(model.impute(x, seed=0, verbose=0))
    draw(digits, completed.reshape(len(HALVES), *digits.shape), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
