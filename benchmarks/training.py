"""Time of a training step, beside the unmasked dense net of the same shape.

    python benchmarks/training.py [--backend jax] [--device gpu] [--json FILE]

Every row is one shape: D inputs, hidden layers, D outputs. All nets are Keras models
trained by `fit` with Adam on batches of 100, compiled; a step is an epoch's time over
its number of batches. `dense` has the same layers without masks, `masked` is MADE with
its kernels stored whole, `MADE` with the form it chooses, `32 structures` a cycle of as
many orderings, and `TFP` is `tfb.AutoregressiveNetwork` (TensorFlow only). None but the
last column has direct connections; there, `dense` has them too. All are compiled by XLA
but where it says not (on TensorFlow and a CPU, Keras leaves it out by default).
"""

import argparse


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--dtype", default="float32", help="a Keras dtype policy")
    parser.add_argument("--shapes", nargs="+", default=DEFAULT_SHAPES, help=SHAPES_HELP)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10, help="batches an epoch")
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


DEFAULT_SHAPES = ["784:500,500", "784:2000,2000", "784:8000", "784:8000,8000"]
SHAPES_HELP = "D:units,units... for each row"
BATCH = 100


def made(size, hidden, direct=False, **options):
    import keras

    from keras_made import MADE

    layer = MADE(hidden, direct=direct, **options)
    return keras.Sequential([keras.Input((size,)), layer])


def tfp_network(size, hidden):
    import tensorflow_probability as tfp
    import tf_keras

    network = tfp.bijectors.AutoregressiveNetwork(
        params=1, event_shape=[size], hidden_units=list(hidden), activation="relu"
    )
    return tf_keras.Sequential([network, tf_keras.layers.Reshape([size])])


def epoch(model, x, jit_compile=True):
    """A function that trains once through `x` and returns the loss."""
    if type(model).__module__.startswith("tf_keras"):
        import tf_keras as library
    else:
        import keras as library
    model.compile(
        library.optimizers.Adam(1e-4),
        loss=library.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )

    def run():
        history = model.fit(x, x, batch_size=BATCH, shuffle=False, verbose=0)
        return history.history["loss"][-1]

    return run


def measure(size, hidden, arguments):
    import keras
    import numpy as np
    from timing import dense, interleaved_medians

    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(BATCH * arguments.steps, size)) < 0.5).astype("float32")
    small = size * hidden[0] + hidden[0] * hidden[-1] < 10_000_000
    models = {
        "dense": dense(size, hidden),
        "masked": made(size, hidden, kernel_form="masked"),
        "MADE": made(size, hidden),
    }
    if small:
        models["32 structures"] = made(size, hidden, ordering="random", num_masks=32)
        models["dense+direct"] = dense(size, hidden, direct=True)
        models["MADE+direct"] = made(size, hidden, direct=True)
        if keras.backend.backend() == "tensorflow" and arguments.dtype == "float32":
            models["TFP"] = tfp_network(size, hidden)
    functions = {name: epoch(model, x) for name, model in models.items()}
    if "TFP" in models:
        functions["no XLA"] = epoch(made(size, hidden), x, jit_compile=False)
    times = interleaved_medians(functions, arguments.repeats)
    ratio = {name: seconds / times["dense"] for name, seconds in times.items()}
    return {
        "D": size,
        "hidden": str(tuple(hidden)),
        "dense ms": 1e3 * times["dense"] / arguments.steps,
        "MADE / dense": ratio["MADE"],
        "masked / dense": ratio["masked"],
        "32 structures / masked": ratio["32 structures"] / ratio["masked"]
        if small
        else "",
        "TFP / dense": ratio.get("TFP", ""),
        "MADE without XLA": ratio.get("no XLA", ""),
        "with direct": ratio["MADE+direct"] / ratio["dense+direct"] if small else "",
    }


def small_net(repeats):
    """An epoch of 150 batches of a small net: what `steps_per_execution` saves."""
    import numpy as np
    from timing import interleaved_medians

    from keras_made import MADE, AutoregressiveDensity

    x = (np.random.RandomState(0).uniform(size=(15000, 64)) < 0.5).astype("float32")

    def runner(steps):
        model = AutoregressiveDensity(MADE([100]))
        model.compile("adam", steps_per_execution=steps)
        return lambda: model.fit(x, batch_size=BATCH, verbose=0).history["nll"][-1]

    functions = {steps: runner(steps) for steps in (1, 10, 50)}
    times = interleaved_medians(functions, repeats)
    return [
        {"steps_per_execution": steps, "ms an epoch": 1e3 * seconds}
        for steps, seconds in times.items()
    ]


def main():
    arguments = parse()
    from timing import choose_backend, print_table, save_json

    choose_backend(arguments.backend, arguments.device)
    import keras

    keras.config.set_dtype_policy(arguments.dtype)
    rows = []
    for shape in arguments.shapes:
        size, hidden = shape.split(":")
        hidden = [int(units) for units in hidden.split(",")]
        rows.append(measure(int(size), hidden, arguments))
        print(rows[-1], flush=True)
    title = f"Training step, {arguments.backend}, {arguments.device}, {arguments.dtype}"
    print_table(title, rows)
    small = small_net(arguments.repeats)
    print_table("MADE([100]) at D = 64, 15,000 rows", small)
    save_json(arguments.json, {"rows": rows, "small": small})


if __name__ == "__main__":
    main()
