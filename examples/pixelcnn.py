"""A PixelCNN of grey digits, told the class: samples, and digits completed.

Pixels come row by row, so the lower half of a digit is drawn exactly given the upper
half: `impute` needs nothing else.

    python examples/pixelcnn.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from keras_made import AutoregressiveDensity, Categorical, PixelCNN

LEVELS = 17


def load():
    """Grey images (n, 8, 8) of levels 0 to 16 and one-hot classes; train and test."""
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))
    x = digits.images[order].astype("float32")
    classes = np.eye(10, dtype="float32")[digits.target[order]]
    return (x[:1500], classes[:1500]), (x[1500:], classes[1500:])


def fit(train, test, epochs):
    keras.utils.set_random_seed(0)
    network = PixelCNN((8, 8), units=40, num_params=LEVELS, num_layers=5)
    model = AutoregressiveDensity(network, Categorical(LEVELS))
    steps = epochs * -(-len(train[0]) // 50)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, steps))
    )
    model.fit(train, validation_data=test, batch_size=50, epochs=epochs, verbose=2)
    return model


def independent_bits(train, test):
    """Bits per pixel of independent pixels, each with its smoothed frequencies."""
    levels = np.arange(LEVELS)
    counts = (train[..., None] == levels).sum(axis=0) + 1.0
    p = counts / counts.sum(axis=-1, keepdims=True)
    return -np.mean(np.log2(np.sum(p * (test[..., None] == levels), axis=-1)))


def complete(model, x, classes, num_copies):
    """The lower half of each image, drawn given the upper half."""
    observed = np.zeros((8, 8), bool)
    observed[:4] = True
    drawn = model.impute(x, observed, classes, num_copies=num_copies, seed=0, verbose=0)
    hidden = np.where(observed, x, np.nan)
    return np.stack([x, hidden, *np.asarray(drawn)], axis=1)


def draw_picture(samples, completed, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6))
    for axis, images, title in [
        (left, samples, "one sample of each class in every row"),
        (right, completed, "digit, upper half, five completions"),
    ]:
        images = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=4)
        rows = images.transpose(0, 2, 1, 3).reshape(len(images) * 10, -1)
        axis.imshow(np.ma.masked_invalid(rows), cmap="gray_r", vmin=0, vmax=16)
        axis.set_title(title, fontsize=10)
        axis.set_facecolor("#9ecae1")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one epoch only")
    parser.add_argument("--out", type=Path, default=Path("out/pixelcnn.png"))
    options = parser.parse_args()
    train, test = load()
    model = fit(train, test, epochs=1 if options.quick else 20)
    bits = model.evaluate(test, verbose=0, return_dict=True)["bits_per_dim"]
    print(f"Bits per pixel: PixelCNN {bits:.3f}, ", end="")
    print(f"independent pixels {independent_bits(train[0], test[0]):.3f}")
    classes = np.tile(np.eye(10, dtype="float32"), (8, 1))
    samples = np.asarray(model.sample(80, classes, seed=0, verbose=0))
    completed = complete(model, test[0][:8], test[1][:8], num_copies=5)
    draw_picture(samples.reshape(8, 10, 8, 8), completed, options.out)
    print(f"Samples and completions: {options.out}")


if __name__ == "__main__":
    main()
