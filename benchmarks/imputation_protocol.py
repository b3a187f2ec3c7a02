"""The published protocol for completing small tables: holes, measures, other methods.

Entries of X are missing at random with probability 0.2, y never; a method is fitted to
the incomplete training rows and completes them five times. Columns are scaled to [0, 1]
by the true training rows and classes are one-hot, divided by 2, so that a distance is
the sum of a part between 0 and 1 for each column.

Reference:
    Jolicoeur-Martineau, Fatras, Kachman 2024, "Generating and Imputing Tabular Data via
    Diffusion and Flow-based Gradient-Boosted Trees", https://arxiv.org/abs/2309.09968
"""

import csv
import os
import warnings
from pathlib import Path

import numpy as np

TABLES = (
    "airfoil_self_noise",
    "blood_transfusion",
    "breast_cancer_diagnostic",
    "climate_model_crashes",
    "concrete_compression",
    "connectionist_bench_sonar",
    "ecoli",
    "glass",
    "ionosphere",
    "iris",
    "planning_relax",
    "qsar_biodegradation",
    "wine",
    "wine_quality_red",
    "yacht_hydrodynamics",
)
CLASSES = ("binary", "categorical")
MISSING, COMPLETIONS, SEEDS = 0.2, 5, (0, 1, 2)
MEASURES = ("avg_mae", "min_mae", "w_train")


# Rows and their holes -----------------------------------------------------------------


def tables_folder(folder=None) -> Path:
    """Where the tables are, `FOLDER/tables`, or a clear exit."""
    folder = folder or os.environ.get("KERAS_MADE_DATA")
    path = Path(folder or ".") / "tables"
    if not folder or not path.is_dir():
        raise SystemExit(
            "This benchmark needs the folder `tables`: pass --data FOLDER or set "
            f"KERAS_MADE_DATA. Looked for: {path if folder else 'no folder given'}."
        )
    return path


def load_table(folder, table):
    """Complete rows `(n, D)`, floats with y last, and the kinds of the D columns."""
    data = np.load(folder / f"{table}.npz")
    rows = np.concatenate([data["X"], data["y"][:, None]], axis=1)
    return rows.astype("float64"), [str(kind) for kind in data["kinds"]]


def load_rows(folder, table, seed):
    """True training rows, the same with holes, and the kinds of the columns.

    Returns:
        `(true, holes, kinds)`: floats `(n, D)` with y last, the same with NaN for what
        is missing, and D words: real, integer, binary or categorical.
    """
    from sklearn.model_selection import train_test_split

    rows, kinds = load_table(folder, table)
    stratify = rows[:, -1] if kinds[-1] in CLASSES else None
    rows, _ = train_test_split(
        rows, test_size=0.2, random_state=seed, stratify=stratify
    )
    missing = np.random.RandomState(seed).uniform(size=rows.shape) < MISSING
    missing[:, -1] = False
    # As published: a row of which nothing but y is left says nothing.
    kept = ~missing[:, :-1].all(axis=1)
    rows, missing = rows[kept], missing[kept]
    return rows, np.where(missing, np.nan, rows), kinds


# Measures -----------------------------------------------------------------------------


def scaler(true, kinds):
    """A function that scales rows by the true ones, classes one-hot and halved."""
    low, spread = true.min(axis=0), np.ptp(true, axis=0)
    spread = np.where(spread > 0, spread, 1.0)

    def scale(rows):
        parts = []
        for column, kind in enumerate(kinds):
            values = rows[:, column]
            if kind == "categorical":
                classes = np.unique(true[:, column])
                parts.append(0.5 * (values[:, None] == classes))
            else:
                parts.append(((values - low[column]) / spread[column])[:, None])
        return np.concatenate(parts, axis=1)

    return scale


