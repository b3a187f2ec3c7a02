"""Frames become numbers and come back; what does not fit is told by name."""

import keras
import numpy as np
import pandas as pd
import pytest
from people import people

from keras_made import tables
from keras_made.tables import Schema

pytestmark = pytest.mark.neutral
KINDS = {
    "age": tables.Integer,
    "school": tables.OrderedCategory,
    "income": tables.Real,
    "region": tables.Category,
    "visits": tables.Integer,
    "member": tables.Boolean,
    "height": tables.Real,
    "joined": tables.DateTime,
}


def odd_frame():
    """What else frames hold: constants, empty columns, zones, few values, flags."""
    rng = np.random.RandomState(1)
    n = 400
    return pd.DataFrame(
        {
            "country": ["NL"] * n,
            "note": pd.Series([None] * n, dtype=object),
            "dose": rng.choice([0.1, 0.25, 5.0], n),
            "amount": np.exp(rng.normal(3, 1.5, n)).astype("float32"),
            "seen": pd.to_datetime(
                rng.randint(10**9, 2 * 10**9, n), unit="s", utc=True
            ),
            "flag": pd.Series(rng.choice([True, False, None], n), dtype=object),
            "count": pd.array(rng.randint(0, 10**6, n), dtype="Int32"),
            "level": pd.Series(rng.choice(list("abc"), n), dtype="string"),
            "code": pd.Categorical(rng.choice([3, 7, 9], n)),
            "offset": 1e9 + rng.normal(size=n),
        }
    )


ODD = {
    "country": tables.Constant,
    "note": tables.Constant,
    "dose": tables.Values,
    "amount": tables.Real,
    "seen": tables.DateTime,
    "flag": tables.Boolean,
    "count": tables.Integer,
    "level": tables.Category,
    "code": tables.Category,
    "offset": tables.Real,
}


@pytest.mark.parametrize(
    "frame, kinds", [(people(300, 0)[1], KINDS), (odd_frame(), ODD)]
)
def test_kinds_are_guessed_and_values_come_back_as_they_went(frame, kinds):
    schema = Schema.from_frame(frame)
    assert {n: type(c) for n, c in schema.columns.items()} == kinds
    codes = schema.encode(frame)
    assert codes.shape == (len(frame), len(schema.modelled))
    missing = frame[schema.modelled].isna().to_numpy()
    assert np.array_equal(np.isnan(codes), missing)
    # Decoding has no holes: some number stands in them.
    back = schema.decode(
        np.where(missing, np.nanmin(codes, axis=0), codes), frame.index
    )
    assert (back.dtypes == frame.dtypes).all()
    for name in frame.columns:
        seen = frame[name].notna().to_numpy()
        if isinstance(schema[name], tables.Real | tables.DateTime):
            a, b = (s[name][seen] for s in (back, frame))
            if a.dtype.kind == "M":
                a, b = a.astype("int64"), b.astype("int64")
            np.testing.assert_allclose(a, b, rtol=1e-7)
        else:
            assert (back[name][seen] == frame[name][seen]).all()


def test_a_schema_is_saved_and_loaded_whole():
    for frame in (people(300, 0)[1], odd_frame()):
        schema = Schema.from_frame(frame)
        config = keras.saving.serialize_keras_object(schema)
        again = keras.saving.deserialize_keras_object(config)
        assert str(again) == str(schema)
        assert np.array_equal(again.encode(frame), schema.encode(frame), equal_nan=True)


def test_large_offsets_keep_their_digits():
    frame = odd_frame()
    codes = Schema.from_frame(frame).encode(frame)[:, -1].astype("float32")
    assert np.std(codes) == pytest.approx(np.std(frame["offset"]), rel=1e-4)


def test_columns_are_overridden_by_name():
    frame = people(300, 0)[1]
    schema = Schema.from_frame(frame, {"income": tables.Real(low=0.0)})
    assert schema.support() is not None
    low, high = schema.support()
    place = schema.modelled.index("income")
    assert low[place] == 0.0 and np.isinf(np.delete(low, place)).all()
    assert np.isinf(high).all()
    with pytest.raises(ValueError, match="'incom', which the frame has not"):
        Schema.from_frame(frame, {"incom": tables.Real()})


def changed(name, value):
    frame = people(50, 0)[0]
    frame[name] = frame[name].astype(object)
    frame.loc[frame.index[3], name] = value
    return frame


