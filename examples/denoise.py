"""Clean digits whose pixels were flipped, with a density as the prior.

Each pixel of a clean digit x was flipped with probability 0.1, which gave y. With
log p(x) from the model, the posterior is

    log p(x | y) = log p(x) + sum_i log p(y_i | x_i) + constant,

and Gibbs sampling draws from it: each pixel in turn, given all the others, from the two
log-probabilities with the pixel on and off. The mean of the draws, thresholded, is
the denoised digit; a median filter is shown beside it.

    python examples/denoise.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import median_filter
from sklearn.datasets import load_digits

import keras_made as km

FLIP = 0.1


def fit(x, epochs):
    keras.utils.set_random_seed(0)
    model = km.AutoregressiveDensity(km.MADE([300], dropout=0.3), "bernoulli")
    model.compile(keras.optimizers.AdamW(2e-3, weight_decay=1e-2))
    model.fit(x, epochs=epochs, batch_size=50, verbose=0)
    return model


def gibbs(model, y, sweeps, burn_in, seed=0):
    """Mean of the posterior's draws for each noisy row, after `burn_in` sweeps."""
    rng = np.random.RandomState(seed)
    x, total = y.copy(), np.zeros_like(y)
    for sweep in range(sweeps):
        for i in rng.permutation(x.shape[1]):
            both = np.concatenate([x, x])
            both[: len(x), i], both[len(x) :, i] = 0, 1
            off, on = np.split(np.asarray(model.log_prob(both, verbose=0)), 2)
            # A pixel seen on is likelier to be on, by the odds of no flip.
            logit = on - off + (2 * y[:, i] - 1) * np.log((1 - FLIP) / FLIP)
            x[:, i] = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-logit))
        if sweep >= burn_in:
            total += x
    return total / (sweeps - burn_in)


def draw(images, path, columns=12):
    figure, axes = plt.subplots(len(images), columns, figsize=(9.6, 4.4))
    for row, (title, rows) in zip(axes, images.items(), strict=True):
        for axis, image in zip(row, rows[:columns], strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)
    figure.tight_layout(h_pad=0.3, w_pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/denoise.png"))
    args = parser.parse_args()
    x = (load_digits().data > 7.5).astype("float32")
    rng = np.random.RandomState(0)
    x = x[rng.permutation(len(x))]
    train, test = x[:1600], x[1600:]
    model = fit(train, 10 if args.quick else 100)
    noisy = np.where(rng.uniform(size=test.shape) < FLIP, 1 - test, test)
    sweeps, burn_in = (3, 1) if args.quick else (20, 5)
    mean = gibbs(model, noisy.astype("float32"), sweeps, burn_in)
    filtered = median_filter(noisy.reshape(-1, 8, 8), size=(1, 3, 3)).reshape(-1, 64)
    images = {
        "clean": test,
        "noisy": noisy,
        "posterior mean": mean,
        "denoised": (mean > 0.5).astype("float32"),
        "median filter": filtered,
    }
    for name in ("noisy", "median filter", "denoised"):
        print(f"{name:14s} wrong pixels {np.mean(images[name] != test):.4f}")
    draw(images, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
