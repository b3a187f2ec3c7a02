"""Masses of intervals and draws within them, of every conditional."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from laws import chi_square_p, to_numpy
from scipy import special, stats
from test_conditionals import gradient, make_params, tensors

from keras_made import (
    Atoms,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
    PiecewiseLinear,
    Transformed,
    flows,
)

pytestmark = pytest.mark.neutral

INF = np.inf
# Few shapes: on JAX each is compiled for, operation by operation.
ROWS, MANY = 200, 3000
PRICES = [-2.0, 0.1, 0.3, 7.5, 100.0]
LISTED = {
    "bernoulli": (Bernoulli(), np.arange(2.0)),
    "categorical": (Categorical(5), np.arange(5.0)),
    "logistics": (MixtureOfLogistics(3, 16), np.arange(16.0)),
    "two levels": (MixtureOfLogistics(2, 2), np.arange(2.0)),
    "atoms": (Atoms(PRICES), np.array(PRICES)),
    "in pieces": (PiecewiseLinear(MixtureOfLogistics(3, 16), [0, 9]), np.arange(16.0)),
}
REAL = {
    "normal": Normal(),
    "normals": MixtureOfNormals(3),
    "one normal": MixtureOfNormals(1),
    "spline": Transformed(flows.Spline(6)),
    "affine": Transformed(flows.Affine()),
}
ALL = {name: c for name, (c, _) in LISTED.items()} | REAL


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    if request.param == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 by a switch of its own")
    return request.param


def boxes(rng, rows, spread):
    """Ends at random: some infinite, some equal."""
    low, high = np.sort(spread * rng.normal(size=(2, rows)), axis=0)
    low, high = np.where(rng.rand(rows) < 0.2, -INF, low), high
    high = np.where(rng.rand(rows) < 0.2, INF, high)
    high = np.where((rng.rand(rows) < 0.1) & np.isfinite(low), low, high)
    low[:2], high[:2] = -INF, INF
    return low, high


def masses(conditional, params, low, high):
    return to_numpy(conditional.interval_log_prob(*tensors(params, low, high)))


def spread_of(conditional):
    values = {Atoms: 40.0, MixtureOfLogistics: 8.0, Categorical: 3.0}
    return values.get(type(conditional), 1.5)


# Masses -------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 20.0])
@pytest.mark.parametrize("name", LISTED)
def test_masses_are_the_sums_of_what_is_inside(name, scale, dtype):
    conditional, values = LISTED[name]
    rng = np.random.RandomState(0)
    params = make_params(conditional, ROWS, scale).astype(dtype)
    low, high = boxes(rng, ROWS, spread_of(conditional))
    # Ends on values are inside, and some intervals lie between two or beyond all.
    low[20:40] = rng.choice(values, 20)
    high[30:50] = np.maximum(rng.choice(values, 20), low[30:50])
    low[50:53], high[50:53] = values[0] + 0.05, values[0] + 0.09
    low[53:56], high[53:56] = values[-1] + 0.5, [values[-1] + 2, INF, 1e9]
    low[56:58], high[56:58] = [-INF, values[0] - 3], values[0] - 0.5
    low, high = low.astype(dtype), high.astype(dtype)
    many = np.repeat(params[:, None], len(values), axis=1)
    x = np.broadcast_to(values.astype(dtype), many.shape[:2])
    each = to_numpy(conditional.log_prob(*tensors(many, x))).astype("float64")
    # Atoms are compared as float32, in which entries travel.
    low, high, at = (a.astype("float32") for a in (low, high, values))
    inside = (at >= low[:, None]) & (at <= high[:, None])
    expected = special.logsumexp(np.where(inside, each, -INF), axis=1)
    found = masses(conditional, params, low.astype(dtype), high.astype(dtype))
    assert found.dtype == dtype
    assert np.array_equal(np.isinf(found), ~inside.any(axis=1))
    tolerance = 1e-4 if dtype == "float32" else 1e-6
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert (found[:2] == 0).all()


@pytest.mark.parametrize("name", REAL)
def test_masses_are_integrals_of_the_density(name, dtype):
    conditional = REAL[name]
    params = make_params(conditional, ROWS, 0.7).astype(dtype)
    low, high = (a.astype(dtype) for a in boxes(np.random.RandomState(1), ROWS, 1.5))
    low[5:8], high[5:8] = 0.25, np.array([1.001, 1.01, 2.0]) * 0.25
    found = masses(conditional, params, low, high)
    assert found.dtype == dtype and (found[:2] == 0).all()
    point = low == high
    x = np.where(point, low, 0.0).astype(dtype)
    at_point = to_numpy(conditional.log_prob(*tensors(params, x)))
    np.testing.assert_array_equal(found[point], at_point[point])
    params, low, high, found, point = (
        a[:24] for a in (params, low, high, found, point)
    )
    start, end = np.maximum(low, -60.0), np.minimum(high, 60.0)
    grid = np.linspace(start, end, 10_001, axis=1).astype("float32")
    many = np.repeat(params[:, None].astype("float32"), grid.shape[1], axis=1)
    density = np.exp(to_numpy(conditional.log_prob(*tensors(many, grid))))
    expected = np.trapezoid(density.astype("float64"), grid.astype("float64"), axis=1)
    np.testing.assert_allclose(
        np.exp(found[~point]), expected[~point], rtol=2e-3, atol=1e-6
    )


@pytest.mark.parametrize("name", REAL)
def test_parts_add_up_to_the_whole(name, dtype):
    conditional = REAL[name]
    params = make_params(conditional, ROWS, 1.0).astype(dtype)
    # Wide, narrow, far out.
    rng = np.random.RandomState(2)
    start = rng.normal(size=ROWS) * rng.choice([1.0, 10.0], ROWS)
    ends = start + np.cumsum(10.0 ** rng.uniform(-3, 1, size=(2, ROWS)), axis=0)
    a, b, c = (e.astype(dtype) for e in (start, *ends))
    parts = [masses(conditional, params, *e) for e in [(a, b), (b, c)]]
    whole = masses(conditional, params, a, c)
    far = np.abs(whole) * (1e-6 if dtype == "float32" else 1e-12)
    thin = 1e-3 if dtype == "float32" else 1e-6
    assert (np.abs(np.logaddexp(*parts) - whole) < thin + far).all()
    low, high = (np.full(ROWS, e, dtype) for e in (-INF, INF))
    sides = [masses(conditional, params, *e) for e in [(low, a), (a, high)]]
    np.testing.assert_allclose(np.logaddexp(*sides), 0, atol=1e-5)


def test_masses_of_the_normal_are_exact_in_the_tails_and_of_slivers(dtype):
    params = np.array([[0.0, 0.0]], dtype)
    normal = Normal(min_scale=1e-12)
    starts = np.array([-200.0, -35.0, -6.0, -1.0, 0.0, 0.5, 3.0, 20.0, 500.0])
    for width in [1e-6, 1e-3, 0.02, 0.09, 0.3, 2.0, 50.0]:
        low = starts.astype(dtype)
        high = (starts + width).astype(dtype)
        some = high > low
        low, high = low[some].astype("float64"), high[some].astype("float64")
        # The lower tail of the mirror image, whose ratio of tails is exact.
        right = low + high > 0
        a, b = np.where(right, -high, low), np.where(right, -low, high)
        ratio = special.log_ndtr(a) - special.log_ndtr(b)
        expected = special.log_ndtr(b) + np.log(-np.expm1(ratio))
        middle, half = (a + b) / 2, (b - a) / 2
        sliver = stats.norm.logpdf(middle) + np.log(2 * half)
        t = np.clip(middle * half, -20, 20)
        sliver = sliver + np.log(np.where(t == 0, 1.0, np.sinh(t) / np.where(t, t, 1)))
        narrow = half * np.maximum(np.abs(middle), 1) < 1e-2
        expected = np.where(narrow, sliver - half**2 / 6, expected)
        rows = np.repeat(params, len(low), axis=0)
        found = masses(normal, rows, low.astype(dtype), high.astype(dtype))
        tolerance = 1e-6 if dtype == "float32" else 1e-8
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_an_interval_of_nan_is_nan_and_the_wrong_way_round_is_empty():
    low, high = (
        np.array(a, "float32") for a in ([np.nan, 0, 1, INF], [0, np.nan, 0, INF])
    )
    for conditional in (Normal(), MixtureOfLogistics(2, 4), MixtureOfNormals(2)):
        found = masses(conditional, make_params(conditional, 4), low, high)
        assert np.isnan(found[:2]).all() and (found[2:] == -INF).all()


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_whatever_the_interval(name):
    conditional = ALL[name]
    low = np.array([-INF, -INF, 0, 0, 0.25, 3, -500, 400, INF, -1e30, 0], "float32")
    high = np.array([INF, 0, INF, 0, 0.3, 1, -490, INF, INF, 1e30, 1e-6], "float32")
    params = make_params(conditional, len(low), 0.3)
    low_, high_ = tensors(low, high)
    slope = gradient(lambda p: conditional.interval_log_prob(p, low_, high_), params)
    assert np.isfinite(slope).all()
    assert (slope[0] == 0).all() and (slope[1] != 0).any()
    uniforms = np.full((len(low), conditional.num_uniforms), 0.3, "float32")
    uniforms = ops.convert_to_tensor(uniforms)
    drawn = conditional.draw_within(*tensors(params), uniforms, low_, high_)
    assert np.isfinite(to_numpy(drawn)).all()


# Draws --------------------------------------------------------------------------------


def uniforms_of(conditional, rows, dtype, seed=0):
    u = np.random.RandomState(seed).rand(rows, conditional.num_uniforms)
    u[:4] = np.array([2.0**-24, 1 - 2.0**-24] * 2)[:, None]
    return u.astype(dtype)


@pytest.mark.parametrize("name", ALL)
def test_draws_are_always_within(name, dtype):
    conditional = ALL[name]
    rng, rows = np.random.RandomState(3), MANY
    params = make_params(conditional, rows, 3.0).astype(dtype)
    low, high = boxes(rng, rows, spread_of(conditional))
    wide = 10.0 ** rng.uniform(-7, 3, rows)
    if conditional.continuous:
        low[rows // 2 :] *= 50
        high = np.where(rng.rand(rows) < 0.5, low + wide, high)
    low, high = low.astype(dtype), np.maximum(low, high).astype(dtype)
    uniforms = uniforms_of(conditional, rows, dtype)
    drawn = to_numpy(conditional.draw_within(*tensors(params, uniforms, low, high)))
    holds = masses(conditional, params, low, high) > -INF
    assert drawn.dtype == dtype and np.isfinite(drawn).all() and holds.sum() > 500
    if not conditional.continuous:
        drawn = drawn.astype("float32")
        conditional.check(drawn)
        low, high = low.astype("float32"), high.astype("float32")
    assert ((drawn >= low) & (drawn <= high))[holds].all()


# Which of two values the smaller uniforms are is another matter.
@pytest.mark.parametrize("name", [name for name in ALL if name != "bernoulli"])
def test_draws_without_ends_are_those_of_draw(name, dtype):
    conditional = ALL[name]
    params = make_params(conditional, ROWS, 1.0).astype(dtype)
    uniforms = np.clip(uniforms_of(conditional, ROWS, dtype), 0.01, 0.99)
    ends = (np.full(len(params), e, dtype) for e in (-INF, INF))
    free = to_numpy(conditional.draw(*tensors(params, uniforms)))
    found = to_numpy(conditional.draw_within(*tensors(params, uniforms, *ends)))
    close = np.isclose(found, free, rtol=1e-4, atol=1e-4)
    # A draw at the border of two classes may fall to either.
    assert (~close).sum() <= (0 if conditional.continuous else 1)


INTERVALS = [(-INF, 0.7), (0.2, 0.9), (0.55, INF), (3.0, 4.5), (-0.004, 0.003)]


@pytest.mark.parametrize("low, high", INTERVALS)
@pytest.mark.parametrize("name", REAL)
def test_draws_within_follow_the_density(name, low, high):
    conditional, rows = REAL[name], MANY
    params = np.repeat(make_params(conditional, 1, 0.5, seed=5), rows, axis=0)
    ends = [np.full(rows, e, "float32") for e in (low, high)]
    uniforms = uniforms_of(conditional, rows, "float32", 7)
    x = to_numpy(conditional.draw_within(*tensors(params, uniforms, *ends)))
    below = masses(conditional, params, ends[0], np.maximum(x, ends[0]))
    parts = np.exp(below - masses(conditional, params, *ends))
    parts = np.where(x > ends[0], parts, 0.0)
    assert stats.kstest(parts, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("low, high", [(-INF, 1.0), (0.5, 8.0), (1.0, INF)])
@pytest.mark.parametrize("name", LISTED)
def test_draws_among_values_follow_their_probabilities(name, low, high):
    conditional, values = LISTED[name]
    rows = MANY
    params = np.repeat(make_params(conditional, 1, 0.5, seed=6), rows, axis=0)
    ends = [np.full(rows, e, "float32") for e in (low, high)]
    uniforms = uniforms_of(conditional, rows, "float32", 8)
    x = to_numpy(conditional.draw_within(*tensors(params, uniforms, *ends)))
    at = values.astype("float32")
    counts = np.array([(x == v).sum() for v in at])
    assert counts.sum() == rows
    each = to_numpy(conditional.log_prob(*tensors(params[: len(at)], at)))
    p = np.exp(each) * ((at >= low) & (at <= high))
    assert (counts[p == 0] == 0).all()
    assert chi_square_p(counts[p > 0], p[p > 0] / p.sum()) > 1e-3


# Tables and conditionals of one's own -------------------------------------------------

KINDS = ["bernoulli", "categorical", "logistics", "atoms", "normals", "spline"]
TABLE = Columns([*[ALL[name] for name in KINDS], Normal(), Bernoulli()])


def test_columns_ask_each_of_their_kinds_together_and_one_by_one():
    size, rows = len(TABLE.conditionals), 40
    rng = np.random.RandomState(9)
    params = rng.normal(size=(rows, size, TABLE.num_params)).astype("float32")
    low, high = (a.reshape(rows, size) for a in boxes(rng, rows * size, 2.0))
    low, high = low.astype("float32"), high.astype("float32")
    uniforms = rng.rand(rows, size, TABLE.num_uniforms).astype("float32")
    expected, drawn = [], []
    for i, c in enumerate(TABLE.conditionals):
        own = params[:, i, : c.num_params]
        noise = uniforms[:, i, : c.num_uniforms]
        expected.append(masses(c, own, low[:, i], high[:, i]))
        ends = low[:, i], high[:, i]
        drawn.append(to_numpy(c.draw_within(*tensors(own, noise, *ends))))
    expected, drawn = np.stack(expected, 1), np.stack(drawn, 1)
    entries = np.broadcast_to(np.arange(size, dtype="int32"), (rows, size))
    for table in (TABLE, TABLE.at(ops.convert_to_tensor(entries.copy()))):
        found = masses(table, params, low, high)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        x = table.draw_within(*tensors(params, uniforms, low, high))
        np.testing.assert_allclose(to_numpy(x), drawn, rtol=1e-4, atol=1e-4)
    shared = TABLE.interval_log_prob(*tensors(params, low[0], high[0]))
    np.testing.assert_allclose(to_numpy(shared)[0], expected[0], rtol=1e-5, atol=1e-5)


def test_a_conditional_that_knows_no_intervals_says_what_to_write():
    class Plain(Conditional):
        """As a user writes it."""

    params, ends = np.zeros((1, 1)), (np.zeros(1), np.ones(1))
    for ask in (
        Plain().interval_log_prob,
        functools.partial(Plain().draw_within, params),
    ):
        with pytest.raises(NotImplementedError, match=r"Plain.*`draw_within`"):
            ask(params, *ends)
