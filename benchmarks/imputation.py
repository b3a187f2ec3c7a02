"""Fill in 2,000 rows with 500 distinct missing patterns, D = 64.

    python benchmarks/imputation.py

Every row is completed in an ordering of its own, its observed entries first. The
alternative to which it is compared is to run the patterns one after another, each in
one ordering for its rows, by the same compiled code and so at equal shapes. Seconds are
medians, the first call (which compiles) apart; compilations are counted as traces of
the compiled function.
"""

import argparse
import time

import keras
import numpy as np
from timing import save_json

import keras_made as km
from keras_made.compiling import Announced, compiled
from keras_made.densities.drawing import generate_rows


def make_model(size, units):
    keras.utils.set_random_seed(0)
    network = km.MADE([units], ordering="random", num_masks=100)
    model = km.AutoregressiveDensity(network, "bernoulli")
    model.build((None, size))
    return model


def count_traces(model):
    """A list that grows by one at every compilation."""
    traces = []

    def generate(*args):
        traces.append(len(args))
        return generate_rows(model, *args)

    model._functions["impute"] = Announced(compiled(model, generate), "impute")
    return traces


def seconds(function, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.asarray(function())
        times.append(time.perf_counter() - start)
    return times[0], float(np.median(times[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--patterns", type=int, default=500)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--json", help="write the numbers to this file")
    args = parser.parse_args()
    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(args.rows, args.size)) < 0.5).astype("float32")
    patterns = rng.uniform(size=(args.patterns, args.size)) < 0.5
    which = np.arange(args.rows) % args.patterns
    model = make_model(args.size, args.units)
    traces = count_traces(model)

    def together():
        return model.impute(x, patterns[which], seed=1, verbose=0)

    def one_by_one():
        parts = [
            np.asarray(model.impute(x[which == p], patterns[p], seed=1, verbose=0))
            for p in range(args.patterns)
        ]
        return np.concatenate(parts)

    first, result = seconds(together, 6)
    compilations = len(traces)
    _, apart = seconds(one_by_one, 3)
    figures = {
        "seconds": result,
        "first_call_seconds": first,
        "compilations": compilations,
        "one_pattern_at_a_time_seconds": apart,
        "times_faster": apart / result,
    }
    print(f"{args.rows} rows, {args.patterns} patterns, D = {args.size}")
    for name, value in figures.items():
        print(f"{name:32s} {value:.4g}")
    save_json(args.json, figures)


if __name__ == "__main__":
    main()
