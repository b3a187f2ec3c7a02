"""What the kinds of entries, mixtures and particles must do together."""

import gc
import weakref

import keras
import numpy as np
import pytest
from eager import uncompiled
from keras import ops
from laws import (
    all_states,
    chi_square_p,
    others_slow,
    set_random_weights,
    state_index,
    to_numpy,
)
from test_conditionals import DISCRETE, gradient, make_params, tensors

from keras_made import (
    MADE,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    MixtureOfLogistics,
    Normal,
    compiling,
)
from keras_made.densities import imputation

pytestmark = pytest.mark.neutral


@pytest.fixture
def eager():
    with uncompiled():
        yield


def make(network, conditional="bernoulli", size=4, scale=0.8, **kwargs):
    model = AutoregressiveDensity(network, conditional, **kwargs)
    model.build((None, size))
    set_random_weights(model.network, scale=scale)
    return model


# What is no value ---------------------------------------------------------------------

SMALL = [name for name, (_, levels) in DISCRETE.items() if levels <= 256]


def no_values(num_levels):
    return [-1.0, -0.5, 0.5, num_levels, num_levels - 0.5, 1e9, -1e30, np.inf, -np.inf]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", DISCRETE)
def test_what_is_no_value_has_probability_zero(name, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 by a switch of its own")
    conditional, num_levels = DISCRETE[name]
    x = np.array([*no_values(num_levels), np.nan, 0, num_levels - 1], dtype)
    params = np.tile(make_params(conditional, 1), (len(x), 1)).astype(dtype)
    log_prob = to_numpy(conditional.log_prob(*tensors(params, x)))
    assert log_prob.dtype == dtype
    assert (log_prob[:-3] == -np.inf).all()
    # NaN is missing where that may be, and else it has NaN.
    assert log_prob[-3] == 0 if conditional.incomplete else np.isnan(log_prob[-3])
    assert np.isfinite(log_prob[-2:]).all()
    at_x = ops.convert_to_tensor(x)
    slope = gradient(lambda p: conditional.log_prob(p, at_x), params)
    assert (slope[:-2] == 0).all() and np.isfinite(slope).all()
    assert (slope[-2:] != 0).any(axis=1).all()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("name", SMALL)
def test_integers_are_values_too(name, dtype):
    conditional, num_levels = DISCRETE[name]
    x = np.arange(min(num_levels, 2 if dtype == "bool" else 256))
    params = np.tile(make_params(conditional, 1), (len(x), 1))
    found = conditional.log_prob(*tensors(params, x.astype(dtype)))
    expected = conditional.log_prob(*tensors(params, x.astype("float32")))
    np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


TABLE = Columns([Bernoulli(), Normal(), Categorical(3), MixtureOfLogistics(2, 4)])
VALUES = {0: 2, 2: 3, 3: 4}


@pytest.fixture(scope="module", params=[1, 2], ids=["one order", "two orders"])
def table(request):
    ordering = "natural" if request.param == 1 else "random"
    network = MADE([12], 6, ordering=ordering, num_masks=request.param)
    return make(network, TABLE)


ROW = np.array([1.0, 0.3, 2.0, 3.0], "float32")


@pytest.mark.parametrize("column", VALUES)
def test_a_row_off_the_support_spoils_no_other_row(table, column):
    bad = np.tile(ROW, (9, 1))
    bad[:, column] = no_values(VALUES[column])
    # What a network hears of near infinity is its own matter.
    bad = bad[(np.abs(bad) < 1e10).all(axis=1)]
    x = np.concatenate([ROW[None], bad])
    log_prob = to_numpy(table.log_prob(ops.convert_to_tensor(x)))
    expected = to_numpy(table.log_prob(ROW[None]))[0]
    np.testing.assert_allclose(log_prob[0], expected, rtol=1e-5)
    assert (log_prob[1:] == -np.inf).all()
    assert np.isfinite(gradient(lambda x: table.log_prob(x), x)).all()


def batches(x):
    """A stream, which is not looked at value by value."""

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return (x,)

    return Batches()


def test_a_stream_off_the_support_is_infinitely_improbable():
    model = make(MADE([12], 6), TABLE)
    model.compile("sgd", run_eagerly=True)
    x = np.tile(ROW, (3, 1))
    assert np.isfinite(model.evaluate(batches(x), verbose=0))
    x[1, 2] = 1.5
    assert model.evaluate(batches(x), verbose=0) == np.inf
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(ValueError, match=r"some row has no finite log p.*stream"):
        model.fit(batches(x), verbose=0)
    after = model.get_weights()
    assert all(np.isfinite(w).all() for w in after)
    assert any((a != b).any() for a, b in zip(after, before, strict=True))


@pytest.mark.filterwarnings("ignore:In .* rows, first in row:UserWarning")
@pytest.mark.usefixtures("eager")
def test_kinds_that_see_each_others_columns_add_nothing(table):
    """Step by step every kind is computed on every column, and one is chosen."""
    x = np.tile(ROW, (2, 1))
    observed = np.array([True, True, False, False])
    for seen in (observed, ~observed):
        for particles in (1, 2):
            completed = table.impute(x, seen, num_particles=particles, seed=0)
            assert np.isfinite(to_numpy(table.log_prob(completed))).all()
        found = to_numpy(table.conditional_log_prob(x, seen, num_particles=2))
        assert np.isfinite(found).all()


@pytest.mark.parametrize("most", [Categorical, lambda n: MixtureOfLogistics(1, n)])
def test_levels_that_float32_does_not_tell_apart_are_refused(most):
    with pytest.raises(ValueError, match=r"at most 2\*\*24 = 16777216.*float32"):
        most(2**24 + 1)
    assert most(2**24).num_params


def test_the_most_levels_still_have_mass_one():
    """Near the top, where half a level is less than float32 tells apart."""
    conditional, top = MixtureOfLogistics(1, 2**24), 2**24 - 1
    # 2,000 levels hold a millionth of the mass, and the last one all that is above.
    x = np.arange(top - 2000, top)
    params = np.tile(np.array([0.0, 1.0, -8.0], "float32"), (len(x), 1))
    log_prob = conditional.log_prob(*tensors(params, x.astype("float32")))
    mass = np.exp(to_numpy(log_prob).astype("float64")).sum()
    _, loc, scale = (float(to_numpy(a)[0, 0]) for a in conditional.components(params))
    edges = np.array([x[0] - 0.5, x[-1] + 0.5])
    expected = np.diff(1 / (1 + np.exp(-(edges - loc) / scale)))[0]
    assert abs(mass / expected - 1) < 1e-3


# Mixtures -----------------------------------------------------------------------------

MIXTURES = {
    "four members": lambda: make(
        MADE([9], hidden_degrees="random", num_masks=4), scale=1.0
    ),
    "three of them": lambda: make(
        MADE([9], hidden_degrees="random", num_masks=4), scale=1.0, structures=[3, 0, 2]
    ),
}
FIRST = {"all": 4, "two": 2}


@pytest.fixture(scope="module", params=MIXTURES)
def mixture(request):
    return MIXTURES[request.param]()


def log_mean(log_prob, agree):
    return np.log((np.exp(log_prob) * agree).sum(axis=-1))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("particles", [1, 6])
@pytest.mark.parametrize("first", FIRST)
def test_conditionals_of_mixtures_are_exact_when_the_observed_come_first(
    mixture, first, particles
):
    x, observed = all_states(4), np.arange(4) < FIRST[first]
    log_prob = to_numpy(mixture.log_prob(x)).astype("float64")
    agree = np.all((x[:, None] == x[None]) | ~observed, axis=-1)
    found = mixture.conditional_log_prob(x, observed, num_particles=particles, seed=0)
    expected = log_prob - log_mean(log_prob, agree)
    np.testing.assert_allclose(to_numpy(found), expected, atol=2e-4)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("particles", [1, 6])
def test_completions_of_mixtures_are_exact_when_the_observed_come_first(
    mixture, particles
):
    x, observed = all_states(4), np.arange(4) < 2
    log_prob = to_numpy(mixture.log_prob(x)).astype("float64")
    rows, p_values = np.repeat(x[::4], 1000, axis=0), []
    completed = mixture.impute(rows, observed, num_particles=particles, seed=1)
    indices = state_index(to_numpy(completed)).reshape(4, -1)
    for row, index in zip(x[::4], indices, strict=True):
        p = np.exp(log_prob) * np.all((x == row) | ~observed, axis=1)
        p_values.append(chi_square_p(np.bincount(index, minlength=16), p / p.sum()))
    assert min(p_values) > 1e-3


@pytest.mark.usefixtures("eager")
def test_particles_that_do_not_fit_run_in_groups(monkeypatch):
    mixture = MIXTURES["three of them"]()
    held, complete = [], imputation.complete

    def counting(model, verb, x, observed, context, particles, noise):
        held.append(len(x) * particles)
        return complete(model, verb, x, observed, context, particles, noise)

    monkeypatch.setattr(imputation, "complete", counting)
    monkeypatch.setattr(compiling, "FLOATS_PER_CHUNK", 2**11)
    x, first = all_states(4)[5:6], np.arange(4) < 2
    job = {"num_particles": 50, "seed": 0, "verbose": 0}
    found = to_numpy(mixture.conditional_log_prob(x, first, **job))
    completed = to_numpy(mixture.impute(x, first, **job))
    assert max(held) * mixture.floats_per_row() <= 2**11
    assert sum(held) >= 2 * 50 and len(held) > 2
    again = to_numpy(mixture.conditional_log_prob(x, first, **job))
    np.testing.assert_array_equal(found, again)
    assert np.array_equal(completed[:, :2], x[:, :2])
    states = all_states(4)
    agree = np.all((x[:, None] == states[None]) | ~first, axis=-1)
    marginal = log_mean(to_numpy(mixture.log_prob(states)).astype("float64"), agree)
    np.testing.assert_allclose(
        found, to_numpy(mixture.log_prob(x)) - marginal, atol=2e-4
    )


def test_groups_of_particles_choose_by_weight_as_one_group_does(monkeypatch):
    """Particles that are told by a number, with weights that are known."""
    model, rows, made = make(MADE([9])), 300, []
    likely = np.arange(1.0, 10.0)

    def known(_, verb, x, observed, context, particles, noise):
        numbers = (len(made) * particles + np.arange(particles)) % 9
        made.append(particles)
        completed = np.repeat(numbers[:, None], 4, axis=1).astype("float32")
        weights = np.log(likely[numbers])[None].astype("float32")
        return completed, weights

    monkeypatch.setattr(imputation, "complete", known)
    monkeypatch.setattr(compiling, "FLOATS_PER_CHUNK", 3 * 100)
    x = np.zeros((rows, 4), "float32")
    chosen = model.impute(x, x == 1, num_particles=9, seed=3, verbose=0)
    assert made == [3] * 3 * rows
    counts = np.bincount(to_numpy(chosen)[:, 0].astype(int), minlength=9)
    assert chi_square_p(counts, likely / likely.sum()) > 1e-3


# Conditionals of one's own ------------------------------------------------------------


class Shifted(Conditional):
    """A constant: it says nothing, and takes an argument."""

    def __init__(self, shift=0.0):
        self.shift = shift

    def log_prob(self, params, x):
        return 0.0 * params[..., 0] - (x - self.shift) ** 2

    def draw(self, params, uniforms):
        return 0.0 * params[..., 0] + self.shift


class Silent(Categorical):
    """Inherits a config that does not tell its own argument."""

    def __init__(self, num_classes, temperature=1.0):
        super().__init__(num_classes)
        self.temperature = temperature


class Anything(Shifted):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class Told(Shifted):
    def get_config(self):
        return {"shift": self.shift}


class Plain(Shifted):
    def __init__(self):
        super().__init__(3.0)


UNTOLD = {
    "no config": (lambda: Shifted(2.0), r"Shifted takes the arguments \['shift'\]"),
    "the base's": (lambda: Silent(3, 0.5), r"\['temperature'\].*get_config"),
    "any": (lambda: Anything(shift=2.0), r"\['kwargs'\]"),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_a_conditional_that_does_not_say_how_it_was_made_is_refused(name):
    build, message = UNTOLD[name]
    with pytest.raises(ValueError, match=message):
        Columns([build(), build()])
    with pytest.raises(ValueError, match=message):
        AutoregressiveDensity(MADE([3], build().num_params), build())
    assert type(build()).__name__ in repr(build())


def test_conditionals_that_say_how_they_were_made_are_told_apart():
    columns = Columns([Told(1.0), Told(2.0), Told(1.0), Plain()])
    assert columns.kind_of.tolist() == [0, 1, 0, 2]
    drawn = columns.draw(*tensors(np.zeros((4, 1), "float32"), np.zeros((4, 1))))
    assert to_numpy(drawn).tolist() == [1.0, 2.0, 1.0, 3.0]


# Where a model is used ----------------------------------------------------------------


def in_graphs(call):
    """`call` where nothing has a value yet, in every way that the back end has."""
    if keras.backend.backend() == "jax":
        import jax

        return [jax.jit(lambda _: call())], np.zeros(2)
    import tensorflow as tf

    def mapped(z):
        return list(tf.data.Dataset.from_tensor_slices(z).map(lambda _: call()))

    return [tf.function(lambda _: call(), autograph=False), mapped], np.zeros(2)


VERBS = {
    "sample": lambda m, x: m.sample(3),
    "impute": lambda m, x: m.impute(x, x == 1),
    "conditional_log_prob": lambda m, x: m.conditional_log_prob(x, x == 1),
}


@pytest.mark.compiled
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has no graphs")
@pytest.mark.parametrize("verb", others_slow(VERBS, "sample"))
def test_what_needs_values_says_so_in_a_graph(verb):
    model, x = make(MADE([5])), all_states(4)
    functions, argument = in_graphs(lambda: VERBS[verb](model, x))
    for function in functions:
        with pytest.raises(ValueError, match=r"`Dataset.map`.*distribution"):
            function(argument)


@pytest.mark.slow
def test_a_model_that_was_used_is_collected_with_all_that_it_made():
    model = make(MADE([5], hidden_degrees="random", num_masks=2))
    model.sample(2)
    model.log_prob(all_states(4))
    left = weakref.ref(model)
    del model
    gc.collect()
    assert left() is None
