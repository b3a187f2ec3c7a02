"""How near a density trained on rows with holes comes to the true one.

    python benchmarks/incomplete.py

The joint is known: six binary entries of random second and third order interactions, or
ten correlated normal ones. 5,000 rows are trained on, 1,000 say when to stop, and three
entries in ten are missing: of all by chance alone, or of all but the first by the value
of the first ("by the first": half of the others are missing where it is 1, or positive,
a tenth elsewhere). Numbers are gaps in nats a row, smaller is better:

    mean over held-out rows with holes by chance of  log p(observed) - log q(observed)

with p the truth, whose observed part is known exactly; the first entry stands there
where it always did. Over six bits the mean is the expectation, over ten normal entries
that of 10,000 rows. Beside it stands the product of the true marginals, which is what
a model without dependences could reach, and, for bits and normal entries that are all
there ("none"), the same MADE trained on as many complete rows.
"""

import argparse
import itertools

import keras
import numpy as np
from timing import (
    fit_until_worse,
    print_row,
    print_table,
    save_json,
    steps_together,
)

import keras_made as km

ROWS, VALID, TEST, SHARE = 5000, 1000, 10_000, 0.3


class Bits:
    """Six bits of random interactions; any observed part is summed by enumeration."""

    size, conditional = 6, "bernoulli"

    def __init__(self, rng):
        states = list(itertools.product((0.0, 1.0), repeat=self.size))
        self.states = np.array(states, "float32")
        spins, energy = 2.0 * self.states - 1.0, np.zeros(len(states))
        for order in (1, 2, 3):
            for places in itertools.combinations(range(self.size), order):
                energy += rng.normal(0, 0.35) * spins[:, list(places)].prod(axis=1)
        self.p = np.exp(energy) / np.exp(energy).sum()

    def draw(self, rng, count):
        return self.states[rng.choice(len(self.p), count, p=self.p)]

    def log_prob(self, x):
        agree = (x[:, None] == self.states) | np.isnan(x[:, None])
        return np.log(agree.all(axis=2) @ self.p)

    def held_out(self, rng, shares):
        """Every state with every pattern of holes, and its probability."""
        pairs = itertools.product(self.states, self.states)
        x = np.array([np.where(hole, np.nan, row) for row, hole in pairs], "float32")
        holes = np.where(self.states, shares, 1.0 - shares).prod(axis=1)
        return x, np.outer(self.p, holes).ravel()


class Normals:
    """Ten normal entries with three factors; any observed part is normal too."""

    size, conditional = 10, "normal"

    def __init__(self, rng):
        factors = rng.normal(size=(self.size, 3))
        self.covariance = factors @ factors.T + 0.5 * np.eye(self.size)

    def draw(self, rng, count):
        mean = np.zeros(self.size)
        return rng.multivariate_normal(mean, self.covariance, count).astype("float32")

    def log_prob(self, x):
        seen = ~np.isnan(x)
        both = seen[:, :, None] & seen[:, None, :]
        # What is missing is put at zero, apart from the rest and with variance one.
        root = np.linalg.cholesky(np.where(both, self.covariance, np.eye(self.size)))
        z = np.linalg.solve(root, np.where(seen, x, 0.0)[..., None])[..., 0]
        slopes = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        constant = 0.5 * np.log(2 * np.pi) * seen.sum(axis=1)
        return -0.5 * (z**2).sum(axis=1) - slopes - constant

    def held_out(self, rng, shares):
        return with_holes(rng, self.draw(rng, TEST), shares), np.full(TEST, 1 / TEST)


def with_holes(rng, x, shares, by_first=False):
    """Rows with NaN in these shares of their entries."""
    if by_first:
        shares = np.where(shares > 0, np.where(x[:, :1] > 0, 0.5, 0.1), 0.0)
    return np.where(rng.uniform(size=x.shape) < shares, np.nan, x).astype("float32")


def product_of_marginals(problem, x):
    alone = np.full((x.shape[1], *x.shape), np.nan, "float32")
    for place in range(x.shape[1]):
        alone[place, :, place] = x[:, place]
    return sum(problem.log_prob(rows) for rows in alone)


def train(problem, orders, x, valid, args, seed):
    keras.utils.set_random_seed(seed)
    conditional = km.Incomplete(problem.conditional)
    ordering = {"ordering": "random", "num_masks": orders} if orders > 1 else {}
    network = km.MADE([args.units], conditional.num_params, **ordering)
    model = km.AutoregressiveDensity(network, conditional)
    if conditional.continuous:
        model.adapt(x)
    optimizer = keras.optimizers.Adam(args.rate)
    model.compile(optimizer, steps_per_execution=steps_together(10))
    fit_until_worse(model, x, valid, 100, args.epochs, args.patience)
    return model


def gap(problem, x, weights, log_prob):
    return float(np.sum(weights * (problem.log_prob(x) - np.asarray(log_prob))))


def run(kind, holes, orders, args, seed):
    """The gap of one training, and that of the product of marginals."""
    rng = np.random.RandomState(seed)
    problem = kind(rng)
    x, valid = problem.draw(rng, ROWS), problem.draw(rng, VALID)
    shares, by_first = np.full(problem.size, SHARE), holes == "by the first"
    shares[: {"none": None, "by chance": 0, "by the first": 1}[holes]] = 0.0
    x, valid = (with_holes(rng, a, shares, by_first) for a in (x, valid))
    test, weights = problem.held_out(np.random.RandomState(seed + 1), shares)
    model = train(problem, orders, x, valid, args, seed)
    found = gap(problem, test, weights, model.log_prob(test, verbose=0))
    alone = gap(problem, test, weights, product_of_marginals(problem, test))
    return found, alone


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", help="write the numbers to this file")
    args = parser.parse_args()
    rows = []
    kinds, all_holes = (Bits, Normals), ("none", "by chance", "by the first")
    for kind, holes, orders in itertools.product(kinds, all_holes, (1, 64)):
        gaps = [run(kind, holes, orders, args, seed) for seed in range(args.seeds)]
        found, alone = np.array(gaps).T
        rows.append(
            {
                "joint": kind.__name__.lower(),
                "holes": holes,
                "orders": orders,
                "gap": float(found.mean()),
                "least": float(found.min()),
                "most": float(found.max()),
                "product of marginals": float(alone.mean()),
            }
        )
        print_row(rows[-1])
    print_table(f"Gap to the truth in nats, {args.seeds} joints each", rows)
    save_json(args.json, rows)


if __name__ == "__main__":
    main()