@pytest.mark.parametrize(
    "frame, words",
    [
        (people(50, 0)[0].rename(columns={"age": "agee"}), "'age' is missing"),
        (people(50, 0)[0].assign(shoes=1), "'shoes' is unknown"),
        (changed("region", "Q"), "'region': 'Q' in row 3 is none of the categories"),
        (
            changed("age", "old"),
            "'age': numbers are expected. Received: 'old' in row 3",
        ),
        (changed("age", 200), "'age': 200 in row 3 is not within the range"),
        (changed("age", 30.5), "'age': whole numbers are expected"),
        (changed("member", 2), "'member': False or True is expected"),
        (people(50, 0)[0].assign(joined=3.0), "'joined': dates are expected"),
        (people(50, 0)[0].iloc[:0], "The frame is empty"),
        (people(50, 0)[0].assign(height=np.inf), "'height': numbers must be finite"),
        (pd.concat([people(50, 0)[0]] * 2, axis=1), "'age' is there more than once"),
        (np.zeros((3, 8)), "must be a DataFrame"),
    ],
)
def test_frames_that_do_not_fit_are_refused_by_name(frame, words):
    schema = Schema.from_frame(people(300, 0)[1])
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        schema.encode(frame)


@pytest.mark.parametrize(
    "event, words",
    [
        ({}, "a dict of one column or more"),
        ({"shoes": 1}, "no column 'shoes'"),
        ({"age": (50, 40)}, "Column 'age': the interval .* is empty"),
        ({"age": (30.2, 30.8)}, "Column 'age': the interval .* is empty"),
        ({"age": (200, None)}, "Column 'age': the interval .* is empty"),
        ({"age": (1, 2, 3)}, "Column 'age': a range must be"),
        ({"region": ["Q"]}, "Column 'region': 'Q' in row 0 is none of"),
        ({"region": []}, "Column 'region': a list of values must hold one"),
        ({"height": "tall"}, "Column 'height': a number is expected"),
        ({"joined": 3.5}, "Column 'joined': a date is expected"),
        ({"member": None}, "Column 'member': a condition needs a value"),
    ],
)
def test_conditions_that_mean_nothing_are_refused_by_name(event, words):
    schema = Schema.from_frame(people(300, 0)[1])
    with pytest.raises(ValueError, match=words):
        schema.boxes(event)


def rows_within(codes, low, high):
    inside = (codes[:, None] >= low) & (codes[:, None] <= high)
    return inside.all(axis=-1)


@pytest.mark.parametrize(
    "event, meets",
    [
        ({"age": (50, None)}, lambda f: f["age"] >= 50),
        ({"age": (29.5, 40)}, lambda f: f["age"].between(30, 40)),
        ({"region": ["N", "W", "C"]}, lambda f: f["region"].isin(["N", "W", "C"])),
        ({"region": "S", "member": True}, lambda f: (f["region"] == "S") & f["member"]),
        ({"school": ("primary", None)}, lambda f: f["school"] >= "primary"),
        ({"visits": [1, 2, 3, 9]}, lambda f: f["visits"].isin([1, 2, 3, 9])),
        ({"joined": ("2016-01-01", None)}, lambda f: f["joined"] >= "2016-01-01"),
        ({"income": (None, 20000.0)}, lambda f: f["income"] <= 20000),
    ],
)
def test_boxes_hold_the_rows_that_meet_the_conditions_and_no_others(event, meets):
    whole = people(500, 3)[0]
    schema = Schema.from_frame(whole)
    inside = rows_within(schema.encode(whole), *schema.boxes(event))
    assert (inside.sum(axis=1) <= 1).all(), "boxes overlap"
    assert np.array_equal(inside.any(axis=1), meets(whole).to_numpy(bool))


def test_names_and_mixtures_of_kinds_are_no_categories():
    names = pd.DataFrame({"name": [f"p{i}" for i in range(60)]})
    with pytest.raises(ValueError, match="'name': it has 60 different strings"):
        Schema.from_frame(names)
    mixed = pd.DataFrame({"what": ["a", 1, 2.5] * 20})
    with pytest.raises(ValueError, match="'what': its kind cannot be told"):
        Schema.from_frame(mixed)
    constant = pd.DataFrame({"a": [1, 1], "b": [None, None]})
    with pytest.raises(ValueError, match="needs a column that varies"):
        Schema.from_frame(constant)
