"""Completing small tables with holes, beside the methods people use.

    python benchmarks/imputation_tables.py --json FILE [--data FOLDER]
    python benchmarks/imputation_tables.py --json FILE --methods KNN MICE-Forest
    python benchmarks/imputation_tables.py --json FILE --table

The protocol is that of `imputation_protocol.py`. What the file holds already is not run
again, so a run that is stopped goes on where it was. The table holds means over the
tables; published figures are means over the same tables, of other holes.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from imputation_protocol import (
    CLASSES,
    COMPLETIONS,
    MEASURES,
    METHODS,
    SEEDS,
    TABLES,
    load_rows,
    measure,
    published,
    tables_folder,
)
from timing import describe_machine, print_row


def read_runs(path) -> list[dict]:
    return json.loads(Path(path).read_text())["rows"] if Path(path).exists() else []


def add_runs(path, runs):
    """Write what is known with some runs more; other processes may write too."""
    lines = [json.dumps(run) for run in [*read_runs(path), *runs]]
    about = json.dumps(describe_machine())
    whole = '{"on": ' + about + ',\n"rows": [\n' + ",\n".join(lines) + "\n]}\n"
    beside = Path(path).with_suffix(".partial")
    beside.write_text(whole)
    beside.replace(path)


def table_density(holes, kinds, seed):
    """The package as it comes: a frame, `TableDensity`, `fit`, `impute`."""
    import keras

    import keras_made as km

    keras.utils.set_random_seed(seed)
    frame = frame_of(holes, kinds)
    model = km.TableDensity(frame)
    model.fit(frame, verbose=0)
    copies = model.impute(frame, num_copies=COMPLETIONS, seed=seed, verbose=0)
    middle = model.impute(frame, point=True, seed=seed, verbose=0)
    return {
        "TableDensity": np.stack([rows_of(copy) for copy in copies]),
        "TableDensity, point": rows_of(middle)[None],
    }


def frame_of(rows, kinds):
    """A DataFrame of columns by their kinds."""
    import pandas as pd

    columns = {}
    for place, kind in enumerate(kinds):
        values = pd.Series(rows[:, place])
        if kind in CLASSES:
            values = values.map("{:g}".format, na_action="ignore").astype("category")
        columns[f"column {place}"] = values
    return pd.DataFrame(columns)


def rows_of(frame):
    """The numbers of such a frame, `(n, D)`."""
    return frame.astype(dict.fromkeys(frame.columns, "float64")).to_numpy()


ALL_METHODS = {"TableDensity": table_density, **METHODS}


def run_method(folder, table, seed, method):
    """One line for the file for each row of the table that the method gives."""
    true, holes, kinds = load_rows(folder, table, seed)
    start = time.process_time()
    results = ALL_METHODS[method](holes, kinds, seed)
    if not isinstance(results, dict):
        results = {method: results}
    about = {"table": table, "seed": seed, "cpu_seconds": time.process_time() - start}
    return [
        {"method": name, **about, **measure(true, holes, kinds, completions)}
        for name, completions in results.items()
    ]


def means(runs) -> list[dict]:
    """For each method, its means over the tables of its means over the seeds."""
    rows = []
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        tables = {run["table"] for run in own}
        figures = {
            name: float(
                np.mean(
                    [
                        np.mean([run[name] for run in own if run["table"] == table])
                        for table in tables
                    ]
                )
            )
            for name in MEASURES
        }
        rows.append({"method": method, "tables": len(tables), **figures})
    return sorted(rows, key=lambda row: row["avg_mae"])


def print_means(title, runs):
    print(f"\n| {title} | tables | AvgMAE | MinMAE | W_train |\n|---|---|---|---|---|")
    for row in means(runs):
        figures = " | ".join(f"{row[name]:.3f}" for name in MEASURES)
        print(f"| {row['method']} | {row['tables']} | {figures} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder that holds the folder `tables`")
    parser.add_argument("--json", required=True, help="file of the runs")
    parser.add_argument("--methods", nargs="*", default=list(ALL_METHODS))
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--table", action="store_true", help="print, and run nothing")
    args = parser.parse_args()
    folder = tables_folder(args.data)
    jobs = [(t, s, m) for s in args.seeds for t in args.tables for m in args.methods]
    for table, seed, method in [] if args.table else jobs:
        known = {(r["table"], r["seed"], r["method"]) for r in read_runs(args.json)}
        if (table, seed, method) in known:
            continue
        runs = run_method(folder, table, seed, method)
        add_runs(args.json, runs)
        for run in runs:
            print_row(run)
    runs = read_runs(args.json)
    shown = {run["table"] for run in runs}
    print_means("Run here", runs)
    print_means("Published", [r for r in published(folder) if r["table"] in shown])


if __name__ == "__main__":
    main()
