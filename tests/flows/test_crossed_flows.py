"""Flows and densities over crossed options: units, precision, bases, TFP's tools."""

import copy
import itertools
import pickle

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("flows run on TensorFlow", allow_module_level=True)

import tensorflow as tf
import tensorflow_probability as tfp
from laws import reload, set_random_weights, to_numpy

from keras_made import MADE, AutoregressiveDensity, Normal, flows

tfb, tfd = tfp.bijectors, tfp.distributions

FLOWS = {
    "maf": flows.MAF,
    "iaf": flows.IAF,
    "spline": flows.SplineMAF,
    "realnvp": flows.RealNVP,
    "nice": flows.NICE,
}
COUPLINGS = ["realnvp", "nice"]
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


def make(name, size=3, context_size=0, dtype="float32", scale=0.3, **options):
    """A tiny model of this name with random weights, or untrained for scale 0."""
    if name == "density":
        options.pop("permutation", None)
        model = AutoregressiveDensity(
            MADE([8], 2, dtype=dtype), Normal(), dtype=dtype, **options
        )
        model.build((None, size))
    else:
        options = {"num_steps": 2, "hidden_units": (8,), **options}
        model = FLOWS[name](size, context_size=context_size, dtype=dtype, **options)
        model.require_built()
    layers = [getattr(model, "network", None), *getattr(model, "networks", [])]
    for index, layer in enumerate(layers):
        if layer is not None:
            set_random_weights(layer, index, scale)
    return model


def normal(*shape, seed=0, dtype="float32"):
    return np.random.RandomState(seed).normal(size=shape).astype(dtype)


def adapted(x, **options):
    layer = keras.layers.Normalization(**options)
    layer.adapt(x)
    return layer


def gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = function(x)
    return tape.gradient(result, x)


# The units of the data ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["density", "nice"])
def test_what_is_compiled_follows_a_normalization(name, tmp_path):
    """Adapted, and loaded from a file, after the first fit, score and draw."""
    late = make(name, 2, normalization=keras.layers.Normalization(), scale=0.1)
    late.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    bijector = late.bijector() if name == "nice" else None
    early = []
    for center in (5.0, -1e3):
        x = normal(16, 2) * [1.0, 1e3] + center
        model = make(name, 2, normalization=adapted(x), scale=0.1)
        early.append((x.astype("float32"), model, to_numpy(model(tf.constant(x)))))
    # The optimizer of the file.
    model.compile(keras.optimizers.SGD(0.0))
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "one.weights.h5")

    def uses(x):
        """What every compiled function gives."""
        fitted = late.fit(x, verbose=0).history["nll"][0]
        scores, draws = to_numpy(late.log_prob(x)), to_numpy(late.sample(16, seed=1))
        return fitted, late.evaluate(x, verbose=0), scores, draws

    late.normalization.adapt(normal(64, 2))
    uses(normal(16, 2))
    for change in ("adapt", "load"):
        x, _, expected = early[change == "load"]
        if change == "adapt":
            late.normalization.adapt(x)
        else:
            late.load_weights(tmp_path / "one.weights.h5")
        fitted, evaluated, scores, draws = uses(x)
        assert scores == pytest.approx(expected, rel=1e-4, abs=1e-3)
        assert fitted == pytest.approx(-expected.mean(), rel=1e-4)
        assert evaluated == pytest.approx(-expected.mean(), rel=1e-4)
        assert np.all(np.abs(draws - x.mean(0)) < 20 * x.std(0))
        assert draws.std(0)[1] > 100
        if bijector is not None:
            assert np.abs(bijector.inverse(tf.constant(x))).max() < 20


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *itertools.product(["density", *FLOWS], [False]),
        ("density", True),
        ("maf", True),
    ],
)
def test_half_precision_scores_data_of_any_scale(name, given):
    """As a model in float64 does with the same weights: only networks are rounded."""
    errors = {"float32": 1e-3, "mixed_float16": 0.03, "mixed_bfloat16": 0.2}
    z = normal(4, 3, dtype="float64") + [0.5, -1.0, 2.0]
    options = {} if name == "density" else {"num_steps": 1}
    if given:
        layer = keras.layers.Normalization(mean=z.mean(0), variance=z.var(0))
    else:
        layer = adapted(z)
    exact = make(name, dtype="float64", normalization=layer, scale=0.1, **options)
    reference = to_numpy(exact(tf.constant(z)))
    for (dtype, error), scale in itertools.product(errors.items(), [1e5, 1.0, 1e-4]):
        x = z * scale
        layer = keras.layers.Normalization(mean=x.mean(0), variance=x.var(0))
        layer = layer if given else adapted(x, dtype=dtype)
        model = make(name, dtype=dtype, normalization=layer, scale=0.1, **options)
        found = to_numpy(model(tf.constant(x, tf.float32)))
        expected = reference - 3 * np.log(scale)
        assert found == pytest.approx(expected, abs=error), (dtype, scale)


