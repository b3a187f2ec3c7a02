"""Attention: nats beside MADE after the same processor time; what draws cost.

    python benchmarks/attention.py [--data FOLDER] [--seconds 60] [--json FILE]
    python benchmarks/attention.py --draws

Both networks are trained in the order of the data, with Adam whose rate falls to zero
as the time runs out, for `--seconds` of processor time on each of three sets of binary
variables and for three times as many on binarized MNIST; the weights that are best on
validation rows are scored on test rows, at most `--rows` of each. Training, validation
and compiling count.

The second command compares drawing with keys and values that are kept, and with the
whole network at every step, in passes over as many rows; all compiled.
"""

import argparse
import functools
import math
import time

import keras
import numpy as np
from timing import interleaved_medians, load_data, print_row, print_table, save_json

from keras_made import MADE, Attention, Autoregressive, AutoregressiveDensity
from keras_made.compiling import compiled
from keras_made.densities.drawing import generate_rows, noise_shape

# name: (width, layers, heads, rows of a batch, rows of a round, times the seconds)
SETS = {
    "adult": (64, 2, 4, 50, 5000, 1),
    "connect4": (64, 2, 4, 50, 5000, 1),
    "ocr_letters": (64, 2, 4, 50, 5000, 1),
    "binarized_mnist": (32, 2, 2, 20, 1000, 3),
}


def train(network, data, rate, batch, rows, seconds, num_valid):
    """The density with its best weights, the rows that it saw, and its time."""
    keras.utils.set_random_seed(0)
    rng = np.random.RandomState(0)
    model = AutoregressiveDensity(network, "bernoulli")
    model.compile(keras.optimizers.Adam(rate))
    valid = some(data["valid"], num_valid)
    best, kept, seen, spent = math.inf, None, 0, 0.0
    start = time.process_time()
    while spent < seconds:
        model.optimizer.learning_rate.assign(rate * (1 - spent / seconds))
        # Whole batches, so that one step is compiled.
        count = min(rows, len(data["train"])) // batch * batch
        chosen = rng.permutation(len(data["train"]))[:count]
        model.fit(data["train"][chosen].astype("float32"), batch_size=batch, verbose=0)
        seen += len(chosen)
        nats = model.evaluate(valid, batch_size=batch, verbose=0)
        if nats < best:
            best, kept = nats, model.get_weights()
        spent = time.process_time() - start
    model.set_weights(kept)
    return model, seen, spent


def some(x, most):
    """At most so many rows, evenly spread: those of MNIST are sorted by digit."""
    return x[:: max(1, len(x) // most)][:most].astype("float32")


def compare(name, options):
    """A row of the table: nats of both, and rows seen."""
    width, layers, heads, batch, rows, times = SETS[name]
    data = load_data(name, options.data)
    size, seconds = data["train"].shape[1], times * options.seconds
    networks = {
        "MADE": (MADE([500]), 1e-3, 100, 5 * rows),
        "Attention": (Attention((size,), width, layers, heads), 2e-3, batch, rows),
    }
    row = {"data": name, "D": size, "seconds": seconds}
    for kind, (network, rate, batch, rows) in networks.items():
        trained = train(network, data, rate, batch, rows, seconds, options.rows // 2)
        model, seen, spent = trained
        test = some(data["test"], options.rows)
        row[f"{kind}, nats"] = model.evaluate(test, batch_size=batch, verbose=0)
        row[f"{kind}, weights"] = network.count_params()
        row[f"{kind}, passes over the data"] = seen / len(data["train"])
        row[f"{kind}, processor s"] = spent
    print_row(row)
    return row


def cost_of_draws(size, repeats, batch=16):
    """Drawing with what is kept and without, in passes over as many rows."""
    network = Attention((size,))
    model = AutoregressiveDensity(network)
    model.build((None, size))
    noise = np.random.RandomState(0).uniform(size=(batch, *noise_shape(model)))
    noise = noise.astype("float32")
    x = (noise[:, :, 0, 0] < 0.5).astype("float32")
    draw = compiled(model, functools.partial(generate_rows, model))
    score = compiled(model, lambda x: network(x))
    state = Autoregressive.start(network, batch)
    x_last = np.zeros((batch, 1), "float32")
    step = compiled(model, lambda t: Autoregressive.step(network, state, x_last, t)[0])
    middle = np.int32(size // 2)
    times = interleaved_medians(
        {
            "pass": lambda: score(x),
            "kept": lambda: draw(np.int32(0), noise),
            "recomputed": lambda: step(middle),
        },
        repeats,
    )
    recomputed = times["recomputed"] * size
    return {
        "D": size,
        "rows": batch,
        "a pass ms": 1e3 * times["pass"],
        "kept, passes": times["kept"] / times["pass"],
        "recomputed, passes": recomputed / times["pass"],
        "recomputed / kept": recomputed / times["kept"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", action="store_true", help="cost of draws only")
    parser.add_argument("--data", help="folder of the data; else $KERAS_MADE_DATA")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    if options.draws:
        rows = [cost_of_draws(size, options.repeats) for size in (256, 784)]
        print_table("Draws of Attention((D,))", rows)
        save_json(options.json, {"draws": rows})
        return
    rows = [compare(name, options) for name in options.sets]
    print_table("Test NLL in nats after the same processor time", rows)
    save_json(options.json, {"likelihood": rows})


if __name__ == "__main__":
    main()
