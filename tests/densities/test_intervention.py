"""Draws under do(x_j = v): the truncated factorization, and closed forms."""

import itertools

import numpy as np
import pytest
from laws import (
    all_states,
    chi_square_p,
    set_random_weights,
    state_index,
    to_numpy,
)

from keras_made import MADE, NADE, AutoregressiveDensity, Bernoulli, Columns, Normal
from keras_made.graph_masks import ancestors, depths

pytestmark = pytest.mark.neutral

# 0 and 1 are causes of 2; 2 of 3 and 4; 1 of 4 as well.
GRAPH = np.zeros((5, 5), bool)
GRAPH[[2, 2, 3, 4, 4], [0, 1, 2, 2, 1]] = True


def linear_gaussian(weights, means, scales):
    """x_i = means_i + sum_j weights[i, j] x_j + scales_i noise, as a `MADE`."""
    network = MADE((), 2, adjacency=weights != 0)
    model = AutoregressiveDensity(network, "normal")
    size = len(means)
    model.build((None, size))
    kernel = np.zeros((size, size, 2))
    kernel[..., 0] = weights.T
    raw = np.log(np.expm1(np.asarray(scales) - 1e-3)) - np.log(np.expm1(1.0))
    bias = np.stack([means, raw], axis=1).ravel()
    layer = network.direct_layer
    layer.kernel.assign(kernel.reshape(size, 2 * size))
    layer.bias.assign(bias)
    return model


def moments(weights, means, scales):
    """Mean and covariance of the solution of the linear equations."""
    mixing = np.linalg.inv(np.eye(len(means)) - weights)
    return mixing @ means, mixing @ np.diag(scales**2) @ mixing.T


def do(weights, means, scales, values):
    """The equations of set variables are replaced by their values."""
    weights, means, scales = weights.copy(), means.copy(), scales.copy()
    for entry, value in values.items():
        weights[entry], means[entry], scales[entry] = 0.0, value, 0.0
    return weights, means, scales


def draw_equations(seed):
    rng = np.random.RandomState(seed)
    weights = np.where(GRAPH, rng.choice([-1, 1], (5, 5)) * rng.uniform(0.5, 1.5), 0)
    return weights, rng.normal(size=5), rng.uniform(0.5, 1.5, size=5)


@pytest.mark.parametrize("values", [{2: 1.5}, {0: -1.0, 2: 0.5}, {4: 2.0}, {}])
def test_a_linear_gaussian_graph_answers_in_closed_form(values):
    equations = draw_equations(0)
    model = linear_gaussian(*equations)
    x = to_numpy(model.intervene(4000, values, seed=1, verbose=0))
    mean, covariance = moments(*do(*equations, values))
    deviation = np.sqrt(covariance.diagonal())
    assert np.all(np.abs(x.mean(axis=0) - mean) <= 5 * deviation / 4000**0.5 + 1e-6)
    spread = np.outer(deviation, deviation)
    assert np.all(np.abs(np.cov(x.T) - covariance) <= 0.12 * spread + 1e-6)


def test_to_set_is_not_to_see():
    """An effect that is set says nothing of its causes; one that is seen does."""
    weights, means, scales = draw_equations(0)
    model = linear_gaussian(weights, means, scales)
    mean, covariance = moments(weights, means, scales)
    value = mean[2] + 2 * covariance[2, 2] ** 0.5
    seen = np.full((600, 5), np.nan, "float32")
    seen[:, 2] = value
    seen = to_numpy(model.impute(seen, num_particles=50, seed=0, verbose=0))
    was_set = to_numpy(model.intervene(600, {2: value}, seed=0, verbose=0))
    shift = covariance[0, 2] / covariance[2, 2] * (value - mean[2])
    np.testing.assert_allclose(was_set[:, 0].mean(), mean[0], atol=0.25)
    np.testing.assert_allclose(seen[:, 0].mean(), mean[0] + shift, atol=0.3)
    assert abs(shift) > 0.8


def binary_model(network, seed=0):
    model = AutoregressiveDensity(network)
    model.build((None, 5))
    set_random_weights(network, seed)
    return model


