"""Conditionals: normalized, sampled as scored, checked, saved, one or many to a row."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from laws import chi_square_p, reload, to_numpy
from scipy import stats

from keras_made import (
    MADE,
    Atoms,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    Incomplete,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
    PiecewiseLinear,
    Transformed,
    flows,
)

pytestmark = pytest.mark.neutral


@keras.saving.register_keras_serializable(package="tests")
class Exponential(Conditional):
    """A positive number; the parameter is the raw value of its rate."""

    continuous = True

    def log_prob(self, params, x):
        rate = ops.softplus(params[..., 0]) + 1e-6
        return ops.log(rate) - rate * x

    def draw(self, params, uniforms):
        return -ops.log(uniforms[..., 0]) / (ops.softplus(params[..., 0]) + 1e-6)

    def mean(self, params):
        return 1.0 / (ops.softplus(params[..., 0]) + 1e-6)

    def check(self, x):
        if np.any(x <= 0):
            raise ValueError(f"Every value must be positive. Received: {x[x <= 0][0]}.")


DISCRETE = {
    "bernoulli": (Bernoulli(), 2),
    "categorical": (Categorical(7), 7),
    "logistics": (MixtureOfLogistics(3, 16), 16),
    "two levels": (MixtureOfLogistics(2, 2), 2),
    "256 levels": (MixtureOfLogistics(5), 256),
    "atoms": (Atoms(range(5)), 5),
    "heard in pieces": (PiecewiseLinear(Atoms(range(5)), [0, 1, 4]), 5),
    "65536 levels": (MixtureOfLogistics(2, 65536, min_scale=1e-4), 65536),
    "incomplete": (Incomplete(MixtureOfLogistics(2, 4)), 4),
}
CONTINUOUS = {
    "normal": Normal(),
    "normals": MixtureOfNormals(4),
    "one normal": MixtureOfNormals(1),
    "spline": Transformed(flows.Spline(4)),
    "normal in pieces": PiecewiseLinear(MixtureOfNormals(2), [-1, 0, 2]),
    "exponential": Exponential(),
    "incomplete real": Incomplete(MixtureOfNormals(2)),
}
ALL = {name: c for name, (c, _) in DISCRETE.items()} | CONTINUOUS


def make_params(conditional, num_rows=20, scale=2.0, seed=0):
    shape = (num_rows, conditional.num_params)
    return (scale * np.random.RandomState(seed).normal(size=shape)).astype("float32")


def tensors(*arrays):
    """Each array as a tensor of its own dtype: torch adds no NumPy to its own."""
    return [ops.convert_to_tensor(np.ascontiguousarray(a)) for a in arrays]


def log_probs_of_all(conditional, num_levels, params):
    """Of every level, for every row of parameters: `(rows, num_levels)`."""
    levels = np.arange(num_levels, dtype="float32")
    shape = (len(params), num_levels)
    params = np.broadcast_to(params[:, None], (*shape, params.shape[-1]))
    x = np.broadcast_to(levels, shape)
    return to_numpy(conditional.log_prob(*tensors(params, x)))


@pytest.mark.parametrize("scale", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_of_all_levels_sum_to_one(name, scale):
    conditional, num_levels = DISCRETE[name]
    params = make_params(conditional, scale=scale)
    log_probs = log_probs_of_all(conditional, num_levels, params)
    assert np.isfinite(log_probs).all()
    totals = np.exp(log_probs.astype("float64")).sum(axis=1)
    np.testing.assert_allclose(totals, 1.0, atol=2e-6)


@pytest.mark.parametrize("name", ["normal", "normals", "exponential"])
def test_densities_integrate_to_one(name):
    conditional = CONTINUOUS[name]
    params = make_params(conditional, 5)
    start = 1e-6 if name == "exponential" else -60.0
    grid = np.linspace(start, 60.0, 200_001)
    shape = (len(params), len(grid))
    params = np.broadcast_to(params[:, None], (*shape, params.shape[-1]))
    x = np.broadcast_to(grid.astype("float32"), shape)
    density = np.exp(
        to_numpy(conditional.log_prob(*tensors(params, x))).astype("float64")
    )
    total = np.trapezoid(density, grid, axis=1)
    np.testing.assert_allclose(total, 1.0, atol=1e-3)


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "logistics"])
def test_discrete_samples_follow_the_probabilities(name):
    conditional, num_levels = DISCRETE[name]
    for row, params in enumerate(make_params(conditional, 3, scale=1.0)):
        many = np.broadcast_to(params, (20_000, len(params)))
        x = to_numpy(conditional.sample(*tensors(many), seed=10 + row))
        conditional.check(x)
        counts = np.bincount(x.astype(int), minlength=num_levels)
        log_probs = log_probs_of_all(conditional, num_levels, params[None])[0]
        assert chi_square_p(counts, np.exp(log_probs)) > 1e-3


@pytest.mark.parametrize("name", CONTINUOUS)
def test_real_samples_follow_the_density(name):
    """Kolmogorov-Smirnov against the cumulated density, by fine summation."""
    conditional = CONTINUOUS[name]
    for row, params in enumerate(make_params(conditional, 3, scale=1.0)):
        many = np.broadcast_to(params, (20_000, len(params)))
        x = to_numpy(conditional.sample(*tensors(many), seed=10 + row))
        grid = np.linspace(x.min() - 1e-3, x.max() + 1e-3, 100_001)
        tiled = np.broadcast_to(params, (len(grid), len(params)))
        density = np.exp(
            to_numpy(conditional.log_prob(*tensors(tiled, grid.astype("float32"))))
        )
        cumulated = np.cumsum(density) * (grid[1] - grid[0])
        result = stats.kstest(x, lambda v, g=grid, c=cumulated: np.interp(v, g, c))
        assert result.pvalue > 1e-3


@pytest.mark.parametrize(
    "conditional",
    [
        MixtureOfNormals(2),
        pytest.param(MixtureOfLogistics(2, 256), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_components_of_the_first_variable_learn_to_differ(conditional):
    """The first variable hears nothing: its parameters are biases that start at 0."""
    x = np.repeat([[-2.0], [2.0]], 50, axis=0)
    if not conditional.continuous:
        x = 127 + 60 * x
    model = AutoregressiveDensity(MADE((), conditional.num_params), conditional)
    model.compile(keras.optimizers.Adam(0.1))
    model.fit(x, epochs=60, batch_size=100, verbose=0)
    draws = to_numpy(model.sample(400, seed=1))[:, 0]
    low, high = np.percentile(draws, [25, 75])
    np.testing.assert_allclose([low, high], [x.min(), x.max()], rtol=0.5, atol=1.0)
    middle = np.abs(draws - x.mean()) < 0.25 * (x.max() - x.min())
    assert middle.mean() < 0.1


@pytest.mark.parametrize("name", [n for n in ALL if n != "categorical"])
def test_the_mean_is_the_mean_of_many_samples(name):
    conditional = ALL[name]
    for row, params in enumerate(make_params(conditional, 3, scale=1.0)):
        many = np.broadcast_to(params, (20_000, len(params)))
        x = to_numpy(conditional.sample(*tensors(many), seed=10 + row)).astype(
            "float64"
        )
        error = x.std() / math.sqrt(len(x))
        assert (
            abs(to_numpy(conditional.mean(*tensors(params))) - x.mean()) < 4.5 * error
        )


def test_the_mean_of_classes_is_the_most_probable():
    params = make_params(Categorical(7))
    found = to_numpy(Categorical(7).mean(*tensors(params)))
    np.testing.assert_array_equal(found, params.argmax(axis=1))


def test_a_class_of_probability_zero_is_never_drawn():
    logits = np.array([-np.inf, 0.3, -np.inf, 1.0, -np.inf], "float32")
    noise = np.concatenate([[2.0**-24, 1 - 2.0**-24], np.linspace(0.01, 0.99, 99)])
    many = np.broadcast_to(logits, (101, 5))
    drawn = Categorical(5).draw(*tensors(many, noise[:, None].astype("float32")))
    assert set(to_numpy(drawn)) == {1.0, 3.0}
    log_prob = to_numpy(Categorical(5).log_prob(*tensors(logits[None], [3.0])))
    np.testing.assert_allclose(log_prob, 1.0 - np.logaddexp(0.3, 1.0), rtol=1e-5)


def gradient(function, params):
    """d sum(function(params)) / d params, on whichever back end."""
    params = ops.convert_to_tensor(params)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(params)
            total = ops.sum(function(params))
        return to_numpy(tape.gradient(total, params))
    if backend == "jax":
        import jax

        return to_numpy(jax.grad(lambda p: ops.sum(function(p)))(params))
    params.requires_grad_(True)
    ops.sum(function(params)).backward()
    return to_numpy(params.grad)


@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("name", ALL)
def test_values_and_gradients_are_finite_far_out(name, size):
    conditional = ALL[name]
    params = make_params(conditional, 200, scale=size)
    rng = np.random.RandomState(1)
    if name in DISCRETE:
        x = rng.randint(DISCRETE[name][1], size=200).astype("float32")
        x[:2] = [0, DISCRETE[name][1] - 1]
    else:
        x = np.abs(size * rng.normal(size=200)).astype("float32")
    (x,) = tensors(x)
    log_prob = to_numpy(conditional.log_prob(*tensors(params), x))
    assert log_prob.shape == (200,)
    assert np.isfinite(log_prob).all()
    assert np.isfinite(gradient(lambda p: conditional.log_prob(p, x), params)).all()


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has float64 by a switch of its own"
)
@pytest.mark.parametrize("name", ALL)
def test_float64_stays_float64(name):
    conditional = ALL[name]
    params = make_params(conditional)
    x = to_numpy(conditional.sample(*tensors(params), seed=1))
    double = tensors(params.astype("float64"), x.astype("float64"))
    log_prob = to_numpy(conditional.log_prob(*double))
    single = to_numpy(conditional.log_prob(*tensors(params, x)))
    assert log_prob.dtype == "float64"
    # Relative to how far the parameters are known in single precision.
    # A steep piece of a spline magnifies what rounding does to its corners.
    tolerance = 3e-4 if name == "spline" else 2e-5
    np.testing.assert_allclose(single, log_prob, rtol=tolerance, atol=tolerance)


# Many kinds in one row ------------------------------------------------------------

MIXED = Columns(
    [Categorical(4), Normal(), Bernoulli(), MixtureOfLogistics(2, 8), Categorical(4)]
    + [MixtureOfNormals(2), Normal(min_scale=0.1)]
)


def mixed_rows(num_rows, seed=0):
    rng = np.random.RandomState(seed)
    columns = [rng.randint(4, size=num_rows), rng.normal(size=num_rows)]
    columns += [rng.randint(n, size=num_rows) for n in (2, 8, 4)]
    columns += [rng.normal(size=num_rows), rng.normal(size=num_rows)]
    return np.stack(columns, axis=1).astype("float32")


def mixed_params(num_rows):
    shape = (num_rows, 7, MIXED.num_params)
    return np.random.RandomState(2).normal(size=shape).astype("float32")


def test_each_column_is_its_own_conditional():
    params, x = mixed_params(30), mixed_rows(30)
    noise = np.random.RandomState(3).uniform(size=(30, 7, MIXED.num_uniforms))
    params, x, noise = tensors(params, x, noise.astype("float32"))
    log_prob, draws, means, features = (
        to_numpy(part)
        for part in (
            MIXED.log_prob(params, x),
            MIXED.draw(params, noise),
            MIXED.mean(params),
            MIXED.encode(x),
        )
    )
    assert features.shape == (30, 7, 4)
    for i, c in enumerate(MIXED.conditionals):
        own = params[:, i, : c.num_params]
        alone = c.log_prob(own, x[:, i])
        np.testing.assert_allclose(log_prob[:, i], to_numpy(alone), rtol=1e-5)
        drawn = to_numpy(c.draw(own, noise[:, i, : c.num_uniforms]))
        np.testing.assert_allclose(draws[:, i], drawn, rtol=1e-5)
        np.testing.assert_allclose(means[:, i], to_numpy(c.mean(own)), rtol=1e-5)
        width = c.num_features
        np.testing.assert_array_equal(
            features[:, i, :width], to_numpy(c.encode(x[:, i]))
        )
        assert not features[:, i, width:].any()


@pytest.mark.parametrize("shared", [True, False], ids=["one order", "orders of rows"])
def test_entries_named_by_index_are_those_of_the_full_row(shared):
    params, x = mixed_params(30), mixed_rows(30)
    noise = np.random.RandomState(3).uniform(size=(30, 7, MIXED.num_uniforms))
    noise = noise.astype("float32")
    rng = np.random.RandomState(4)
    entries = np.stack([rng.permutation(7)[:3] for _ in range(1 if shared else 30)])
    full = np.broadcast_to(entries, (30, 3))

    def pick(array):
        index = full.reshape(30, 3, *[1] * (array.ndim - 2))
        return np.take_along_axis(array, index, axis=1)

    at = MIXED.at(ops.convert_to_tensor(entries.astype("int32")))
    pairs = [
        (
            at.log_prob(*tensors(pick(params), pick(x))),
            MIXED.log_prob(*tensors(params, x)),
        ),
        (
            at.draw(*tensors(pick(params), pick(noise))),
            MIXED.draw(*tensors(params, noise)),
        ),
        (at.encode(*tensors(pick(x))), MIXED.encode(*tensors(x))),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(to_numpy(found), pick(to_numpy(expected)), rtol=1e-5)


# Checks -------------------------------------------------------------------------------

GRID = np.zeros((3, 4))


def at_row_one(value):
    x = GRID.copy()
    x[1, 2] = value
    return x


BAD_VALUES = {
    "half a bit": (Bernoulli(), 0.5, "0 or 1.*0.5 in row 1"),
    "missing bit": (Bernoulli(), np.nan, "nan in row 1"),
    "class too many": (Categorical(3), 3, "0 to 2.*3.0 in row 1"),
    "negative class": (Categorical(3), -1, "-1.0 in row 1"),
    "half a class": (Categorical(3), 1.5, "1.5 in row 1"),
    "missing class": (Categorical(3), np.nan, "nan in row 1"),
    "level too many": (MixtureOfLogistics(2, 256), 256, "0 to 255.*256.0 in row 1"),
    "infinity": (Normal(), np.inf, "finite.*inf in row 1"),
    "not a number": (MixtureOfNormals(2), np.nan, "finite.*nan in row 1"),
    "in a column": (
        Columns([Normal()] * 2 + [Categorical(3), Normal()]),
        7,
        "column 2.*0 to 2.*7.0 in row 1",
    ),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_the_first_value_outside_the_support_is_named(name):
    conditional, value, message = BAD_VALUES[name]
    conditional.check(GRID)
    with pytest.raises(ValueError, match=message):
        conditional.check(at_row_one(value))


BAD_ARGUMENTS = {
    "one class": lambda: Categorical(1),
    "part of a class": lambda: Categorical(2.5),
    "no component": lambda: MixtureOfNormals(0),
    "one level": lambda: MixtureOfLogistics(2, 1),
    "no floor": lambda: Normal(min_scale=0.0),
    "no column": lambda: Columns([]),
    "columns of columns": lambda: Columns([Columns([Normal()])]),
    "a name": lambda: AutoregressiveDensity(MADE([4]), "poisson"),
    "width of columns": lambda: Columns([Normal()]).check(GRID),
    "parameters": lambda: AutoregressiveDensity(MADE([4], 2), Categorical(3)),
    "discrete normalization": lambda: AutoregressiveDensity(
        MADE([4], 3), Categorical(3), normalization=keras.layers.Normalization()
    ),
    "another layer": lambda: AutoregressiveDensity(
        MADE([4], 2), "normal", normalization=keras.layers.LayerNormalization()
    ),
    "inverted": lambda: AutoregressiveDensity(
        MADE([4], 2), "normal", normalization=keras.layers.Normalization(invert=True)
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused(name):
    with pytest.raises(ValueError, match="Received"):
        BAD_ARGUMENTS[name]()


# Saved, and of the user's own -----------------------------------------------------


@pytest.mark.parametrize("name", [*ALL, "columns"])
def test_it_is_made_again_from_its_config(name):
    conditional = MIXED if name == "columns" else ALL[name]
    config = keras.saving.serialize_keras_object(conditional)
    again = keras.saving.deserialize_keras_object(config)
    assert again == conditional
    assert hash(again) == hash(conditional)
    assert repr(again) == repr(conditional)
    assert again != Categorical(99)


def test_numpy_integers_are_counts_too():
    assert Categorical(np.int64(5)) == Categorical(5)
    assert type(MixtureOfNormals(np.int32(2)).num_params) is int


OWN = {
    "alone": lambda: Exponential(),
    "among columns": lambda: Columns([Exponential(), Categorical(3), Exponential()]),
}


@pytest.mark.parametrize(
    "name", ["alone", pytest.param("among columns", marks=pytest.mark.slow)]
)
def test_a_conditional_of_the_users_own_fits_samples_and_saves(name, tmp_path):
    conditional = OWN[name]()
    rng = np.random.RandomState(0)
    x = rng.exponential(2.0, size=(600, 3)).astype("float32")
    if name == "among columns":
        x[:, 1] = rng.randint(3, size=600)
    model = AutoregressiveDensity(MADE([8], conditional.num_params), conditional)
    model.compile(keras.optimizers.Adam(0.05))
    history = model.fit(x, epochs=10, batch_size=100, verbose=0).history["nll"]
    assert history[-1] < history[0]
    draws = to_numpy(model.sample(1000, seed=1))
    conditional.check(draws)
    assert abs(draws[:, 0].mean() - 2.0) < 0.3
    again = reload(model, tmp_path / "own.keras")
    np.testing.assert_array_equal(to_numpy(again.log_prob(x)), model.log_prob(x))
    # A column of which nothing is known is no reason to complain of its values.
    missing = x[:50].copy()
    missing[:, 0] = np.nan
    completed = to_numpy(model.impute(missing, num_particles=4, seed=2))
    conditional.check(completed)
    np.testing.assert_array_equal(completed[:, 1:], missing[:, 1:])
