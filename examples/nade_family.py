"""NADE, EoNADE, FVSBN and MADE on the same binary digits: likelihood, time, samples.

Four networks, one contract: each is trained by `fit`, scored by `evaluate` and sampled
by `sample`, with no code of its own. EoNADE is NADE over a cycle of random orderings,
its score the mixture of them all. NADE and MADE, which share an ordering, are averaged
as they are.

    python examples/nade_family.py
"""

import argparse
import time
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from keras_made import MADE, NADE, AutoregressiveDensity, NetworkAverage

NETWORKS = {
    "FVSBN": lambda: MADE(()),
    "NADE": lambda: NADE(200),
    "EoNADE, 16 orderings": lambda: NADE(200, ordering="random", num_masks=16),
    "MADE": lambda: MADE([200, 200]),
    "MADE, 16 orderings": lambda: MADE([200, 200], ordering="random", num_masks=16),
}


def load():
    """Binary images, shuffled and split: train, valid, test of shape (n, 64)."""
    x = (load_digits().data > 7).astype("float32")
    x = x[np.random.RandomState(0).permutation(len(x))]
    return x[:1300], x[1300:1500], x[1500:]


def fit(network, train, valid, epochs):
    """Train with early stopping; the best weights on `valid` stay."""
    keras.utils.set_random_seed(0)
    model = AutoregressiveDensity(network, "bernoulli")
    model.compile(keras.optimizers.Adam(3e-3))
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=6, restore_best_weights=True
    )
    model.fit(
        train,
        validation_data=valid,
        batch_size=50,
        epochs=epochs,
        callbacks=[stop],
        verbose=0,
    )
    return model


def grid(images, columns=8):
    """Images of 64 pixels side by side, in rows."""
    rows = images.reshape(-1, columns, 8, 8)
    rows = np.pad(rows, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=0.5)
    return rows.transpose(0, 2, 1, 3).reshape(len(rows) * 9, -1)


def draw_picture(pictures, path):
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.8))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, images) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(grid(images), cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(title, fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/nade_family.png"))
    options = parser.parse_args()
    train, valid, test = load()
    networks, pictures = {}, {"data": test[:64]}
    print(f"{'network':22} {'test NLL':>9} {'training':>9} {'64 samples':>11}")

    def show(name, model, seconds):
        networks[name] = model.network
        nll = float(-np.mean(model.log_prob(test, verbose=0)))
        model.sample(64, seed=0)
        drawing = time.perf_counter()
        pictures[f"{name}\n{nll:.2f} nats"] = np.asarray(model.sample(64, seed=1))
        drawn = time.perf_counter()
        print(
            f"{name:22} {nll:9.2f} {seconds:7.1f} s {1e3 * (drawn - drawing):8.1f} ms"
        )

    for name, make in NETWORKS.items():
        start = time.perf_counter()
        model = fit(make(), train, valid, epochs=1 if options.quick else 60)
        show(name, model, time.perf_counter() - start)
    average = NetworkAverage([networks["NADE"], networks["MADE"]])
    show("NADE and MADE averaged", AutoregressiveDensity(average), 0.0)
    draw_picture(pictures, options.out)
    print(f"Samples: {options.out}")


if __name__ == "__main__":
    main()
