"""Where the networks of flows should start, and whether to connect them directly.

    python benchmarks/flow_starts.py ring wine slcp --data FOLDER

The problems, flows and training of `flows_side_by_side.py` with other seeds, and two
more problems. What differs are the words of a start:

    glorot, torch    spread of hidden kernels; torch's is uniform with variance
                     1 / (3 fan-in), and a fan-in counts what a unit hears
    indirect, inner  without direct connections, or without those of the context
    biases           of hidden units, uniform on +-1 / sqrt(fan-in), as torch's
    all-direct       direct connections to every parameter of a spline
    softplus         scales of affine steps softplus(raw) + 0.001
    shifted          affine steps x = (u + loc) scale, as zuko's
    plain            networks hear numbers as they are, not `Bounded`
    zuko             zuko's flow of the same name, all of it (needs zuko and torch)

The choice is made by validation nats; test rows are there to be reported.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from flows_side_by_side import (
    PLANAR,
    SIMULATED,
    fit_flow,
    fit_zuko,
    planar,
    simulated,
    standardised,
    wine_fold,
)
from timing import choose_backend, load_data, print_row, print_table, save_json

# Seeds of other benchmarks are below.
FIRST_SEED = 101
# What their words mean: see above.
CANDIDATES = (
    "glorot",
    "glorot indirect",
    "torch",
    "torch indirect",
    "torch inner",
    "torch biases",
    "torch biases indirect",
    "glorot biases",
    "glorot biases indirect",
    "glorot all-direct",
    "glorot softplus",
    "glorot shifted",
    "glorot plain",
    "zuko",
)


def parse():
    problems = (*SIMULATED, "slcp", *PLANAR, "wine", "airfoil")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", default=problems, help=str(problems))
    parser.add_argument("--flows", nargs="+", default=["SplineMAF", "MAF"])
    parser.add_argument(
        "--starts", nargs="+", default=CANDIDATES[:5], choices=CANDIDATES
    )
    parser.add_argument("--first", type=int, default=0, help="run to begin with")
    parser.add_argument("--runs", type=int, default=1, help="seeds, or folds of wine")
    parser.add_argument("--data", help="folder of red_wine.npz and tables/")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--json", help="add the rows to this file")
    return parser.parse_args()


def make_flow(kind, start, *args, **kwargs):
    """A flow of the package, with networks as the words of `start` say."""
    import keras

    from keras_made import flows

    words = start.split()
    options = {"kernel_initializer": "glorot_uniform"}
    if "torch" in words:
        options["kernel_initializer"] = keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform"
        )
    if kind.endswith("MAF"):
        options["direct"] = "indirect" not in words
    family = getattr(flows, kind)
    if "softplus" in words or "shifted" in words:
        family = with_affine_steps(family, "softplus" in words)
    if "all-direct" in words:
        family = with_all_direct(family)
    flow = family(*args, **kwargs, **options)
    if "plain" in words:
        for network in flow.networks:
            network.encoder = None
    flow.require_built()
    if "inner" in words:
        for network in flow.networks:
            deafen(network)
    if "biases" in words:
        for network in flow.networks:
            spread_biases(network)
    return flow


def with_affine_steps(family, softplus):
    """The family, with softplus scales, or with locations in units of the noise."""
    from keras import ops

    from keras_made.flows import Affine

    class Softplus(Affine):
        def _loc_and_log_scale(self, params):
            scale = ops.softplus(params[..., 1] + np.log(np.e - 1)) + self.min_scale
            return params[..., 0], ops.log(scale)

    class Shifted(Affine):
        def _loc_and_log_scale(self, params):
            loc, log_scale = super()._loc_and_log_scale(params)
            return loc * ops.exp(log_scale), log_scale

    affine = Softplus if softplus else Shifted

    class WithOtherSteps(family):
        def make_transform(self):
            transform = super().make_transform()
            if isinstance(transform, Affine):
                return affine(self.min_scale)
            transform.affine = affine(self.min_scale)
            return transform

    return WithOtherSteps


def with_all_direct(family):
    """The family, with direct connections to all that moves an entry."""

    class AllDirect(family):
        def make_transform(self):
            transform = super().make_transform()
            transform.direct_params = None
            return transform

    return AllDirect


def deafen(network):
    """No direct connection of the context: what it gives is heard by no output."""
    degrees = network.direct_layer.source_degrees
    degrees[:, network.event_size :] = network.event_size


def spread_biases(network):
    """Biases of hidden units as torch starts them."""
    import keras

    for layer in network.hidden_layers:
        fan_in = np.maximum(np.asarray(layer.mask()).sum(axis=0), 1)
        start = keras.initializers.RandomUniform(-1.0, 1.0)((layer.units,))
        layer.bias.assign(np.asarray(start) / np.sqrt(fan_in))


def make_problem(name, run, folder):
    """A `Problem`; wine's runs are folds, those of others are seeds."""
    seed = FIRST_SEED + run
    if name == "wine":
        return wine_fold(load_data("red_wine", folder), run)
    if name == "airfoil":
        return airfoil(load_data("tables/airfoil_self_noise", folder), seed)
    if name in PLANAR:
        return planar(name, seed)
    return simulated(name, seed, support=False)


def airfoil(data, seed):
    """The sound pressure given the five settings of a wind tunnel; a tenth is test."""
    order = np.random.RandomState(seed).permutation(len(data["y"]))
    test, valid, train = np.split(order, [150, 300])
    x, context = data["y"][:, None].astype("float64"), data["X"].astype("float64")
    rows = {"train": train, "valid": valid, "test": test}
    return standardised({name: (x[i], context[i]) for name, i in rows.items()})


def measure(name, run, problem, kind, start):
    began = time.perf_counter()
    if start == "zuko":
        history, evaluate = fit_zuko(kind, problem, FIRST_SEED + run)
    else:
        make = partial(make_flow, kind, start)
        history, evaluate = fit_flow(make, problem, FIRST_SEED + run)
    row = {
        "problem": name,
        "run": run,
        "flow": kind,
        "start": start,
        **{part: evaluate(part) + problem.offset[part] for part in ("valid", "test")},
        "epochs": len(history),
        "seconds": time.perf_counter() - began,
    }
    print_row(row)
    return row


def load_rows(path):
    return json.loads(Path(path).read_text())["rows"] if Path(path).exists() else []


def summary(rows, what="start"):
    """Means over runs, a row for each problem, flow and start (or another choice)."""
    keys = ("problem", "flow", what)
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {
            **dict(zip(keys, group, strict=True)),
            "runs": len(mine),
            **{
                key: float(np.mean([row[key] for row in mine]))
                for key in ("valid", "test", "epochs")
            },
        }
        for group, mine in groups.items()
    ]


def main():
    arguments = parse()
    choose_backend(arguments.backend)
    rows = load_rows(arguments.json) if arguments.json else []
    done = {tuple(r[k] for k in ("problem", "run", "flow", "start")) for r in rows}
    for run in range(arguments.first, arguments.first + arguments.runs):
        for name in arguments.problems:
            problem = make_problem(name, run, arguments.data)
            for kind in arguments.flows:
                for start in arguments.starts:
                    if (name, run, kind, start) in done:
                        continue
                    rows.append(measure(name, run, problem, kind, start))
                    save_json(arguments.json, rows)
    print_table("Mean negative log-likelihood, nats", summary(rows))


if __name__ == "__main__":
    main()
