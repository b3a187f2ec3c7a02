"""Time to score rows: one pass, and an ensemble over structures.

    python benchmarks/scoring.py [--backend jax] [--device gpu] [--json FILE]

`dense` is one compiled pass of the unmasked net of the same shape, `log_prob` is
`AutoregressiveDensity.log_prob` of the same rows, and `K structures` the mixture over a
cycle of K orderings, in single passes: K would be no better than one after the other.

Then `log_prob` of MADE([500]) at D = 784, of an array and of a tensor, beside the bare
compiled pass with the sum over entries, and TensorFlow Probability's network and
Bernoullis under XLA (TensorFlow only).
"""

import argparse

SIZES = [(64, (500, 500)), (784, (500, 500)), (784, (2000, 2000))]
ROWS, STRUCTURES = 2000, 8
CALLS = (100, 1000, 10_000)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


def measure(size, hidden, repeats):
    import keras
    import numpy as np
    from timing import dense, interleaved_medians

    from keras_made import MADE, AutoregressiveDensity
    from keras_made.compiling import compiled

    def density(**options):
        model = AutoregressiveDensity(MADE(hidden, **options))
        model.build((None, size))
        return model

    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(ROWS, size)) < 0.5).astype("float32")
    net = dense(size, hidden, direct=True)
    one_pass = compiled(net, net)
    one, many = density(), density(ordering="random", num_masks=STRUCTURES)
    times = interleaved_medians(
        {
            "dense": lambda: keras.ops.convert_to_numpy(one_pass(x)),
            "log_prob": lambda: one.log_prob(x, verbose=0),
            "many": lambda: many.log_prob(x, verbose=0),
        },
        repeats,
    )
    return {
        "D": size,
        "hidden": str(hidden),
        "dense pass ms": 1e3 * times["dense"],
        "log_prob / dense pass": times["log_prob"] / times["dense"],
        f"{STRUCTURES} structures / log_prob": times["many"] / times["log_prob"],
        "rows per second": ROWS / times["log_prob"],
    }


def tfp_log_prob(size, hidden):
    """log p of TFP's own network of that shape, one compiled function."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    network = tfp.bijectors.AutoregressiveNetwork(
        params=1, hidden_units=list(hidden), activation="relu", event_shape=[size]
    )
    network(tf.zeros((1, size)))

    def log_prob(x):
        bits = tfp.distributions.Bernoulli(logits=network(x)[..., 0])
        return tf.reduce_sum(bits.log_prob(x), axis=-1)

    return tf.function(log_prob, jit_compile=True)


def measure_calls(num_rows, repeats, size=784, hidden=(500,)):
    """What a call of `log_prob` costs beside the arithmetic."""
    import keras
    import numpy as np
    from timing import interleaved_medians

    from keras_made import MADE, AutoregressiveDensity
    from keras_made.compiling import compiled

    model = AutoregressiveDensity(MADE(hidden))
    model.build((None, size))
    bare = compiled(model, model.call)
    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(num_rows, size)) < 0.5).astype("float32")
    tensor = keras.ops.convert_to_tensor(x)
    # What TFP's has not is a weight from every input to every output.
    indirect = AutoregressiveDensity(MADE(hidden, direct=False))
    indirect.build((None, size))
    calls = {
        "bare pass": lambda: keras.ops.convert_to_numpy(bare(tensor)),
        "array": lambda: model.log_prob(x, verbose=0),
        "tensor": lambda: keras.ops.convert_to_numpy(model.log_prob(tensor)),
        "direct=False": lambda: indirect.log_prob(x, verbose=0),
    }
    if keras.backend.backend() == "tensorflow":
        theirs = tfp_log_prob(size, hidden)
        calls["TFP"] = lambda: theirs(x)
    seconds = interleaved_medians(calls, repeats)
    row = {"rows": num_rows, "bare pass ms": 1e3 * seconds["bare pass"]}
    for name in list(calls)[1:]:
        row[f"{name} / bare pass"] = seconds[name] / seconds["bare pass"]
    if "TFP" in seconds:
        row["array / TFP"] = seconds["array"] / seconds["TFP"]
        row["direct=False / TFP"] = seconds["direct=False"] / seconds["TFP"]
    return row


def main():
    arguments = parse()
    from timing import choose_backend, print_table, save_json

    choose_backend(arguments.backend, arguments.device)
    rows = [measure(*size, arguments.repeats) for size in SIZES]
    calls = [measure_calls(number, 3 * arguments.repeats) for number in CALLS]
    print_table(f"Scoring {ROWS} rows, {arguments.backend}, {arguments.device}", rows)
    print_table("A call of log_prob, D = 784, (500,)", calls)
    save_json(arguments.json, {"rows": rows, "calls": calls})


if __name__ == "__main__":
    main()
