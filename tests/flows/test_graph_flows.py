"""Flows over a graph: who hears whom, there and back, as a loop, from a file."""

import numpy as np
import pytest
from keras import ops
from laws import reload, set_random_weights, to_numpy

from keras_made import MADE, flows
from keras_made.flows.looped import Looped, looped

pytestmark = pytest.mark.neutral

FAMILIES = {"maf": flows.MAF, "iaf": flows.IAF, "spline": flows.SplineMAF}


def random_graph(rng, size):
    order = rng.permutation(size)
    return np.tril(rng.rand(size, size) < 0.4, -1)[np.ix_(order, order)]


def make(name, seed, num_steps, context_size=0, **options):
    rng = np.random.RandomState(seed)
    flow = FAMILIES[name](
        6,
        num_steps,
        hidden_units=[12, 12],
        adjacency=random_graph(rng, 6),
        context_size=context_size,
        **options,
    )
    flow.require_built()
    set_random_weights(flow, scale=0.3)
    return flow


def normal(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype("float32")


def moved_by(function, x):
    """Which entries of the result change with which entry of x: bools (D, D)."""
    base, result = to_numpy(function(x)), []
    for j in range(x.shape[1]):
        other = x.copy()
        other[:, j] += 1.0
        result.append(np.any(to_numpy(function(other)) != base, axis=0))
    return np.stack(result, axis=1)


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("name", ["maf", "spline"])
def test_noise_hears_as_many_generations_as_there_are_steps(name, num_steps):
    flow = make(name, 1, num_steps)
    hears = flow.adjacency | np.eye(6, dtype=bool)
    expected = np.linalg.matrix_power(hears.astype(int), num_steps) > 0
    found = moved_by(lambda x: flow.to_noise(x)[0], normal(40, 6))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name, context_size", [("maf", 2), ("iaf", 0), ("spline", 0)])
def test_there_and_back_as_a_loop_and_from_a_file(name, context_size, tmp_path):
    columns = np.random.RandomState(0).rand(6, 2) < 0.5 if context_size else None
    flow = make(name, 3, 3, context_size, context_adjacency=columns)
    context = normal(8, 2, seed=1) if context_size else None
    u = normal(8, 6)
    x, log_det = flow.to_data(u, context)
    back, log_det_back = flow.to_noise(x, context)
    np.testing.assert_allclose(to_numpy(back), u, atol=1e-3)
    np.testing.assert_allclose(to_numpy(log_det_back), -to_numpy(log_det), atol=1e-3)
    (together,) = looped(flow.steps)
    assert isinstance(together, Looped)
    known = None if context is None else ops.convert_to_tensor(context)
    in_loop, _ = together.to_data(ops.convert_to_tensor(u), known)
    np.testing.assert_allclose(to_numpy(in_loop), to_numpy(x), atol=1e-4)
    again = reload(flow, tmp_path / "flow.keras")
    assert again.get_config() == flow.get_config()
    found = to_numpy(again.log_prob(to_numpy(x), context))
    np.testing.assert_allclose(found, to_numpy(flow.log_prob(x, context)), atol=1e-4)


def test_drawing_takes_the_depth_of_the_graph_in_every_step():
    flow = make("maf", 1, 2)
    depth = flow.networks[0].num_ranks
    assert 1 < depth < 6
    rounds = []
    for network in flow.networks:
        step = network.step
        network.step = lambda *a, step=step: rounds.append(1) or step(*a)
    flow.to_data(normal(4, 6))
    # A compiled loop is traced once; a loop that runs as it is takes every step.
    assert len(rounds) in (2, 2 * depth)


def test_a_step_over_tied_ranks_goes_both_ways():
    made = MADE([8], 2, ordering=[0, 2, 0, 1, 1, 1])
    step = flows.AutoregressiveStep(made, flows.Affine())
    made.build((None, 6))
    set_random_weights(made, scale=0.5)
    u = normal(9, 6)
    x, log_det = step.to_data(ops.convert_to_tensor(u))
    back, log_det_back = step.to_noise(x)
    np.testing.assert_allclose(to_numpy(back), u, atol=1e-4)
    np.testing.assert_allclose(to_numpy(log_det), -to_numpy(log_det_back), atol=1e-4)


def test_permutations_of_a_graph_are_refused():
    graph = np.tri(3, k=-1, dtype=bool)
    for permutation in ("random", "lu"):
        with pytest.raises(ValueError, match="order of the graph"):
            flows.MAF(3, adjacency=graph, permutation=permutation)
    with pytest.raises(ValueError, match="lu"):
        flows.MAF(3, context_size=1, context_adjacency=[[1]] * 3, permutation="lu")
    with pytest.raises(ValueError, match="0 hears 1, 1 hears 0"):
        flows.MAF(2, adjacency=[[0, 1], [1, 0]])
