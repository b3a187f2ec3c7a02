"""MADE over a graph, and over ranks that hold several variables, keeps the laws."""

import itertools

import keras
import numpy as np
import pytest
from laws import (
    all_states,
    chi_square_p,
    dependence,
    past,
    reload,
    run_steps,
    set_random_weights,
    state_index,
    to_numpy,
)

from keras_made import MADE, NADE, AutoregressiveDensity, Categorical, NetworkAverage
from keras_made.graph_masks import ancestors, least_width

pytestmark = pytest.mark.neutral

# JAX has no double precision unless it is told to.
PRECISIONS = ["float32", "float64"][: 1 + (keras.backend.backend() != "jax")]


def random_graph(rng, size):
    """Bools (D, D) of a graph without cycles, of any density and in any order."""
    order, density = rng.permutation(size), rng.rand()
    below = np.tril(rng.rand(size, size) < density, -1)
    return below[np.ix_(order, order)]


def random_ties(rng, size):
    """Ranks of several variables each, none of them left out."""
    groups = rng.randint(1, size + 1)
    ranks = np.concatenate([np.arange(groups), rng.randint(groups, size=size - groups)])
    return rng.permutation(ranks).tolist()


def draw_case(seed):
    """A network drawn from all options, and how it is to be asked."""
    rng = np.random.RandomState(seed)
    size, context_size = rng.randint(1, 8), int(rng.choice([0, 0, 3]))
    options = {
        "hidden_units": [(), (9,), (16, 16), (20, 12)][rng.randint(4)],
        "num_params": rng.choice([None, 2, 3]),
        "residual": rng.rand() < 0.5,
        "companion": rng.rand() < 0.3,
        "activation": rng.choice(["relu", "tanh"]),
        "encoder": Categorical(3) if rng.rand() < 0.3 else None,
        "dtype": rng.choice(PRECISIONS),
    }
    options["direct"] = bool(rng.rand() < 0.5) or not options["hidden_units"]
    if options["hidden_units"] and options["num_params"] and rng.rand() < 0.3:
        options["direct_params"] = 1
    if seed % 3:
        options["adjacency"] = random_graph(rng, size)
    else:
        options["ordering"] = random_ties(rng, size)
        if rng.rand() < 0.5 and options["hidden_units"]:
            options |= {"hidden_degrees": "random", "num_masks": 2}
    if context_size and options.get("num_masks", 1) == 1 and rng.rand() < 0.6:
        options["context_adjacency"] = rng.rand(size, context_size) < 0.5
    return options, size, context_size


def build(options, size, context_size):
    network = MADE(**options)
    network.build((None, size), (None, context_size) if context_size else None)
    set_random_weights(network)
    return network


def random_inputs(rng, network, rows=6):
    x = rng.randint(3, size=(rows, network.event_size)).astype("float32")
    context = rng.normal(size=(rows, network.context_size)).astype("float32")
    return x, context if network.context_size else None


def hears_context(network, rounds=24):
    """Which entry's parameters change with which column of the context."""
    rng, columns = np.random.RandomState(0), network.context_size
    x, context = random_inputs(rng, network, rounds)
    base, result = to_numpy(network.with_params_axis(network(x, context))), []
    for column in range(columns):
        other = context.copy()
        other[:, column] += rng.choice([-2.0, 2.0], size=rounds)
        changed = to_numpy(network.with_params_axis(network(x, other)))
        result.append(np.any(changed != base, axis=(0, 2)))
    return np.stack(result, axis=1)


@pytest.mark.parametrize("seed", range(24))
def test_a_network_hears_its_graph_exactly_and_steps_are_all_at_once(seed):
    options, size, context_size = draw_case(seed)
    network = build(options, size, context_size)
    expected = options.get("adjacency", past(network))
    for structure in range(network.num_masks):
        if network.num_masks == 1:
            np.testing.assert_array_equal(network.connectivity(), expected)
        make_x = None
        if network.encoder:
            make_x = lambda rng, n: rng.randint(3, size=(n, size)).astype("float32")  # noqa: E731
        found = dependence(network, context_size, structure, 96, make_x)
        np.testing.assert_array_equal(found, network.connectivity(structure))
        assert not np.any(found & ~expected)
        x, context = random_inputs(np.random.RandomState(seed), network)
        whole = network(x, context, structure=structure)
        whole = to_numpy(network.with_params_axis(whole))
        for slow in (False, True):
            steps = run_steps(network, x, context, structure, slow=slow)
            np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=1e-4)
    if context_size:
        columns = options.get("context_adjacency", np.ones((size, context_size), bool))
        np.testing.assert_array_equal(hears_context(network), columns)


