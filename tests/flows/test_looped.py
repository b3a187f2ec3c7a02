"""Alike steps of a flow run in a loop, as they would one after the other."""

import numpy as np
import pytest
from keras import ops
from laws import set_random_weights, to_numpy

from keras_made import MADE, flows
from keras_made.flows.looped import Looped, looped

pytestmark = pytest.mark.neutral

FAMILIES = {
    "maf": flows.MAF,
    "iaf": flows.IAF,
    "spline": flows.SplineCoupling,
    "nice": flows.NICE,
}


def make(name, permutation, context_size=2, **options):
    options = {"num_steps": 4, "hidden_units": (8, 8), **options}
    flow = FAMILIES[name](
        4, context_size=context_size, permutation=permutation, **options
    )
    flow.require_built()
    set_random_weights(flow, scale=0.2)
    return flow


def normal(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype("float32")


def run(steps, value, context, direction):
    total = 0.0
    for step in steps:
        value, log_det = getattr(step, direction)(value, context)
        total = total + log_det
    return to_numpy(value), to_numpy(total)


@pytest.mark.parametrize("permutation", ["random", "lu"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_loop_gives_what_its_steps_give(name, permutation):
    flow, x = make(name, permutation), ops.convert_to_tensor(normal(5, 4))
    context = ops.convert_to_tensor(normal(5, 2, seed=1))
    together = looped(flow.steps)
    assert any(isinstance(step, Looped) for step in together)
    for direction, turn in (("to_noise", 1), ("to_data", -1)):
        expected = run(flow.steps[::turn], x, context, direction)
        found = run(together[::turn], x, context, direction)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["masked", "staircase"])
def test_kernels_of_both_forms_are_put_in_order(form):
    steps = []
    for seed in range(3):
        made = MADE([8], 2, ordering="random", kernel_form=form, seed=seed)
        steps.append(flows.AutoregressiveStep(made, flows.Affine()))
        steps[-1].build((None, 5))
        set_random_weights(steps[-1], seed=seed, scale=0.3)
    (loop,), x = looped(steps), ops.convert_to_tensor(normal(6, 5))
    expected = run(steps, x, None, "to_noise")
    for a, b in zip(run([loop], x, None, "to_noise"), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_steps_that_differ_are_left_apart():
    narrow, wide = make("maf", "reverse"), make("maf", "reverse", hidden_units=(9,))
    other = make("maf", "reverse", activation="tanh")
    steps = [narrow.steps[0], wide.steps[0], other.steps[1]]
    assert looped(steps) == steps


@pytest.mark.parametrize("name", ["maf", "nice"])
def test_a_loop_sees_weights_as_they_are(name):
    flow, x = make(name, "reverse"), normal(5, 4)
    context = normal(5, 2, seed=1)
    flow.log_prob(x, context)
    set_random_weights(flow, seed=7, scale=0.2)
    scores = to_numpy(flow.log_prob(x, context))
    pair = ops.convert_to_tensor(x), ops.convert_to_tensor(context)
    np.testing.assert_allclose(scores, to_numpy(flow(pair)), rtol=1e-4, atol=1e-4)
