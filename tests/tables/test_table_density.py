"""Frames in, frames out: the laws of a density, said of tables."""

import keras
import numpy as np
import pandas as pd
import pytest
from laws import others_slow, to_numpy
from people import people

from keras_made import MADE, TableDensity, tables
from keras_made.recipes import mixed as recipe
from keras_made.tables import table_density

pytestmark = pytest.mark.neutral


def small_network(schema, num_masks=4, seed=0):
    num_params = tables.columns_of(schema).num_params
    return MADE([12], num_params, ordering="random", num_masks=num_masks, seed=seed)


def small(frame, **options):
    schema = tables.Schema.from_frame(frame)
    model = TableDensity(schema, small_network(schema, **options))
    rng = np.random.RandomState(1)
    # Weights of a trained network: none is zero.
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.4, weight.shape))
    return model


@pytest.fixture(scope="module")
def frames():
    return people(60, 0)


@pytest.fixture(scope="module")
def model(frames):
    model = small(frames[1])
    model.adapt(frames[1])
    return model


def test_log_prob_is_a_series_of_the_density_of_what_is_observed(model, frames):
    _, frame = frames
    scores = model.log_prob(frame)
    assert isinstance(scores, pd.Series) and scores.index.equals(frame.index)
    x = model.encode(frame)
    np.testing.assert_allclose(scores, to_numpy(model.density.log_prob(x)), rtol=1e-5)
    shuffled = frame.sample(frac=1, random_state=0)[list(frame.columns[::-1])]
    np.testing.assert_allclose(model.log_prob(shuffled)[frame.index], scores, rtol=1e-5)


def test_log_probs_of_columns_say_what_each_value_adds(model, frames):
    _, frame = frames
    rows = frame.iloc[:5]
    own = model.log_prob_by_column(rows)
    assert list(own.columns) == list(frame.columns)
    assert np.array_equal(own.isna(), rows.isna())
    without = rows.copy()
    without["region"] = None
    expected = model.log_prob(rows) - model.log_prob(without)
    seen = rows["region"].notna()
    np.testing.assert_allclose(own["region"][seen], expected[seen], atol=1e-4)


@pytest.mark.parametrize("point", [False, True])
def test_completions_keep_what_was_observed_and_how_it_came(model, frames, point):
    frame = frames[1].iloc[:10] if point else frames[1]
    complete = model.impute(frame, point=point, seed=0)
    assert complete.index.equals(frame.index)
    assert list(complete.columns) == list(frame.columns)
    assert (complete.dtypes == frame.dtypes).all()
    assert not complete.isna().any().any()
    for name in frame.columns:
        seen = frame[name].notna()
        assert (complete[name][seen] == frame[name][seen]).all()
    # What was drawn could have been in the frame.
    model.encode(complete)


def test_copies_differ_where_something_is_missing(model, frames):
    _, frame = frames
    copies = model.impute(frame, num_copies=3, seed=0)
    assert len(copies) == 3
    same = [(copies[0][n] == copies[1][n]).mean() for n in frame.columns]
    assert 0.5 < np.mean(same) < 1.0
    again = model.impute(frame, num_copies=3, seed=0)
    pd.testing.assert_frame_equal(copies[2], again[2])


def test_synthetic_rows_have_the_dtypes_and_meet_the_conditions(model, frames):
    _, frame = frames
    rows = model.sample(20, seed=0)
    assert rows.shape == (20, 8)
    assert (rows.dtypes == frame.dtypes).all()
    given = {"age": (40, 60), "region": ["N", "W"], "member": True}
    rows = model.sample(12, given=given, seed=0, num_particles=8)
    assert rows["age"].between(40, 60).all() and rows["member"].all()
    assert set(rows["region"]) == {"N", "W"}


def small_table(seed=0):
    """A table whose rows can be counted: three columns, 2 x 3 x 4."""
    rng = np.random.RandomState(seed)
    frame = pd.DataFrame(
        {
            "flag": rng.uniform(size=80) < 0.4,
            "name": rng.choice(["a", "b", "c"], 80),
            "count": rng.randint(0, 4, 80),
        }
    )
    everything = [(f, n, c) for f in (False, True) for n in "abc" for c in range(4)]
    return frame, pd.DataFrame(everything, columns=list(frame.columns))


