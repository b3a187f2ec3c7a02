"""Estimators keep scikit-learn's contract."""

import pickle

import numpy as np
import pandas as pd
import pytest
from people import people
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from keras_made.estimators import DensityEstimator, DensityImputer, OutlierDetector

SMALL = {"hidden_units": [6], "num_masks": 2, "max_epochs": 1, "batch_size": 64}
ALL = [DensityEstimator, DensityImputer, OutlierDetector]
# Checks that are skipped, each with its reason.
SKIPPED = {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_scikit_learns_own_checks_pass(kind):
    check_estimator(kind(**SMALL), expected_failed_checks=SKIPPED, on_skip=None)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_estimators_are_cloned_and_pickled(kind):
    x = load_iris().data
    estimator = clone(kind(**SMALL, random_state=3)).fit(x)
    loaded = pickle.loads(pickle.dumps(estimator))
    verb = "transform" if kind is DensityImputer else "score_samples"
    np.testing.assert_allclose(getattr(loaded, verb)(x), getattr(estimator, verb)(x))


def test_a_fit_follows_its_seed_and_leaves_numpys_alone():
    x = load_iris().data
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b = (DensityEstimator(**SMALL, random_state=1).fit(x) for _ in range(2))
    np.testing.assert_allclose(a.score_samples(x), b.score_samples(x))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_allclose(a.sample(4, 0), b.sample(4, 0), rtol=1e-4)


def test_they_go_into_pipelines_and_searches():
    x = load_iris().data
    pipeline = make_pipeline(StandardScaler(), DensityEstimator(**SMALL))
    assert np.isfinite(cross_val_score(pipeline, x, cv=2)).all()
    search = GridSearchCV(DensityEstimator(**SMALL), {"hidden_units": [[4], [8]]}, cv=2)
    assert search.fit(x).best_params_["hidden_units"] in ([4], [8])


def test_frames_go_in_and_come_out():
    _, frame = people(60, 0)
    imputer = DensityImputer(**SMALL)
    complete = imputer.fit_transform(frame)
    assert isinstance(complete, pd.DataFrame) and not complete.isna().any().any()
    assert (complete.dtypes == frame.dtypes).all()
    copies = DensityImputer(n_copies=2, **SMALL).fit_transform(frame)
    assert len(copies) == 2
    assert list(imputer.get_feature_names_out()) == list(frame.columns)
    estimator = DensityEstimator(**SMALL).fit(frame)
    assert isinstance(estimator.sample(3), pd.DataFrame)
    assert estimator.score(frame) == pytest.approx(
        estimator.score_samples(frame).mean()
    )


def test_outliers_are_as_many_as_was_said():
    x = load_iris().data
    detector = OutlierDetector(contamination=0.2, **SMALL).fit(x)
    assert np.mean(detector.predict(x) == -1) == pytest.approx(0.2, abs=0.02)
    assert ((detector.decision_function(x) < 0) == (detector.predict(x) == -1)).all()
    with pytest.raises(ValueError, match="contamination"):
        OutlierDetector(contamination=0.9, **SMALL).fit(x)
