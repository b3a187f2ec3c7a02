"""Every precision: Keras's own float type, float64 models, half-precision policies."""

import math

import keras
import numpy as np
import pytest
from eager import uncompiled
from keras import ops
from laws import all_states, others_slow, set_random_weights, to_numpy

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
    generation,
)
from keras_made.entries.arithmetic import SCALE_OFFSET

pytestmark = pytest.mark.neutral

BACKEND = keras.backend.backend()
needs_float64 = pytest.mark.skipif(
    BACKEND == "jax", reason="JAX has float64 by a switch of its own"
)


@pytest.fixture
def eager():
    with uncompiled():
        yield


@pytest.fixture
def floatx():
    """Sets Keras's own float type and policy, which are float32 again afterwards."""

    def choose(dtype, policy):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(policy)

    yield choose
    choose("float32", "float32")


# Keras's own float type ---------------------------------------------------------------

KINDS = Columns([MixtureOfLogistics(1, 4), Normal()])
NETWORKS = {
    "made": lambda: MADE([8], 3),
    "mixture": lambda: MADE([8], 3, hidden_degrees="random", num_masks=2),
    "any order": lambda: NADE(5, 3, ordering="random", num_masks=2),
    "deep nade": lambda: NADE(5, 3, num_blocks=1),
}


needs_integers = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras on JAX makes NumPy's integers floats when floatx is bfloat16",
)
TYPES = [
    pytest.param("float64", "float64", marks=needs_float64),
    pytest.param("float32", "float64", marks=needs_float64),
    ("float16", "float16"),
    ("float16", "float32"),
    pytest.param("bfloat16", "bfloat16", marks=needs_integers),
]


@pytest.mark.filterwarnings("ignore:In .* rows, first in row:UserWarning")
@pytest.mark.parametrize("name", others_slow(NETWORKS, "mixture", "deep nade"))
@pytest.mark.parametrize(("dtype", "policy"), TYPES)
def test_every_verb_works_under_every_float_type(floatx, dtype, policy, name):
    floatx(dtype, policy)
    context_size = 2 if name == "made" else 0
    model = AutoregressiveDensity(NETWORKS[name](), KINDS)
    x = np.tile(np.array([3.0, 0.3]), (3, 1))
    observed = np.array([False, True])
    context = np.ones((3, context_size), "float32") if context_size else None
    model.compile("sgd", run_eagerly=True)
    model.fit((x, context) if context_size else x, verbose=0)
    job, few = (x, observed, context), {"num_particles": 2, "seed": 1}
    with uncompiled():
        results = {
            "log_prob": model.log_prob(x, context),
            "a tensor": model.log_prob(ops.convert_to_tensor(x), context),
            "sample": model.sample(3, context, seed=1),
            "impute": model.impute(*job, seed=1),
            "particles": model.impute(*job, **few),
            "conditional": model.conditional_log_prob(*job, **few),
        }
    expected = "float64" if policy == "float64" else "float32"
    for verb, result in results.items():
        assert keras.backend.standardize_dtype(result.dtype) == expected, verb
        assert np.isfinite(to_numpy(result)).all(), verb
    for verb in ("sample", "impute", "particles"):
        KINDS.check(to_numpy(results[verb]))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("policy", ["float16", "float32"])
def test_levels_are_whole_whatever_keras_computes_in(floatx, policy):
    floatx("float16", policy)
    conditional = MixtureOfLogistics(1, 2**20)
    model = AutoregressiveDensity(MADE([4], 3), conditional)
    model.build((None, 2))
    conditional.check(to_numpy(model.sample(500, seed=0)))
    assert model.typical_event().tolist() == [2**19, 2**19]
    completed = to_numpy(model.impute([[2.0**20 - 1, np.nan]], seed=0))
    assert completed[0, 0] == 2**20 - 1
    conditional.check(completed)


# float64 ------------------------------------------------------------------------------

FAR, NARROW = 1e6, 1e-3


