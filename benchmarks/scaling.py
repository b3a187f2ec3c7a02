"""Cost of sampling against D at constant width, beside that of one pass.

    python benchmarks/scaling.py [--backend jax] [--device gpu] [--out PNG]

Draws 100 events from MADE([500, 500]) for D from 64 to 4096, and times one pass over as
many rows. In a log-log table both rise with about the same slope: sampling does the
arithmetic of one pass, in D steps.
"""

import argparse
import functools

SIZES = [64, 128, 256, 512, 1024, 2048, 4096]
BATCH, HIDDEN = 100, (500, 500)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--out", help="draw the table to this file")
    return parser.parse_args()


def measure(size, repeats):
    import numpy as np
    from timing import interleaved_medians

    from keras_made import MADE, AutoregressiveDensity
    from keras_made.compiling import compiled
    from keras_made.densities.drawing import generate_rows

    model = AutoregressiveDensity(MADE(HIDDEN))
    model.build((None, size))
    rng = np.random.RandomState(0)
    x = (rng.uniform(size=(BATCH, size)) < 0.5).astype("float32")
    noise = rng.uniform(size=(BATCH, size, 1, 1)).astype("float32")
    forward = compiled(model, model.network)
    draw = compiled(model, functools.partial(generate_rows, model))
    functions = {
        "forward": lambda: forward(x),
        "sample": lambda: draw(np.int32(0), noise),
    }
    return interleaved_medians(functions, repeats)


def slope(sizes, seconds):
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def draw_table(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for name, style in [("sample ms", "o-"), ("forward ms", "s--")]:
        axes.loglog([r["D"] for r in rows], [r[name] for r in rows], style, label=name)
    axes.set(xlabel="D", ylabel=f"ms for {BATCH} events", title="MADE([500, 500])")
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    arguments = parse()
    from timing import choose_backend, print_table, save_json

    choose_backend(arguments.backend, arguments.device)
    rows = []
    for size in arguments.sizes:
        times = measure(size, arguments.repeats)
        rows.append(
            {
                "D": size,
                "forward ms": 1e3 * times["forward"],
                "sample ms": 1e3 * times["sample"],
                "sample / forward": times["sample"] / times["forward"],
            }
        )
    print_table(f"{BATCH} events, {arguments.backend}, {arguments.device}", rows)
    large = [row for row in rows if row["D"] >= 256]
    for name in ("forward ms", "sample ms"):
        exponent = slope([r["D"] for r in large], [r[name] for r in large])
        print(f"slope of {name} from D = 256 on: {exponent:.2f}")
    save_json(arguments.json, rows)
    if arguments.out:
        draw_table(rows, arguments.out)


if __name__ == "__main__":
    main()