@pytest.mark.parametrize("seed", others_slow(range(3), 0))
def test_probabilities_are_those_of_the_rows_counted(seed):
    frame, everything = small_table(seed)
    model = small(frame, seed=seed, num_masks=3)
    model.density.structures = model.density.structures[:2]
    p = np.exp(model.log_prob(everything).astype(float))
    assert p.sum() == pytest.approx(1.0, abs=1e-4)
    rng = np.random.RandomState(seed)
    event = {"name": ["a", "c"], "count": (1, int(rng.randint(2, 4)))}
    given = {"flag": bool(rng.randint(2))}
    inside = everything["name"].isin(["a", "c"])
    inside &= everything["count"].between(*event["count"])
    known = everything["flag"] == given["flag"]
    found = model.probability(event, num_particles=2000, seed=seed)
    # Every order of the columns is a member's own: the mixture of two is scored.
    ask = {**event, **given}
    both = model.probability(ask, num_particles=2000, seed=seed)
    assert 0 <= found.standard_error < 0.05
    conditional = model.probability(event, given, num_particles=2000, seed=seed)
    assert conditional == pytest.approx(
        float(both) / float(model.probability(given, num_particles=2000)), rel=0.1
    )
    complement = model.probability({"name": "b"}) + model.probability(
        {"name": ["a", "c"]}
    )
    assert complement == pytest.approx(1.0, abs=1e-3)
    assert (p[inside].sum() > 0) and (p[known].sum() > 0)


def test_what_cannot_be_asked_is_told(model):
    with pytest.raises(ValueError, match="'height': a single real number"):
        model.probability({"height": 170.0})
    with pytest.raises(ValueError, match="'age' is in `event` and in `given`"):
        model.probability({"age": (30, None)}, given={"age": (None, 50)})
    with pytest.raises(ValueError, match="no column 'shoes'"):
        model.sample(3, given={"shoes": 4})
    with pytest.raises(ValueError, match="point=True and num_copies"):
        model.impute(people(5, 0)[1], num_copies=2, point=True)


def test_fit_learns_from_holes_and_goes_on_after_loading(frames, tmp_path):
    _, frame = frames
    schema = tables.Schema.from_frame(frame)
    model = TableDensity(schema, small_network(schema))
    history = model.fit(frame, epochs=3, batch_size=20, verbose=0)
    assert history.history["nll"][-1] < history.history["nll"][0]
    assert "val_nll" in history.history
    model.save(tmp_path / "table.keras")
    loaded = keras.saving.load_model(tmp_path / "table.keras")
    assert str(loaded.schema) == str(schema)
    pd.testing.assert_series_equal(loaded.log_prob(frame), model.log_prob(frame))
    few = frame.iloc[:10]
    pd.testing.assert_frame_equal(loaded.impute(few, seed=1), model.impute(few, seed=1))
    for each in (model, loaded):
        each.fit(
            frame, epochs=1, batch_size=60, validation_split=0, verbose=0, shuffle=False
        )
    pd.testing.assert_series_equal(
        loaded.log_prob(frame), model.log_prob(frame), rtol=1e-4
    )
    assert model.evaluate(frame, verbose=0) == pytest.approx(
        -model.log_prob(frame).mean(), rel=1e-4
    )
    np.testing.assert_allclose(
        model.predict(frame, verbose=0), model.log_prob(frame), rtol=1e-4
    )


def test_few_rows_start_at_their_copula_unless_epochs_are_given(frames, monkeypatch):
    asked = []

    def start(model, fit, x, **options):
        asked.append(len(x))
        return 0.0

    monkeypatch.setattr(table_density, "start_at_copula", start)
    monkeypatch.setattr(recipe, "STEPS", 1)
    monkeypatch.setattr(recipe, "PATIENT_EPOCHS", 1)
    frame = frames[1].iloc[:30]
    schema = tables.Schema.from_frame(frame)
    for epochs, expected in ((1, []), (None, [27])):
        model = TableDensity(schema, small_network(schema))
        model.fit(frame, epochs=epochs, verbose=0)
        assert asked == expected
    # What was trained before is not taught again, nor by another model.
    model.fit(frame, verbose=0)
    TableDensity(schema, model.density.network).fit(frame, verbose=0)
    assert asked == [27]


@pytest.mark.parametrize("minutes", [0, -1.0, "2"])
def test_no_time_to_train_in_is_refused(frames, minutes):
    with pytest.raises(ValueError, match="number above zero"):
        small(frames[1]).fit(frames[1], minutes=minutes)


def test_frames_too_short_to_fit_are_refused(frames):
    model = small(frames[1])
    with pytest.raises(ValueError, match="a frame of 1 row,"):
        model.fit(frames[1].iloc[:1])


def test_constant_and_unobserved_columns_are_put_back():
    frame, _ = small_table()
    frame["country"], frame["note"] = "NL", pd.Series([None] * 80, dtype=object)
    frame["flag"] = frame["flag"].astype("boolean")
    frame.loc[3, "flag"] = None
    model = small(frame)
    complete = model.impute(frame, seed=0)
    assert (complete["country"] == "NL").all() and complete["note"].isna().all()
    assert model.sample(4, seed=0)["country"].tolist() == ["NL"] * 4
