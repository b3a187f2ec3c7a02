"""A char-RNN that learns to write Python's documentation, and shows how it improves.

The text is the one behind `help("topics")`, which every Python brings along.

    python examples/char_rnn.py
"""

import argparse
import math
from pathlib import Path
from pydoc_data.topics import topics

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from keras_made import AutoregressiveDensity, Categorical, Recurrent

LENGTH = 80


def load():
    """Windows of text as classes (n, LENGTH), train and valid, and the alphabet."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    text = "".join(c for c in text if c == "\n" or 32 <= ord(c) < 127)
    alphabet = sorted(set(text))
    number = {c: i for i, c in enumerate(alphabet)}
    classes = np.array([number[c] for c in text], "float32")
    classes = classes[: len(classes) // LENGTH * LENGTH].reshape(-1, LENGTH)
    classes = classes[np.random.RandomState(0).permutation(len(classes))]
    return classes[256:], classes[:256], "".join(alphabet)


class Write(keras.callbacks.Callback):
    """Prints a sample after every epoch, and keeps the validation bits."""

    def __init__(self, alphabet, valid):
        super().__init__()
        self.alphabet, self.valid, self.bits = alphabet, valid, []

    def on_epoch_end(self, epoch, logs=None):
        logs = self.model.evaluate(self.valid, verbose=0, return_dict=True)
        self.bits.append(logs["bits_per_dim"])
        sample = np.asarray(self.model.sample(2, seed=epoch, verbose=0))
        lines = ["".join(self.alphabet[int(c)] for c in row) for row in sample]
        print(f"after {epoch + 1} rounds, {self.bits[-1]:.2f} bits per character:")
        print("\n".join(f"    {line!r}" for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps only")
    parser.add_argument("--out", type=Path, default=Path("out/char_rnn.png"))
    options = parser.parse_args()
    rounds, units, steps = (2, 32, 8) if options.quick else (6, 128, 80)
    train, valid, alphabet = load()
    keras.utils.set_random_seed(0)
    network = Recurrent((LENGTH,), units, "gru", num_params=len(alphabet))
    model = AutoregressiveDensity(network, Categorical(len(alphabet)))
    model.compile(keras.optimizers.Adam(5e-3))
    write = Write(alphabet, valid)
    rows = np.random.RandomState(0).randint(len(train), size=64 * steps * rounds)
    for part in range(rounds):
        x = train[rows[part * 64 * steps : (part + 1) * 64 * steps]]
        model.fit(
            x,
            batch_size=64,
            initial_epoch=part,
            epochs=part + 1,
            callbacks=[write],
            verbose=0,
        )
    figure, axis = plt.subplots(figsize=(5, 3.2))
    seen = np.arange(1, rounds + 1) * 64 * steps * LENGTH / 1e3
    axis.plot(seen, write.bits, marker="o", label="GRU")
    letters = np.bincount(train.astype(int).ravel(), minlength=len(alphabet)) + 1.0
    p = letters / letters.sum()
    alone = -np.mean(np.log2(p[valid.astype(int)]))
    axis.axhline(alone, color="gray", linestyle=":", label="frequencies of characters")
    axis.set_xlabel("thousand characters read")
    axis.set_ylabel("bits per character")
    axis.set_ylim(0, math.ceil(max(*write.bits, alone)))
    axis.legend()
    figure.tight_layout()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    print(f"{alone:.2f} bits without memory. Learning curve: {options.out}")


if __name__ == "__main__":
    main()
