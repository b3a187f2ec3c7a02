"""Structure is integers: small cases by hand, properties by enumeration."""

import itertools

import numpy as np
import pytest

from keras_made.masks import (
    connect,
    make_hidden_degrees,
    make_orderings,
    reachability,
)

pytestmark = pytest.mark.neutral


def reach(size, layers):
    chain = [np.arange(size), *(degrees[0] for degrees in layers)]
    masks = [connect(s, t) for s, t in itertools.pairwise(chain)]
    return reachability([*masks, connect(chain[-1], np.arange(size), strict=True)])


def test_connect_by_hand():
    inputs, hidden = np.array([0, 1, 2]), np.array([0, 0, 1, 1])
    assert connect(inputs, hidden).astype(int).tolist() == [
        [1, 1, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
    ]
    assert connect(hidden, inputs, strict=True).astype(int).tolist() == [
        [0, 1, 1],
        [0, 1, 1],
        [0, 0, 1],
        [0, 0, 1],
    ]


def test_orderings_by_hand():
    assert make_orderings("natural", 3).tolist() == [[0, 1, 2]]
    assert make_orderings("reversed", 3, 2).tolist() == [[2, 1, 0], [2, 1, 0]]
    assert make_orderings([2, 0, 1], 3).tolist() == [[2, 0, 1]]


def test_random_orderings_are_permutations_that_a_seed_keeps():
    rows = make_orderings("random", 9, num_masks=20, seed=3)
    assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(9), (20, 1)))
    assert len(np.unique(rows, axis=0)) == 20
    assert np.array_equal(rows, make_orderings("random", 9, num_masks=20, seed=3))
    assert not np.array_equal(rows, make_orderings("random", 9, 20, seed=4))


def test_the_random_stream_is_frozen():
    # These numbers are what saved models rely on: they may never change.
    assert make_orderings("random", 6, 2, seed=7).tolist() == FROZEN_ORDERINGS
    degrees = make_hidden_degrees("random", [5, 4], 6, num_masks=2, seed=7)
    assert [layer.tolist() for layer in degrees] == FROZEN_DEGREES


FROZEN_ORDERINGS = [[5, 0, 3, 2, 1, 4], [4, 1, 3, 0, 5, 2]]
FROZEN_DEGREES = [
    [[2, 1, 2, 1, 2], [1, 2, 1, 1, 1]],
    [[4, 1, 4, 1], [3, 4, 4, 4]],
]


@pytest.mark.parametrize(
    "ordering", ["sideways", [0, 1], [0, 0, 1], [1, 2, 3], [[0, 1, 2]], [0.0, 1.5, 2]]
)
def test_a_bad_ordering_is_named(ordering):
    with pytest.raises(ValueError, match="ordering"):
        make_orderings(ordering, 3)


def test_even_degrees_by_hand():
    def even(units, size, context=False):
        layers = make_hidden_degrees("even", units, size, context)
        return [layer[0].tolist() for layer in layers]

    assert even([6], 4) == [[0, 0, 1, 1, 2, 2]]
    assert even([4], 4, context=True) == [[-1, 0, 1, 2]]
    # Three units for eight variables: cuts after the 2nd, 4th and 6th.
    assert even([3], 8) == [[1, 3, 5]]
    # The wider layer uses the values of the narrower one.
    assert even([6, 3], 8) == [[1, 1, 3, 3, 5, 5], [1, 3, 5]]
    assert even([1], 8, context=True) == [[-1]]
    assert even([2], 1) == [[-1, -1]]


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("units", [[1], [2], [3], [7], [40], [9, 2], [3, 5, 4]])
def test_even_degrees_keep_the_most_dependencies(size, units):
    """No choice of degrees for the narrowest layer alone connects more pairs."""
    kept = reach(size, make_hidden_degrees("even", units, size)).sum()
    narrowest = min([*units, size - 1])
    best = max(
        reach(size, [np.array([degrees])]).sum()
        for degrees in itertools.combinations_with_replacement(
            range(size - 1), narrowest
        )
    )
    assert kept == best


@pytest.mark.parametrize("size", [1, 2, 5, 30])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", ["even", "random"])
@pytest.mark.parametrize("units", [[1], [4], [50, 3, 50]])
def test_every_hidden_unit_lives(size, context, kind, units):
    """It hears something, is heard by some output, and context reaches output 0."""
    layers = make_hidden_degrees(kind, units, size, context, num_masks=3, seed=1)
    sources = np.full(3, -1 if context or size == 1 else 0)
    for degrees in layers:
        assert degrees.shape[0] == 3
        assert (degrees.min(axis=1) >= sources).all()
        assert degrees.max() <= max(size - 2, -1)
        if context:
            assert (degrees == -1).any(axis=1).all()
        sources = degrees.min(axis=1)


def test_random_degrees_start_from_the_smallest_of_the_layer_before():
    layers = make_hidden_degrees("random", [2, 60], 20, num_masks=10, seed=0)
    assert (layers[1].min(axis=1) >= layers[0].min(axis=1)).all()
    assert len(np.unique(layers[0], axis=0)) > 1


def test_equal_widths_share_degrees_when_asked():
    first, second = make_hidden_degrees(
        "random", [8, 8], 20, num_masks=4, share_equal_widths=True
    )
    assert np.array_equal(first, second)


def test_unknown_degrees_are_named():
    with pytest.raises(ValueError, match="'even' or 'random'"):
        make_hidden_degrees("odd", [4], 5)
