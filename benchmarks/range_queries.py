"""Probabilities of random conjunctions, beside counting: q-errors and milliseconds.

    python benchmarks/range_queries.py [--queries 2000] [--data FOLDER] [--json FILE]

A table of 30,000 rows and 12 mixed columns, drawn from the process that `make_table`
states, and, with a data folder, the binary set `adult`. A query is a conjunction of 3
to 8 conditions: columns at random, ranges around the values of a random row (so that
few queries are empty), or one to three of its names. The truth is the count of the rows
that the model was fitted to. The q-error of an estimate is the larger of estimate /
truth and truth / estimate, with both at least one row.

Beside it stand the product of the columns' own shares (independence) and counting in a
sample of 1% of the rows. Naru's own figures are for other tables (Yang et al. 2019,
https://arxiv.org/abs/1905.04278).
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from timing import choose_backend, print_table, save_json

ROWS, MOST = 30_000, 8


def make_table(num_rows, seed):
    """Twelve columns, each of which depends on some before."""
    import pandas as pd

    rng = np.random.RandomState(seed)
    young = rng.uniform(size=num_rows) < 0.6
    age = np.where(young, rng.normal(34, 7, num_rows), rng.normal(62, 9, num_rows))
    age = age.clip(18, 95).round().astype(int)
    schooling = np.minimum(rng.poisson(np.where(age < 48, 1.9, 0.9)), 3)
    region = (rng.poisson(0.7, num_rows) + 2 * (age > 48)) % 5
    urban = rng.uniform(size=num_rows) < np.array([0.9, 0.3, 0.5, 0.7, 0.2])[region]
    log_income = 9.3 + 0.35 * schooling + 0.8 * np.sin(age / 22) + 0.15 * urban
    income = np.exp(log_income + rng.normal(0, 0.2, num_rows)).round(-2)
    rooms = np.clip(rng.poisson(1.5 + income / 25000 - 0.8 * urban), 0, 9) + 1
    cars = np.minimum(rng.poisson(0.3 + 0.9 * (~urban) + income / 60000), 4)
    visits = np.minimum(rng.poisson(2 + 9 * (region == 1) + 0.1 * (age > 60) * age), 40)
    member = rng.uniform(size=num_rows) < 1 / (1 + np.exp(6 - visits))
    spent = np.exp(rng.normal(2 + 0.1 * visits + 0.5 * member, 0.5)).round(2)
    plan = np.where(member, rng.choice(3, num_rows, p=[0.2, 0.5, 0.3]), 3)
    late = rng.uniform(size=num_rows) < 0.02 + 0.2 * (plan == 0) + 0.1 * (cars == 0)
    return pd.DataFrame(
        {
            "age": age,
            "schooling": schooling,
            "region": np.array(list("NESWC"))[region],
            "urban": urban,
            "income": income,
            "rooms": rooms,
            "cars": cars,
            "visits": visits,
            "member": member,
            "spent": spent,
            "plan": np.array(["basic", "plus", "family", "none"])[plan],
            "late": late,
        }
    )


def adult(folder):
    """The rows of the binary set, as booleans."""
    import pandas as pd

    with np.load(Path(folder) / "adult.npz") as file:
        x = file["train"].astype(bool)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    # Nothing is asked of a column that never varies.
    return frame.loc[:, frame.nunique() > 1]


def make_query(frame, rng):
    row = frame.iloc[rng.randint(len(frame))]
    names = rng.choice(frame.columns, rng.randint(3, MOST + 1), replace=False)
    event = {}
    for name in names:
        value, kind = row[name], frame[name].dtype.kind
        if kind in "iuf":
            spread = frame[name].std() * rng.uniform(0.2, 1.5, 2)
            ends = float(value - spread[0]), float(value + spread[1])
            one_sided = rng.randint(3)
            event[name] = (
                None if one_sided == 1 else ends[0],
                None if one_sided == 2 else ends[1],
            )
        elif kind == "b":
            event[name] = bool(value)
        else:
            others = rng.choice(frame[name].unique(), rng.randint(0, 3), replace=False)
            event[name] = sorted({value, *others})
    return event


def meets(column, condition):
    """Bools: which values of a column meet a condition."""
    if isinstance(condition, tuple):
        low, high = condition
        inside = np.ones(len(column), bool)
        if low is not None:
            inside &= column >= low
        if high is not None:
            inside &= column <= high
        return inside
    return np.isin(column, condition)


def q_error(estimate, truth, rows):
    estimate, truth = np.maximum(estimate, 1 / rows), np.maximum(truth, 1 / rows)
    return np.maximum(estimate / truth, truth / estimate)


def summary(name, errors, milliseconds=None):
    row = {"estimate": name}
    for share in (50, 95, 99):
        row[f"{share}%"] = float(np.percentile(errors, share))
    row["max"] = float(np.max(errors))
    row["ms"] = "" if milliseconds is None else milliseconds
    row["minutes to fit"] = ""
    return row


def measure(frame, args, table):
    import keras

    import keras_made as km

    keras.utils.set_random_seed(0)
    rng = np.random.RandomState(0)
    arrays = {name: frame[name].to_numpy() for name in frame.columns}
    sample = rng.choice(len(frame), len(frame) // 100, replace=False)
    events = [make_query(frame, rng) for _ in range(args.queries)]
    model = km.TableDensity(frame)
    started = time.perf_counter()
    model.fit(frame, epochs=args.epochs, minutes=args.minutes, verbose=1)
    minutes = (time.perf_counter() - started) / 60
    model.probability(events[0], num_particles=args.particles, verbose=0)
    found = {"ours": [], "independence": [], "1% of the rows": []}
    truths, times = [], []
    for event in events:
        parts = [meets(arrays[name], condition) for name, condition in event.items()]
        inside = np.all(parts, axis=0)
        truths.append(inside.mean())
        found["independence"].append(np.prod([part.mean() for part in parts]))
        found["1% of the rows"].append(inside[sample].mean())
        started = time.perf_counter()
        estimate = model.probability(event, num_particles=args.particles, verbose=0)
        times.append(1e3 * (time.perf_counter() - started))
        found["ours"].append(float(estimate))
    truths = np.array(truths)
    rows = []
    for name, estimates in found.items():
        errors = q_error(np.array(estimates), truths, len(frame))
        own = float(np.median(times)) if name == "ours" else None
        rows.append({"table": table, **summary(name, errors, own)})
    rows[0]["minutes to fit"] = minutes
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--epochs", type=int, help="at most; by default the recipe's")
    parser.add_argument("--minutes", type=float, help="of training, at most")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--data", help="folder of the binary sets")
    parser.add_argument("--json", help="write the rows to this file")
    args = parser.parse_args()
    choose_backend(args.backend)
    rows = measure(make_table(args.rows, seed=0), args, "12 mixed columns")
    print_table(f"q-errors of {args.queries} conjunctions", rows)
    folder = args.data or os.environ.get("KERAS_MADE_DATA")
    if folder is None:
        print("adult is skipped: there is no data folder (--data, KERAS_MADE_DATA)")
    else:
        own = measure(adult(folder), args, "adult")
        print_table(f"q-errors of {args.queries} conjunctions", own)
        rows += own
    save_json(args.json, rows)


if __name__ == "__main__":
    main()
