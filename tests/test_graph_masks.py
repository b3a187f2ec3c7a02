"""Graphs in NumPy: depths, cycles, sets of parents, and what narrow layers lose."""

import itertools

import numpy as np
import pytest

from keras_made.graph_masks import (
    ancestors,
    check_adjacency,
    choose_sets,
    depths,
    find_cycle,
    least_width,
    make_graph_degrees,
    within,
)
from keras_made.masks import connect, make_hidden_degrees, reachability

pytestmark = pytest.mark.neutral


def random_graph(rng, size):
    """Bools (D, D) of a graph without cycles, of any density and in any order."""
    order, density = rng.permutation(size), rng.rand()
    below = np.tril(rng.rand(size, size) < density, -1)
    return below[np.ix_(order, order)]


GRAPHS = [random_graph(np.random.RandomState(seed), 1 + seed % 9) for seed in range(60)]


def longest_path(graph, i):
    """Edges of the longest path that ends in variable i, found by walking all."""
    parents = np.flatnonzero(graph[i])
    return max((1 + longest_path(graph, j) for j in parents), default=0)


def behind(graph, i):
    heard = set(np.flatnonzero(graph[i]).tolist())
    return heard.union(*(behind(graph, j) for j in heard))


def test_depths_are_longest_paths_and_ancestors_are_behind():
    for graph in GRAPHS:
        size = range(len(graph))
        assert depths(graph).tolist() == [longest_path(graph, i) for i in size]
        found = ancestors(graph)
        assert [set(np.flatnonzero(row).tolist()) for row in found] == [
            behind(graph, i) for i in size
        ]
        assert find_cycle(graph) == []


def test_a_cycle_is_found_and_shown():
    rng, found = np.random.RandomState(0), 0
    for _ in range(100):
        graph = rng.rand(6, 6) < 0.2
        cycle = find_cycle(graph)
        # Powers of the matrix have something on the diagonal when there is a cycle.
        assert bool(cycle) == ancestors(graph).diagonal().any()
        if cycle:
            found += 1
            pairs = list(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
            assert all(graph[i, j] for i, j in pairs)
            with pytest.raises(ValueError, match="{} hears {}".format(*pairs[0])):
                check_adjacency(graph)
    assert 20 < found < 100


@pytest.mark.parametrize(
    "adjacency, message",
    [
        (np.zeros((2, 3), bool), "square"),
        (np.zeros(4, bool), "matrix of booleans"),
        ([[0, 0], [2, 0]], "matrix of booleans"),
        (np.full((2, 2), 0.5), "matrix of booleans"),
        ([[True]], "0 hears 0"),
        ([[0, 1], [1, 0]], "0 hears 1, 1 hears 0"),
    ],
)
def test_what_is_no_graph_is_refused(adjacency, message):
    with pytest.raises(ValueError, match=message):
        check_adjacency(adjacency)


def test_within_is_that_of_sets():
    rng = np.random.RandomState(0)
    a, b = rng.rand(20, 4) < 0.4, rng.rand(15, 4) < 0.6
    sets = [[set(np.flatnonzero(row)) for row in rows] for rows in (a, b)]
    expected = [[s <= t for t in sets[1]] for s in sets[0]]
    assert within(a, b).tolist() == expected


def heard(sets, parents):
    """What outputs hear of elements through one layer of these sets."""
    return reachability([sets.T, within(sets, parents)]).T


def test_sets_keep_every_edge_where_there_is_room_and_else_the_most():
    for graph in GRAPHS:
        wide = least_width(graph)
        counts = []
        for width in range(1, len(graph) + 2):
            sets = choose_sets(graph, width)
            assert len(sets) <= width and len(np.unique(sets, axis=0)) == len(sets)
            through = heard(sets, graph)
            assert not np.any(through & ~graph)
            counts.append(through.sum())
            if width >= wide:
                assert np.array_equal(through, graph)
        assert counts == sorted(counts)
        # With room for all there is a unit for all of the parents of every variable.
        own = choose_sets(graph, len(graph))
        parents = {tuple(row) for row in graph if row.any()}
        assert {tuple(row) for row in own if row.any()} == parents


def test_one_set_after_the_other_is_near_the_best_choice():
    """Greedy choices connect at least 1 - 1/e of what the best sets do."""
    for graph in GRAPHS:
        singles = np.eye(len(graph), dtype=bool)
        candidates = np.unique(np.concatenate([graph, singles]), axis=0)
        for width in (1, 2):
            choices = itertools.combinations(candidates, min(width, len(candidates)))
            best = max(heard(np.array(c), graph).sum() for c in choices)
            found = heard(choose_sets(graph, width), graph).sum()
            assert found >= (1 - np.exp(-1)) * best
            assert width > 1 or found == best


def test_an_ordering_is_the_graph_of_all_that_comes_before():
    """Wide enough, its sets let units hear what its degrees do."""
    for size, width in [(2, 3), (5, 4), (5, 12)]:
        ranks = np.random.RandomState(size).permutation(size)
        graph = ranks[:, None] > ranks
        degrees = make_graph_degrees(graph, [width, width])
        assert degrees.hears.dtype == bool
        hidden = make_hidden_degrees("even", [width, width], size)
        for found, expected in zip(degrees.ranks, hidden, strict=True):
            np.testing.assert_array_equal(found, expected)
        table = connect(degrees.hidden[0][0], degrees.outputs[0], hears=degrees.hears)
        np.testing.assert_array_equal(table, connect(hidden[0][0], ranks, strict=True))
