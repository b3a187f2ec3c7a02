"""How probable boxes are, and draws within them, against enumeration and quadrature."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import all_states, chi_square_p, reload, set_random_weights, to_numpy
from scipy import special, stats

from keras_made import (
    MADE,
    Atoms,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
    Recurrent,
    Transformed,
    compiling,
    flows,
)
from keras_made.densities.drawing import draw_members
from keras_made.densities.queries import summarise

pytestmark = pytest.mark.neutral

INF = np.inf
DOSES = [0.0, 0.5, 10.0]
TABLE = Columns([Bernoulli(), Atoms(DOSES), MixtureOfLogistics(2, 4)])
VALUES = [[0.0, 1.0], DOSES, [0.0, 1.0, 2.0, 3.0]]


def agnostic(num_params=None, **options):
    return MADE([12], num_params, ordering="random", num_masks=3, **options)


MODELS = {
    "made": lambda: (MADE([12]), "bernoulli"),
    "random orders": lambda: (agnostic(), "bernoulli"),
    "members": lambda: (MADE([12], hidden_degrees="random", num_masks=3), "bernoulli"),
    "recurrent": lambda: (Recurrent((3,), 5), "bernoulli"),
    "table": lambda: (MADE([12], TABLE.num_params), TABLE),
    "table, random orders": lambda: (agnostic(TABLE.num_params), TABLE),
}


def states_of(conditional):
    if conditional is not TABLE:
        return all_states(3)
    grid = np.meshgrid(*VALUES, indexing="ij")
    return np.stack([g.ravel() for g in grid], axis=1).astype("float32")


def make(name, with_context=False):
    network, conditional = MODELS[name]()
    model = AutoregressiveDensity(network, conditional)
    model.build(((None, 3), (None, 2)) if with_context else (None, 3))
    set_random_weights(network, scale=0.8)
    return model, states_of(conditional)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    from eager import uncompiled

    with uncompiled():
        model, x = make(request.param)
        return model, x, to_numpy(model.log_prob(x)).astype("float64")


def some_boxes(x, rows, seed):
    """Ends that are values, between values, infinite, and equal."""
    rng = np.random.RandomState(seed)
    ends = np.sort(x[rng.randint(len(x), size=(2, rows))], axis=0)
    low, high = np.sort(ends, axis=0)
    low = np.where(rng.rand(*low.shape) < 0.3, -INF, low - rng.randint(2) * 0.2)
    high = np.where(rng.rand(*low.shape) < 0.3, INF, high)
    return low.astype("float32"), high.astype("float32")


def in_box(x, low, high):
    return ((x >= low[:, None]) & (x <= high[:, None])).all(axis=-1)


def log_prob_in_turn(model, x, low, high):
    """log p of events as an order-agnostic network draws them in a box, mixed."""
    if not model.network.order_agnostic:
        return to_numpy(model.log_prob(x)).astype("float64")
    turns = np.where(low == high, 0, np.where(np.isinf(low) & np.isinf(high), 2, 1))
    turns, known = np.repeat(turns[None], len(x), axis=0), np.ones(x.shape, bool)
    rows = [
        draw_members(
            model,
            np.full(len(x), k, "int32"),
            None,
            np.random.default_rng(0),
            "conditional_log_prob",
            turns,
            x,
            known,
            known,
        )[1]
        for k in model.members
    ]
    return special.logsumexp(np.array(rows, "float64"), axis=0) - np.log(len(rows))


def test_estimates_are_those_of_enumeration_within_their_errors(case):
    model, x, _ = case
    low, high = some_boxes(x, 5, seed=1)
    found, error = model.estimate_interval(low, high, num_particles=240, seed=2)
    found, error = to_numpy(found), to_numpy(error)
    inside = in_box(x, low, high)
    expected = np.array(
        [
            special.logsumexp(log_prob_in_turn(model, x, *box)[chosen])
            for *box, chosen in zip(low, high, inside, strict=True)
        ]
    )
    assert (np.abs(found - expected) <= 4.5 * error + 2e-5).all()
    assert (error < 0.3).all() and (error > 1e-6).any()
    again = model.interval_log_prob(low, high, num_particles=240, seed=2)
    np.testing.assert_array_equal(to_numpy(again), found)


def test_estimates_of_few_particles_are_unbiased_in_p(case):
    """The mean of many estimates is P, though each is of three particles."""
    model, x, _ = case
    low, high = some_boxes(x, 40, seed=3)
    k = np.argmax(np.isfinite(low).sum(axis=1) + np.isfinite(high).sum(axis=1))
    many = [np.repeat(a[k : k + 1], 600, axis=0) for a in (low, high)]
    p = np.exp(to_numpy(model.interval_log_prob(*many, num_particles=3, seed=4)))
    inside = in_box(x, low[k : k + 1], high[k : k + 1])[0]
    expected = np.exp(log_prob_in_turn(model, x, low[k], high[k])[inside]).sum()
    spread = p.std() / np.sqrt(len(p))
    assert abs(p.mean() - expected) < 4.5 * spread + 1e-5


def test_a_box_of_one_point_has_its_log_prob_and_one_without_ends_zero(case):
    model, x, log_prob = case
    found, error = model.estimate_interval(x, x, num_particles=4)
    np.testing.assert_allclose(to_numpy(found), log_prob, atol=2e-5)
    np.testing.assert_allclose(to_numpy(error), 0, atol=1e-6)
    whole = to_numpy(model.interval_log_prob(None, np.inf, num_particles=2))
    assert whole.shape == (1,) and whole[0] == 0


def test_draws_are_within_and_follow_what_is_left(case):
    model, x, _ = case
    low, high = some_boxes(x, 40, seed=5)
    held = in_box(x, low, high).sum(axis=1)
    k = np.argmax((held > 2) & (held < len(x) - 2))
    draws = model.sample(400, low=low[k], high=high[k], num_particles=12, seed=6)
    draws = to_numpy(draws)
    assert ((draws >= low[k]) & (draws <= high[k])).all()
    counts = (draws[:, None] == x).all(axis=-1).sum(axis=0)
    assert counts.sum() == len(draws)
    inside = in_box(x, low[k : k + 1], high[k : k + 1])[0]
    p = np.exp(log_prob_in_turn(model, x, low[k], high[k])[inside])
    assert chi_square_p(counts[inside], p / p.sum()) > 1e-3


@pytest.mark.parametrize("name", ["made", "random orders"])
def test_contexts_belong_to_their_boxes(name):
    model, x = make(name, with_context=True)
    context = np.random.RandomState(0).normal(size=(5, 2)).astype("float32")
    low, high = [-INF, 0, 1], [1, 0, 1]
    found = to_numpy(model.interval_log_prob(low, high, context, 300, seed=0))
    assert found.shape == (5,)
    for row, estimate in zip(context, found, strict=True):
        at = to_numpy(model.log_prob(x[1::4], row))
        # Of random orders, as many densities as there are turns.
        wide = 1e-4 if name == "made" else 0.5
        assert abs(estimate - special.logsumexp(at)) < wide + 0.1
        one = model.interval_log_prob(low, high, row, 300, seed=1)
        np.testing.assert_allclose(to_numpy(one), [estimate], atol=0.1)
    drawn = model.sample(5, context, low=low, high=high, seed=0)
    assert (to_numpy(drawn)[:, 1:] == [0, 1]).all()
    with pytest.raises(ValueError, match="context of size 2"):
        model.interval_log_prob(low, high)


# Real entries -------------------------------------------------------------------------

SUPPORT = (np.array([0.0, -INF]), np.array([INF, INF]))
KINDS = {
    "normal": Normal(),
    "normals": MixtureOfNormals(2),
    "spline": Transformed(flows.Spline(4)),
}


def real_model(kind, network=None, dtype=None):
    conditional = KINDS[kind]
    network = network or MADE([8], conditional.num_params, dtype=dtype)
    model = AutoregressiveDensity(network, conditional, support=SUPPORT, dtype=dtype)
    rng = np.random.RandomState(0)
    model.adapt(np.exp(rng.normal(size=(200, 2))) * [1.0, 50.0])
    model.build((None, 2))
    set_random_weights(model.network, scale=0.4)
    return model


REAL_BOXES = [
    ([0.2, -20.0], [3.0, 70.0]),
    ([0.0, -INF], [1.0, 40.0]),
    ([-5.0, 10.0], [INF, 10.5]),
    ([1.5, -INF], [1.5, 30.0]),
]


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k == "spline")) for k in KINDS]
)
def test_boxes_of_real_entries_are_integrals_in_units_of_the_data(kind):
    model = real_model(kind)
    for low, high in REAL_BOXES:
        found, error = model.estimate_interval(low, high, num_particles=800, seed=0)
        start = np.maximum(low, [1e-6, -600.0])
        end = np.minimum(high, [200.0, 900.0])
        # Even in the logarithm of the first, of which a point is not integrated.
        first = np.geomspace(start[0], end[0], 150) if low[0] < high[0] else start[:1]
        second = np.linspace(start[1], end[1], 250)
        grid = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1)
        density = np.exp(
            to_numpy(model.log_prob(grid.reshape(-1, 2).astype("float32")))
        )
        p = np.trapezoid(density.reshape(grid.shape[:2]), second, axis=1)
        p = np.trapezoid(p, first) if len(first) > 1 else p[0]
        off = np.abs(to_numpy(found)[0] - np.log(p))
        assert off < 4.5 * to_numpy(error)[0] + 0.01
        x = to_numpy(model.sample(100, low=low, high=high, num_particles=10, seed=1))
        assert ((x >= low) & (x <= high) & (x[:, :1] > 0)).all()
        assert ((x[:, 0] == low[0]) == (low[0] == high[0])).all()


def test_draws_in_a_box_of_real_entries_are_those_of_rejection():
    model = real_model("normals")
    low, high = [0.3, -INF], [2.0, 60.0]
    found = model.sample(250, low=low, high=high, num_particles=16, seed=1)
    free = to_numpy(model.sample(8000, seed=2))
    kept = free[((free >= low) & (free <= high)).all(axis=1)]
    assert len(kept) > 300
    for entry in range(2):
        test = stats.ks_2samp(to_numpy(found)[:, entry], kept[:, entry])
        assert test.pvalue > 1e-3


def test_order_agnostic_networks_take_bounded_entries_first():
    """One interval among free entries costs no chance, wherever it stands."""
    model = real_model("normal", agnostic(2))
    for low, high in [([1.0, -INF], [2.0, INF]), ([-INF, 10.0], [INF, 30.0])]:
        _, error = model.estimate_interval(low, high, num_particles=30)
        assert to_numpy(error)[0] < 1e-6
    # After what is observed, too.
    _, error = model.estimate_interval([0.5, 10.0], [1.0, 10.0], num_particles=30)
    assert to_numpy(error)[0] < 1e-6


def test_ends_lie_where_they_are_in_half_a_precision_more():
    """0.1 of float32 is above 0.1: no draw may be below, or above, the ends given."""
    model = real_model("normal")
    for low, high in [(0.1, 0.1000001), (0.7, 0.7000002), (1.3, 1.3000004)]:
        x = to_numpy(model.sample(50, low=[low, -INF], high=[high, INF], seed=0))
        x = x[:, 0].astype("float64")
        assert ((x >= low) & (x <= high)).all()
    with pytest.raises(ValueError, match="differ in float32"):
        model.interval_log_prob([0.5, 0.0], [0.5 + 1e-9, 1.0])


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64")
def test_boxes_under_a_policy_of_float64():
    model = real_model("normals", dtype="float64")
    found, _ = model.estimate_interval([0.5, 0.0], [0.5 + 1e-9, 1.0], seed=0)
    assert keras.backend.standardize_dtype(found.dtype) == "float64"
    middle = to_numpy(model.interval_log_prob([0.5, 0.0], [0.5, 1.0], seed=0))
    expected = middle + np.log(1e-9)
    np.testing.assert_allclose(to_numpy(found), expected, atol=0.05)
    x = to_numpy(model.sample(5, low=[0.5, 0.0], high=[0.5 + 1e-9, 1.0], seed=0))
    assert x.dtype == "float64" and (np.abs(x[:, 0] - 0.5) <= 1e-9).all()


# Work and errors ----------------------------------------------------------------------


def test_the_error_of_an_estimate_is_its_spread():
    rng = np.random.RandomState(0)
    # Three structures that differ more between than within.
    weights = rng.gamma(2.0, size=(3000, 12)) + np.tile([0.0, 5.0, 20.0], 4)
    found = summarise(np.log(weights), 3)
    p = np.exp(found[:, 0])
    np.testing.assert_allclose(p, weights.mean(axis=1), rtol=1e-6)
    errors = found[:, 1] * p
    assert abs(np.sqrt((errors**2).mean()) / p.std() - 1) < 0.05
    assert np.isnan(summarise(np.zeros((1, 1)), 1)[0, 1])
    assert summarise(np.full((1, 6), -INF), 3)[0].tolist() == [-INF, INF]


def test_particles_that_do_not_fit_run_in_groups(monkeypatch):
    model, x = make("members")
    low, high = some_boxes(x, 3, seed=1)
    whole = to_numpy(model.interval_log_prob(low, high, num_particles=300, seed=0))
    monkeypatch.setattr(compiling, "FLOATS_PER_CHUNK", 2**13)
    parts = model.estimate_interval(low, high, num_particles=120, seed=0, verbose=0)
    off = np.abs(to_numpy(parts.log_prob) - whole)
    assert (off < 7 * to_numpy(parts.standard_error) + 1e-5).all()
    job = {"num_particles": 60, "seed": 0, "verbose": 0}
    drawn = to_numpy(model.sample(3, low=low, high=high, **job))
    assert ((drawn >= low) & (drawn <= high)).all()


def test_boxes_of_events_of_several_axes_and_models_from_files(tmp_path):
    network = MADE([6], event_shape=(2, 2), ordering="random", num_masks=2)
    model = AutoregressiveDensity(network)
    model.build((None, 2, 2))
    set_random_weights(network)
    low = np.array([[1, 0], [-INF, -INF]])
    found = model.interval_log_prob(low, 1, num_particles=50, seed=0)
    again = reload(model, tmp_path / "model.keras")
    same = again.interval_log_prob(low, np.ones((1, 2, 2)), num_particles=50, seed=0)
    np.testing.assert_allclose(to_numpy(same), to_numpy(found), rtol=1e-5)
    drawn = to_numpy(model.sample(7, low=low, num_particles=4))
    assert drawn.shape == (7, 2, 2) and (drawn[:, 0, 0] == 1).all()


WRONG = {
    "the wrong way": ([1, 0, 0], [0, 1, 1], r"`low` must not lie.*low=1.0.*\(0, 0\)"),
    "nan": ([0, 0, 0], [1, np.nan, 1], r"`high` must hold numbers.*row 0.*\(0, 1\)"),
    "width": ([0, 0], 1, r"shape of an event, \(3,\).*\(., 3\).*\(2,\) and \(\)"),
    "axes": (np.zeros((2, 2, 3)), 1, r"Received: shapes \(2, 2, 3\)"),
    "no value": (
        [[0, 0, 0], [0, 0, 0.2]],
        [[1, 1, 1], [1, 1, 0.8]],
        r"a value of Bernoulli\(\).*low=0.2 and high=0.8 in row 1, at index \(1, 2\)",
    ),
    "text": (["a"], 1, "`low` must be an array of numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_box_is_refused(name):
    model, _ = make("made")
    low, high, message = WRONG[name]
    for ask in (
        lambda: model.interval_log_prob(low, high),
        lambda: model.sample(2, low=low, high=high),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_what_lies_off_the_support_is_refused():
    model = real_model("normal")
    for low, high in [(-3.0, -1.0), (-3.0, 0.0), (-1.0, -1.0), (INF, INF)]:
        with pytest.raises(ValueError, match=r"between.*at index"):
            model.interval_log_prob([low, 0.0], [high, 1.0])
    with pytest.raises(ValueError, match=r"or that of rows of them, \(4, 2\)"):
        model.sample(4, low=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="num_particles"):
        model.sample(4, low=0.0, num_particles=0)


def test_a_conditional_without_intervals_is_asked_for_nothing_else():
    class Constant(Conditional):
        """As a user writes it."""

        def log_prob(self, params, x):
            return 0.0 * params[..., 0]

        def draw(self, params, uniforms):
            return 0.0 * params[..., 0]

    model = AutoregressiveDensity(MADE([4]), Constant())
    model.build((None, 2))
    assert to_numpy(model.sample(2)).tolist() == [[0, 0]] * 2
    with pytest.raises(NotImplementedError, match=r"Constant.*`interval_log_prob`"):
        model.sample(2, low=0.0)


def test_classes_keep_their_gradient_free_draws_in_one_loop():
    """Events of classes in boxes of classes, with as many classes as there are."""
    network = MADE([9], 4, ordering="random", num_masks=2)
    model = AutoregressiveDensity(network, Categorical(4))
    model.build((None, 2))
    set_random_weights(network)
    low = np.array([[0, 2], [1, 1], [3, 0]])
    parts = [model.interval_log_prob(low, low + d, seed=0) for d in (0, [0, 1])]
    alone = model.interval_log_prob(low + [0, 1], low + [0, 1], seed=0)
    total = np.logaddexp(to_numpy(parts[0]), to_numpy(alone))
    np.testing.assert_allclose(to_numpy(parts[1]), total, atol=0.15)
    assert ops.shape(parts[0]) == (3,)
