"""Held-out nats of our flows beside zuko's, trained on the same numbers.

    pip install "zuko==1.6.*" torch
    python benchmarks/flows_side_by_side.py two_moons ring --data FOLDER

SplineMAF beside zuko's NSF, MAF beside zuko's MAF: five steps with reversals between,
hidden (50, 50), splines of 8 pieces on [-5, 5], Adam, and the same rate, batch, and
stopping rule. Problems: posteriors of two simulators from 10,000 runs, three planar
densities, and the ten folds of red wine, whose `red_wine.npz` lies in FOLDER. All rows
are standardised by those trained on, and so are contexts; nats are per row in the
problem's own units (wine's are standardised). Validation rows say when to stop; test
rows are seen once. With `--support` parameters of a bounded prior are first spread over
the real line, for both.
"""

import argparse
import copy
import time
from dataclasses import dataclass

import numpy as np
from simulators import TASKS
from timing import (
    choose_backend,
    fit_until_worse,
    load_data,
    print_row,
    print_table,
    save_json,
    steps_together,
)

PLANAR = ("banana", "ring", "checkerboard")
SIMULATED = ("two_moons", "gaussian_linear_uniform")
NUM_STEPS, HIDDEN = 5, (50, 50)
RATE, PATIENCE, MAX_EPOCHS = 1e-3, 15, 200
NAMES = {
    "SplineMAF": ("SplineMAF", "ours"),
    "zuko NSF": ("NSF", "zuko"),
    "MAF": ("MAF", "ours"),
    "zuko MAF": ("MAF", "zuko"),
}


