"""The first call of each verb, compiling included, in a fresh process each.

    python benchmarks/first_call.py [--backend tensorflow|jax|torch] [--json FILE]

`first` is the wall clock of the first call, `CPU` the processor time of it, `second`
the wall clock of the next one. The quick start is the model of the README; the table
has eight columns of four kinds and 16 orders. Then a draw of 1,000 rows of a MAF of
five steps, D = 6, (100, 100), beside the same of TensorFlow Probability's flow under
XLA and of zuko's, where they are installed.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
from small import flow_functions
from timing import choose_backend, is_installed, print_table, save_json


def quick_start():
    import keras_made as km

    network = km.MADE([300, 300], ordering="random", num_masks=8)
    model = km.AutoregressiveDensity(network, "bernoulli")
    model.build((None, 64))
    return model


def table():
    import keras_made as km

    kinds = [km.Normal(), km.Categorical(5), km.Bernoulli(), km.MixtureOfNormals(3)]
    columns = km.Columns(kinds * 2)
    network = km.MADE([256, 256], columns.num_params, ordering="random", num_masks=16)
    model = km.AutoregressiveDensity(network, columns)
    model.build((None, 8))
    return model


MODELS = {"quick start": quick_start, "table": table}
VERBS = {
    "sample(10)": lambda m, x, seen: m.sample(10, seed=0, verbose=0),
    "sample(3000)": lambda m, x, seen: m.sample(3000, seed=0, verbose=0),
    "log_prob, 1000 rows": lambda m, x, seen: m.log_prob(x, verbose=0),
    "impute, 1000 rows": lambda m, x, seen: m.impute(x, seen, seed=0, verbose=0),
}


FLOW = "MAF"


def make_call(name, verb):
    """What is called, without arguments."""
    if name == FLOW:
        return flow_functions(6, (100, 100))[verb]
    model = MODELS[name]()
    x = np.zeros((1000, model.event_shape[0]), "float32")
    seen = np.random.RandomState(0).uniform(size=x.shape) < 0.5
    return lambda: VERBS[verb](model, x, seen)


def run_job(name, verb):
    """Seconds of the first call, of the processor in it, and of the second call."""
    call, times = make_call(name, verb), []
    for _ in range(2):
        start, work = time.perf_counter(), time.process_time()
        np.asarray(call())
        times.append((time.perf_counter() - start, time.process_time() - work))
    return {"first, s": times[0][0], "CPU, s": times[0][1], "second, s": times[1][0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    choose_backend(args.backend)
    if args.job:
        print(json.dumps(run_job(*args.job)))
        return
    flows = ["ours"]
    flows += ["TFP"] if args.backend == "tensorflow" else []
    flows += ["zuko"] if is_installed("zuko") else []
    jobs = [(name, verb) for name in MODELS for verb in VERBS]
    rows = []
    for name, verb in jobs + [(FLOW, whose) for whose in flows]:
        command = [sys.executable, __file__, "--backend", args.backend]
        command += ["--job", name, verb]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        result = json.loads(done.stdout.splitlines()[-1])
        rows.append({"model": name, "first call": verb, **result})
    print_table(f"First calls, {args.backend}", rows)
    save_json(args.json, rows)


if __name__ == "__main__":
    main()
