"""Entries that may be missing: as another conditional says, or nothing at all."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from laws import to_numpy
from test_conditionals import (
    ALL as EVERY,
)
from test_conditionals import (
    DISCRETE,
    MIXED,
    gradient,
    make_params,
    mixed_params,
    mixed_rows,
    tensors,
)

from keras_made import (
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    Incomplete,
    MixtureOfLogistics,
    Normal,
)

pytestmark = pytest.mark.neutral

ALL = {name: c for name, c in EVERY.items() if not c.incomplete}
# Two ways to say that columns of a table have holes.
TABLES = {
    "around columns": Incomplete(MIXED),
    "among columns": Columns(
        [c if i in (1, 3) else Incomplete(c) for i, c in enumerate(MIXED.conditionals)]
    ),
}


def some_rows(name, n=40, dtype="float32"):
    """Parameters, values and noise for one of `ALL`."""
    conditional, rng = ALL[name], np.random.RandomState(1)
    params = make_params(conditional, n, scale=1.0)
    noise = rng.uniform(0.01, 0.99, size=(n, conditional.num_uniforms))
    x = to_numpy(conditional.draw(*tensors(params, noise.astype("float32"))))
    return [a.astype(dtype) for a in (params, x, noise)]


def table_rows(table, n=40):
    rng = np.random.RandomState(5)
    x = mixed_rows(n)
    holes = (rng.uniform(size=x.shape) < 0.4) & table.incomplete
    noise = rng.uniform(0.01, 0.99, size=(*x.shape, MIXED.num_uniforms))
    return mixed_params(n), np.where(holes, np.nan, x), noise.astype("float32"), holes


@pytest.mark.parametrize("name", ALL)
def test_what_is_observed_is_as_the_conditional_says(name):
    conditional, incomplete = ALL[name], Incomplete(ALL[name])
    params, x, noise = tensors(*some_rows(name))
    for found, expected in (
        (incomplete.log_prob(params, x), conditional.log_prob(params, x)),
        (incomplete.draw(params, noise), conditional.draw(params, noise)),
        (incomplete.mean(params), conditional.mean(params)),
        (incomplete.encode(x)[..., :-1], conditional.encode(x)),
        (incomplete.encode(x)[..., -1], ops.ones_like(x)),
    ):
        np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))
    assert incomplete.num_features == conditional.num_features + 1
    assert incomplete.continuous == conditional.continuous


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ALL)
def test_what_is_missing_is_heard_as_nothing_and_counts_nothing(name, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 by a switch of its own")
    if dtype == "float16" and "65536" in name:
        pytest.skip("float16 has no such levels")
    incomplete = Incomplete(ALL[name])
    params, x, _ = some_rows(name, dtype=dtype)
    params = params.astype("float64" if dtype == "float64" else "float32")
    holes = np.arange(len(x)) % 3 == 0
    x = ops.convert_to_tensor(np.where(holes, np.nan, x).astype(dtype))
    features = to_numpy(incomplete.encode(x))
    assert np.isfinite(features).all()
    assert not features[holes].any()
    assert (features[~holes, -1] == 1).all()
    log_prob = to_numpy(incomplete.log_prob(*tensors(params), x))
    assert np.isfinite(log_prob).all() and not log_prob[holes].any()
    slope = gradient(lambda p: incomplete.log_prob(p, x), params)
    assert np.isfinite(slope).all() and not slope[holes].any()
    assert slope[~holes].any(axis=1).all()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_holes_is_its_columns_with_holes(name):
    table = TABLES[name]
    params, x, noise, holes = table_rows(table)
    filled = np.where(holes, mixed_rows(len(x)), x)
    log_prob = to_numpy(table.log_prob(*tensors(params, x)))
    complete = to_numpy(MIXED.log_prob(*tensors(params, filled)))
    expected = np.where(holes, 0.0, complete)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)
    features = to_numpy(table.encode(*tensors(x)))
    assert features.shape[-1] == table.num_features == 5
    assert np.isfinite(features).all()
    assert not features[holes].any()
    of_filled = to_numpy(table.encode(*tensors(filled)))
    np.testing.assert_array_equal(features[~holes], of_filled[~holes])
    np.testing.assert_array_equal(
        to_numpy(table.draw(*tensors(params, noise))),
        to_numpy(MIXED.draw(*tensors(params, noise))),
    )
    slope = gradient(lambda p: table.log_prob(p, ops.convert_to_tensor(x)), params)
    assert np.isfinite(slope).all() and not slope[holes].any()


@pytest.mark.parametrize("shared", [True, False], ids=["one order", "orders of rows"])
@pytest.mark.parametrize("name", TABLES)
def test_entries_named_by_index_may_be_missing_too(name, shared):
    table = TABLES[name]
    params, x, noise, _ = table_rows(table, 20)
    rng = np.random.RandomState(4)
    entries = np.stack([rng.permutation(7)[:3] for _ in range(1 if shared else 20)])
    full = np.broadcast_to(entries, (20, 3))

    def pick(array):
        index = full.reshape(20, 3, *[1] * (array.ndim - 2))
        return np.take_along_axis(array, index, axis=1)

    at = table.at(ops.convert_to_tensor(entries.astype("int32")))
    for verb, arrays in (
        ("log_prob", (params, x)),
        ("draw", (params, noise)),
        ("encode", (x,)),
    ):
        found = getattr(at, verb)(*tensors(*map(pick, arrays)))
        expected = pick(to_numpy(getattr(table, verb)(*tensors(*arrays))))
        np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5)


# Checks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in DISCRETE if name in ALL])
def test_holes_are_allowed_and_nothing_else_that_was_not(name):
    conditional, levels = DISCRETE[name]
    x = np.zeros((4, 2, 3))
    x[1, 0, 2] = x[3, 1, 1] = np.nan
    Incomplete(conditional).check(x)
    x[2, 1, 0] = levels
    with pytest.raises(ValueError, match=rf"Received: {levels}.0 in row 2"):
        Incomplete(conditional).check(x)


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_a_table_are_checked_around_their_holes(name):
    table = TABLES[name]
    x = table_rows(table)[1]
    table.check(x)
    x[3, 0] = 7
    with pytest.raises(ValueError, match=r"column 0.*7.0 in row 3"):
        table.check(x)
    with pytest.raises(ValueError, match=r"7 conditionals.*shape \(6,\)"):
        table.check(x[:, :6])


def test_a_column_that_is_complete_may_have_no_hole():
    x = mixed_rows(4)
    x[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"column 3.*nan in row 2"):
        TABLES["among columns"].check(x)


REFUSED = {
    "twice": lambda: Incomplete(Incomplete("normal")),
    "in a column too": lambda: Incomplete(Columns([Incomplete("normal"), "normal"])),
    "columns of columns": lambda: Columns([Incomplete(Columns([Normal()])), Normal()]),
    "a name": lambda: Incomplete("poisson"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_incomplete_is_refused(name):
    with pytest.raises(ValueError, match="Received"):
        REFUSED[name]()


@pytest.mark.parametrize(
    "one, other",
    list(itertools.combinations([Bernoulli(), Categorical(2), Normal()], 2)),
    ids=repr,
)
def test_it_is_told_apart_by_what_it_holds(one, other):
    assert Incomplete(one) == Incomplete(one)
    assert Incomplete(one) != Incomplete(other) and Incomplete(one) != one
    columns = Columns([Incomplete(one), one, Incomplete(other), Incomplete(one)])
    assert columns.kind_of.tolist() == [0, 1, 2, 0]
    assert columns.incomplete.tolist() == [True, False, True, True]


class Uniform(Conditional):
    """A number between 0 and 1, which has intervals; the parameter says nothing."""

    def interval_log_prob(self, params, low, high):
        return ops.log(high - low)

    def draw(self, params, uniforms):
        return uniforms[..., 0]

    def draw_within(self, params, uniforms, low, high):
        return low + (high - low) * uniforms[..., 0]


def test_intervals_are_those_of_the_conditional():
    low, high = tensors(np.array([[0.1, 0.2]]), np.array([[0.3, 0.6]]))
    params, noise = tensors(np.zeros((1, 2, 1)), np.full((1, 2, 1), 0.5))
    incomplete = Incomplete(Uniform())
    for it in (incomplete, incomplete.at(ops.convert_to_tensor([[1, 0]]))):
        mass = to_numpy(it.interval_log_prob(params, low, high))
        np.testing.assert_allclose(mass, np.log([[0.2, 0.4]]), rtol=1e-5)
        drawn = to_numpy(it.draw_within(params, noise, low, high))
        np.testing.assert_allclose(drawn, [[0.2, 0.4]], rtol=1e-5)


def test_grey_in_the_middle_is_no_hole():
    """Of features that are zero, the flag says which are of nothing."""
    levels = Incomplete(MixtureOfLogistics(2, 5))
    features = to_numpy(levels.encode(ops.convert_to_tensor([2.0, np.nan])))
    np.testing.assert_array_equal(features, [[0.0, 1.0], [0.0, 0.0]])
