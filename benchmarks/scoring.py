"""Time to score rows: one pass, and an ensemble over structures.

    python benchmarks/scoring.py [--backend jax] [--device gpu] [--json FILE]

`dense` is one compiled pass of the unmasked net of the same shape, `log_prob` is
`AutoregressiveDensity.log_prob` of the same rows, and `K structures` the mixture over a
cycle of K orderings, in single passes: K would be no better than one after the other.
"""

import argparse

SIZES = [(64, (500, 500)), (784, (500, 500)), (784, (2000, 2000))]
ROWS, STRUCTURES = 2000, 8


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


def main():
    arguments = parse()
    from timing import choose_backend, print_table, save_json

    choose_backend(arguments.backend, arguments.device)
    rows = [measure(*size, arguments.repeats) for size in SIZES]
    print_table(f"Scoring {ROWS} rows, {arguments.backend}, {arguments.device}", rows)
    save_json(arguments.json, rows)


if __name__ == "__main__":
    main()
