"""Time to draw samples, in forward passes of the same batch.

    python benchmarks/sampling.py [--backend jax] [--device gpu] [--json FILE]

Every row is one network: `forward` is one compiled pass over a batch of 100, `sample`
draws 100 events step by step, `D passes` recomputes the network for every variable.
All three are compiled, and timed in turn in one process.
"""

import argparse
import functools


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    return parser.parse_args()


def measure(size, hidden, naive, repeats, batch=100):
    import numpy as np
    from timing import interleaved_medians

    from keras_made import MADE, AutoregressiveDensity
    from keras_made.autoregressive import Autoregressive
    from keras_made.compiling import compiled
    from keras_made.densities.drawing import generate_rows

    class Naive(MADE):
        """The same network, recomputed at every step."""

        start, step = Autoregressive.start, Autoregressive.step
        open = Autoregressive.open
        block_length = Autoregressive.block_length

    def model_of(network):
        model = AutoregressiveDensity(network)
        model.build((None, size))
        return model

    fast, slow = model_of(MADE(hidden)), model_of(Naive(hidden))
    slow.set_weights(fast.get_weights())
    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(batch, size)) < 0.5).astype("float32")
    noise = rng.uniform(size=(batch, size, 1, 1)).astype("float32")
    structure = np.int32(0)
    forward = compiled(fast, fast.network)
    draw = compiled(fast, functools.partial(generate_rows, fast))
    functions = {
        "forward": lambda: forward(x),
        "sample": lambda: draw(structure, noise),
    }
    if naive:
        draw_naive = compiled(slow, functools.partial(generate_rows, slow))
        same = np.array_equal(draw(structure, noise), draw_naive(structure, noise))
        functions["D passes"] = lambda: draw_naive(structure, noise)
    times = interleaved_medians(functions, repeats)
    result = {
        "D": size,
        "hidden": str(tuple(hidden)),
        "forward ms": 1e3 * times["forward"],
        "sample ms": 1e3 * times["sample"],
        "sample / forward": times["sample"] / times["forward"],
        "D passes / sample": "",
        "same samples": "",
    }
    if naive:
        result["D passes / sample"] = times["D passes"] / times["sample"]
        result["same samples"] = str(same)
    return result


def main():
    arguments = parse()
    from timing import choose_backend, print_table, save_json

    choose_backend(arguments.backend, arguments.device)
    jobs = [(64, (500, 500), True), (784, (500, 500), True)]
    if not arguments.quick:
        jobs += [
            (256, (500, 500), True),
            (1024, (500, 500), False),
            (4096, (500, 500), False),
            (784, (2000, 2000), False),
            (3072, (2000, 2000), False),
        ]
    rows = [measure(*job, repeats=arguments.repeats) for job in sorted(jobs)]
    print_table(f"100 samples on {arguments.backend}", rows)
    save_json(arguments.json, rows)


if __name__ == "__main__":
    main()
