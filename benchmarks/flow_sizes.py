"""How wide a flow's networks should be, how many steps and pieces: held-out nats.

    python benchmarks/flow_sizes.py ring wine two_moons --data FOLDER

The problems and the training of `flows_side_by_side.py` with seeds of their own.
`SplineMAF` with its defaults (`hidden_units=None`: two layers of eight times the
variables and the context, from 64 to 512; five steps; eight pieces on [-5, 5]) beside
the same with one of them changed. The choice is made by validation nats; test rows are
there to be reported.
"""

import argparse
import time

from flow_starts import make_problem, summary
from flows_side_by_side import PLANAR, SIMULATED, fit_flow
from timing import choose_backend, print_row, print_table, save_json

# What is passed to the flow.
SIZES = {
    "default": {},
    "width 32": {"hidden_units": (32, 32)},
    "width 64": {"hidden_units": (64, 64)},
    "width 128": {"hidden_units": (128, 128)},
    "width 256": {"hidden_units": (256, 256)},
    "one layer": {"hidden_units": (128,)},
    "steps 3": {"num_steps": 3},
    "steps 8": {"num_steps": 8},
    "bins 5": {"num_bins": 5},
    "bins 16": {"num_bins": 16},
    "bound 3": {"bound": 3.0},
}


def parse():
    problems = (*SIMULATED, "slcp", *PLANAR, "wine", "airfoil")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", default=problems, help=str(problems))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--runs", type=int, default=1, help="seeds, or folds of wine")
    parser.add_argument("--data", help="folder of red_wine.npz and tables/")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


def measure(name, run, problem, size):
    from keras_made import flows

    def make(event_size, num_steps, hidden_units, **kwargs):
        # What the other benchmark holds fixed is what is asked about here.
        return flows.SplineMAF(event_size, **kwargs, **SIZES[size])

    began = time.perf_counter()
    history, evaluate = fit_flow(make, problem, run)
    row = {
        "problem": name,
        "run": run,
        "flow": "SplineMAF",
        "size": size,
        **{part: evaluate(part) + problem.offset[part] for part in ("valid", "test")},
        "epochs": len(history),
        "seconds": time.perf_counter() - began,
    }
    print_row(row)
    return row


def main():
    arguments = parse()
    choose_backend(arguments.backend)
    rows = []
    for run in range(arguments.runs):
        for name in arguments.problems:
            problem = make_problem(name, run, arguments.data)
            for size in arguments.sizes:
                rows.append(measure(name, run, problem, size))
                save_json(arguments.json, rows)
    print_table("Mean negative log-likelihood, nats", summary(rows, "size"))


if __name__ == "__main__":
    main()