@pytest.mark.parametrize(
    "graph, steps",
    [
        (np.eye(7, k=-1), 7),
        (np.arange(7)[:, None] == 2 * np.arange(7) + 1, 3),
        (np.arange(7)[:, None] // 4 > np.arange(7) // 4, 2),
        (np.zeros((7, 7)), 1),
    ],
    ids=["chain", "tree", "blocks", "independent"],
)
def test_drawing_takes_as_many_steps_as_the_graph_is_deep(graph, steps, monkeypatch):
    graph = graph.astype(bool)
    if steps == 3:
        graph |= np.arange(7)[:, None] == 2 * np.arange(7) + 2
    model = AutoregressiveDensity(MADE([24], adjacency=graph))
    model.build((None, 7))
    network = model.network
    assert network.num_ranks == steps
    assert network.step_size == np.bincount(network.ranks()).max()
    # Neither way to draw computes the network as a whole.
    monkeypatch.setattr(MADE, "compute_params", None)
    assert model.sample(3).shape == (3, 7)


def make_density(kind, seed=0):
    rng, size = np.random.RandomState(seed), 5
    graph = random_graph(rng, size)
    options = {
        "graph": {"adjacency": graph},
        "graph, companion": {"adjacency": graph, "companion": True},
        "ties": {"ordering": [1, 0, 0, 2, 1]},
        "cycle of ties": {
            "ordering": [1, 0, 0, 0, 1],
            "hidden_degrees": "random",
            "num_masks": 2,
        },
        "all together": {"ordering": [0] * 5},
    }[kind]
    if kind == "average":
        network = NetworkAverage([MADE([8], adjacency=graph) for _ in range(2)])
    else:
        network = MADE([8, 8], **options)
    model = AutoregressiveDensity(network)
    model.build((None, size))
    set_random_weights(network, seed)
    return model


KINDS = ["graph", "graph, companion", "ties", "cycle of ties", "all together"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_sums_to_one_is_drawn_from_and_comes_back(kind, tmp_path):
    model, x = make_density(kind, 3), all_states(5)
    log_prob = to_numpy(model.log_prob(x))
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-4)
    draws = to_numpy(model.sample(4000, seed=5, verbose=0))
    counts = np.bincount(state_index(draws), minlength=len(x))
    assert chi_square_p(counts, np.exp(log_prob)) > 1e-4
    again = reload(model, tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(again.log_prob(x)), log_prob, rtol=1e-5)
    assert again.network.get_config() == model.network.get_config()
    np.testing.assert_array_equal(again.sample(9, seed=1), model.sample(9, seed=1))


def test_what_shares_no_ancestor_is_independent():
    """Of the distribution itself, not of the connections."""
    # Two causes of one effect, which has two effects of its own.
    graph = np.zeros((5, 5), bool)
    graph[[0, 0, 3, 4], [1, 2, 0, 0]] = True
    model, x = AutoregressiveDensity(MADE([8], adjacency=graph)), all_states(5)
    model.build((None, 5))
    set_random_weights(model.network, scale=0.6)
    p = np.exp(to_numpy(model.log_prob(x)))
    above = ancestors(graph) | np.eye(5, dtype=bool)
    kinds = set()
    for i, j in itertools.combinations(range(5), 2):
        both = (p * x[:, i] * x[:, j]).sum()
        apart = (p * x[:, i]).sum() * (p * x[:, j]).sum()
        related = np.any(above[i] & above[j])
        kinds.add(bool(related))
        assert (abs(both - apart) > 1e-5) == related, (i, j)
    assert kinds == {False, True}


@pytest.mark.parametrize("kind", ["graph", "ties"])
def test_rows_are_completed_given_the_graph(kind):
    """Particles in the order of the graph, weighed by what was observed."""
    model, x = make_density(kind, 4), all_states(5)
    p = np.exp(to_numpy(model.log_prob(x)))
    observed = np.array([False, True, False, True, False])
    row = np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    rows = np.tile(np.where(observed, row, np.nan), (400, 1)).astype("float32")
    draws = to_numpy(model.impute(rows, num_particles=32, seed=1, verbose=0))
    fits = np.all(x[:, observed] == row[observed], axis=1)
    expected = np.where(fits, p, 0) / p[fits].sum()
    counts = np.bincount(state_index(draws), minlength=len(x))
    assert abs(counts / 400 - expected).sum() / 2 < 0.1
    # An estimate of log p(missing | observed), where padded steps would count twice.
    found = model.conditional_log_prob(x[fits], observed, num_particles=200, seed=0)
    np.testing.assert_allclose(np.exp(to_numpy(found)), expected[fits], atol=0.05)


def test_networks_of_one_graph_have_an_average():
    graph = random_graph(np.random.RandomState(5), 5)
    other = graph & (np.random.RandomState(1).rand(5, 5) < 2)
    average = NetworkAverage([MADE([8], adjacency=g) for g in (graph, other)])
    model = AutoregressiveDensity(average)
    model.build((None, 5))
    set_random_weights(average)
    np.testing.assert_array_equal(average.connectivity(), graph)
    x = all_states(5)
    p = np.exp(to_numpy(model.log_prob(x)))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-4)
    whole = to_numpy(average.with_params_axis(average(x)))
    np.testing.assert_allclose(run_steps(average, x), whole, atol=1e-4)