def parse():
    problems = (*SIMULATED, *PLANAR, "wine")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", default=problems, help=str(problems))
    parser.add_argument("--flows", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--folds", type=int, default=10, help="of red wine")
    parser.add_argument("--seeds", type=int, default=1, help="runs of the others")
    parser.add_argument("--support", action="store_true", help="bounds are used")
    parser.add_argument("--data", help="folder that holds red_wine.npz")
    parser.add_argument("--backend", default="jax", help="of ours")
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


def batch_size(num_rows):
    """Larger for the planar densities, of which there are 18,000 rows."""
    return 250 if num_rows > 10_000 else 100


@dataclass
class Problem:
    """Standardised rows, contexts or None, of three parts: train, valid, test.

    Args:
        parts: dict of the name of a part to `(x, context)`.
        offset: what is added to nats of standardised rows: dict of part to a number.
    """

    parts: dict
    offset: dict


def standardised(parts, log_slopes=None):
    """A `Problem` of parts in their own units.

    Args:
        parts: dict of the name of a part to `(x, context)`, context may be None.
        log_slopes: dict of part to log |dz/dx| of a map that made these x of others, a
            mean over rows.
    """
    x, context = parts["train"]
    units = [(a.mean(axis=0), a.std(axis=0)) for a in (x, context) if a is not None]
    scaled = {
        name: tuple(
            None if a is None else ((a - unit[0]) / unit[1]).astype("float32")
            for a, unit in zip(pair, [*units, None], strict=False)
        )
        for name, pair in parts.items()
    }
    log_scale = float(np.sum(np.log(units[0][1])))
    log_slopes = log_slopes or dict.fromkeys(parts, 0.0)
    return Problem(scaled, {k: log_scale - log_slopes[k] for k in parts})


def simulated(name, seed, support):
    task, sizes = TASKS[name], {"train": 9000, "valid": 1000, "test": 10_000}
    theta, x = task.simulate(sum(sizes.values()), seed)
    ends = np.cumsum(list(sizes.values()))[:-1]
    pieces = zip(np.split(theta, ends), np.split(x, ends), strict=True)
    parts = dict(zip(sizes, pieces, strict=True))
    if not support:
        return standardised(parts)
    low, high = task.support
    log_slopes = {}
    for part, (theta, x) in parts.items():
        p = (theta.astype("float64") - low) / (high - low)
        slope = -np.log(p) - np.log1p(-p) - np.log(high - low)
        log_slopes[part] = float(slope.sum(axis=1).mean())
        parts[part] = np.log(p) - np.log1p(-p), x
    return standardised(parts, log_slopes)


def planar(name, seed):
    import flow_likelihood

    make, rng = flow_likelihood.PLANAR[name], np.random.RandomState(seed)
    sizes = {"train": 18_000, "valid": 2000, "test": 20_000}
    return standardised({k: (make(rng, n)[0], None) for k, n in sizes.items()})


def wine_fold(data, fold):
    folds = [data[f"fold{index}_test"] for index in range(1, 11)]
    rest = np.concatenate([f for index, f in enumerate(folds) if index != fold])
    loc, scale = rest.mean(axis=0), rest.std(axis=0)
    rest, test = (rest - loc) / scale, (folds[fold] - loc) / scale
    rest = rest[np.random.RandomState(fold).permutation(len(rest))]
    cut = len(rest) // 10
    parts = {"train": rest[cut:], "valid": rest[:cut], "test": test}
    return standardised({name: (x, None) for name, x in parts.items()})


def fit_ours(kind, problem, seed):
    """Validation nats of every epoch, and a function from a part to nats."""
    from keras_made import flows

    return fit_flow(getattr(flows, kind), problem, seed)


def fit_flow(make, problem, seed):
    """As `fit_ours`, of a flow that `make` builds."""
    import keras

    def rows(part):
        x, context = problem.parts[part]
        return x if context is None else (x, context)

    keras.utils.set_random_seed(seed)
    x, context = problem.parts["train"]
    size = 0 if context is None else context.shape[1]
    flow = make(x.shape[1], NUM_STEPS, HIDDEN, context_size=size)
    flow.compile(keras.optimizers.Adam(RATE), steps_per_execution=steps_together(10))
    history = fit_until_worse(
        flow,
        rows("train"),
        rows("valid"),
        batch_size(len(x)),
        MAX_EPOCHS,
        PATIENCE,
    )
    return history, lambda part: flow.evaluate(rows(part), batch_size=1000, verbose=0)


def fit_zuko(kind, problem, seed):
    """As `fit_ours`."""
    import torch
    import zuko

    parts = {
        name: [None if a is None else torch.from_numpy(a) for a in pair]
        for name, pair in problem.parts.items()
    }
    x, context = parts["train"]
    size = 0 if context is None else context.shape[1]
    torch.manual_seed(seed)
    flow = getattr(zuko.flows, kind)(
        x.shape[1], size, transforms=NUM_STEPS, hidden_features=HIDDEN
    )
    optimizer = torch.optim.Adam(flow.parameters(), lr=RATE, eps=1e-7)

    def nll(x, context):
        return -flow(context).log_prob(x).mean()

    @torch.no_grad()
    def evaluate(part):
        x, context = parts[part]
        pieces = (
            x.split(1000),
            [None] * len(x) if context is None else context.split(1000),
        )
        sums = [len(a) * float(nll(a, c)) for a, c in zip(*pieces, strict=False)]
        return sum(sums) / len(x)

    history, best, waited = [], None, 0
    for _ in range(MAX_EPOCHS):
        for index in torch.randperm(len(x)).split(batch_size(len(x))):
            optimizer.zero_grad()
            nll(x[index], None if context is None else context[index]).backward()
            optimizer.step()
        history.append(evaluate("valid"))
        waited += 1
        if history[-1] == min(history):
            best, waited = copy.deepcopy(flow.state_dict()), 0
        if waited >= PATIENCE:
            break
    flow.load_state_dict(best)
    return history, evaluate


def measure(name, problem, number, flow):
    kind, whose = NAMES[flow]
    start = time.perf_counter()
    fit = fit_ours if whose == "ours" else fit_zuko
    history, evaluate = fit(kind, problem, number)
    seconds = time.perf_counter() - start
    row = {
        "problem": name,
        "run": number,
        "flow": flow,
        **{part: evaluate(part) + problem.offset[part] for part in ("valid", "test")},
        "epochs": len(history),
        "seconds": seconds,
    }
    print_row(row)
    return row


def problems(arguments, name):
    """A function for each run that makes its problem."""
    if name == "wine":
        data = load_data("red_wine", arguments.data)
        return [lambda i=i: wine_fold(data, i) for i in range(arguments.folds)]
    if name in PLANAR:
        return [lambda i=i: planar(name, i) for i in range(arguments.seeds)]
    support = arguments.support
    return [lambda i=i: simulated(name, i, support) for i in range(arguments.seeds)]


def summary(rows):
    """Means over runs, a row for each problem and flow."""
    keys = dict.fromkeys((row["problem"], row["flow"]) for row in rows)
    table = []
    for problem, flow in keys:
        mine = [r for r in rows if (r["problem"], r["flow"]) == (problem, flow)]
        means = {
            key: float(np.mean([row[key] for row in mine]))
            for key in ("valid", "test", "epochs", "seconds")
        }
        table.append({"problem": problem, "flow": flow, "runs": len(mine), **means})
    return table


def main():
    arguments = parse()
    choose_backend(arguments.backend)
    rows = []
    for name in arguments.problems:
        for number, make in enumerate(problems(arguments, name)):
            problem = make()
            for flow in arguments.flows:
                rows.append(measure(name, problem, number, flow))
                save_json(arguments.json, rows)
    print_table("Mean negative log-likelihood, nats", summary(rows))


if __name__ == "__main__":
    main()
