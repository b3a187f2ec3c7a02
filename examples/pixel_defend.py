"""PixelDefend in small: a PixelCNN finds attacked digits and cleans them.

A classifier of digits is attacked by the fast gradient sign method. Attacked images
are improbable: the p-value of an image, the share of held-out images that are less
probable than it, tells them from clean ones. A suspect image is purified by walking
through its pixels and replacing each by the most probable level within reach, given the
pixels already replaced; the classifier then reads it again. The reach is the one that
serves best on attacked digits that are held out of the training and of the test.

    python examples/pixel_defend.py

Reference: Song, Kim, Nowozin, Ermon, Kushman 2018, "PixelDefend",
https://arxiv.org/abs/1710.10766
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from keras_made import AutoregressiveDensity, Categorical, PixelCNN
from keras_made.generation import generate

LEVELS = 17
# Images with a p-value below this are purified.
SUSPECT = 0.05


def load():
    """Grey images (n, 8, 8) of levels 0 to 16 and labels: train, held out, test."""
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))
    x, y = digits.images[order].astype("float32"), digits.target[order]
    return (x[:1200], y[:1200]), (x[1200:1500], y[1200:1500]), (x[1500:], y[1500:])


def fit_classifier(x, y, epochs):
    keras.utils.set_random_seed(0)
    classifier = keras.Sequential(
        [
            keras.Input((8, 8)),
            keras.layers.Rescaling(1 / (LEVELS - 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, "relu"),
            keras.layers.Dense(128, "relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile("adam", loss=loss, metrics=["accuracy"])
    classifier.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return classifier


def fit_density(x, valid, epochs):
    keras.utils.set_random_seed(0)
    network = PixelCNN((8, 8), units=40, num_params=LEVELS, num_layers=5)
    model = AutoregressiveDensity(network, Categorical(LEVELS))
    model.compile(keras.optimizers.Adam(3e-3))
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=3, restore_best_weights=True
    )
    model.fit(
        x,
        validation_data=valid,
        batch_size=50,
        epochs=epochs,
        callbacks=[stop],
        verbose=0,
    )
    return model


def attack(classifier, x, y, strength):
    """The fast gradient sign method: whole levels, up or down, in every pixel."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = classifier.loss(y, classifier(x))
    step = strength * tf.sign(tape.gradient(loss, x))
    return tf.clip_by_value(x + step, 0, LEVELS - 1).numpy()


def p_values(model, x, reference):
    """Share of `reference` images that are at most as probable as each image."""
    sorted_log_probs = np.sort(np.asarray(model.log_prob(reference)))
    rank = np.searchsorted(sorted_log_probs, np.asarray(model.log_prob(x)), "right")
    return (rank + 1) / (len(reference) + 1)


def make_purifier(model):
    """A function `(x, reach)`: each pixel in turn is the best level in reach of it."""
    levels = ops.arange(LEVELS, dtype="float32")

    @tf.function(jit_compile=True)
    def run(pixels, reach):
        def most_probable(params, t):
            old = ops.take(pixels, t, axis=1)[:, None, None]
            within = ops.abs(levels - old) <= reach
            best = ops.argmax(ops.where(within, params, -np.inf), axis=-1)
            return ops.cast(best, "float32"), ops.zeros(len(pixels))

        return generate(model.network, most_probable, len(pixels))[0]

    def purify(x, reach):
        values = run(tf.constant(x.reshape(len(x), -1)), tf.constant(float(reach)))
        return np.asarray(values)[..., 0].T.reshape(x.shape)

    return purify


def accuracy(classifier, x, y):
    return float(np.mean(classifier.predict(x, verbose=0).argmax(axis=1) == y))


def choose_reach(purify, classifier, attacked, labels):
    """The reach that restores most of the attacked images that are held out."""
    scores = {
        reach: accuracy(classifier, purify(attacked, reach), labels)
        for reach in (1, 2, 3, 4, 6)
    }
    listed = ", ".join(f"{reach}: {score:.1%}" for reach, score in scores.items())
    print(f"Accuracy on held-out digits, attacked and purified, by reach: {listed}")
    return max(scores, key=scores.get)


def draw_picture(images, labels, p_by_name, accuracies, auc, path):
    figure = plt.figure(figsize=(13, 4))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.9, 1, 0.8])
    names = ["clean", "attacked", "defended"]
    rows = [np.pad(images[n][:7], [(0, 0), (2, 0), (1, 1)]) for n in names]
    left.imshow(np.concatenate([np.hstack(row) for row in rows]), cmap="gray_r")
    for r, name in enumerate(names):
        for c, digit in enumerate(labels[name][:7]):
            wrong = digit != labels["clean"][c]
            left.text(
                10 * c + 0.2,
                10 * r + 1.4,
                str(digit),
                color="tab:red" if wrong else "tab:blue",
                fontsize=11,
                weight="bold",
            )
    left.set_yticks([4.5, 14.5, 24.5], names, fontsize=8)
    left.set_xticks([])
    left.set_title("what the classifier reads; in red, something else", fontsize=10)
    bins = np.linspace(0, 1, 21)
    for name, p in p_by_name.items():
        middle.hist(p, bins, alpha=0.6, label=name)
    middle.set_title(f"p-values: detection AUC {auc:.3f}", fontsize=10)
    middle.legend(fontsize=8)
    middle.set_xlabel("p-value under the PixelCNN")
    bars = right.bar(list(accuracies), list(accuracies.values()), color="tab:blue")
    right.bar_label(bars, [f"{a:.0%}" for a in accuracies.values()], fontsize=8)
    right.set_ylim(0, 1.1)
    right.tick_params(axis="x", labelsize=8, rotation=30)
    right.set_title("accuracy", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="train briefly")
    parser.add_argument("--strength", type=int, default=2, help="levels of 16")
    parser.add_argument("--out", type=Path, default=Path("out/pixel_defend.png"))
    options = parser.parse_args()
    (x, y), (held_out, held_out_labels), (test, labels) = load()
    classifier = fit_classifier(x, y, epochs=3 if options.quick else 30)
    model = fit_density(x, held_out, epochs=2 if options.quick else 40)
    attacked = attack(classifier, held_out, held_out_labels, options.strength)
    purify = make_purifier(model)
    reach = choose_reach(purify, classifier, attacked, held_out_labels)
    attacked = attack(classifier, test, labels, options.strength)
    p = {
        name: p_values(model, image, held_out)
        for name, image in [("clean", test), ("attacked", attacked)]
    }

    def defend(name, image):
        suspect = p[name][:, None, None] < SUSPECT
        print(f"Purified of the {name} images: {np.mean(suspect):.1%}")
        return np.where(suspect, purify(image, reach), image)

    images = {
        "clean": test,
        "attacked": attacked,
        "defended": defend("attacked", attacked),
        "clean, defended": defend("clean", test),
    }
    read = {
        name: classifier.predict(image, verbose=0).argmax(axis=1)
        for name, image in images.items()
    }
    accuracies = {name: float(np.mean(r == labels)) for name, r in read.items()}
    is_attacked = np.repeat([0, 1], len(test))
    auc = roc_auc_score(is_attacked, -np.concatenate(list(p.values())))
    print(f"Attack of {options.strength} levels in 16, detected with AUC {auc:.3f}")
    for name, share in accuracies.items():
        print(f"Accuracy, {name}: {share:.1%}")
    draw_picture(images, read, p, accuracies, auc, options.out)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
