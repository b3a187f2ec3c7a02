"""Small work: drawing few rows of few variables, beside passes of the same network.

    python benchmarks/small.py [--backend tensorflow|jax|torch] [--json FILE]

Medians in one process. The floor is D compiled passes one after the other, in one loop
(`passes, one loop`) and called from Python (`passes, called`); `host` is what a call of
`sample` costs outside the compiled function: noise, checks, chunks and conversion.

Then 1,000 rows of a five-step MAF: `sample` beside TensorFlow Probability's flow of
the same shape, noise and all under XLA (TensorFlow only), and zuko's, where installed.
"""

import argparse

import numpy as np
from timing import (
    choose_backend,
    interleaved_medians,
    is_installed,
    print_table,
    save_json,
)

# D, hidden units, rows.
CASES = [(3, [16, 16], 1000), (6, [100, 100], 1000), (16, [32], 100), (16, [32], 1)]
CASES += [(32, [100], 100), (8, [256, 256], 100)]
FLOWS, DRAWN = [(3, (16, 16)), (6, (100, 100)), (16, (100, 100))], 1000


def make_functions(size, units, rows):
    """The functions to time, by name."""
    import keras
    from keras import ops

    import keras_made as km
    from keras_made.compiling import best_length, compiled
    from keras_made.densities.drawing import generate_rows, noise_shape

    model = km.AutoregressiveDensity(km.MADE(units))
    model.build((None, size))
    x = ops.convert_to_tensor(np.zeros((rows, size), "float32"))
    one_pass = compiled(model, model.network)

    def loop(x):
        def step(t, x):
            return t + 1, ops.cast(model.network(x) > 0, x.dtype)

        start = (ops.convert_to_tensor(0, "int32"), x)
        return ops.while_loop(lambda t, x: t < size, step, start)[1]

    all_passes = compiled(model, loop)

    def called():
        for _ in range(size):
            y = one_pass(x)
        return keras.ops.convert_to_numpy(y)

    generate = compiled(model, lambda *args: generate_rows(model, *args))
    noise = keras.random.uniform((best_length(rows), *noise_shape(model)))
    structure = ops.convert_to_tensor(0, "int32")
    return {
        "passes, one loop": lambda: ops.convert_to_numpy(all_passes(x)),
        "passes, called": called,
        "generate": lambda: ops.convert_to_numpy(generate(structure, noise)),
        "sample": lambda: ops.convert_to_numpy(model.sample(rows, seed=1, verbose=0)),
    }


def flow_functions(size, hidden):
    """Draws of a flow, and of its peers as their users would draw, by name."""
    import keras

    from keras_made import flows

    flow = flows.MAF(size, 5, hidden)
    flow.build((None, size))
    draws = {"ours": lambda: flow.sample(DRAWN, seed=1, verbose=0)}
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf
        from flows import make_theirs

        distribution, _ = make_theirs(size, hidden)
        draw = tf.function(lambda: distribution.sample(DRAWN), jit_compile=True)
        draws["TFP"] = draw
    if is_installed("zuko"):
        import torch
        import zuko

        theirs = zuko.flows.MAF(size, 0, transforms=5, hidden_features=hidden)

        def draw_theirs():
            with torch.no_grad():
                return theirs().sample((DRAWN,))

        draws["zuko"] = draw_theirs
    return draws


def measure_flow(size, hidden, repeats):
    seconds = interleaved_medians(flow_functions(size, hidden), repeats)
    row = {"D": size, "hidden units": str(hidden)}
    row |= {f"{name}, ms": 1e3 * s for name, s in seconds.items()}
    for name in seconds:
        if name != "ours":
            row[f"ours / {name}"] = seconds["ours"] / seconds[name]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--json", help="write the numbers to this file")
    args = parser.parse_args()
    choose_backend(args.backend)
    rows = []
    for size, units, number in CASES:
        functions = make_functions(size, units, number)
        seconds = interleaved_medians(functions, args.repeats)
        row = {"D": size, "hidden units": str(units), "rows": number}
        row |= {f"{name}, ms": 1e3 * s for name, s in seconds.items()}
        row["host, ms"] = row["sample, ms"] - row["generate, ms"]
        rows.append(row)
    flows = [measure_flow(*case, args.repeats) for case in FLOWS]
    print_table(f"Drawing few rows, {args.backend}", rows)
    print_table(f"{DRAWN} rows of a MAF of five steps", flows)
    save_json(args.json, {"rows": rows, "flows": flows})


if __name__ == "__main__":
    main()
