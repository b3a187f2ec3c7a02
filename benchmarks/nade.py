"""NADE: what likelihood and samples cost, and what a mixture of orderings gains.

    python benchmarks/nade.py [--data FOLDER] [--json FILE]

The first table divides times by D x units: a cost linear in both is a flat column. The
second trains a NADE in the order of the data and an EoNADE on 16 orderings for the same
number of updates, and scores one of its orderings and the exact mixture of all. The
last column is what Germain et al. 2015 (https://arxiv.org/abs/1502.03509) published for
NADE and for EoNADE with one hidden layer and 16 orderings.
"""

import argparse
import functools

import keras
import numpy as np
from timing import interleaved_medians, load_data, print_table, save_json

from keras_made import NADE, AutoregressiveDensity
from keras_made.compiling import compiled
from keras_made.densities.drawing import generate_rows, noise_shape

PUBLISHED = {"dna": (84.81, 82.31), "mushrooms": (9.81, 9.69)}


def cost(size, units, repeats, batch=100):
    """Milliseconds to score and to draw a batch, compiled."""
    model = AutoregressiveDensity(NADE(units))
    model.build((None, size))
    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(batch, size)) < 0.5).astype("float32")
    noise = rng.uniform(size=(batch, *noise_shape(model))).astype("float32")
    score = compiled(model, model.call)
    draw = compiled(model, functools.partial(generate_rows, model))
    times = interleaved_medians(
        {"score": lambda: score(x), "draw": lambda: draw(np.int32(0), noise)}, repeats
    )
    million = size * units * batch / 1e6
    return {
        "D": size,
        "units": units,
        "likelihood ms": 1e3 * times["score"],
        "sample ms": 1e3 * times["draw"],
        "likelihood ns / (D units)": times["score"] * 1e3 / million,
        "sample ns / (D units)": times["draw"] * 1e3 / million,
    }


def fit(network, data, steps):
    """Train for `steps` updates; the weights that are best on valid stay."""
    keras.utils.set_random_seed(0)
    # One ordering tells when to stop, at a sixteenth of the cost of the mixture.
    model = AutoregressiveDensity(network, "bernoulli", structures=[0])
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps))
    )
    x = data["train"].astype("float32")
    best = keras.callbacks.EarlyStopping(
        "val_loss", patience=10**9, restore_best_weights=True
    )
    epochs = max(1, steps * 100 // len(x))
    model.fit(
        x,
        validation_data=data["valid"].astype("float32"),
        batch_size=100,
        epochs=epochs,
        callbacks=[best],
        verbose=0,
    )
    return model


def compare(name, folder, units, steps):
    data = load_data(name, folder)
    test = data["test"].astype("float32")
    fixed = fit(NADE(units, activation="relu"), data, steps)
    network = NADE(units, activation="relu", ordering="random", num_masks=16)
    fit(network, data, steps)
    one = [
        score(AutoregressiveDensity(network, structures=[structure]), test)
        for structure in (0, 5, 10)
    ]
    return {
        "data": name,
        "NADE, order of the data": score(fixed, test),
        "EoNADE, 1 of 16 orderings": float(np.mean(one)),
        "EoNADE, mixture of 16": score(AutoregressiveDensity(network), test),
        "published NADE, EoNADE": str(PUBLISHED[name]),
    }


def score(model, x):
    """Mean NLL in nats."""
    return -float(np.mean(model.log_prob(x, verbose=0)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of dna.npz and mushrooms.npz")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--units", type=int, default=500)
    options = parser.parse_args()
    sizes = [(64, 128), (128, 128), (256, 128), (512, 128), (256, 512), (784, 512)]
    costs = [cost(size, units, options.repeats) for size, units in sizes]
    print_table("Batch of 100, compiled", costs)
    gains = [
        compare(name, options.data, options.units, options.steps) for name in PUBLISHED
    ]
    print_table(f"Test NLL in nats after {options.steps} updates", gains)
    save_json(options.json, {"cost": costs, "orderings": gains})


if __name__ == "__main__":
    main()