# What x_1 is centred on. Keras multiplies matrices in float32 on torch.
HEARD = [False, True] if BACKEND == "tensorflow" else [False]


def far_and_narrow(hears):
    """N(1e6, 1e-3), more digits than float32 has; x_1 ~ N(x_0, 1e-3) if it `hears`."""
    network = MADE((), 2, dtype="float64")
    model = AutoregressiveDensity(network, Normal(1e-9), dtype="float64")
    model.build((None, 2))
    raw = math.log(math.expm1(NARROW)) - SCALE_OFFSET
    # One layer, whose kernel is (inputs, entries x parameters).
    kernel, bias = np.zeros((2, 4)), np.array([FAR, raw, FAR, raw])
    if hears:
        kernel[0, 2], bias[2] = 1.0, 0.0
    network.direct_layer.kernel.assign(kernel)
    network.direct_layer.bias.assign(bias)
    return model


def assert_normal(z):
    """Standard normal by mean and spread, and not on float32's grid."""
    assert z.dtype == "float64"
    assert abs(z.mean()) < 5 / math.sqrt(len(z))
    assert abs(z.std() - 1) < 4 / math.sqrt(len(z))
    # On float64's grid near FAR, two of thousands may be equal.
    assert len(np.unique(z)) >= len(z) - 2


DRAWS = {
    "sample": lambda m, x, o: m.sample(2000, seed=1),
    "impute": lambda m, x, o: m.impute(x, o, seed=1),
    "particles": lambda m, x, o: m.impute(x, o, num_particles=2, seed=1),
}


@pytest.mark.usefixtures("eager")
@needs_float64
@pytest.mark.parametrize("hears", HEARD)
@pytest.mark.parametrize("verb", DRAWS)
def test_draws_have_the_precision_of_the_model(verb, hears):
    model = far_and_narrow(hears)
    rng = np.random.RandomState(0)
    x = FAR + NARROW * rng.normal(size=(2000, 1)).repeat(2, axis=1)
    draws = to_numpy(DRAWS[verb](model, x, np.array([True, False])))
    assert_normal((draws[:, 1] - (draws[:, 0] if hears else FAR)) / NARROW)
    if verb == "sample":
        assert_normal((draws[:, 0] - FAR) / NARROW)
    else:
        np.testing.assert_array_equal(draws[:, 0], x[:, 0])


@pytest.mark.usefixtures("eager")
@needs_float64
@pytest.mark.parametrize("hears", HEARD)
def test_conditionals_have_the_precision_of_the_model(hears):
    z = np.random.RandomState(0).normal(size=(20, 2))
    x = FAR + NARROW * (np.cumsum(z, axis=1) if hears else z)
    constant = math.log(NARROW + 1e-9) + 0.5 * math.log(2 * math.pi)
    expected = -0.5 * z**2 - constant
    model, first = far_and_narrow(hears), np.array([True, False])
    found = [model.log_prob(x), model.conditional_log_prob(x, first, num_particles=2)]
    for result, right in zip(found, [expected.sum(1), expected[:, 1]], strict=True):
        np.testing.assert_allclose(to_numpy(result), right, atol=1e-4)


@pytest.mark.usefixtures("eager")
@needs_float64
def test_rows_in_an_order_of_their_own_have_it_too():
    network = MADE((), 2, ordering="random", num_masks=2, dtype="float64")
    model = AutoregressiveDensity(network, Normal(), dtype="float64")
    model.build((None, 2))
    # Without weights, both entries are N(0, 1) whatever is known.
    x = np.full((1000, 2), FAR + 1e-9)
    x[::2, 0], x[1::2, 1] = np.nan, np.nan
    completed = to_numpy(model.impute(x, seed=2))
    assert_normal(completed[np.isnan(x)])
    assert (completed != completed.astype("float32"))[np.isnan(x)].mean() > 0.99
    np.testing.assert_array_equal(completed[~np.isnan(x)], FAR + 1e-9)


