"""First and second derivatives of log p, beside finite differences in float64.

Wherever a gradient is offered it is that of the function, and can itself be
differentiated: by the entries, where they are real, by the context, by the weights.
"""

import keras
import numpy as np
import pytest
from keras import ops
from laws import set_random_weights, to_numpy

from keras_made import (
    MADE,
    NADE,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    MixtureOfLogistics,
    MixtureOfNormals,
    NetworkAverage,
    Normal,
    PixelCNN,
    PixelRNN,
    Recurrent,
    WaveNet,
)

pytestmark = pytest.mark.neutral
BACKEND = keras.backend.backend()
ROWS, CONTEXT_SIZE = 2, 2

if BACKEND == "jax":
    import jax

    if not jax.config.jax_enable_x64:
        pytest.skip("JAX has float64 under JAX_ENABLE_X64", allow_module_level=True)
elif BACKEND == "torch":
    import torch
else:
    import tensorflow as tf


# Everything is smooth, so that differences are those of a derivative.
NETWORKS = {
    "made": lambda **kwargs: MADE([6], activation="tanh", **kwargs),
    "made of all options": lambda **kwargs: MADE(
        [6, 6],
        activation="tanh",
        companion=True,
        residual=True,
        ordering="random",
        hidden_degrees="random",
        num_masks=2,
        **kwargs,
    ),
    "made in panels": lambda **kwargs: MADE(
        [6], activation="tanh", kernel_form="staircase", **kwargs
    ),
    "nade": lambda **kwargs: NADE(5, **kwargs),
    "nade of orders": lambda **kwargs: NADE(
        5, ordering="random", num_masks=2, **kwargs
    ),
    "average": lambda **kwargs: NetworkAverage(
        [MADE([6], activation="tanh", **kwargs), NADE(5, **kwargs)],
        dtype=kwargs["dtype"],
    ),
    "wavenet": lambda **kwargs: WaveNet((4,), 3, num_layers=2, **kwargs),
    "lstm": lambda **kwargs: Recurrent((4,), 3, num_layers=2, **kwargs),
    "gru": lambda **kwargs: Recurrent((4,), 3, "gru", **kwargs),
    "pixelcnn": lambda **kwargs: PixelCNN((2, 2), 8, num_layers=2, **kwargs),
    "pixelrnn": lambda **kwargs: PixelRNN((2, 2), 8, num_layers=1, **kwargs),
}
IMAGES = ("pixelcnn", "pixelrnn")
CONDITIONALS = {
    "bernoulli": Bernoulli(),
    "classes": Categorical(3),
    "normal": Normal(),
    "normals": MixtureOfNormals(2),
    "logistics": MixtureOfLogistics(2, 5),
    "columns": Columns([Normal(), Bernoulli(), MixtureOfNormals(2), Categorical(3)]),
}
LEVELS = {"bernoulli": 2, "classes": 3, "logistics": 5}


def draw_events(name, shape, rng):
    if name in LEVELS:
        return rng.randint(LEVELS[name], size=shape).astype("float64")
    x = rng.normal(size=shape)
    if name == "columns":
        x[:, 1], x[:, 3] = rng.randint(2, size=ROWS), rng.randint(3, size=ROWS)
    return x


def is_real(name, shape):
    """Which entries have a neighbourhood: 1.0 or 0.0."""
    real = np.broadcast_to(CONDITIONALS[name].continuous, shape[1:])
    return np.broadcast_to(real.astype("float64"), shape)


def make_density(network, conditional, normalized=False):
    made = NETWORKS[network](
        num_params=CONDITIONALS[conditional].num_params, dtype="float64"
    )
    normalization = None
    if normalized:
        normalization = keras.layers.Normalization(
            mean=[0.5, 0.0, -0.5, 1.0], variance=[2.0, 0.5, 1.0, 3.0], dtype="float64"
        )
    model = AutoregressiveDensity(
        made, CONDITIONALS[conditional], normalization=normalization, dtype="float64"
    )
    shape = (ROWS, 2, 2) if network in IMAGES else (ROWS, 4)
    model.build((shape, (ROWS, CONTEXT_SIZE)))
    set_random_weights(made, scale=0.4)
    rng = np.random.RandomState(1)
    return model, draw_events(conditional, shape, rng), rng


