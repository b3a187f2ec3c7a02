"""A table with holes: completed copies, synthetic rows, odd rows, probabilities.

The table is made by a process stated here, so that what is right is known: people with
an age, schooling, an income, a region, a number of visits, a membership and the day
they joined, each of which depends on others; a fifth of the entries is missing. Planted
rows have values that are common in every column and wrong together: a detector that
looks at columns one by one cannot see them. Which of its values make a row odd is told
by log p of each given the rest of the row.

    python examples/table.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import keras_made as km
from keras_made import plots

SCHOOLS = ["none", "primary", "secondary", "higher"]


def make_table(num_rows, seed):
    rng = np.random.RandomState(seed)
    young = rng.uniform(size=num_rows) < 0.6
    age = np.where(young, rng.normal(34, 7, num_rows), rng.normal(62, 9, num_rows))
    age = age.clip(18, 95).round().astype(int)
    school = np.minimum(rng.poisson(np.where(age < 48, 1.9, 0.9)), 3)
    log_income = 9.3 + 0.35 * school + 0.8 * np.sin(age / 22)
    log_income += rng.normal(0, 0.15, num_rows)
    region = (rng.poisson(0.7, num_rows) + 2 * (age > 48)) % 5
    rate = 2 + 9 * (region == 1) + 5 * np.maximum(0, log_income - 10)
    visits = np.minimum(rng.poisson(rate), 20)
    days = rng.uniform(0, 300, num_rows) + 60 * visits
    return pd.DataFrame(
        {
            "age": age,
            "school": pd.Categorical(np.array(SCHOOLS)[school], SCHOOLS, ordered=True),
            "income": np.exp(log_income).round(0),
            "region": np.array(list("NESWC"))[region],
            "visits": visits,
            "member": rng.uniform(size=num_rows) < 1 / (1 + np.exp(6 - visits)),
            "joined": pd.Timestamp("2015-01-01") + pd.to_timedelta(days.round(), "D"),
        }
    )


def with_holes(frame, share, seed):
    """The same, each entry missing with some probability, in dtypes that allow it."""
    rng = np.random.RandomState(seed)
    types = {"age": "Int64", "visits": "Int64", "member": "boolean"}
    frame = frame.astype(types)
    for name in frame.columns:
        frame[name] = frame[name].where(rng.uniform(size=len(frame)) >= share)
    return frame


def plant(frame, share, seed):
    """Shuffle each column among some rows; returns which rows these are."""
    rng = np.random.RandomState(seed)
    odd = rng.uniform(size=len(frame)) < share
    frame = frame.copy()
    for name in frame.columns:
        frame.loc[odd, name] = rng.permutation(frame.loc[odd, name].to_numpy())
    return frame, odd


def as_numbers(frame):
    """For scikit-learn's forest: codes for names, days for dates."""
    columns = {
        name: column.astype("int64")
        if column.dtype.kind == "M"
        else pd.factorize(column)[0]
        if column.dtype.kind not in "iufb"
        else column
        for name, column in frame.items()
    }
    return pd.DataFrame(columns).to_numpy(float)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/table.png"))
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    whole = make_table(1000 if args.quick else 4000, seed=0)
    frame = with_holes(whole, 0.2, seed=1)

    model = km.TableDensity(frame)
    print(model.schema)
    model.fit(frame, epochs=3 if args.quick else 80)

    complete = model.impute(frame, seed=0)
    holes = frame["income"].isna()
    error = (complete["income"] - whole["income"])[holes].abs().mean()
    best = (model.impute(frame, point=True, seed=0)["income"] - whole["income"])[holes]
    plain = (frame["income"].median() - whole["income"])[holes].abs().mean()
    print(
        f"mean error of a missing income: {error:.0f} by a draw, "
        f"{best.abs().mean():.0f} by the median of draws, {plain:.0f} by the median"
    )

    mixed, odd = plant(make_table(2000, seed=2), 0.05, seed=3)
    score = -model.log_prob(mixed)
    forest = IsolationForest(random_state=0).fit(as_numbers(whole))
    theirs = -forest.score_samples(as_numbers(mixed))
    print(
        f"ROC-AUC of planted rows: log p {roc_auc_score(odd, score):.3f}, "
        f"IsolationForest {roc_auc_score(odd, theirs):.3f}"
    )
    oddest = mixed.loc[score.nlargest(3).index]
    print("the oddest rows, and log p of each value given the rest of its row")
    print(oddest.to_string())
    print(model.log_prob_by_column(oddest).round(1).to_string())

    many = make_table(200_000, seed=4)
    older, members = many["age"] >= 50, many["member"]
    counted = (older & (many["income"] >= 30_000)).mean()
    found = model.probability({"age": (50, None), "income": (30_000, None)})
    print(f"P(age >= 50, income >= 30,000): {found!r}, counted {counted:.4g}")
    counted = members[older & (many["region"] == "E")].mean()
    found = model.probability({"member": True}, {"age": (50, None), "region": "E"})
    print(f"P(member | age >= 50, region E): {found!r}, counted {counted:.4g}")

    synthetic = model.sample(len(frame), seed=5)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    plots.plot_marginals(whole, synthetic).savefig(args.out, dpi=110)
    pairs = args.out.with_name(args.out.stem + "_pairs.png")
    plots.plot_pairs(whole, synthetic).savefig(pairs, dpi=110)
    missing = args.out.with_name(args.out.stem + "_holes.png")
    plots.plot_missing(frame).savefig(missing, dpi=110)
    path = args.out.with_suffix(".csv")
    synthetic.to_csv(path, index=False)
    print(f"wrote {args.out}, {pairs}, {missing} and {path}")


if __name__ == "__main__":
    main()
