"""How much of a MAF's scoring can a staircase save? Bare products, nothing else.

    python benchmarks/panels.py [--rows 1000 10000] [--json PATH]

Five steps of D = 64, hidden (512, 512), as a flow scores them, compiled by XLA: whole
kernels, and the (512, 512) kernel cut into panels of columns, by slicing the units
before it (`panels`) or by keeping them apart in blocks (`blocks`). No masks, no direct
connections, no bounded scales: what a flow takes beyond this is its own.
"""

import argparse
import functools

import numpy as np
import tensorflow as tf
from timing import interleaved_medians, save_json

SIZE, WIDTH, NUM_STEPS = 64, 512, 5


def make_kernels(rng):
    shapes = [(SIZE, WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * SIZE)]
    return [
        tf.constant((rng.normal(size=shape) / shape[0] ** 0.5).astype("float32"))
        for shape in shapes
    ]


def whole(h, kernel, _):
    return h @ kernel


def panels(h, kernel, number):
    width = WIDTH // number
    cuts = [slice(i * width, (i + 1) * width) for i in range(number)]
    columns = [h[:, : cut.stop] @ kernel[: cut.stop, cut] for cut in cuts]
    return tf.concat(columns, axis=1)


def blocks(h, kernel, number):
    width = WIDTH // number
    parts = tf.split(h, number, axis=1)
    cuts = [slice(i * width, (i + 1) * width) for i in range(number)]
    columns = [
        tf.add_n([parts[i] @ kernel[cuts[i], cuts[j]] for i in range(j + 1)])
        for j in range(number)
    ]
    return tf.concat(columns, axis=1)


def scoring(kernels, product, number):
    @tf.function(jit_compile=True)
    def score(x):
        for first, middle, last in kernels:
            h = tf.nn.relu(x @ first)
            h = tf.nn.relu(product(h, middle, number))
            params = h @ last
            x = (x - params[:, ::2]) * tf.exp(-params[:, 1::2])
            x = x[:, ::-1]
        return tf.reduce_sum(x**2, axis=1)

    return score


def measure(num_rows, repeats):
    rng = np.random.RandomState(0)
    kernels = [make_kernels(rng) for _ in range(NUM_STEPS)]
    x = tf.constant(rng.normal(size=(num_rows, SIZE)).astype("float32"))
    functions = {"whole": scoring(kernels, whole, 1)}
    for number in (2, 4):
        functions[f"panels {number}"] = scoring(kernels, panels, number)
        functions[f"blocks {number}"] = scoring(kernels, blocks, number)
    runs = {name: functools.partial(score, x) for name, score in functions.items()}
    times = interleaved_medians(runs, repeats)
    print(f"{num_rows} rows, whole kernels: {1e3 * times['whole']:.1f} ms")
    for name, seconds in times.items():
        print(f"  {name:10s} / whole {seconds / times['whole']:.2f}")
    return {"rows": num_rows, **times}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", help="write the numbers here")
    arguments = parser.parse_args()
    results = [measure(rows, arguments.repeats) for rows in arguments.rows]
    save_json(arguments.json, results)


if __name__ == "__main__":
    main()