def measure(true, holes, kinds, completions) -> dict:
    """AvgMAE, MinMAE and W_train of completions `(m, n, D)`."""
    scale = scaler(true, kinds)
    target = scale(true)
    scaled = [scale(completion) for completion in completions]
    errors = np.stack([np.abs(rows - target) for rows in scaled])
    count = np.isnan(holes).sum()
    return {
        "avg_mae": float(errors.sum(axis=(1, 2)).mean() / count),
        "min_mae": float(errors.min(axis=0).sum() / count),
        "w_train": float(np.mean([transport(target, rows) for rows in scaled])),
    }


def transport(rows, others):
    """Cost of moving some rows onto others, Manhattan distances."""
    import ot

    costs = ot.dist(rows, others, metric="cityblock")
    return ot.emd2(ot.unif(len(rows)), ot.unif(len(others)), costs, numItermax=10**6)


# Other methods: functions of (rows with NaN, kinds, seed) to `(5, n, D)` --------------


def nearest(holes, kinds, seed):
    """The value of the nearest row that has one, columns standardised."""
    from sklearn.impute import KNNImputer
    from sklearn.preprocessing import StandardScaler

    units = StandardScaler().fit(holes)
    filled = KNNImputer(n_neighbors=1).fit_transform(units.transform(holes))
    # What came through the units and back is the value that it was.
    return np.stack([np.round(units.inverse_transform(filled), 8)] * COMPLETIONS)


def chained_regressions(holes, kinds, seed):
    """Draws of Bayesian ridge regressions in turn, kept within the data's bounds."""
    low, high = np.nanmin(holes, axis=0), np.nanmax(holes, axis=0)
    return np.stack(
        [
            np.clip(_iterate(holes, 5 * seed + i, sample_posterior=True), low, high)
            for i in range(COMPLETIONS)
        ]
    )


def chained_forests(holes, kinds, seed):
    """MissForest: means of forests of extremely randomised trees, in turn."""
    from sklearn.ensemble import ExtraTreesRegressor

    return np.stack(
        [
            _iterate(
                holes,
                5 * seed + i,
                estimator=ExtraTreesRegressor(100, random_state=5 * seed + i),
                max_iter=5,
            )
            for i in range(COMPLETIONS)
        ]
    )


def _iterate(holes, seed, **options):
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    with warnings.catch_warnings():
        # It says that it did not converge; the published runs did not either.
        warnings.simplefilter("ignore")
        return IterativeImputer(random_state=seed, **options).fit_transform(holes)


def chained_boosting(holes, kinds, seed):
    """MICE with boosted trees and predictive mean matching.

    miceforest 6.0.5 needs a lightgbm before 4.6.
    """
    import miceforest
    import pandas as pd

    frame = pd.DataFrame(holes, columns=[f"c{i}" for i in range(holes.shape[1])])
    for name, kind in zip(frame, kinds, strict=True):
        if kind in CLASSES:
            frame[name] = frame[name].astype("category")
    kernel = miceforest.ImputationKernel(
        frame, num_datasets=COMPLETIONS, random_state=seed
    )
    kernel.mice(5, num_threads=1, verbose=False)
    return np.stack(
        [
            kernel.complete_data(dataset=i).astype("float64").to_numpy()
            for i in range(COMPLETIONS)
        ]
    )


METHODS = {
    "KNN": nearest,
    "ICE": chained_regressions,
    "MissForest": chained_forests,
    "MICE-Forest": chained_boosting,
}
# Names of the rows of the published file that are shown.
PUBLISHED = {
    "KNN(n_neighbors=1)": "KNN",
    "ice": "ICE",
    "MissForest": "MissForest",
    "miceforest": "MICE-Forest",
    "GAIN": "GAIN",
    "softimpute": "SoftImpute",
    "OT": "Sinkhorn OT",
    "forest_diffusion_repaint_nt51_ycond": "Forest-VP (RePaint)",
    "utrees": "UnmaskingTrees",
}


def published(folder) -> list[dict]:
    """Rows `{"table", "method", measures}` of the published file."""
    with open(folder / "published_imputation.csv") as file:
        return [
            {
                "table": row["table"],
                "method": PUBLISHED[row["method"]],
                **{name: float(row[name]) for name in MEASURES},
            }
            for row in csv.DictReader(file)
            if row["method"] in PUBLISHED
        ]
