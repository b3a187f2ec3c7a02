"""Time of `fit`: a MADE's density beside a plain Keras autoencoder of its widths.

    python benchmarks/fit.py [--backend jax] [--steps 1 10] [--json FILE]

The same rows, loss, optimizer and batches of 100, without direct connections. An epoch
of each is timed in turn, in one process; an autoencoder of Keras is compiled as Keras
would and, at the same `jit_compile` as ours, once more. `steps` are batches to a call
of the compiled function, `steps_per_execution`: what Keras's loop costs is what a
larger number saves.
"""

import argparse
import time

import numpy as np
from timing import choose_backend, print_table, save_json

# D, hidden layers, rows.
SIZES = [(784, (500,), 20_000), (784, (500, 500), 20_000), (64, (100,), 20_000)]
BATCH = 100


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each")
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


def make_density(size, hidden, steps):
    from keras_made import MADE, AutoregressiveDensity

    model = AutoregressiveDensity(MADE(hidden, direct=False))
    model.build((None, size))
    model.compile("adam", steps_per_execution=steps)
    return model


def make_autoencoder(size, hidden, steps, jit_compile):
    import keras
    from timing import dense

    model = dense(size, hidden)

    def nll(y, logits):
        # As ours: the sum over entries, the mean over rows.
        losses = keras.losses.binary_crossentropy(y, logits, from_logits=True)
        return size * losses

    model.compile("adam", loss=nll, steps_per_execution=steps, jit_compile=jit_compile)
    return model


def measure(size, hidden, num_rows, steps, repeats):
    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(num_rows, size)) < 0.3).astype("float32")
    density = make_density(size, hidden, steps)
    # What is chosen for ours when it is first trained.
    density.make_train_function()
    own = density.jit_compile
    plain = make_autoencoder(size, hidden, steps, "auto")
    options = {"batch_size": BATCH, "verbose": 0}
    epochs = {
        "ours": lambda: density.fit(x, **options),
        "autoencoder": lambda: plain.fit(x, x, **options),
    }
    if own != plain.jit_compile:
        alike = make_autoencoder(size, hidden, steps, own)
        epochs["alike"] = lambda: alike.fit(x, x, **options)
    seconds = {name: [] for name in epochs}
    for round_ in range(repeats + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(each)) for name, each in seconds.items()}
    return {
        "D": size,
        "hidden": str(hidden),
        "steps": steps,
        "XLA": bool(own),
        "ours ms": 1e3 * medians["ours"],
        "autoencoder ms": 1e3 * medians["autoencoder"],
        "ours / autoencoder": medians["ours"] / medians["autoencoder"],
        "ours / it, compiled alike": medians["ours"]
        / medians.get("alike", medians["autoencoder"]),
    }


def main():
    arguments = parse()
    choose_backend(arguments.backend, arguments.device)
    rows = [
        measure(*size, steps, arguments.repeats)
        for size in SIZES
        for steps in arguments.steps
    ]
    print_table(f"An epoch of fit, {arguments.backend}, {arguments.device}", rows)
    save_json(arguments.json, rows)


if __name__ == "__main__":
    main()
