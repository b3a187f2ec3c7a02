"""What `fit_density` reaches on data that nobody tuned it for: test nats, and minutes.

    python benchmarks/default_recipe.py adult dna --data FOLDER
    python benchmarks/default_recipe.py red_wine airfoil_self_noise --minutes 2
    python benchmarks/default_recipe.py --table

Every binary set of `paper_tables.py` with its own training, validation and test rows,
beside the best of our own recipes there and the better of the paper's MADE rows. Red
wine in ten folds, and the real columns of the small tables (a fifth of the rows to
test, by seed 0), standardised by the training rows, beside three densities of
scikit-learn that are fitted to the same rows: a Gaussian, a mixture of Gaussians whose
number and form are chosen on a tenth of them, and kernels whose width is.

The settings are the same for all: the rows, the validation rows and `--minutes`. Each
set writes `default-NAME.json`; the table is made from these files alone.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from imputation_protocol import TABLES, tables_folder
from paper_recipes import PUBLISHED
from paper_tables import RESULTS, chosen, read_results
from timing import choose_backend, describe_machine, load_data

FOLDS = 10
REAL = ("red_wine", *TABLES)


def fit(train, valid, minutes):
    """The model, and the processor's and the clock's seconds."""
    import keras_made as km

    cpu, clock = time.process_time(), time.perf_counter()
    model = km.fit_density(train, validation_data=valid, minutes=minutes)
    return model, time.process_time() - cpu, time.perf_counter() - clock


def score(model, rows):
    scores = -np.asarray(model.log_prob(rows, verbose=0), "float64")
    return float(scores.mean()), float(scores.std() / np.sqrt(len(scores)))


def binary(name, args):
    data = load_data(name, args.data)
    parts = [data[part].astype("float32") for part in ("train", "valid", "test")]
    model, cpu, clock = fit(*parts[:2], args.minutes)
    nll, error = score(model, parts[2])
    return {
        "nll": nll,
        "standard_error": error,
        "cpu_seconds": cpu,
        "seconds": clock,
        "choice": model.choice,
    }


def real_folds(name, args):
    """Pairs of training and test rows, real columns alone."""
    if name == "red_wine":
        data = load_data(name, args.data)
        tests = [data[f"fold{i + 1}_test"].astype("float64") for i in range(FOLDS)]
        for fold, test in enumerate(tests):
            yield np.concatenate([t for i, t in enumerate(tests) if i != fold]), test
        return
    data = np.load(tables_folder(args.data) / f"{name}.npz")
    rows = np.concatenate([data["X"], data["y"][:, None]], axis=1).astype("float64")
    rows = rows[:, np.array([kind == "real" for kind in data["kinds"].astype(str)])]
    order = np.random.RandomState(0).permutation(len(rows))
    held = len(rows) // 5
    yield rows[order[held:]], rows[order[:held]]


def baselines(train, valid, test):
    """Test nats of three densities of scikit-learn."""
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KernelDensity

    # A hundredth of a standard deviation, as small as our own components may be.
    floor = {"reg_covar": 1e-4, "random_state": 0}
    mixtures = [
        GaussianMixture(number, covariance_type=form, **floor).fit(train)
        for number in (1, 2, 3, 5, 8, 12, 20)
        for form in ("full", "diag")
        if number < len(train) / 2
    ]
    kernels = [
        KernelDensity(bandwidth=width).fit(train) for width in np.geomspace(0.05, 2, 15)
    ]
    both = np.concatenate([train, valid])
    return {
        "Gaussian": -GaussianMixture(1, **floor).fit(both).score(test),
        "mixture": -max(mixtures, key=lambda one: one.score(valid)).score(test),
        "kernels": -max(kernels, key=lambda one: one.score(valid)).score(test)
        / len(test),
    }


def real(name, args):
    found = []
    for fold, (rows, test) in enumerate(real_folds(name, args)):
        order = np.random.RandomState(fold).permutation(len(rows))
        held = max(5, len(rows) // 10)
        train, valid = rows[order[held:]], rows[order[:held]]
        mean, spread = train.mean(axis=0), train.std(axis=0)
        kept = spread > 0
        train, valid, test = (
            ((part - mean) / np.where(kept, spread, 1))[:, kept].astype("float32")
            for part in (train, valid, test)
        )
        model, cpu, clock = fit(train, valid, args.minutes)
        nll, error = score(model, test)
        found.append(
            {
                "nll": nll,
                "standard_error": error,
                "cpu_seconds": cpu,
                "seconds": clock,
                "choice": model.choice,
                "rows": len(rows),
                **baselines(train, valid, test),
            }
        )
        if args.folds and fold + 1 == args.folds:
            break
    numbers = [key for key in found[0] if key != "choice"]
    mean = {key: float(np.mean([one[key] for one in found])) for key in numbers}
    return {**mean, "folds": len(found), "choice": found[0]["choice"]}


def taken(result):
    names = [one["name"] for one in result["choice"] if one["taken"]]
    return ", ".join(f"{names.count(n)} {n}" for n in dict.fromkeys(names))


def table(folder):
    paths = sorted(Path(folder).glob("default-*.json"))
    results = {path.stem.removeprefix("default-"): path for path in paths}
    results = {name: json.loads(path.read_text()) for name, path in results.items()}
    own = read_results(folder)
    lines = [
        "| bits | default recipe | our best | above it | MADE | minutes | taken |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, published in PUBLISHED.items():
        if name not in results:
            continue
        result = results[name]
        best = chosen(own, name, "ours")["test"]["nll"]
        made = [published[row] for row in ("MADE", "MADE, masks") if row in published]
        lines.append(
            f"| {name} | {result['nll']:.2f} ± {result['standard_error']:.2f} "
            f"| {best:.2f} | {result['nll'] / best - 1:.1%} "
            f"| {min(made) if made else ''} | {result['seconds'] / 60:.1f} "
            f"| {taken(result)} |"
        )
    lines += [
        "",
        "| real columns | rows | default recipe | Gaussian | mixture | kernels "
        "| minutes | taken |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in REAL:
        if name in results:
            result = results[name]
            others = [f"{result[k]:.2f}" for k in ("Gaussian", "mixture", "kernels")]
            lines.append(
                f"| {name} | {result['rows']:.0f} "
                f"| {result['nll']:.2f} ± {result['standard_error']:.2f} "
                f"| {' | '.join(others)} | {result['seconds'] / 60:.1f} "
                f"| {taken(result)} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", choices=[*PUBLISHED, *REAL, []])
    parser.add_argument("--minutes", type=float, default=8.0, help="of each fit")
    parser.add_argument("--folds", type=int, help="of red_wine; by default all ten")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--data", help="folder of the .npz files (or KERAS_MADE_DATA)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of JSON files")
    parser.add_argument("--table", action="store_true", help="print, and run nothing")
    args = parser.parse_args()
    if args.table:
        print(table(args.results))
        return
    choose_backend(args.backend)
    for name in args.datasets:
        result = (binary if name in PUBLISHED else real)(name, args)
        result = {"dataset": name, "minutes": args.minutes, **result}
        path = args.results / f"default-{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**result, "on": describe_machine()}, indent=1))
        print(f"{name}: {result['nll']:.3f} ± {result['standard_error']:.3f} nats")


if __name__ == "__main__":
    main()