NETWORKS = {
    "graph": lambda: MADE([8, 8], adjacency=GRAPH),
    "ties": lambda: MADE([8], ordering=[1, 0, 0, 2, 1]),
    "ordering": lambda: MADE([8], ordering=[3, 1, 4, 0, 2]),
    "nade": lambda: NADE(6, ordering="reversed"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_draws_follow_the_truncated_factorization(name):
    """By enumeration: what is set and what keeps its value counts nothing."""
    model, states = binary_model(NETWORKS[name](), 3), all_states(5)
    logits = to_numpy(model.network(states))
    terms = -np.logaddexp(0, np.where(states > 0, -logits, logits))
    heard = ancestors(model.network.connectivity())
    row = np.array([1, 0, 1, 1, 0], "float32")
    for entry, known in itertools.product([1, 2], [False, True]):
        follows = heard[:, entry]
        x = np.tile(row if known else np.full(5, np.nan), (1500, 1))
        draws = to_numpy(model.intervene(x, {entry: 1 - row[entry]}, seed=2, verbose=0))
        target = np.where(np.arange(5) == entry, 1 - row, row)
        # Those that are not drawn: the set one, and in known rows what it leaves alone.
        fixed = np.arange(5) == entry
        fixed = fixed | ~follows if known else fixed
        fits = np.all(states[:, fixed] == target[fixed], axis=1)
        expected = np.where(fits, np.exp(terms[:, ~fixed].sum(axis=1)), 0)
        np.testing.assert_allclose(expected.sum(), 1, rtol=1e-4)
        counts = np.bincount(state_index(draws), minlength=len(states))
        assert counts[~fits].sum() == 0
        possible = expected > 0
        assert chi_square_p(counts[possible], expected[possible]) > 1e-4


def test_rows_may_set_entries_of_their_own():
    rng = np.random.RandomState(0)
    model = binary_model(NETWORKS["graph"]())
    x = rng.randint(2, size=(64, 5)).astype("float32")
    values = np.where(rng.rand(64, 5) < 0.3, 1 - x, np.nan)
    draws = to_numpy(model.intervene(x, values, seed=0))
    is_set = ~np.isnan(values)
    follows = (is_set @ ancestors(GRAPH).T.astype(int) > 0) & ~is_set
    np.testing.assert_array_equal(draws[is_set], values[is_set])
    alone = ~is_set & ~follows
    np.testing.assert_array_equal(draws[alone], x[alone])
    assert np.any(draws[follows] != x[follows])
    # One row of values for all, a dict of a value for each row, and the same noise.
    by_dict = model.intervene(x, {2: 1 - x[:, 2], 0: 1.0}, seed=3)
    rows = np.full((64, 5), np.nan)
    rows[:, 2], rows[:, 0] = 1 - x[:, 2], 1.0
    np.testing.assert_array_equal(by_dict, model.intervene(x, rows, seed=3))
    one = np.array([np.nan, 1, np.nan, np.nan, 0])
    np.testing.assert_array_equal(
        model.intervene(x, one, seed=3), model.intervene(x, {1: 1, 4: 0}, seed=3)
    )


def test_units_contexts_and_columns_are_those_of_the_data():
    rng = np.random.RandomState(0)
    columns = Columns([Bernoulli(), Normal(), Normal(), Bernoulli(), Normal()])
    model = AutoregressiveDensity(MADE([12], 2, adjacency=GRAPH), columns)
    x = rng.normal(size=(50, 5)).astype("float32") * 10 + 100
    x[:, [0, 3]] = rng.randint(2, size=(50, 2))
    context = rng.normal(size=(50, 2)).astype("float32")
    model.build(((None, 5), (None, 2)))
    model.adapt(x)
    draws = to_numpy(model.intervene(x, {2: 120.0}, context, seed=0))
    np.testing.assert_array_equal(draws[:, :2], x[:, :2])
    np.testing.assert_array_equal(draws[:, 2], 120.0)
    assert set(np.unique(draws[:, 3])) <= {0.0, 1.0}
    assert np.all(np.abs(draws[:, 4] - 100) < 100) and np.any(draws[:, 4] != x[:, 4])
    with pytest.raises(ValueError, match="context"):
        model.intervene(x, {2: 120.0})
    with pytest.raises(ValueError, match="Bernoulli"):
        model.intervene(x, {3: 0.5}, context)


@pytest.mark.parametrize(
    "x, values, message",
    [
        (3, {5: 1.0}, "entries from 0 to 4"),
        (3, {"a": 1.0}, "entries from 0 to 4"),
        (3, np.zeros(4), "fit rows of shape"),
        (0, {}, "at least 1"),
        (np.zeros((2, 4)), {}, "rows of shape"),
        (np.zeros(5), {}, "rows of shape"),
    ],
)
def test_what_fits_no_row_is_refused(x, values, message):
    with pytest.raises(ValueError, match=message):
        binary_model(NETWORKS["graph"]()).intervene(x, values)


def test_a_cycle_of_orderings_has_no_one_answer():
    network = MADE([8], ordering="random", num_masks=2)
    model = binary_model(network)
    with pytest.raises(ValueError, match="one structure"):
        model.intervene(3, {0: 1.0})
    one = AutoregressiveDensity(network, structures=[1])
    one.build((None, 5))
    assert one.intervene(3, {0: 1.0}).shape == (3, 5)
    assert depths(network.connectivity(1)).tolist() == network.ranks(1).tolist()