# Derivatives on every back end --------------------------------------------------------


class Total:
    """The sum of log p as a function of (x, context, weights), all float64."""

    def __init__(self, model):
        self.model = model
        self.variables = model.trainable_variables

    def point(self, x, context):
        return [x, context, *(np.array(to_numpy(v)) for v in self.variables)]

    def _score(self, inputs):
        """On TensorFlow and torch the weights are the variables, not the inputs."""
        return ops.sum(self.model((inputs[0], inputs[1])))

    def _assign(self, point):
        for variable, value in zip(self.variables, point[2:], strict=True):
            variable.assign(value)

    def gradient(self, point):
        return self._run(point)[0]

    def product(self, point, direction):
        """The Hessian times `direction`, by differentiating the gradient."""
        return self._run(point, direction)[1]

    def value(self, point):
        self._assign(point)
        inputs = [ops.convert_to_tensor(p) for p in point[:2]]
        return float(to_numpy(self._score(inputs)))

    def _run(self, point, direction=None):
        self._assign(point)
        run = {"tensorflow": self._tensorflow, "torch": self._torch, "jax": self._jax}
        results = run[BACKEND](point, direction)
        return [None if r is None else [to_numpy(g) for g in r] for r in results]

    def _tensorflow(self, point, direction):
        inputs = [tf.constant(p) for p in point[:2]]
        sources = inputs + [v.value for v in self.variables]
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                total = self._score(inputs)
            first = inner.gradient(total, sources, unconnected_gradients="zero")
            first = [tf.convert_to_tensor(g) for g in first]
            if direction is not None:
                along = sum(
                    tf.reduce_sum(g * d) for g, d in zip(first, direction, strict=True)
                )
        if direction is None:
            return first, None
        return first, outer.gradient(along, sources, unconnected_gradients="zero")

    def _torch(self, point, direction):
        inputs = [torch.tensor(p, requires_grad=True) for p in point[:2]]
        sources = inputs + [v.value for v in self.variables]

        def differentiate(total):
            found = torch.autograd.grad(
                total, sources, create_graph=True, allow_unused=True
            )
            return [
                torch.zeros_like(s) if g is None else g
                for s, g in zip(sources, found, strict=True)
            ]

        first = differentiate(self._score(inputs))
        if direction is None:
            return first, None
        directions = [torch.tensor(d) for d in direction]
        along = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
        return first, differentiate(along)

    def _jax(self, point, direction):
        fixed = [v.value for v in self.model.non_trainable_variables]

        def total(point):
            result, _ = self.model.stateless_call(point[2:], fixed, tuple(point[:2]))
            return ops.sum(result)

        point = [jax.numpy.asarray(p) for p in point]
        first = jax.grad(total)(point)
        if direction is None:
            return first, None
        directions = [jax.numpy.asarray(d) for d in direction]

        # Reverse over reverse, as on the other back ends.
        def along(point):
            pairs = zip(jax.grad(total)(point), directions, strict=True)
            return sum(ops.sum(g * d) for g, d in pairs)

        return first, jax.grad(along)(point)


STEP, RTOL, ATOL = 1e-5, 1e-5, 1e-6


@pytest.fixture(autouse=True)
def products_in_float64(monkeypatch):
    """On torch Keras multiplies matrices in float32, whatever their dtype, as its
    promotion knows no float64 there: too coarse for differences.
    """
    if BACKEND == "torch":
        from keras.src.backend.torch import numpy as keras_numpy

        monkeypatch.setattr(keras_numpy, "matmul", torch.matmul)


