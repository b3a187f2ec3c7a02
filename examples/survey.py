"""A survey with unanswered questions: multiple imputation, pooled by Rubin's rules.

A process stated here gives age, sex, region, schooling and income of 4,000 people; the
older and the less schooled answer the question of income less often. Two things are
asked: the mean income, and what a year of schooling adds to its logarithm, among people
of equal age. Complete-case analysis leaves out those who did not answer, and is wrong
about the first; twenty completed copies, each analysed as if it were complete, are
pooled: the mean of the estimates, the mean of their variances and the variance between
them (Rubin 1987).

    python examples/survey.py
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import keras_made as km

REGIONS = ["north", "east", "south", "west"]


def make_survey(num_rows, seed):
    """The answers, and the same with holes."""
    rng = np.random.RandomState(seed)
    age = rng.randint(20, 80, num_rows)
    schooling = np.clip(rng.poisson(11 - (age - 20) / 20), 5, 18)
    region = rng.choice(4, num_rows, p=[0.4, 0.3, 0.2, 0.1])
    log_income = (
        9.0 + 0.09 * schooling + 0.1 * (region == 0) + rng.normal(0, 0.4, num_rows)
    )
    frame = pd.DataFrame(
        {
            "age": age,
            "sex": rng.choice(["F", "M"], num_rows),
            "region": np.array(REGIONS)[region],
            "schooling": schooling,
            "income": np.exp(log_income).round(0),
        }
    )
    silent = 1 / (1 + np.exp(-(0.06 * (age - 50) - 0.35 * (schooling - 10))))
    holes = frame.copy()
    holes["income"] = holes["income"].where(rng.uniform(size=num_rows) > silent)
    for name in ("region", "sex"):
        holes[name] = holes[name].where(rng.uniform(size=num_rows) > 0.1)
    return frame, holes


def mean_income(frame):
    """Estimate and its variance."""
    return frame["income"].mean(), frame["income"].var() / len(frame)


def return_of_schooling(frame):
    """Slope of log income on schooling at equal age: least squares."""
    x = np.stack([np.ones(len(frame)), frame["schooling"], frame["age"]], axis=1)
    y = np.log(frame["income"].to_numpy(float))
    slope, *_ = np.linalg.lstsq(x, y, rcond=None)
    noise = np.sum((y - x @ slope) ** 2) / (len(y) - 3)
    return slope[1], noise * np.linalg.inv(x.T @ x)[1, 1]


def pool(results):
    """Rubin's rules: estimate and standard error from those of each copy."""
    estimates, variances = np.array(results).T
    between = estimates.var(ddof=1)
    total = variances.mean() + (1 + 1 / len(results)) * between
    return estimates.mean(), np.sqrt(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/survey.png"))
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    truth, survey = make_survey(1500 if args.quick else 4000, seed=0)
    print(f"{survey['income'].isna().mean():.0%} did not tell their income")
    model = km.TableDensity(survey)
    print(model.schema)
    model.fit(survey, epochs=3 if args.quick else None)
    copies = model.impute(survey, num_copies=5 if args.quick else 20, seed=1)
    questions = {
        "mean income": mean_income,
        "return of a year of schooling": return_of_schooling,
    }
    figure, panels = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
    for axes, (name, ask) in zip(panels, questions.items(), strict=True):
        value, variance = ask(survey.dropna())
        rows = {
            "all answers": (ask(truth)[0], np.sqrt(ask(truth)[1])),
            "complete cases": (value, np.sqrt(variance)),
            f"{len(copies)} copies, pooled": pool([ask(copy) for copy in copies]),
        }
        print(name)
        for place, (how, (estimate, error)) in enumerate(rows.items()):
            print(f"  {how:20} {estimate:10.4g} +- {error:.2g}")
            axes.errorbar(estimate, -place, xerr=2 * error, fmt="o", capsize=4)
        axes.axvline(rows["all answers"][0], color="#bbbbbb", zorder=0)
        axes.set(title=name, yticks=[0, -1, -2], ylim=(-2.5, 0.5))
        axes.set_yticklabels(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=130)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