@pytest.mark.parametrize("axis", [-1, None])
def test_a_density_and_a_flow_standardise_alike(axis):
    """Also a constant column, and one location and scale for all variables."""
    x = normal(64, 3) * [1.0, 10.0, 0.0] + [0.0, 3.0, 7.0]
    flow = make("maf", normalization=adapted(x, axis=axis), num_steps=1)
    density = AutoregressiveDensity(
        flow.networks[0], Normal(), normalization=flow.normalization
    )
    x = tf.constant(x, tf.float32)
    density(x)
    expected = [to_numpy(part) for part in density.units.standardize(x)]
    for ours, theirs in zip(flow.units.standardize(x), expected, strict=True):
        assert to_numpy(ours) == pytest.approx(theirs, abs=1e-4)
    assert np.all(np.abs(expected[0]) < 100)
    assert np.all(np.isfinite(to_numpy(flow.log_prob(x))))


# Derivatives --------------------------------------------------------------------------


def directions(name):
    """Which direction of a flow is sequential, and which takes one pass."""
    if name in COUPLINGS:
        return [], ["inverse", "forward"]
    both = ["forward"], ["inverse"]
    return both[::-1] if name == "iaf" else both


def powers(flow, direction):
    """A scalar of both a direction's value and its log-determinant."""

    def total(x):
        bijector = flow.bijector()
        value = getattr(bijector, direction)(x)
        log_det = getattr(bijector, f"{direction}_log_det_jacobian")(x, 1)
        return tf.reduce_sum(value**3) + tf.reduce_sum(log_det**2)

    return total


@pytest.fixture(scope="module")
def smooth():
    """Flows in float64 whose second derivatives are not zero."""
    options = {"dtype": "float64", "activation": "tanh", "num_steps": 1}
    return {name: make(name, 2, **options) for name in FLOWS}


@pytest.mark.parametrize("name", FLOWS)
def test_derivatives_of_the_parallel_direction_of_every_order(name, smooth):
    x, direction = tf.constant(normal(2, 2, dtype="float64")), normal(2, 2, seed=1)
    for parallel in directions(name)[1]:
        total = powers(smooth[name], parallel)
        with tf.GradientTape() as tape:
            tape.watch(x)
            product = tf.reduce_sum(gradient(total, tf.identity(x)) * direction)
        found, step = tape.gradient(product, x), 1e-5 * direction
        ends = [gradient(total, x + sign * step) for sign in (1, -1)]
        expected = to_numpy(ends[0] - ends[1]) / 2e-5
        assert to_numpy(found) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def nested(total, x, variables):
    with tf.GradientTape() as tape:
        tape.watch(x)
        slope = gradient(total, tf.identity(x))
    tape.gradient(slope, [x, *variables])


def jacobian(total, x, variables):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        slope = gradient(total, tf.identity(x))
    tape.jacobian(slope, x, experimental_use_pfor=False)


def by_weights(total, x, variables):
    with tf.GradientTape() as tape:
        slope = gradient(total, x)
    tape.gradient(slope, variables)


def hessians(total, x, variables):
    tf.function(lambda x: tf.hessians(total(x), x), autograph=False)(x)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("name", "ask"),
    [
        *itertools.product(["maf", "iaf"], [nested, jacobian, by_weights]),
        ("maf", hessians),
        ("spline", nested),
    ],
)
def test_second_derivatives_of_the_sequential_direction_are_refused(name, ask, smooth):
    flow, x = smooth[name], tf.constant(normal(2, 2, dtype="float64"))
    total = powers(flow, directions(name)[0][0])
    weights = [v.value for v in flow.trainable_variables]
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        ask(total, x, weights)


