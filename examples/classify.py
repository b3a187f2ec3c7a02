"""Classify digits by Bayes' rule with one class-conditional density.

The class is the context of the density, one-hot: `fit((x, c))` learns log p(x | c) of
all classes in one network. Bayes' rule does the rest,

    p(c | x) = p(c) p(x | c) / sum over classes of the same,

and the same model draws digits of any class, which the picture shows.

    python examples/classify.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import keras_made as km

CLASSES = np.eye(10, dtype="float32")


def fit(x, labels, epochs):
    keras.utils.set_random_seed(0)
    network = km.MADE([200], ordering="random", num_masks=100, dropout=0.3)
    model = km.AutoregressiveDensity(network, "bernoulli", structures=range(8))
    model.compile(keras.optimizers.AdamW(2e-3, weight_decay=1e-2))
    model.fit((x, CLASSES[labels]), epochs=epochs, batch_size=50, verbose=0)
    return model


def log_posterior(model, x, log_prior):
    """log p(c | x) for every row and class: `(n, 10)`."""
    joint = [
        log_prior[c] + np.asarray(model.log_prob(x, CLASSES[c])) for c in range(10)
    ]
    joint = np.stack(joint, axis=1)
    return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)


def draw(model, x, labels, predicted, path, num_draws=8):
    figure, axes = plt.subplots(10, num_draws + 1, figsize=(6.4, 7.4))
    context = np.repeat(CLASSES, num_draws, axis=0)
    draws = np.asarray(model.sample(len(context), context, seed=1))
    draws = draws.reshape(10, num_draws, 8, 8)
    for c in range(10):
        example = x[np.flatnonzero(labels == c)[0]].reshape(8, 8)
        for axis, image in zip(axes[c], [example, *draws[c]], strict=True):
            axis.imshow(image, cmap="gray_r")
            axis.set(xticks=[], yticks=[])
        for spine in axes[c, 0].spines.values():
            spine.set(color="#b5367a", linewidth=2)
        accuracy = np.mean(predicted[labels == c] == c)
        axes[c, 0].set_ylabel(f"{accuracy:.0%}", rotation=0, ha="right", va="center")
    axes[0, 0].set_title("data", fontsize=10, color="#b5367a")
    axes[0, 1].set_title("draws of the class", fontsize=10, loc="left")
    figure.suptitle("Each class: test accuracy, one digit, eight draws", fontsize=11)
    figure.tight_layout(h_pad=0.2, w_pad=0.2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/classify.png"))
    args = parser.parse_args()
    digits = load_digits()
    x = (digits.data > 7.5).astype("float32")
    x, test, labels, test_labels = train_test_split(
        x, digits.target, test_size=400, random_state=0, stratify=digits.target
    )
    model = fit(x, labels, 15 if args.quick else 120)
    log_prior = np.log(np.bincount(labels) / len(labels))
    posterior = log_posterior(model, test, log_prior)
    predicted = posterior.argmax(axis=1)
    ours = np.mean(predicted == test_labels)
    surprise = -posterior[np.arange(len(test)), test_labels].mean()
    linear = LogisticRegression(max_iter=2000).fit(x, labels)
    theirs = linear.score(test, test_labels)
    log_theirs = -linear.predict_log_proba(test)[np.arange(len(test)), test_labels]
    print(f"Bayes' rule on MADE  accuracy {ours:.3f}, log loss {surprise:.3f}")
    print(
        f"logistic regression  accuracy {theirs:.3f}, log loss {log_theirs.mean():.3f}"
    )
    draw(model, test, test_labels, predicted, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