def test_narrow_layers_say_what_they_lose_and_which_width_would_do():
    for seed in (0, 1, 5):
        graph = random_graph(np.random.RandomState(seed), 7)
        needed = least_width(graph)
        wide = MADE([needed, 20], adjacency=graph, direct=False)
        wide.build((None, 7))
        np.testing.assert_array_equal(wide.connectivity(), graph)
        direct = MADE([1], adjacency=graph)
        direct.build((None, 7))
        np.testing.assert_array_equal(direct.connectivity(), graph)
        narrow = MADE([1, 20], adjacency=graph, direct=False)
        with pytest.warns(UserWarning, match=f"at least {needed} wide"):
            narrow.build((None, 7))
        set_random_weights(narrow)
        lost = graph & ~narrow.connectivity()
        assert 0 < lost.sum() < graph.sum()
        np.testing.assert_array_equal(dependence(narrow), narrow.connectivity())


def test_a_column_of_context_that_narrow_layers_lose_is_told():
    made = MADE([1], context_adjacency=np.eye(3), direct=False)
    with pytest.warns(UserWarning, match="lose connections"):
        made.build((None, 3), (None, 3))


def test_training_leaves_forbidden_connections_closed():
    graph = random_graph(np.random.RandomState(2), 6)
    model = AutoregressiveDensity(MADE([16, 16], 2, adjacency=graph), "normal")
    model.compile(keras.optimizers.SGD(0.05))
    x = np.random.RandomState(0).normal(size=(64, 6)).astype("float32")
    first = model.evaluate(x, verbose=0, return_dict=True)["loss"]
    model.fit(x, epochs=2, batch_size=16, verbose=0)
    assert model.evaluate(x, verbose=0, return_dict=True)["loss"] < first
    found = dependence(model.network)
    assert not np.any(found & ~graph)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"adjacency": [[0, 1], [1, 0]]}, "0 hears 1, 1 hears 0"),
        ({"adjacency": np.zeros((3, 3)) > 0, "ordering": "random"}, "one of them"),
        ({"adjacency": np.zeros((3, 3)) > 0, "ordering": [0, 1, 1]}, "one of them"),
        (
            {"adjacency": np.zeros((3, 3)) > 0, "hidden_degrees": "random"},
            "one structure of sets",
        ),
        (
            {
                "context_adjacency": np.ones((3, 1)) > 0,
                "ordering": "random",
                "num_masks": 2,
            },
            "one structure of sets",
        ),
        ({"context_adjacency": [True]}, "matrix of booleans"),
        ({"ordering": [0, 2, 2]}, "each of 0..R-1 at least once"),
        ({"ordering": [1, 1]}, "each of 0..R-1 at least once"),
    ],
)
def test_what_fits_no_structure_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MADE([8], **options)


def test_other_sizes_and_staircases_of_sets_are_refused():
    graph = np.tri(3, k=-1, dtype=bool)
    with pytest.raises(ValueError, match=r"`adjacency` must have shape \(4, 4\)"):
        MADE([8], adjacency=graph).build((None, 4))
    with pytest.raises(ValueError, match=r"must have shape \(3, 2\)"):
        made = MADE([8], adjacency=graph, context_adjacency=graph)
        made.build((None, 3), (None, 2))
    with pytest.raises(ValueError, match="of a graph"):
        MADE([8], adjacency=graph, kernel_form="staircase").build((None, 3))
    with pytest.raises(ValueError, match=r"each of 0\.\.2 once"):
        NADE(4, ordering=[0, 1, 1])