@needs_float64
def test_uniforms_reach_further_towards_the_ends_in_float64():

    for dtype, margin in (("float32", 2.0**-24), ("float64", 2.0**-53)):
        assert generation.uniform_margin(dtype) == margin
        ends = np.array([[margin], [1 - margin]], dtype)
        assert ends[0] > 0 and ends[1] < 1
        drawn = Normal().draw(
            *map(ops.convert_to_tensor, (np.zeros((2, 2), dtype), ends))
        )
        assert np.isfinite(to_numpy(drawn)).all()
    uniforms = to_numpy(generation.draw_uniforms((1000,), 0, "float64"))
    assert (uniforms != uniforms.astype("float32")).mean() > 0.99


@pytest.mark.usefixtures("eager")
@pytest.mark.skipif(
    BACKEND != "tensorflow",
    reason="TensorFlow Probability needs TensorFlow",
)
def test_a_distribution_draws_in_the_precision_of_the_model():
    draws = far_and_narrow(True).distribution().sample(2000, seed=1).numpy()
    assert_normal((draws[:, 0] - FAR) / NARROW)
    assert_normal((draws[:, 1] - draws[:, 0]) / NARROW)


# Half precision -----------------------------------------------------------------------

CONDITIONALS = {
    "bernoulli": (Bernoulli(), 2),
    "classes": (Categorical(5), 5),
    "levels": (MixtureOfLogistics(2, 5), 5),
    "256 levels": (MixtureOfLogistics(2, 256), 256),
    "normal": (Normal(), 0),
    "normals": (MixtureOfNormals(2), 0),
    "columns": (Columns([Categorical(5), MixtureOfLogistics(2, 5)]), 5),
}
POLICIES = ["mixed_float16", "mixed_bfloat16", "float16"]


def small(conditional, policy):
    network = MADE([8], conditional.num_params, dtype=policy)
    model = AutoregressiveDensity(network, conditional, dtype=policy)
    model.build((None, 2))
    set_random_weights(network, scale=0.5)
    return model


def events(model, levels):
    """Every event, or a grid of them, and the volume of its cell."""
    if levels:
        return all_states(2, levels), 1.0
    line = np.linspace(-9.0, 9.0, 241)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid.astype("float32"), (line[1] - line[0]) ** 2


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", CONDITIONALS)
@pytest.mark.parametrize("policy", POLICIES)
def test_densities_in_half_precision_are_densities_near_float32s(policy, name):
    conditional, levels = CONDITIONALS[name]
    model, single = small(conditional, policy), small(conditional, "float32")
    x, cell = events(model, levels)
    log_prob = to_numpy(model.log_prob(ops.convert_to_tensor(x)))
    assert log_prob.dtype == "float32" and np.isfinite(log_prob).all()
    assert abs(np.exp(log_prob.astype("float64")).sum() * cell - 1) < 5e-3
    drawn = to_numpy(model.sample(200, seed=0))
    conditional.check(drawn)
    assert np.isfinite(drawn).all()
    expected = to_numpy(single.log_prob(ops.convert_to_tensor(drawn)))
    found = to_numpy(model.log_prob(ops.convert_to_tensor(drawn)))
    close = 0.02 if "bfloat16" not in policy else 0.15
    assert np.median(np.abs(found - expected)) < close


@needs_float64
@pytest.mark.parametrize(
    "make",
    [
        lambda: MADE([16], 2, dropout=0.5, dtype="float64"),
        lambda: NADE(16, 2, num_blocks=1, dropout=0.5, dtype="float64"),
    ],
    ids=["made", "deep nade"],
)
def test_dropout_keeps_the_precision(make):
    network = make()
    x = np.random.RandomState(0).normal(size=(4, 3))
    params = to_numpy(network(x, training=True))
    assert params.dtype == "float64"
    # A pass through float32 would leave numbers that float32 holds exactly.
    hidden = getattr(network, "dropouts", None) or [network.drop]
    h = to_numpy(hidden[0](np.float64(1.0) + 1e-12 * x, training=False))
    assert (h != h.astype("float32")).any()
