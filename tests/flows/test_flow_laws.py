"""What every flow keeps on every back end."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import others_slow, reload, set_random_weights, to_numpy

from keras_made import MADE, AutoregressiveDensity, MixtureOfNormals, flows

pytestmark = pytest.mark.neutral

FAMILIES = {
    "maf": flows.MAF,
    "iaf": flows.IAF,
    "spline maf": flows.SplineMAF,
    "realnvp": flows.RealNVP,
    "spline coupling": flows.SplineCoupling,
    "nice": flows.NICE,
    "maf, lu": lambda *args, **options: flows.MAF(
        *args, **{**options, "permutation": "lu"}
    ),
}


def mixture_base():
    return AutoregressiveDensity(MADE([8], 6), MixtureOfNormals(2))


def make(name, size=3, context_size=0, scale=0.2, **options):
    options = {"num_steps": 2, "hidden_units": (8,), "permutation": "random", **options}
    flow = FAMILIES[name](size, context_size=context_size, **options)
    flow.require_built()
    set_random_weights(flow, scale=scale)
    return flow


def normal(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("context_size", [0, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back(name, context_size):
    flow, x = make(name, 3, context_size), normal(5, 2, 3)
    # One context for each entry of the last batch axis.
    context = normal(2, context_size, seed=1) if context_size else None
    u, log_det = flow.to_noise(x, context)
    back, log_det_back = flow.to_data(u, context)
    np.testing.assert_allclose(to_numpy(back), x, atol=2e-4)
    np.testing.assert_allclose(to_numpy(log_det_back), -to_numpy(log_det), atol=2e-3)
    assert log_det.shape == (5, 2)
    assert np.abs(to_numpy(u) - x).max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_log_det_is_that_of_differences(name):
    flow, x, step = make(name, 3, 2), normal(4, 3), 1e-2
    context = normal(4, 2, seed=1)
    jacobian = np.zeros((4, 3, 3))
    for j in range(3):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[:, j] += sign * step
            ends.append(to_numpy(flow.to_noise(moved, context)[0]).astype("float64"))
        jacobian[:, :, j] = (ends[0] - ends[1]) / (2 * step)
    expected = np.linalg.slogdet(jacobian)[1]
    _, log_det = flow.to_noise(x, context)
    np.testing.assert_allclose(to_numpy(log_det), expected, atol=0.02)


@pytest.mark.parametrize("base", [None, mixture_base], ids=["normal", "density"])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_integrates_to_one(name, size, base):
    flow = make(name, size, scale=0.15, base=base and base())
    axis = np.linspace(-12, 12, 2001 if size == 1 else 161)
    grid = np.stack(np.meshgrid(*[axis] * size), -1).reshape(-1, size)
    log_prob = flow(ops.convert_to_tensor(grid.astype("float32")))
    total = np.exp(to_numpy(log_prob)).sum() * (axis[1] - axis[0]) ** size
    assert total == pytest.approx(1, abs=0.02)


def test_a_base_is_trained_with_the_flow_and_comes_back(tmp_path):
    x, context = normal(32, 3), normal(32, 2, seed=1)
    flow = flows.MAF(3, 1, (8,), context_size=2, base=mixture_base())
    flow.compile("adam")
    flow.fit((x, context), batch_size=16, epochs=1, verbose=0)
    base = flow.base.network
    before = [to_numpy(v).copy() for v in base.trainable_variables]
    assert len(flow.trainable_variables) > len(before)
    flow.fit((x, context), batch_size=16, epochs=1, verbose=0)
    after = [to_numpy(v) for v in base.trainable_variables]
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    again = reload(flow, tmp_path / "flow.keras")
    pair = tuple(map(ops.convert_to_tensor, (x, context)))
    np.testing.assert_array_equal(to_numpy(again(pair)), to_numpy(flow(pair)))
    draws = [to_numpy(f.sample(4, context[0], seed=1)) for f in (flow, again)]
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize(
    "name", others_slow(["maf", "iaf", "spline coupling"], "spline coupling")
)
def test_it_learns_by_fit(name):
    x = (normal(256, 2) * [0.5, 2.0] + [1.0, -1.0]).astype("float32")
    flow = FAMILIES[name](2, 1 if name == "iaf" else 2, (8,))
    flow.compile(keras.optimizers.Adam(0.05))
    nll = flow.fit(x, batch_size=64, epochs=8, verbose=0).history["nll"]
    assert nll[-1] < nll[0] - 0.2
    draws = to_numpy(flow.sample(500, seed=0))
    assert np.abs(draws.mean(0) - x.mean(0)).max() < 0.7


@pytest.mark.parametrize("name", FAMILIES)
def test_every_step_starts_near_the_identity(name):
    flow = FAMILIES[name](4, 5, (32, 32))
    flow.require_built()
    x = normal(50, 4)
    u, log_det = flow.to_noise(x)
    assert np.abs(to_numpy(u) - x).max() < 0.2
    assert np.abs(to_numpy(log_det)).max() < 0.2


@pytest.mark.parametrize("name", ["maf", "spline maf", "realnvp"])
def test_every_kernel_of_a_flow_starts_with_numbers_of_its_own(name):
    start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=3)
    flow = FAMILIES[name](3, 3, (64, 64), kernel_initializer=start)
    flow.require_built()
    square = [w for w in flow.trainable_weights if tuple(w.shape) == (64, 64)]
    assert len(square) == 3
    kernels = [to_numpy(kernel) for kernel in square]
    assert not any(np.array_equal(kernels[0], other) for other in kernels[1:])
    if name == "realnvp":
        assert np.abs(kernels[0]).max() == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("name", ["maf", "iaf", "spline maf"])
def test_direct_connections_are_there_as_the_flow_was_asked_to(name, direct, tmp_path):
    flow = make(name, direct=direct, kernel_initializer="he_uniform")
    again = reload(flow, tmp_path / "flow.keras")
    for either in (flow, again):
        layers = [network.direct_layer for network in either.networks]
        assert [layer is not None for layer in layers] == [direct, direct]
        # A spline's shape is not moved directly, its location and scale are.
        assert all(layer.units == 2 * 3 for layer in layers if layer is not None)
    assert again.get_config() == flow.get_config()
    x = normal(5, 3)
    scores = to_numpy(flow.log_prob(x))
    np.testing.assert_allclose(to_numpy(again.log_prob(x)), scores, rtol=1e-5)
