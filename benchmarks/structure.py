"""What a known graph is worth: held-out nats of a MADE over it and of a full one.

    python benchmarks/structure.py
    python benchmarks/structure.py --sizes 50 --rows 200 1000 --runs 3

Data are binary, from random graphs: a variable hears up to three of those before it,
and its log-odds are drawn anew for every state of its parents, so the true density is
known. Both networks have one hidden layer of 200 and direct connections, and are
trained alike: Adam at 0.003, batches of 50, until a fifth of the rows, held out, are no
better for ten epochs. The full one is in an order that the graph allows. Reported are
nats of 5,000 test rows, and how far both are from the truth.

Then the milliseconds of 1,000 draws of 64 variables, graphs of several depths beside
the full ordering, whose 64 steps they all could be.
"""

import argparse
import time

import numpy as np
from timing import (
    choose_backend,
    fit_until_worse,
    interleaved_medians,
    print_row,
    print_table,
    save_json,
    steps_together,
)

HIDDEN, RATE, BATCH, PATIENCE, MAX_EPOCHS = 200, 3e-3, 50, 10, 200
MOST_PARENTS, SPREAD, TEST_ROWS = 3, 1.5, 5000
DRAWN_SIZE, DRAWN_ROWS, DRAWN_HIDDEN = 64, 1000, 256


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", type=int, default=[20, 50])
    parser.add_argument("--rows", nargs="+", type=int, default=[200, 1000, 3000, 10000])
    parser.add_argument("--runs", type=int, default=2, help="graphs of each size")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


class BinaryNetwork:
    """A random graph over binary variables, each after its parents.

    Args:
        size: number of variables.
        seed: of the graph and of its log-odds.
    """

    def __init__(self, size, seed):
        rng = np.random.RandomState(seed)
        self.parents = [
            np.sort(rng.permutation(i)[: rng.randint(MOST_PARENTS + 1)])
            for i in range(size)
        ]
        self.log_odds = [SPREAD * rng.normal(size=2 ** len(p)) for p in self.parents]
        self.adjacency = np.zeros((size, size), bool)
        for i, parents in enumerate(self.parents):
            self.adjacency[i, parents] = True

    def _own_log_odds(self, x, i):
        state = x[:, self.parents[i]] @ (2 ** np.arange(len(self.parents[i])))
        return self.log_odds[i][state.astype(int)]

    def draw(self, rows, seed):
        rng, x = np.random.RandomState(seed), np.zeros((rows, len(self.parents)))
        for i in range(x.shape[1]):
            x[:, i] = rng.rand(rows) < 1 / (1 + np.exp(-self._own_log_odds(x, i)))
        return x.astype("float32")

    def log_prob(self, x):
        total = 0.0
        for i in range(x.shape[1]):
            log_odds = self._own_log_odds(x, i)
            total = total - np.logaddexp(0, np.where(x[:, i] > 0, -log_odds, log_odds))
        return total


def held_out_nats(adjacency, train, test):
    """Nats of the test rows, and of the seconds of training, of one network."""
    import keras

    import keras_made as km

    keras.utils.set_random_seed(0)
    model = km.AutoregressiveDensity(km.MADE([HIDDEN], adjacency=adjacency))
    steps = len(train) * 4 // 5 // BATCH
    model.compile(
        keras.optimizers.Adam(RATE), steps_per_execution=steps_together(max(1, steps))
    )
    valid = train[: len(train) // 5]
    start = time.perf_counter()
    rows = train[len(valid) :]
    fit_until_worse(model, rows, valid, BATCH, MAX_EPOCHS, PATIENCE)
    seconds = time.perf_counter() - start
    return float(np.mean(model.log_prob(test, verbose=0))), seconds


def compare(size, num_rows, run):
    truth = BinaryNetwork(size, run)
    train, test = truth.draw(num_rows, 1000 + run), truth.draw(TEST_ROWS, 2000 + run)
    graph, graph_seconds = held_out_nats(truth.adjacency, train, test)
    full, full_seconds = held_out_nats(None, train, test)
    exact = float(truth.log_prob(test).mean())
    return {
        "D": size,
        "edges": int(truth.adjacency.sum()),
        "rows": num_rows,
        "run": run,
        "truth": exact,
        "graph": graph,
        "full": full,
        "graph, short of it": exact - graph,
        "full, short of it": exact - full,
        "graph, s": graph_seconds,
        "full, s": full_seconds,
    }


def graphs_by_depth():
    """Graphs of 64 variables, by name: None is the full ordering."""
    place = np.arange(DRAWN_SIZE)
    later, heard = place[:, None], place[None, :]
    return {
        "independent": later < 0 * heard,
        "two blocks": later // 32 > heard // 32,
        "tree": (later > 0) & ((later - 1) // 2 == heard),
        "eight blocks": later // 8 > heard // 8,
        "chain": later == heard + 1,
        "full": None,
    }


def drawing_times():
    import keras_made as km

    models = {}
    for name, graph in graphs_by_depth().items():
        network = km.MADE([DRAWN_HIDDEN, DRAWN_HIDDEN], adjacency=graph)
        models[name] = km.AutoregressiveDensity(network)
        models[name].build((None, DRAWN_SIZE))
    times = interleaved_medians(
        {
            name: lambda model=model: model.sample(DRAWN_ROWS, seed=0, verbose=0)
            for name, model in models.items()
        }
    )
    return [
        {
            "graph": name,
            "edges": int(model.network.connectivity().sum()),
            "steps": model.network.num_ranks,
            "ms": 1000 * times[name],
        }
        for name, model in models.items()
    ]


def main():
    args = parse()
    choose_backend(args.backend)
    rows = []
    for size in args.sizes:
        for num_rows in args.rows:
            for run in range(args.runs):
                rows.append(compare(size, num_rows, run))
                print_row(rows[-1])
    if rows:
        print_table("Held-out nats", rows)
    drawn = drawing_times()
    print_table(f"{DRAWN_ROWS} draws of {DRAWN_SIZE} variables", drawn)
    save_json(args.json, {"nats": rows, "drawing": drawn})


if __name__ == "__main__":
    main()
