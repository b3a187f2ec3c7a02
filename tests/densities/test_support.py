"""The units of the data: bounds, location and scale, in densities and flows alike."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from laws import reload, set_random_weights, to_numpy

from keras_made import (
    MADE,
    AutoregressiveDensity,
    Categorical,
    Columns,
    Ensemble,
    MixtureOfNormals,
    Normal,
    flows,
)
from keras_made.densities.support import Units

pytestmark = pytest.mark.neutral

INF = np.inf
KINDS = {
    "none": (None, None),
    "low": (2.0, None),
    "high": (None, -1.0),
    "both": (-1.0, 3.0),
    "narrow": (1e3, 1e3 + 1.0),
    "one each": ([0.0, -INF, -1.0], [INF, 5.0, 1.0]),
}


def rows(support, n=200, seed=0, size=3):
    """Rows of skewed numbers within the support."""
    rng = np.random.RandomState(seed)
    ends = [
        np.broadcast_to(s * INF if e is None else e, size)
        for e, s in zip(support, (-1, 1), strict=True)
    ]
    columns = []
    for low, high in zip(*ends, strict=True):
        column = rng.gamma(2.0, size=n)
        if np.isfinite(low) and np.isfinite(high):
            column = low + (high - low) * column / (1.0 + column)
        elif np.isfinite(low):
            column = low + column
        else:
            column = (high if np.isfinite(high) else 3.0) - column
        columns.append(column)
    return np.stack(columns, axis=1).astype("float32")


def density(size=3, **options):
    network = MADE([8], 6, kernel_initializer="he_normal")
    return AutoregressiveDensity(network, MixtureOfNormals(2), **options)


MODELS = {
    "density": density,
    "maf": lambda size=3, **options: flows.MAF(size, 2, (8,), **options),
    "spline": lambda size=3, **options: flows.SplineMAF(
        size, 2, (8,), num_bins=4, **options
    ),
    "coupling": lambda size=3, **options: flows.RealNVP(size, 3, (8,), **options),
    "over a density": lambda size=3, **options: flows.NICE(
        size, 2, (8,), base=density(size), **options
    ),
}


def ready(name, support, x, seed=3, scale=0.3):
    model = MODELS[name](x.shape[1], support=support)
    model.build((None, x.shape[1]))
    set_random_weights(model, seed=seed, scale=scale)
    model.adapt(x)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_there_and_back_with_the_slopes_of_autodiff(kind, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 where it is switched on")
    units = Units(KINDS[kind], dtype=dtype)
    x = rows(KINDS[kind]).astype(dtype)
    units.adapt([x[:50], x[50:]])
    z, log_slope = units.standardize(ops.convert_to_tensor(x))
    np.testing.assert_allclose(to_numpy(z).mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(to_numpy(z).std(axis=0), 1.0, atol=1e-3)
    again, back = units.restore(z)
    precision = 1e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(to_numpy(again), x, rtol=precision, atol=precision)
    if kind != "narrow" or dtype == "float64":
        np.testing.assert_allclose(to_numpy(back), -to_numpy(log_slope), atol=1e-3)
    # The slope, from the values on both sides.
    if dtype == "float64":
        step = 1e-6 * np.exp(-to_numpy(log_slope))
        above, below = (
            to_numpy(units.standardize(ops.convert_to_tensor(x + s * step))[0])
            for s in (1, -1)
        )
        slope = (above - below) / (2 * step)
        np.testing.assert_allclose(np.log(slope), to_numpy(log_slope), atol=1e-6)


@pytest.mark.parametrize(
    "name, kind", [*itertools.product(MODELS, ["both", "one each"]), ("maf", "low")]
)
def test_draws_are_inside_and_the_model_survives_a_file(name, kind, tmp_path):
    x = rows(KINDS[kind])
    model = ready(name, KINDS[kind], x)
    # Draws far beyond the data reach the bounds, and stop before them.
    for weight in model.trainable_weights:
        weight.assign(3.0 * weight)
    low, high = model.units.bounds.low, model.units.bounds.high
    draws = to_numpy(model.sample(400, seed=1)).astype("float64")
    assert np.all(draws > low) and np.all(draws < high)
    assert np.all(np.isfinite(draws))
    again = reload(model, tmp_path / "model.keras")
    scores = to_numpy(model.log_prob(x))
    assert np.all(np.isfinite(scores))
    np.testing.assert_array_equal(to_numpy(again.log_prob(x)), scores)
    assert again.support is not None


@pytest.mark.parametrize("name", ["density", "spline", "over a density"])
def test_a_bounded_density_integrates_to_one(name):
    """Over a box, on the unbounded scale: sums of p(x(z)) dx/dz."""
    support = ([0.0, -1.0], [INF, 1.0])
    # Weights so small that all of the density is on the grid.
    model = ready(name, support, rows(support, size=2), scale=0.2)
    axis = np.linspace(-8.0, 8.0, 321, dtype="float32")
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    x, log_slope = model.units.restore(ops.convert_to_tensor(z))
    log_prob = model.log_prob(to_numpy(x), verbose=0)
    total = np.exp(to_numpy(log_prob) + to_numpy(log_slope).sum(axis=1)).sum()
    np.testing.assert_allclose(total * (axis[1] - axis[0]) ** 2, 1.0, atol=0.01)


@pytest.mark.parametrize("name", ["density", "maf"])
def test_a_row_outside_is_refused_by_index_and_has_no_density(name):
    model = ready(name, KINDS["both"], rows(KINDS["both"]))
    x = np.array([[0.0, 0.0, 0.0], [0.0, 3.5, 0.0]], "float32")
    model.compile("adam")
    for verb in (model.log_prob, model.fit, model.evaluate, model.adapt, model.predict):
        with pytest.raises(
            ValueError, match=r"3\.5 in row 1, entry 1.*\(-1\.0, 3\.0\)"
        ):
            verb(x)
    scores = to_numpy(model.log_prob(ops.convert_to_tensor(x)))
    assert np.isfinite(scores[0]) and scores[1] == -INF
    fresh = MODELS[name](support=KINDS["both"])
    with pytest.raises(ValueError, match=r"3\.5 in row 1, entry 1.*\(-1\.0, 3\.0\)"):
        fresh.adapt(x)
    # On a bound: the nearest number inside.
    edges = np.array([[-1.0, 3.0, 0.0]], "float32")
    assert np.isfinite(to_numpy(model.log_prob(edges))).all()


def test_adapt_learns_from_arrays_streams_and_tables_alike():
    x = rows(KINDS["one each"], 100)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return (x[25 * index : 25 * index + 25],)

    context = np.zeros((100, 2), "float32")
    pandas = pytest.importorskip("pandas")
    told = [x, (x, context), Batches(), ((x[i : i + 25],) for i in range(0, 100, 25))]
    told += [pandas.DataFrame(x)]
    learned = []
    for data in told:
        model = flows.MAF(3, 1, (4,), support=KINDS["one each"])
        model.adapt(data)
        learned.append((to_numpy(model.units.loc), to_numpy(model.units.scale)))
    for other in learned[1:]:
        np.testing.assert_allclose(other, learned[0], rtol=1e-5, atol=1e-6)


def test_adapt_comes_before_or_after_anything():
    """Compiled functions read it as it is; a model may learn its context later."""
    x = 100.0 + 20.0 * rows((None, None), 64)
    model = density()
    model.adapt(x)
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit((x, x[:, :2]), verbose=0)
    assert model.context_size == 2
    flow = flows.MAF(3, 1, (4,))
    first = to_numpy(flow.log_prob(x))
    flow.adapt(x)
    second = to_numpy(flow.log_prob(x))
    assert second.mean() > first.mean() + 10.0
    fresh = flows.MAF(3, 1, (4,))
    fresh.adapt(x)
    fresh.require_built()
    for weight, other in zip(
        fresh.trainable_weights, flow.trainable_weights, strict=True
    ):
        weight.assign(other)
    np.testing.assert_allclose(to_numpy(fresh.log_prob(x)), second, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_units_are_kept_whole_where_weights_are_halves(dtype):
    x = 1e5 + 1e-1 * rows((None, None), 64).astype("float64")
    network = MADE([4], 2, dtype=dtype)
    models = [AutoregressiveDensity(network, "normal", dtype=dtype)]
    models += [flows.MAF(3, 1, (4,), dtype=dtype)]
    for model in models:
        model.adapt(x)
        np.testing.assert_allclose(to_numpy(model.units.loc), x.mean(axis=0), rtol=1e-6)
        scores = to_numpy(model.log_prob(x))
        # Three normals of scale 0.14: about e^1.7 where the units are kept.
        assert np.isfinite(scores).all() and np.median(scores) > 0.0


def test_a_constant_column_keeps_the_scale_of_the_data():
    x = rows((None, None), 32)
    x[:, 1] = 0.1
    for model in (density(), flows.MAF(3, 1, (4,))):
        model.adapt(x)
        np.testing.assert_allclose(to_numpy(model.units.scale)[1], 1.0)
        np.testing.assert_allclose(to_numpy(model.units.loc)[1], 0.1, rtol=1e-6)


def test_one_column_is_bounded_and_the_next_is_a_class():
    conditional = Columns([Categorical(3), Normal(), Normal()])
    support = ([-INF, 0.0, -INF], [INF, INF, INF])
    model = AutoregressiveDensity(
        MADE(
            [8], conditional.num_params, ordering="random", num_masks=3, companion=True
        ),
        conditional,
        support=support,
    )
    rng = np.random.RandomState(0)
    x = np.stack(
        [rng.randint(3, size=80), 50.0 * rng.gamma(1.0, size=80), rng.normal(size=80)],
        1,
    ).astype("float32")
    model.adapt(x)
    model.build((None, 3))
    set_random_weights(model, scale=0.3)
    np.testing.assert_array_equal(to_numpy(model.units.loc)[0], 0.0)
    draws = to_numpy(model.sample(300, seed=0))
    assert set(np.unique(draws[:, 0])) <= {0.0, 1.0, 2.0} and (draws[:, 1] > 0).all()
    holes = x.copy()
    holes[::2, 1] = np.nan
    complete = to_numpy(model.impute(holes, seed=0))
    assert (complete[:, 1] > 0).all() and np.isfinite(complete).all()
    np.testing.assert_array_equal(complete[1::2], x[1::2])
    # The chain rule in the data's own units: p(a, b, c) = p(b | a, c) p(a, c).
    seen = np.array([True, False, True])
    given = to_numpy(model.conditional_log_prob(x, seen))
    grid = np.exp(np.linspace(-12.0, 18.0, 3001)).astype("float32")
    many = np.repeat(x[:1], len(grid), axis=0)
    many[:, 1] = grid
    p = np.exp(to_numpy(model.conditional_log_prob(many, seen, verbose=0)))
    np.testing.assert_allclose(np.trapezoid(p, grid), 1.0, atol=0.01)
    assert np.isfinite(given).all()


WRONG = {
    "no pair": 3.0,
    "crossed": (1.0, 0.0),
    "equal": (1.0, 1.0),
    "not a number": (np.nan, 1.0),
    "words": ("a", "b"),
    "three": (0.0, 1.0, 2.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_support_is_refused(name):
    with pytest.raises(ValueError, match="`support` must be a tuple"):
        flows.MAF(2, support=WRONG[name])


def test_a_support_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`support` must hold a number for each entry"):
        flows.MAF(2, support=([0.0, 0.0, 0.0], 1.0)).require_built()
    with pytest.raises(ValueError, match="`support` is for real variables"):
        AutoregressiveDensity(MADE([4]), support=(0, 1))
    with pytest.raises(ValueError, match="`adapt` learns location and scale of real"):
        AutoregressiveDensity(MADE([4])).adapt(np.zeros((4, 2)))
    conditional = Columns([Categorical(2), Normal()])
    model = AutoregressiveDensity(
        MADE([4], conditional.num_params), conditional, support=(0, None)
    )
    with pytest.raises(ValueError, match="a bound for entry 0, which is discrete"):
        model.build((None, 2))


def test_adapt_refuses_a_stream_without_rows_and_events_of_another_shape():
    with pytest.raises(ValueError, match="`adapt` needs rows"):
        flows.MAF(2).adapt(x for x in ())
    model = density()
    model.adapt(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"events of shape \(3,\).*shape \(5, 4\)"):
        model.log_prob(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"adapted to events of shape \(3,\)"):
        model.build((None, 4))


@pytest.mark.parametrize("joined", [False, True])
def test_a_base_with_bounds_is_named_as_the_cause(joined):
    base = density(support=(0.0, 1.0))
    base.build((None, 3))
    base = Ensemble([base]) if joined else base
    flow = flows.MAF(3, 1, (4,), base=base)
    flow.compile("adam")
    with pytest.raises(ValueError, match="a base with bounded support"):
        flow.fit(rows((None, None), 32), verbose=0)
