"""What `fit_density` reaches on data that nobody tuned it for: test nats, and minutes.

    python benchmarks/default_recipe.py adult dna --data FOLDER
    python benchmarks/default_recipe.py red_wine airfoil_self_noise --minutes 1.5
    python benchmarks/default_recipe.py airfoil_self_noise --mixed --minutes 1.5
    python benchmarks/default_recipe.py --table

Every binary set of `paper_tables.py` with its own training, validation and test rows,
beside the best of our own recipes there and the better of the paper's MADE rows. Red
wine in ten folds, and the real columns of the small tables (a fifth of the rows to
test, by seed 0), standardised by the training rows, beside three densities of
scikit-learn that are fitted to the same rows: a Gaussian, a mixture of Gaussians whose
number and form are chosen on a tenth of them, and kernels whose width is.

With `--mixed` all columns of the small tables, whatever they hold, as a DataFrame whose
schema is that of the whole table: `TableDensity`, as `fit_density` has it. Real columns
count in their standard deviations. Beside it, the same three densities of the columns
that the schema has for real ones, times the frequencies of each other column, with one
row more for each of its values: what a table is without what binds its kinds together.

The settings are the same for all: the rows, the validation rows and `--minutes`. Each
set writes `default-NAME.json`, or `mixed-NAME.json`; the table is made from these files
alone.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from imputation_protocol import TABLES, load_table, tables_folder
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
    rows, kinds = load_table(tables_folder(args.data), name)
    rows = rows[:, np.array([kind == "real" for kind in kinds])]
    test, rest = parts_of(len(rows), len(rows) // 5, 0)
    yield rows[rest], rows[test]


def parts_of(number, held, seed):
    """Places of so many rows, and of all others."""
    order = np.random.RandomState(seed).permutation(number)
    return order[:held], order[held:]


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
        parts = parts_of(len(rows), max(5, len(rows) // 10), fold)
        valid, train = (rows[part] for part in parts)
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


def mixed(name, args):
    from imputation_tables import frame_of

    import keras_made as km
    from keras_made.tables.schema import Schema

    rows, kinds = load_table(tables_folder(args.data), name)
    frame = frame_of(rows, kinds)
    test, rest = parts_of(len(rows), len(rows) // 5, 0)
    valid, train = (
        rest[part] for part in parts_of(len(rest), max(5, len(rest) // 10), 0)
    )
    cpu, clock = time.process_time(), time.perf_counter()
    model = km.TableDensity(Schema.from_frame(frame))
    model.fit(
        frame.iloc[train],
        validation_data=frame.iloc[valid],
        minutes=args.minutes,
        verbose=0,
    )
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    # As numbers that vary, and those of them that are real.
    codes = model.encode(frame).astype("float64")
    real = np.flatnonzero(
        np.broadcast_to(model.density.conditional.continuous, codes.shape[1])
    )
    spread = codes[train][:, real].std(axis=0)
    real, spread = real[spread > 0], spread[spread > 0]
    nll, error = score(model, frame.iloc[test])
    others = np.setdiff1d(np.arange(codes.shape[1]), real)
    frequencies = sum(
        frequency_nll(codes[:, i], [*train, *valid], test) for i in others
    )
    scaled = (codes[:, real] - codes[train][:, real].mean(axis=0)) / spread
    beside = {"Gaussian": 0.0, "mixture": 0.0, "kernels": 0.0}
    if len(real):
        beside = baselines(scaled[train], scaled[valid], scaled[test])
    return {
        "nll": nll - float(np.log(spread).sum()),
        "standard_error": error,
        "cpu_seconds": cpu,
        "seconds": clock,
        "rows": len(rest),
        "columns": codes.shape[1],
        "real": len(real),
        **{key: value + frequencies for key, value in beside.items()},
    }


def frequency_nll(column, known, test):
    """Test nats of a column's frequencies, with a row more for each of its values."""
    values, codes = np.unique(column, return_inverse=True)
    counts = np.bincount(codes[known], minlength=len(values)) + 1.0
    return -float(np.log(counts / counts.sum())[codes[test]].mean())


def taken(result):
    names = [one["name"] for one in result["choice"] if one["taken"]]
    counts = {name: names.count(name) for name in names}
    return ", ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())


def read(kind, folder):
    paths = sorted(Path(folder).glob(f"{kind}-*.json"))
    return {
        path.stem.removeprefix(f"{kind}-"): json.loads(path.read_text())
        for path in paths
    }


def table(folder):
    results = read("default", folder)
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
    lines += [
        "",
        "| all columns | rows | columns | of them real | default recipe | Gaussian "
        "| mixture | kernels | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in read("mixed", folder).items():
        others = [f"{result[k]:.2f}" for k in ("Gaussian", "mixture", "kernels")]
        lines.append(
            f"| {name} | {result['rows']} | {result['columns']} | {result['real']} "
            f"| {result['nll']:.2f} ± {result['standard_error']:.2f} "
            f"| {' | '.join(others)} | {result['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", choices=[*PUBLISHED, *REAL, []])
    parser.add_argument("--minutes", type=float, default=8.0, help="of each fit")
    parser.add_argument("--mixed", action="store_true", help="all columns of a table")
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
    if args.mixed and set(args.datasets) - set(TABLES):
        parser.error(f"--mixed is for {', '.join(TABLES)}.")
    for name in args.datasets:
        measured = mixed if args.mixed else binary if name in PUBLISHED else real
        result = {"dataset": name, "minutes": args.minutes, **measured(name, args)}
        kind = "mixed" if args.mixed else "default"
        path = args.results / f"{kind}-{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**result, "on": describe_machine()}, indent=1))
        print(f"{name}: {result['nll']:.3f} ± {result['standard_error']:.3f} nats")


if __name__ == "__main__":
    main()