@pytest.mark.parametrize("name", ["maf", "iaf"])
def test_first_derivatives_under_a_second_tape_are_those_without(name, smooth):
    x = tf.constant(normal(2, 2, dtype="float64"))
    total = powers(smooth[name], directions(name)[0][0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        found = gradient(total, x)
        double = tf.reduce_sum(2.0 * x)
    step = 1e-6 * normal(2, 2, seed=1)
    expected = float(total(x + step) - total(x - step)) / 2
    assert np.sum(found * step) == pytest.approx(expected, rel=1e-5)
    assert np.all(to_numpy(tape.gradient(double, x)) == 2.0)


# Sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize("context_size", [0, 2])
@pytest.mark.parametrize("name", ["maf", *COUPLINGS])
def test_one_variable_trains_scores_and_draws(name, context_size):
    # It was in a graph that a product of no terms stopped the process.
    eagerly = name == "maf" or context_size > 0
    flow = FLOWS[name](1, 2, (4,), context_size=context_size)
    x, context = normal(32, 1) + 3, normal(32, 2) if context_size else None
    flow.compile(keras.optimizers.Adam(0.1), run_eagerly=eagerly)
    data = x if context is None else (x, context)
    nll = flow.fit(data, epochs=3, verbose=0).history["nll"]
    assert nll[-1] < nll[0]
    scores = to_numpy(flow.log_prob(tf.constant(x), context))
    assert scores.shape == (32,) and np.all(np.isfinite(scores))
    with pytest.raises(ValueError, match="`x` must"):
        flow.log_prob(normal(32, 2), context)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", ["maf", *COUPLINGS])
def test_an_event_without_a_batch_axis(name, size):
    distribution = make(name, size, permutation="random").distribution()
    x = tf.constant(normal(4, size))
    rows = to_numpy(distribution.log_prob(x))
    assert float(distribution.log_prob(x[1])) == pytest.approx(rows[1], abs=1e-5)
    assert distribution.sample(seed=[1, 2]).shape == (size,)


@pytest.mark.parametrize(
    ("name", "units"),
    [*itertools.product(["density", "maf", *COUPLINGS], [False]), ("maf", True)],
)
def test_a_wrong_width_is_named(name, units):
    layer = adapted(normal(16, 3)) if units else None
    model = make(name, normalization=layer, permutation="random")
    takers = [model.distribution().log_prob]
    if name != "density":
        bijector = model.bijector()
        takers += [bijector.forward, bijector.inverse]
        takers.append(lambda x: bijector.inverse_log_det_jacobian(x, 1))
    for take, shape in itertools.product(takers, [(5, 2), (5, 4), (5, 1), (4,)]):
        message = rf"events of shape \(3,\).*Received: shape \({shape[0]}, ?"
        with pytest.raises(ValueError, match=message):
            take(tf.zeros(shape))
    unknown = tf.TensorSpec([None, None])
    traced = tf.function(model.distribution().log_prob, [unknown], autograph=False)
    assert traced(tf.zeros((2, 3))).shape == (2,)


def test_a_wrong_width_of_a_bijector_of_its_own_is_named():
    made = MADE([8], 2)
    made.build((None, 3))
    bijector = flows.MaskedAutoregressiveFlow(made)
    for take in (bijector.forward, bijector.inverse):
        with pytest.raises(ValueError, match=r"\(3,\).*Received: shape \(5, 2\)"):
            take(tf.zeros((5, 2)))


# Dropout ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["made", *FLOWS])
def test_no_two_layers_drop_the_same_units(name):
    options = {"dropout": 0.5, "hidden_units": (64, 64, 64)}
    if name == "made":
        model = MADE(options["hidden_units"], 2, dropout=0.5)
        model.build((None, 3))
    else:
        model = make(name, num_steps=4, **options)
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert len(layers) == (3 if name == "made" else 12)
    ones = np.ones((4, 64), "float32")
    masks = {to_numpy(layer(ones, training=True)).tobytes() for layer in layers}
    assert len(masks) == len(layers)


# Bases --------------------------------------------------------------------------------

NUMBERS = {
    "int": int,
    "float": float,
    "numpy scalar": np.float32,
    "array": lambda value: np.array(value, "float32"),
    "tensor": lambda value: tf.constant(value, tf.float32),
}
BASES = {
    "normal": lambda n: tfd.Normal(n(0), n(1)),
    "student": lambda n: tfd.StudentT(n(5), n(0), n(1)),
    "laplace": lambda n: tfd.Laplace([n(0), n(1)], n(1)),
    "independent": lambda n: tfd.Independent(
        tfd.Logistic([n(0), n(1)], n(2)), reinterpreted_batch_ndims=1
    ),
    "sample": lambda n: tfd.Sample(tfd.Normal(n(0), n(2)), [2]),
    "mixture": lambda n: tfd.MixtureSameFamily(
        tfd.Categorical(logits=[0.0, 1.0]), tfd.Normal([-2.0, 2.0], n(1))
    ),
    "diagonal": lambda n: tfd.MultivariateNormalDiag([0.0, 1.0], [n(1), n(2)]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("base", BASES)
def test_a_base_takes_numbers_of_every_kind(base, dtype, tmp_path):
    x = normal(5, 2, dtype=dtype)
    plain = to_numpy(BASES[base](float).log_prob(tf.constant(x, tf.float32)))
    for number in NUMBERS.values():
        options = {"num_steps": 1, "hidden_units": (4,), "dtype": dtype}
        flow = make("nice", 2, base=BASES[base](number), **options)
        scores = to_numpy(flow.distribution().distribution.log_prob(x))
        assert scores.dtype == dtype
        assert scores == pytest.approx(plain.reshape(5, -1).sum(1), abs=1e-5)
    again = reload(flow, tmp_path / "flow.keras")
    assert np.array_equal(to_numpy(again(x)), to_numpy(flow(x)))


# TFP's and TensorFlow's own tools -----------------------------------------------------


@pytest.fixture(scope="module")
def standardised():
    x = normal(64, 3) * 3 + 1
    names = ["density", "maf", *COUPLINGS]
    return {name: make(name, normalization=adapted(x), scale=0.2) for name in names}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", ["density", "maf", *COUPLINGS])
def test_a_copy_shows_the_weights_that_it_reads(name, how, standardised):
    model, x = standardised[name], tf.constant(normal(4, 3))
    thing = model.distribution() if name == "density" else model.bijector()
    copied = COPIES[how](thing)

    def run(thing):
        # A copy of x: TFP's cache would give what it gave before.
        run = thing.log_prob if name == "density" else thing.inverse
        return to_numpy(run(tf.identity(x)))

    before = run(thing)
    assert np.array_equal(run(copied), before)
    assert len(copied.variables) == len(thing.variables)
    # The scales of NICE start at one, and so their logarithms at zero.
    kept = [v.numpy() for v in copied.trainable_variables]
    for variable in copied.trainable_variables:
        variable.assign_add(tf.fill(variable.shape, 0.1))
    assert not np.allclose(run(copied), before)
    # A shallow copy shares the network.
    assert np.allclose(run(thing), before) == (how != "copy")
    for variable, value in zip(copied.trainable_variables, kept, strict=True):
        variable.assign(value)


@pytest.mark.parametrize("name", ["density", "maf", *COUPLINGS])
def test_a_module_and_a_checkpoint_hold_all_that_a_score_reads(
    name, standardised, tmp_path
):
    model, x = standardised[name], tf.constant(normal(4, 3))
    other = make(name, normalization=adapted(normal(8, 3)), scale=0.7)
    module = tf.Module()
    module.held = model.distribution()
    shown = {id(v) for v in module.variables}
    assert {id(v.value) for v in model.weights} <= shown
    trained = {id(v.value) for v in model.trainable_variables}
    assert {id(v) for v in module.trainable_variables} == trained
    path = tf.train.Checkpoint(held=module.held).save(tmp_path / "point")
    fresh = tf.train.Checkpoint(held=other.distribution())
    fresh.restore(path).assert_existing_objects_matched()
    assert np.array_equal(to_numpy(other(x)), to_numpy(model(x)))


def test_frozen_weights_are_not_shown_as_trainable():
    flow = make("maf")
    flow.networks[0].trainable = False
    shown = {id(v) for v in flow.distribution().trainable_variables}
    assert shown == {id(v.value) for v in flow.networks[1].trainable_variables}


def test_a_learned_scale_follows_and_is_trained_by_a_loop_of_tfp():
    flow, x = make("nice"), tf.constant(normal(16, 3))
    distribution = flow.distribution()
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(distribution.log_prob(x))
    log_scale = flow.steps[0].params
    slope = tape.gradient(loss, log_scale.value)
    assert slope is not None and np.all(to_numpy(slope) != 0)
    log_scale.assign([[0.5], [0.0], [-0.5]])
    expected = to_numpy(flow.distribution().log_prob(tf.identity(x)))
    assert np.array_equal(to_numpy(distribution.log_prob(tf.identity(x))), expected)


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_joint_distribution_of_couplings(name, standardised):
    conditional = make(name, context_size=3)
    joint = tfd.JointDistributionSequential(
        [standardised[name].distribution(), conditional.distribution]
    )
    first, second = joint.sample(4, seed=[1, 2])
    expected = to_numpy(standardised[name](first)) + to_numpy(
        conditional((second, first))
    )
    assert to_numpy(joint.log_prob([first, second])) == pytest.approx(
        expected, abs=1e-4
    )