def check_derivatives(total, point, masks, seed=2):
    """Along one direction for each of the inputs and one for all weights together.

    Args:
        total: what has `value`, `gradient` and `product`.
        point: float64 arrays.
        masks: of each input, what may be moved.
        seed: of the directions.
    """
    rng = np.random.RandomState(seed)
    gradient = total.gradient(point)
    parts = {"x": [0], "context": [1], "weights": range(2, len(point))}
    for name, moved in parts.items():
        direction = [np.zeros_like(p) for p in point]
        for i in moved:
            mask = masks[i] if i < len(masks) else 1.0
            direction[i] = rng.normal(size=point[i].shape) * mask
        if not any(d.any() for d in direction):
            continue

        def at(sign, direction=direction):
            step = sign * STEP
            return [p + step * d for p, d in zip(point, direction, strict=True)]

        found = sum(np.sum(g * d) for g, d in zip(gradient, direction, strict=True))
        expected = (total.value(at(1)) - total.value(at(-1))) / (2 * STEP)
        assert found == pytest.approx(expected, rel=RTOL, abs=ATOL), name
        assert abs(found) > 3 * ATOL, name

        product = total.product(point, direction)
        ahead, behind = total.gradient(at(1)), total.gradient(at(-1))
        largest = 0.0
        for i, (p, a, b) in enumerate(zip(product, ahead, behind, strict=True)):
            mask = masks[i] if i < len(masks) else 1.0
            expected = (a - b) / (2 * STEP) * mask
            np.testing.assert_allclose(
                p * mask, expected, rtol=RTOL, atol=ATOL, err_msg=f"{name}, {i}"
            )
            largest = max(largest, np.abs(expected).max(initial=0.0))
        assert largest > 3 * ATOL, name


def density_cases():
    """Each network with one conditional, each conditional with one network; all else
    is slow.
    """
    for network in NETWORKS:
        for conditional in CONDITIONALS:
            if network in IMAGES and conditional == "columns":
                continue
            default = conditional == "normals" or network == "made"
            marks = [] if default else [pytest.mark.slow]
            yield pytest.param(network, conditional, marks=marks)


@pytest.mark.parametrize(("network", "conditional"), list(density_cases()))
def test_derivatives_of_a_density_are_those_of_differences(network, conditional):
    model, x, rng = make_density(network, conditional)
    total = Total(model)
    point = total.point(x, rng.normal(size=(ROWS, CONTEXT_SIZE)))
    check_derivatives(total, point, [is_real(conditional, x.shape)])


@pytest.mark.parametrize("conditional", ["normal", "columns"])
def test_derivatives_pass_through_a_normalization(conditional):
    model, x, rng = make_density("made", conditional, normalized=True)
    total = Total(model)
    point = total.point(x, rng.normal(size=(ROWS, CONTEXT_SIZE)))
    check_derivatives(total, point, [is_real(conditional, x.shape)])


FLOWS = ["MAF", "SplineMAF", "RealNVP", "NICE"]


def make_flow(name, permutation):
    from keras_made import flows

    flow = getattr(flows, name)(
        4,
        num_steps=2,
        hidden_units=(6,),
        context_size=CONTEXT_SIZE,
        permutation=permutation,
        activation="tanh",
        dtype="float64",
    )
    flow.require_built()
    set_random_weights(flow, scale=0.3)
    return flow


@pytest.mark.skipif(BACKEND != "tensorflow", reason="flows run on TensorFlow")
@pytest.mark.parametrize("permutation", ["reverse", "random"])
@pytest.mark.parametrize("name", FLOWS)
def test_derivatives_of_a_flow_are_those_of_differences(name, permutation):
    """Of log p, which is the parallel direction of these."""
    total = Total(make_flow(name, permutation))
    rng = np.random.RandomState(1)
    x, context = rng.normal(size=(ROWS, 4)), rng.normal(size=(ROWS, CONTEXT_SIZE))
    check_derivatives(total, total.point(x, context), [1.0])


class Draws(Total):
    """A function of what an IAF, or a coupling, makes of noise, in one pass."""

    def _score(self, inputs):
        bijector = self.model.bijector(inputs[1])
        x = bijector.forward(inputs[0])
        log_det = bijector.forward_log_det_jacobian(inputs[0], 1)
        return ops.sum(ops.sin(x)) + ops.sum(log_det)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="flows run on TensorFlow")
@pytest.mark.parametrize("name", ["IAF", "RealNVP", "NICE"])
def test_derivatives_of_parallel_draws_are_those_of_differences(name):
    total = Draws(make_flow(name, "random"))
    rng = np.random.RandomState(1)
    noise, context = rng.normal(size=(ROWS, 4)), rng.normal(size=(ROWS, CONTEXT_SIZE))
    check_derivatives(total, total.point(noise, context), [1.0])
