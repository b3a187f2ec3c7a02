"""How large a MADE should start under a density: held-out nats of several starts.

    python benchmarks/made_starts.py adult dna wine --data FOLDER

One hidden layer of 500 with direct connections, Adam at 0.001, batches of 100, until
the validation rows are no better for ten epochs: binary sets with Bernoullis, red wine
(`red_wine.npz`, a fold) with mixtures of ten normals. What differs is the start:

    whole       Glorot's spread for every kernel
    output .1   output kernels of a tenth of it; .01 of a hundredth (the default)
    hidden .5   hidden kernels of half of it
    he          He's spread for every kernel
    he .1       the same, output kernels of a tenth of it

Large sets are cut to their first 10,000 rows. The choice is made by validation nats;
test rows are there to be reported.
"""

import argparse
import time

import numpy as np
from flows_side_by_side import wine_fold
from timing import (
    choose_backend,
    fit_until_worse,
    load_data,
    print_row,
    print_table,
    save_json,
    steps_together,
)

BINARY = ("adult", "connect4", "dna", "mushrooms", "nips", "ocr_letters", "web")
STARTS = ("whole", "output .1", "output .01", "hidden .5", "he", "he .1")
OUTPUT_SCALES = {"output .1": 0.1, "output .01": 0.01, "he .1": 0.1}
HIDDEN, MOST_ROWS, NUM_NORMALS = 500, 10_000, 10
RATE, BATCH, PATIENCE, MAX_EPOCHS = 1e-3, 100, 10, 200


def parse():
    sets = (*BINARY, "wine")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=sets, help=str(sets))
    parser.add_argument("--starts", nargs="+", default=STARTS, choices=STARTS)
    parser.add_argument("--runs", type=int, default=1, help="seeds, or folds of wine")
    parser.add_argument("--data", help="folder of the sets")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


def rows_of(name, run, folder):
    """Rows to train on, to validate and to test, as a dict of arrays."""
    if name == "wine":
        parts = wine_fold(load_data("red_wine", folder), run).parts
        return {part: x for part, (x, _) in parts.items()}
    data = load_data(name, folder)
    parts = ("train", "valid", "test")
    return {part: data[part][:MOST_ROWS].astype("float32") for part in parts}


def make_density(name, start, seed):
    import keras

    from keras_made import MADE, AutoregressiveDensity, MixtureOfNormals

    rule = "he_uniform" if start.startswith("he") else "glorot_uniform"
    initializer = keras.initializers.get({"class_name": rule, "config": {"seed": seed}})
    conditional = MixtureOfNormals(NUM_NORMALS) if name == "wine" else "bernoulli"
    made = MADE(
        [HIDDEN],
        getattr(conditional, "num_params", None),
        kernel_initializer=initializer,
        output_scale=OUTPUT_SCALES.get(start, 1.0),
    )
    return AutoregressiveDensity(made, conditional)


def measure(name, run, rows, start):
    import keras

    keras.utils.set_random_seed(run)
    began = time.perf_counter()
    density = make_density(name, start, run)
    density.build(rows["train"].shape)
    if start == "hidden .5":
        kernel = density.network.hidden_layers[0].weights[0]
        kernel.assign(0.5 * np.asarray(kernel))
    density.compile(keras.optimizers.Adam(RATE), steps_per_execution=steps_together(10))
    history = fit_until_worse(
        density, rows["train"], rows["valid"], BATCH, MAX_EPOCHS, PATIENCE
    )
    row = {
        "set": name,
        "run": run,
        "start": start,
        "valid": min(history),
        "test": density.evaluate(rows["test"], batch_size=1000, verbose=0),
        "epochs": len(history),
        "seconds": time.perf_counter() - began,
    }
    print_row(row)
    return row


def summary(rows):
    """A row for each set: mean validation nats of every start above the best."""
    table = []
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        means = {
            start: float(np.mean([r["valid"] for r in mine if r["start"] == start]))
            for start in dict.fromkeys(row["start"] for row in mine)
        }
        best = min(means.values())
        table.append(
            {"set": name, "best": best, **{k: v - best for k, v in means.items()}}
        )
    return table


def main():
    arguments = parse()
    choose_backend(arguments.backend)
    rows = []
    for name in arguments.sets:
        for run in range(arguments.runs):
            data = rows_of(name, run, arguments.data)
            for start in arguments.starts:
                rows.append(measure(name, run, data, start))
                save_json(arguments.json, rows)
    print_table("Validation nats above those of the best start", summary(rows))


if __name__ == "__main__":
    main()
