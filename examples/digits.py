"""Handwritten digits: train a deep MADE, read its likelihood, look at its samples.

With `--data mnist`, the same for 28x28 MNIST, which `keras.datasets` downloads.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from keras_made import MADE, AutoregressiveDensity


def load(name):
    """Binary images, shuffled and split: train, valid, test of shape (n, pixels)."""
    if name == "mnist":
        (x, _), (test, _) = keras.datasets.mnist.load_data()
        x = np.concatenate([x, test]).reshape(-1, 784) > 127
    else:
        from sklearn.datasets import load_digits

        x = load_digits().data > 7
    x = np.random.RandomState(0).permutation(x.astype("float32"))
    tenth = len(x) // 10
    return x[2 * tenth :], x[tenth : 2 * tenth], x[:tenth]


def independent_nll(train, test):
    """Mean NLL of independent pixels, each with its smoothed frequency."""
    p = (train.sum(axis=0) + 1) / (len(train) + 2)
    return -np.mean(np.sum(test * np.log(p) + (1 - test) * np.log(1 - p), axis=1))


def fit(network, train, valid, epochs, patience, verbose):
    """Train with early stopping on the validation likelihood; the best weights stay."""
    model = AutoregressiveDensity(network, "bernoulli")
    model.compile(keras.optimizers.Adam(2e-3))
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=patience, restore_best_weights=True
    )
    model.fit(
        train,
        validation_data=valid,
        batch_size=100,
        epochs=epochs,
        callbacks=[stop],
        verbose=verbose,
    )
    return model


def draw_picture(real, sampled, path):
    """Real digits on the left, samples on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 5.2))
    for panel, x, title in zip(
        panels, (real, sampled), ("real digits", "drawn by the model"), strict=True
    ):
        side = math.isqrt(x.shape[1])
        images = x[:100].reshape(10, 10, side, side)
        images = np.pad(images, [(0, 0), (0, 0), (0, 1), (0, 1)])
        panel.imshow(images.swapaxes(1, 2).reshape(10 * (side + 1), -1), cmap="gray_r")
        panel.set_title(title)
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--out", type=Path, default=Path("out/digits.png"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    train, valid, test = load(arguments.data)
    print(f"{len(train)} training images of {train.shape[1]} binary pixels")
    large = arguments.data == "mnist"
    epochs = 5 if arguments.quick else 20 if large else 150
    logistic = fit(MADE(()), train, valid, 5 if arguments.quick else epochs, 5, 0)
    network = MADE(
        [500, 500] if large else [300, 300],
        ordering="random",
        num_masks=8,
        residual=True,
        dropout=0.0 if large else 0.3,
    )
    model = fit(network, train, valid, epochs, 10, 1)

    print("\ntest negative log-likelihood, nats per image")
    print(f"  independent pixels     {independent_nll(train, test):8.2f}")
    print(f"  logistic (FVSBN)       {logistic.evaluate(test, verbose=0):8.2f}")
    nll = model.evaluate(test, verbose=0)
    print(f"  deep MADE, {network.num_masks} orderings {nll:8.2f}")

    start = time.perf_counter()
    sampled = np.asarray(model.sample(100, seed=1))
    print(f"100 samples in {time.perf_counter() - start:.1f} s, compiling included")
    draw_picture(test, sampled, arguments.out)
    print(f"picture: {arguments.out}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.keras"
        model.save(path)
        again = keras.saving.load_model(path)
    difference = np.abs(again.predict(test, verbose=0) - model.predict(test, verbose=0))
    if difference.max() != 0:
        raise SystemExit(f"The reloaded model differs by {difference.max()} nats.")
    print("saved and reloaded: the same score for every test image")


if __name__ == "__main__":
    main()
