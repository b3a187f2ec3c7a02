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
    Attention,
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
    "attention": lambda **kwargs: Attention((4,), 4, 1, 2, **kwargs),
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

    def value(self, point):
        self._assign(point)
        inputs = [ops.convert_to_tensor(p) for p in point[:2]]
        return float(to_numpy(self._score(inputs)))

    def derivatives(self, point, direction=None):
        """The gradient, and by differentiating it the Hessian times `direction`."""
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
        def total(point):
            pairs = list(zip(self.variables, point[2:], strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return self._score(point[:2])

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
def float64_is_kept(monkeypatch):
    """On JAX and torch Keras's promotion turns float64 into float32, in products of
    matrices and activations among others: too coarse for differences.
    """
    from keras.src.backend.common import dtypes

    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")


def check_derivatives(total, point, real=1.0):
    """Along one direction, in which all that can be moved is moved at once.

    Args:
        total: a `Total`.
        point: float64 arrays: x, context and weights.
        real: of the shape of x, 1.0 where it can be moved and 0.0 elsewhere.
    """
    rng = np.random.RandomState(2)
    masks = [real, *[1.0] * (len(point) - 1)]
    direction = [
        rng.normal(size=p.shape) * mask for p, mask in zip(point, masks, strict=True)
    ]

    def at(step):
        return [p + step * d for p, d in zip(point, direction, strict=True)]

    gradient, product = total.derivatives(point, direction)
    found = sum(np.sum(g * d) for g, d in zip(gradient, direction, strict=True))
    expected = (total.value(at(STEP)) - total.value(at(-STEP))) / (2 * STEP)
    assert found == pytest.approx(expected, rel=RTOL, abs=ATOL)

    sides = [total.derivatives(at(step))[0] for step in (STEP, -STEP)]
    for i, (p, ahead, behind) in enumerate(zip(product, *sides, strict=True)):
        expected = (ahead - behind) / (2 * STEP) * masks[i]
        atol = ATOL + RTOL * np.abs(expected).max(initial=0.0)
        np.testing.assert_allclose(
            p * masks[i], expected, rtol=RTOL, atol=atol, err_msg=f"input {i}"
        )
        # There is something to differentiate: by x, the context, and the last bias.
        if np.any(masks[i]) and i in (0, 1, len(point) - 1):
            assert np.abs(gradient[i] * masks[i]).max() > 1e-4
            assert np.abs(expected).max() > 1e-4


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
    check_derivatives(total, point, is_real(conditional, x.shape))


@pytest.mark.parametrize("conditional", ["normal", "columns"])
def test_derivatives_pass_through_a_normalization(conditional):
    model, x, rng = make_density("made", conditional, normalized=True)
    total = Total(model)
    point = total.point(x, rng.normal(size=(ROWS, CONTEXT_SIZE)))
    check_derivatives(total, point, is_real(conditional, x.shape))


FLOWS = ["MAF", "SplineMAF", "RealNVP", "NICE"]


def make_flow(name, **options):
    from keras_made import flows

    flow = getattr(flows, name)(
        4,
        num_steps=2,
        hidden_units=(6,),
        context_size=CONTEXT_SIZE,
        permutation="random",
        activation="tanh",
        dtype="float64",
        **options,
    )
    flow.require_built()
    set_random_weights(flow, scale=0.3)
    return flow


@pytest.mark.parametrize("name", FLOWS)
def test_derivatives_of_a_flow_are_those_of_differences(name):
    """Of log p, which is the parallel direction of these."""
    total = Total(make_flow(name))
    rng = np.random.RandomState(1)
    x, context = rng.normal(size=(ROWS, 4)), rng.normal(size=(ROWS, CONTEXT_SIZE))
    check_derivatives(total, total.point(x, context))


class Draws(Total):
    """A function of what an IAF, or a coupling, makes of noise, in one pass."""

    def _score(self, inputs):
        x, log_det = self.model.to_data(*inputs)
        return ops.sum(ops.sin(x)) + ops.sum(log_det)


@pytest.mark.parametrize("name", ["IAF", "RealNVP", "NICE"])
def test_derivatives_of_parallel_draws_are_those_of_differences(name):
    total = Draws(make_flow(name))
    rng = np.random.RandomState(1)
    noise, context = rng.normal(size=(ROWS, 4)), rng.normal(size=(ROWS, CONTEXT_SIZE))
    check_derivatives(total, total.point(noise, context))


@pytest.mark.parametrize(
    ("name", "support"),
    [
        ("MAF", (-20.0, 20.0)),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("MAF", None),
                ("SplineMAF", None),
                ("SplineMAF", (-20.0, 20.0)),
            )
        ],
    ],
)
def test_first_derivatives_of_sequential_draws_are_those_of_differences(name, support):
    """By the noise, the context and every weight at once, along one direction."""
    total = Draws(make_flow(name, support=support))
    rng = np.random.RandomState(1)
    noise, context = rng.normal(size=(ROWS, 4)), rng.normal(size=(ROWS, CONTEXT_SIZE))
    point = total.point(noise, context)
    gradient, _ = total.derivatives(point)
    for i in (0, 1, 2, len(point) - 1):
        direction = rng.normal(size=point[i].shape)
        ends = []
        for step in (STEP, -STEP):
            moved = list(point)
            moved[i] = moved[i] + step * direction
            ends.append(total.value(moved))
        expected = (ends[0] - ends[1]) / (2 * STEP)
        assert np.sum(gradient[i] * direction) == pytest.approx(expected, RTOL, ATOL)
        assert abs(expected) > 1e-4
