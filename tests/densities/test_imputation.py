"""Sums and integrals are one, and what is missing is drawn given what is there."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from laws import (
    all_states,
    chi_square_p,
    others_slow,
    set_random_weights,
    state_index,
    to_numpy,
)
from scipy import stats

from keras_made import (
    MADE,
    NADE,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
)
from keras_made.compiling import Announced, compiled
from keras_made.densities.drawing import generate_rows, noise_shape, observed_first

pytestmark = pytest.mark.neutral


def make(network, conditional="bernoulli", size=6, context_size=0, scale=0.8, **kwargs):
    """The density, built, with random weights."""
    model = AutoregressiveDensity(network, conditional, **kwargs)
    shape = (None, size)
    model.build((shape, (None, context_size)) if context_size else shape)
    set_random_weights(model.network, scale=scale)
    return model


def agnostic(num_params=None, units=(16,), num_masks=4, **kwargs):
    return MADE(units, num_params, ordering="random", num_masks=num_masks, **kwargs)


def normalization(mean, std):
    """As adapted to data of this mean and standard deviation in each column."""
    layer = keras.layers.Normalization()
    mean, std = np.array(mean), np.array(std)
    layer.adapt(np.stack([mean - std, mean + std]).astype("float32"))
    return layer


# Sums and integrals -------------------------------------------------------------------

TABLE = [Bernoulli(), Categorical(3), MixtureOfLogistics(2, 4), Categorical(2)]
TABLE_LEVELS = (2, 3, 4, 2)
# name: (model, number of values of each variable)
TABLES = {
    "classes": (lambda: make(MADE([12], 3), Categorical(3), 4), (3,) * 4),
    "classes, mixture": (lambda: make(agnostic(3), Categorical(3), 4), (3,) * 4),
    "levels": (lambda: make(agnostic(6), MixtureOfLogistics(2, 5), 3), (5,) * 3),
    "columns": (lambda: make(MADE([12], 6), Columns(TABLE), 4), TABLE_LEVELS),
    "columns, mixture": (lambda: make(agnostic(6), Columns(TABLE), 4), TABLE_LEVELS),
    "columns, nade": (
        lambda: make(NADE(9, 6, ordering="random", num_masks=3), Columns(TABLE), 4),
        TABLE_LEVELS,
    ),
    "some members": (
        lambda: make(agnostic(6), Columns(TABLE), 4, structures=[2, 0]),
        TABLE_LEVELS,
    ),
    "random degrees": (
        lambda: make(
            MADE([30], 6, hidden_degrees="random", num_masks=3), Columns(TABLE), 4
        ),
        TABLE_LEVELS,
    ),
}


def states(levels):
    values = itertools.product(*(range(n) for n in levels))
    return np.array(list(values), dtype="float32")


@pytest.mark.parametrize("name", TABLES)
def test_probabilities_of_a_table_sum_to_one(name):
    build, levels = TABLES[name]
    log_prob = to_numpy(build().log_prob(states(levels)))
    assert abs(np.exp(log_prob.astype("float64")).sum() - 1) < 1e-5


@pytest.mark.parametrize(
    "name",
    others_slow(["columns", "columns, mixture", "columns, nade"], "columns, mixture"),
)
def test_samples_of_a_table_follow_its_probabilities(name):
    build, levels = TABLES[name]
    model = build()
    draws = to_numpy(model.sample(20_000, seed=5, verbose=0)).astype(int)
    counts = np.bincount(np.ravel_multi_index(draws.T, levels), minlength=48)
    assert chi_square_p(counts, np.exp(to_numpy(model.log_prob(states(levels))))) > 1e-3


FAR = {"mean": [500.0, -0.02], "std": [30.0, 0.001]}
REAL = {
    "normal": lambda **kw: make(agnostic(2), Normal(), 2, **kw),
    "normals": lambda **kw: make(agnostic(6), MixtureOfNormals(2), 2, **kw),
    "one order": lambda **kw: make(MADE([9], 6), MixtureOfNormals(2), 2, **kw),
    "columns": lambda **kw: make(
        agnostic(6), Columns([Normal(), MixtureOfNormals(2)]), 2, **kw
    ),
    "one variable": lambda **kw: make(MADE([9], 6), MixtureOfNormals(2), 1, **kw),
}


def grid_of(model, size, points):
    """Points around all draws, `(points**size, size)`, and the volume of a cell."""
    draws = to_numpy(model.sample(4000, seed=0)).astype("float64")
    width = np.ptp(draws, axis=0)
    low, high = draws.min(axis=0) - width / 2, draws.max(axis=0) + width / 2
    axes = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, size)
    return grid.astype("float32"), np.prod((high - low) / (points - 1))


@pytest.mark.parametrize(
    ("name", "units"),
    [
        pytest.param("normals", "standard", marks=pytest.mark.slow),
        *((name, "far") for name in REAL),
    ],
)
def test_densities_integrate_to_one_in_the_datas_units(name, units):
    size = 1 if name == "one variable" else 2
    layer = None
    if units == "far":
        layer = normalization(FAR["mean"][:size], FAR["std"][:size])
    # Weights that keep scales well above a cell of the grid.
    model = REAL[name](normalization=layer, scale=0.4)
    grid, cell = grid_of(model, size, 20_001 if size == 1 else 301)
    log_prob = to_numpy(model.log_prob(grid, verbose=0)).astype("float64")
    assert abs(np.exp(log_prob).sum() * cell - 1) < 5e-3


def test_a_real_and_a_discrete_column_together_have_mass_one():
    columns = Columns([Categorical(3), Normal()])
    layer = normalization([1.0, 500.0], [0.5, 30.0])
    model = make(agnostic(3), columns, 2, normalization=layer, scale=0.4)
    line = np.linspace(0.0, 1000.0, 4001)
    mass = 0.0
    for value in range(3):
        x = np.stack([np.full(4001, value), line], axis=1)
        mass += np.exp(to_numpy(model.log_prob(x))).sum() * 0.25
    assert abs(mass - 1) < 1e-3
    draws = to_numpy(model.sample(2000, seed=0))
    assert set(draws[:, 0]) == {0.0, 1.0, 2.0}
    assert abs(draws[:, 1].mean() - 500.0) < 60.0


def test_normalization_is_a_change_of_units():
    layer = normalization([500.0, 3.0, -7.0], [30.0, 3.0, 0.0])
    plain = make(agnostic(2), Normal(), 3)
    scaled = make(agnostic(2), Normal(), 3, normalization=layer)
    z = np.random.RandomState(0).normal(size=(20, 3)).astype("float32")
    # The last column was constant: it has no scale of its own.
    x = z * [30.0, 3.0, 1.0] + [500.0, 3.0, -7.0]
    expected = to_numpy(plain.log_prob(z)) - np.log(90.0)
    np.testing.assert_allclose(to_numpy(scaled.log_prob(x)), expected, atol=2e-3)
    draws = to_numpy(plain.sample(50, seed=1)) * [30, 3, 1] + [500, 3, -7]
    np.testing.assert_allclose(to_numpy(scaled.sample(50, seed=1)), draws, rtol=1e-4)


def test_data_adapted_to_anew_are_seen_at_once():
    layer = normalization([0.0, 0.0], [1.0, 1.0])
    model = make(agnostic(2), Normal(), 2, normalization=layer)
    x = np.ones((4, 2), "float32")
    before = to_numpy(model.log_prob(x)), to_numpy(model.sample(4, seed=1))
    layer.adapt(np.array([[90.0, 0.0], [110.0, 2.0]], "float32"))
    after = to_numpy(model.log_prob(10 * x * [10, 0.1])), model.sample(4, seed=1)
    assert not np.allclose(after[0], before[0])
    np.testing.assert_allclose(
        to_numpy(after[1]), before[1] * [10, 1] + [100, 1], rtol=1e-4
    )


def test_the_average_of_logits_is_not_a_density():
    model = make(agnostic(units=(20,), num_masks=6), scale=1.5)
    x = all_states(6)
    members = [to_numpy(model.network(x, structure=row)) for row in range(6)]
    averaged = np.mean(members, axis=0).astype("float64")
    log_prob = -np.logaddexp(0, (1 - 2 * x) * averaged).sum(axis=1)
    assert abs(np.exp(log_prob).sum() - 1) > 0.02
    assert abs(np.exp(to_numpy(model.log_prob(x))).sum() - 1) < 1e-5


# Exact imputation ---------------------------------------------------------------------

PATTERNS = all_states(6).astype(bool)
AGNOSTIC = {
    "made": (lambda: agnostic(), lambda ranks: MADE([16], ordering=ranks)),
    "random degrees": (
        lambda: agnostic(units=(40,), hidden_degrees="random", num_masks=3, seed=2),
        None,
    ),
    "nade": (
        lambda: NADE(12, ordering="random", num_masks=4),
        lambda ranks: NADE(12, ordering=ranks),
    ),
}


def member_log_prob(model, observed, make_fixed, x):
    """log p of `x` under the member that completes a pattern, in one pass.

    A network with the one ordering in which the pattern is completed, given the same
    weights, says what the member's joint is: no loop, no sampling.
    """
    order = observed_first(model, observed[None])[0]
    network = model.network
    if make_fixed is None:
        # Random degrees: the same network, told to order its first structure so.
        ranks = np.argsort(order).astype("int32")
        network = MADE.from_config(model.network.get_config())
        network.build((None, len(order)))
        rows = network.all_ranks.copy()
        rows[0] = ranks
        network = _with_rank_rows(network, rows)
    else:
        network = make_fixed(np.argsort(order).tolist())
        network.build((None, len(order)))
    weights = model.network.get_weights()
    if network.num_masks == 1:
        # The position in the cycle of structures is a weight too, an integer.
        weights = [w for w in weights if w.dtype.kind == "f"]
    network.set_weights(weights)
    logits = to_numpy(network(x, structure=0)).astype("float64")
    return -np.logaddexp(0, (1 - 2 * x) * logits).sum(axis=1)


def _with_rank_rows(network, rank_rows):
    for layer in network.masked_layers:
        if layer.degrees.shape[1] == rank_rows.shape[1] and layer.strict:
            layer.degrees = rank_rows
        if layer.source_degrees.shape[1] == rank_rows.shape[1]:
            layer.source_degrees = rank_rows
    return network


def posterior(log_prob, x, row, observed):
    """Enumerated p(state | observed part of `row`), zero where they disagree."""
    agree = np.all((x == row) | ~observed, axis=1)
    p = np.where(agree, np.exp(log_prob - log_prob.max()), 0.0)
    return p / p.sum()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "nade" else [pytest.mark.slow])
        for name in AGNOSTIC
    ],
)
def test_completions_are_exact_draws_for_every_missing_pattern(name):
    build, make_fixed = AGNOSTIC[name]
    model, states_, draws = make(build()), all_states(6), 1000
    rows = np.random.RandomState(3).randint(2, size=(64, 6)).astype("float32")
    x = np.repeat(rows, draws, axis=0)
    observed = np.repeat(PATTERNS, draws, axis=0)
    completed = to_numpy(model.impute(x, observed, seed=4, verbose=0))
    assert np.array_equal(completed[observed], x[observed])
    counts = [
        np.bincount(c, minlength=64) for c in state_index(completed).reshape(64, draws)
    ]
    repeats = [np.repeat(a, 8, axis=0) for a in (rows, PATTERNS)]
    conditional = to_numpy(model.conditional_log_prob(*repeats)).reshape(64, 8)
    p_values = []
    for i, (row, pattern, count) in enumerate(zip(rows, PATTERNS, counts, strict=True)):
        log_prob = member_log_prob(model, pattern, make_fixed, states_)
        expected = posterior(log_prob, states_, row, pattern)
        assert not count[expected == 0].any()
        if pattern.sum() < 6:
            p_values.append(chi_square_p(count, expected))
            at_row = expected[state_index(row[None])[0]]
            np.testing.assert_allclose(
                conditional[i], np.log(at_row), rtol=1e-4, atol=1e-5
            )
    # 63 tests: the smallest by Bonferroni, and all of them together.
    p_values = np.array(p_values)
    assert np.nanmin(p_values) > 1e-3 / 63
    assert stats.kstest(p_values[np.isfinite(p_values)], "uniform").pvalue > 1e-3


@pytest.mark.parametrize("num_blocks", [0, 1])
def test_a_set_heard_first_is_an_order_that_begins_with_it(num_blocks):
    conditional = Columns(TABLE)
    network = NADE(
        8, conditional.num_params, ordering="random", num_masks=4, num_blocks=num_blocks
    )
    model = make(network, conditional, size=4, context_size=2)
    rng = np.random.RandomState(0)
    x = np.stack([rng.randint(levels, size=20) for levels in TABLE_LEVELS], axis=1)
    x, context = x.astype("float32"), rng.normal(size=(20, 2)).astype("float32")
    observed = rng.rand(20, 4) < 0.5
    found = model.conditional_log_prob(x, observed, context)
    # Each row step by step in an order of its own, which hears nothing beforehand.
    one_by_one = generate_rows(
        model,
        model.members[0],
        np.full((20, *noise_shape(model)), 0.5, "float32"),
        context,
        observed_first(model, observed).astype("int32"),
        x,
        np.ones_like(observed),
        ~observed,
    )
    np.testing.assert_allclose(
        to_numpy(found), to_numpy(one_by_one)[:, -1], rtol=1e-4, atol=1e-5
    )


MIXED_ROW = np.array([1.0, 2.0, 3.0, 0.0], "float32")


@pytest.mark.parametrize("network", ["made", "nade"])
def test_missing_classes_and_levels_follow_the_posterior(network):
    made = {"made": lambda: agnostic(6, num_masks=2)}
    made["deep nade"] = lambda: NADE(9, 6, ordering="random", num_masks=2, num_blocks=1)
    made["nade"] = lambda: NADE(9, 6, ordering="random", num_masks=2)
    model = make(made[network](), Columns(TABLE), 4)
    every = states(TABLE_LEVELS)
    for pattern in ([True, False, True, False], [False, False, True, True]):
        observed = np.array(pattern)
        log_prob = model.conditional_log_prob(every, observed)
        agree = np.all((every == MIXED_ROW) | ~observed, axis=1)
        expected = np.where(agree, np.exp(to_numpy(log_prob).astype("float64")), 0.0)
        assert abs(expected.sum() - 1) < 1e-5
        missing = np.where(observed, MIXED_ROW, np.nan)
        completed = model.impute(np.tile(missing, (8000, 1)), seed=6, verbose=0)
        index = np.ravel_multi_index(to_numpy(completed).astype(int).T, TABLE_LEVELS)
        assert chi_square_p(np.bincount(index, minlength=48), expected) > 1e-3


def test_missing_real_values_follow_the_conditional_density_in_the_datas_units():
    layer = normalization(FAR["mean"], FAR["std"])
    model = make(agnostic(6), MixtureOfNormals(2), 2, normalization=layer, scale=0.5)
    line = np.linspace(-0.04, 0.0, 8001)
    x = np.stack([np.full(8001, 530.0), line], axis=1).astype("float32")
    observed = np.array([True, False])
    log_density = model.conditional_log_prob(x, observed, verbose=0)
    density = np.exp(to_numpy(log_density).astype("float64"))
    cumulated = np.cumsum(density) * (line[1] - line[0])
    assert abs(cumulated[-1] - 1) < 1e-3
    completed = to_numpy(model.impute(x, observed, seed=7, verbose=0))
    assert np.array_equal(completed[:, 0], x[:, 0])
    test = stats.kstest(completed[:, 1], lambda v: np.interp(v, line, cumulated))
    assert test.pvalue > 1e-3


def test_rows_are_completed_given_their_own_context():
    model = make(agnostic(num_masks=2), size=4, context_size=2)
    every = all_states(4)
    observed = np.array([False, True, False, True])
    for context in ([2.0, -1.0], [-2.0, 3.0]):
        log_prob = model.conditional_log_prob(every, observed, np.array(context))
        agree = np.all((every == 1) | ~observed, axis=1)
        expected = np.where(agree, np.exp(to_numpy(log_prob).astype("float64")), 0.0)
        both = np.array([context, [0.0, 0.0]] * 4000, "float32")
        completed = model.impute(np.ones((8000, 4)), observed, both, seed=8, verbose=0)
        counts = np.bincount(state_index(to_numpy(completed)[::2]), minlength=16)
        assert chi_square_p(counts, expected) > 1e-3
    with pytest.raises(ValueError, match="context of size 2"):
        model.impute(np.ones((3, 4)), observed)


# Particles ----------------------------------------------------------------------------

FIXED = {
    "one order": lambda: make(MADE([16]), size=5, scale=1.2),
    "random degrees": lambda: make(
        MADE([40], hidden_degrees="random", num_masks=3), size=5, scale=1.2
    ),
    "all orders": lambda: make(agnostic(num_masks=3), size=5, scale=1.2),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("one order", marks=pytest.mark.slow),
        "random degrees",
        pytest.param("all orders", marks=pytest.mark.slow),
    ],
)
def test_particles_converge_to_the_posterior_of_the_mixture(name):
    model, every = FIXED[name](), all_states(5)
    log_prob = to_numpy(model.log_prob(every)).astype("float64")
    row = np.array([1, 0, 1, 1, 0], "float32")
    observed = np.array([False, True, False, True, True])
    expected = posterior(log_prob, every, row, observed)
    distances, num_rows = {}, 1000
    for particles in (2, 16, 96):
        completed = model.impute(
            np.tile(row, (num_rows, 1)),
            observed,
            num_particles=particles,
            seed=9,
            verbose=0,
        )
        counts = np.bincount(state_index(to_numpy(completed)), minlength=32)
        assert not counts[expected == 0].any()
        distances[particles] = np.abs(counts / num_rows - expected).sum() / 2
    # The bias falls like one over the particles, down to the noise of the counts.
    assert distances[96] < 0.06 < distances[2]
    assert distances[16] < distances[2]
    assert chi_square_p(counts, expected) > 1e-4


@pytest.mark.parametrize(
    "name", others_slow(["one order", "random degrees"], "random degrees")
)
def test_conditional_log_prob_is_a_difference_of_log_probs(name):
    model, every = FIXED[name](), all_states(5)
    log_prob = to_numpy(model.log_prob(every)).astype("float64")
    for observed, tolerance in (
        (np.array([True, True, False, False, False]), 1e-4),
        (np.array([False, True, False, True, False]), 0.15),
    ):
        marginal = [
            np.logaddexp.reduce(log_prob[np.all((every == row) | ~observed, axis=1)])
            for row in every
        ]
        found = model.conditional_log_prob(every, observed, num_particles=600, seed=1)
        np.testing.assert_allclose(to_numpy(found), log_prob - marginal, atol=tolerance)
    nothing = to_numpy(model.conditional_log_prob(every, np.zeros(5, bool)))
    np.testing.assert_allclose(nothing, log_prob, rtol=1e-5)
    everything = to_numpy(
        model.conditional_log_prob(every, np.ones(5, bool), num_particles=3)
    )
    np.testing.assert_allclose(everything, 0.0, atol=1e-4)


# Use ----------------------------------------------------------------------------------


def test_several_copies_are_several_draws():
    model = make(agnostic(), size=4)
    row, observed = np.array([1.0, 0.0, 1.0, 0.0]), np.array([True, False, False, True])
    x = np.tile(row, (30, 1))
    copies = to_numpy(model.impute(x, observed, num_copies=200, seed=2, verbose=0))
    assert copies.shape == (200, 30, 4)
    assert (copies[..., observed] == row[observed]).all()
    every = all_states(4)
    log_prob = to_numpy(model.conditional_log_prob(every, observed)).astype("float64")
    agree = np.all((every == row) | ~observed, axis=1)
    expected = np.where(agree, np.exp(log_prob), 0.0)
    counts = np.bincount(state_index(copies.reshape(-1, 4)), minlength=16)
    assert chi_square_p(counts, expected) > 1e-3
    fixed = FIXED["one order"]()
    x = np.full((3, 5), np.nan)
    assert fixed.impute(x, num_particles=5, num_copies=4).shape == (4, 3, 5)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_nan_and_mask_say_the_same(num_particles):
    model = make(agnostic(), size=6)
    rng = np.random.RandomState(1)
    x, observed = rng.randint(2, size=(40, 6)), rng.uniform(size=(40, 6)) < 0.5
    observed[0], observed[1] = True, False
    masked = model.impute(x, observed, num_particles=num_particles, seed=3)
    marked = model.impute(
        np.where(observed, x, np.nan), num_particles=num_particles, seed=3
    )
    np.testing.assert_array_equal(to_numpy(masked), to_numpy(marked))
    assert np.array_equal(to_numpy(masked)[observed], x[observed])


def test_observed_numbers_are_kept_bit_for_bit():
    layer = normalization(FAR["mean"], FAR["std"])
    model = make(agnostic(2), Normal(), 2, normalization=layer)
    x = np.random.RandomState(0).normal(size=(300, 2)) * FAR["std"] + FAR["mean"]
    x = x.astype("float32")
    observed = np.random.RandomState(1).uniform(size=x.shape) < 0.6
    for particles in (1, 2):
        completed = to_numpy(model.impute(x, observed, num_particles=particles))
        np.testing.assert_array_equal(completed[observed], x[observed])
        assert np.isfinite(completed).all()
        assert (completed[~observed] != x[~observed]).all()


@pytest.mark.compiled
@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="nothing is compiled on torch"
)
def test_five_hundred_patterns_are_one_compilation():
    model = make(agnostic(num_masks=2, units=(8,)), size=12)
    traces = []

    def counting(*args):
        traces.append(args)
        return generate_rows(model, *args)

    model._functions["impute"] = Announced(compiled(model, counting), "impute")
    rng = np.random.RandomState(0)
    patterns = np.unpackbits(
        rng.permutation(4096)[:500].astype(">u2").view("uint8").reshape(500, 2), axis=1
    )[:, 4:].astype(bool)
    assert len(np.unique(patterns, axis=0)) == 500
    x = rng.randint(2, size=(500, 12))
    model.impute(x, patterns, seed=1)
    model.impute(x, patterns[::-1], seed=2)
    assert len(traces) == 1


@pytest.mark.slow
def test_long_jobs_run_in_chunks(monkeypatch):
    from keras_made import compiling

    monkeypatch.setattr(compiling, "FLOATS_PER_CHUNK", 2**12)
    model = make(agnostic(), size=6)
    rng = np.random.RandomState(1)
    x, observed = rng.randint(2, size=(150, 6)), rng.uniform(size=(150, 6)) < 0.5
    for particles in (1, 9):
        completed = to_numpy(model.impute(x, observed, None, particles, verbose=0))
        assert np.array_equal(completed[observed], x[observed])
    log_prob = model.conditional_log_prob(x, observed, verbose=0)
    monkeypatch.setattr(compiling, "FLOATS_PER_CHUNK", 2**24)
    whole = model.conditional_log_prob(x, observed, verbose=0)
    np.testing.assert_allclose(to_numpy(log_prob), to_numpy(whole), rtol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has float64 by a switch of its own"
)
def test_double_precision_keeps_observed_numbers_whole():
    layer = keras.layers.Normalization(dtype="float64")
    layer.adapt(np.array([[90.0, 0.0], [110.0, 2.0]]))
    network = agnostic(2, dtype="float64")
    model = make(network, Normal(), 2, normalization=layer, dtype="float64")
    x = np.array([[100.0 + 1e-9, np.nan], [np.nan, np.nan]])
    completed = to_numpy(model.impute(x, seed=1))
    assert completed.dtype == "float64"
    assert completed[0, 0] == x[0, 0]
    assert ops.dtype(model.sample(3)) == "float64"


X = np.zeros((3, 4))
BAD_CALLS = {
    "not booleans": (lambda m: m.impute(X, X), "booleans"),
    "another shape": (lambda m: m.impute(X, np.ones((2, 4), bool)), r"\(3, 4\)"),
    "observed nan": (
        lambda m: m.impute(np.where(X == 0, np.nan, X), np.ones(4, bool)),
        "NaN where `observed` is True, first in row 0",
    ),
    "infinity": (lambda m: m.impute(X + np.inf), "finite"),
    "outside": (lambda m: m.impute(X + 0.5), "0 or 1"),
    "no particles": (lambda m: m.impute(X, num_particles=0), "num_particles"),
    "no copies": (lambda m: m.impute(X, num_copies=0), "num_copies"),
    "nan to score": (
        lambda m: m.conditional_log_prob(X * np.nan, X == 0),
        "finite",
    ),
    "width": (lambda m: m.impute(np.zeros((3, 5))), r"shape \(4,\)"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_named(name):
    call, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        call(make(agnostic(), size=4))


def test_what_lies_under_a_missing_entry_is_not_looked_at():
    model = make(agnostic(), size=4)
    x = np.full((2, 4), -99.0)
    completed = to_numpy(model.impute(x, np.zeros(4, bool), seed=0))
    assert set(completed.ravel()) <= {0.0, 1.0}


def test_many_rows_are_completed_chunk_by_chunk(monkeypatch):
    model = make(agnostic(num_masks=3), size=4)
    x = np.where(np.arange(280).reshape(70, 4) % 3 == 0, np.nan, 1.0)
    monkeypatch.setattr("keras_made.compiling.FLOATS_PER_CHUNK", 1)
    completed = to_numpy(model.impute(x, seed=1, verbose=0))
    assert np.isfinite(completed).all()
    assert (completed[~np.isnan(x)] == 1).all()
    again = to_numpy(model.impute(x, seed=1, verbose=0))
    np.testing.assert_array_equal(completed, again)
