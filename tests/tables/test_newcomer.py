"""The whole path on a table that somebody brings: in under a minute, and good."""

import keras
import numpy as np
import pandas as pd
import pytest
from people import people
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.metrics import roc_auc_score

from keras_made import TableDensity

pytestmark = pytest.mark.compiled

NUMBERS = ["age", "income", "visits", "height", "joined"]
NAMES = ["school", "region", "member"]


@pytest.fixture(scope="module")
def table():
    keras.utils.set_random_seed(0)
    whole, frame = people(3000, 0)
    model = TableDensity(frame)
    model.fit(frame, epochs=45, verbose=0)
    return whole, frame, model


def as_matrix(frame, like):
    """Numbers in the units of `like` and one-hot names, NaN where missing; and whose.

    Names are not centred, so that the greatest of them is the one that is guessed.
    """
    parts, owners = [], []
    for name in frame.columns:
        if name in NUMBERS:
            own, units = as_numbers(frame[name]), as_numbers(like[name])
            values = (own - np.nanmean(units)) / np.nanstd(units)
            values = values[:, None]
        else:
            known = sorted(like[name].dropna().astype(str).unique())
            values = (frame[name].astype(str).to_numpy()[:, None] == known).astype(
                float
            )
            values[frame[name].isna().to_numpy()] = np.nan
        parts.append(values)
        owners += [name] * values.shape[1]
    return np.concatenate(parts, axis=1), np.array(owners)


def as_numbers(series):
    missing = series.isna().to_numpy()
    if series.dtype.kind == "M":
        series = series.astype("int64")
    return np.where(missing, np.nan, series.to_numpy("float64", na_value=np.nan))


def errors(completed, truth, owners, name, rows):
    """Absolute errors of a number, or which names are wrong, in a column's holes."""
    guess, true = (a[rows][:, owners == name] for a in (completed, truth))
    if name in NUMBERS:
        return np.abs(guess - true)[:, 0]
    return (guess.argmax(axis=1) != true.argmax(axis=1)).astype(float)


@pytest.mark.filterwarnings("ignore:.*Early stopping criterion not reached")
def test_holes_are_filled_as_well_as_by_neighbours_and_by_regressions(table):
    whole, frame, model = table
    matrix, owners = as_matrix(frame, frame)
    truth, _ = as_matrix(whole.astype(frame.dtypes), frame)
    # What holes there are in as many rows says enough.
    few = frame.iloc[:1500]
    ours, _ = as_matrix(model.impute(few, point=True, seed=0, verbose=0), frame)
    others = [
        KNNImputer(n_neighbors=10).fit_transform(matrix)[: len(few)],
        IterativeImputer(random_state=0).fit_transform(matrix)[: len(few)],
    ]
    truth = truth[: len(few)]
    for name in frame.columns:
        job = truth, owners, name, few[name].isna().to_numpy()
        own = errors(ours, *job)
        for other in others:
            more = own - errors(other, *job)
            # Hole by hole, so that what nobody could know is no noise.
            error = more.std() / np.sqrt(len(more))
            assert more.mean() < 2 * error, (name, own.mean(), more.mean(), error)


def test_rows_put_together_from_several_are_found(table):
    _, frame, model = table
    rng = np.random.RandomState(1)
    new, _ = people(1000, 7)
    new = new.astype(frame.dtypes)
    mixed = pd.DataFrame(
        {name: new[name].sample(frac=1, random_state=rng).array for name in new}
    )
    scores = np.concatenate(
        [model.log_prob(rows, verbose=0) for rows in (new, mixed.astype(frame.dtypes))]
    )
    assert roc_auc_score(np.repeat([0, 1], 1000), -scores) > 0.85


def test_probabilities_are_those_of_the_process(table):
    _, frame, model = table
    many, _ = people(200_000, 5)
    for event, meets in [
        ({"age": (50, None)}, many["age"] >= 50),
        (
            {"age": (50, None), "region": ["S", "W"]},
            (many["age"] >= 50) & many["region"].isin(["S", "W"]),
        ),
        (
            {"region": "E", "member": True},
            (many["region"] == "E") & many["member"],
        ),
    ]:
        truth = meets.mean()
        found = model.probability(event, verbose=0)
        # Of the estimate, and of the rows that it was learned from.
        seen = frame[list(event)].notna().all(axis=1).sum()
        error = np.hypot(found.standard_error, np.sqrt(truth * (1 - truth) / seen))
        assert abs(found - truth) < 2 * error, (event, found, truth, error)
