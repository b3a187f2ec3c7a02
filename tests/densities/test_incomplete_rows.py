"""Densities of rows with holes: log p of what is observed, whatever the model is."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from laws import chi_square_p, reload, set_random_weights, state_index, to_numpy

from keras_made import (
    MADE,
    NADE,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    Ensemble,
    Incomplete,
    MixtureOfLogistics,
    MixtureOfNormals,
    NetworkAverage,
    PixelCNN,
    PixelRNN,
    Recurrent,
    WaveNet,
    flows,
)

pytestmark = pytest.mark.neutral

BACKEND = keras.backend.backend()
SIZE, CONTEXT = 4, 2
ORDERS = {"ordering": "random", "num_masks": 3}
# name: (a network of so many parameters, shape of an event)
NETWORKS = {
    "made": (lambda n: MADE([8], n), (SIZE,)),
    "orders": (lambda n: MADE([8, 8], n, **ORDERS), (SIZE,)),
    "companion": (lambda n: MADE([8], n, companion=True, **ORDERS), (SIZE,)),
    "nade": (lambda n: NADE(6, num_params=n, **ORDERS), (SIZE,)),
    "deep nade": (lambda n: NADE(6, num_params=n, num_blocks=1, **ORDERS), (SIZE,)),
    "recurrent": (lambda n: Recurrent((SIZE,), 6, num_params=n), (SIZE,)),
    "wavenet": (lambda n: WaveNet((SIZE,), 4, num_params=n, num_layers=2), (SIZE,)),
    "pixelcnn": (lambda n: PixelCNN((2, 2), 4, num_params=n, num_layers=1), (2, 2)),
    "pixelrnn": (lambda n: PixelRNN((2, 1, 2), 4, num_params=n), (2, 1, 2)),
    "average": (
        lambda n: NetworkAverage([MADE([8], n), WaveNet((SIZE,), 4, num_params=n)]),
        (SIZE,),
    ),
}
# What an entry is like, and how many values it has.
DISCRETE = {
    "bits": (Incomplete("bernoulli"), 2),
    "classes": (Incomplete(Categorical(3)), 3),
    "levels": (Incomplete(MixtureOfLogistics(2, 3)), 3),
    "a table": (Incomplete(Columns(["bernoulli", Categorical(2)] * 2)), 2),
    "columns": (
        Columns([Incomplete(c) for c in (Bernoulli(), Categorical(2)) * 2]),
        2,
    ),
}
REAL = {
    "normal": Incomplete("normal"),
    "mixture": Incomplete(MixtureOfNormals(2)),
    "some columns": Columns(
        [Incomplete("normal"), "bernoulli", Incomplete(Categorical(3)), "normal"]
    ),
}
RNG = np.random.RandomState(7)
CASES = [
    (network, RNG.choice(list(DISCRETE)[: 5 if shape == (SIZE,) else 3]), n % 2 == 0)
    for n, (network, (_, shape)) in enumerate(NETWORKS.items())
] + [("orders", kind, True) for kind in DISCRETE]


def make(network, conditional, context=False, scale=0.7, **options):
    build, shape = NETWORKS[network]
    model = AutoregressiveDensity(build(conditional.num_params), conditional, **options)
    shape = (None, *shape)
    model.build((shape, (None, CONTEXT)) if context else shape)
    set_random_weights(model.network, scale=scale)
    return model


def some_context(context, n=None):
    """One context for all rows, or one for each of n."""
    if not context:
        return None
    shape = (CONTEXT,) if n is None else (n, CONTEXT)
    return np.random.RandomState(3).normal(size=shape).astype("float32")


def with_holes(x, share=0.4, seed=0, where=True):
    holes = np.random.RandomState(seed).uniform(size=np.shape(x)) < share
    return np.where(holes & where, np.nan, x).astype("float32")


def real_rows(kind, n=24, seed=1):
    """Rows with holes for one of `REAL`, within (-3, 5)."""
    rng = np.random.RandomState(seed)
    x = np.clip(rng.normal(0.5, 1.0, size=(n, SIZE)), -2.9, 4.9)
    if kind == "some columns":
        x[:, 1:3] = rng.randint((2, 3), size=(n, 2))
    return with_holes(x, where=REAL[kind].incomplete)


def slope_of(model, x):
    """d sum(log p) / dx, on whichever back end."""
    x = ops.convert_to_tensor(x)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            total = ops.sum(model.log_prob(x))
        return to_numpy(tape.gradient(total, x))
    if BACKEND == "jax":
        import jax

        return to_numpy(jax.grad(lambda x: ops.sum(model.log_prob(x)))(x))
    x.requires_grad_(True)
    ops.sum(model.log_prob(x)).backward()
    return to_numpy(x.grad)


def probabilities(model, levels, context=None):
    """Of every row of levels and holes: an axis for each entry, holes last on it."""
    values = [*range(levels), np.nan]
    x = np.array(list(itertools.product(values, repeat=SIZE)), "float32")
    log_prob = model.log_prob(np.reshape(x, (-1, *model.event_shape)), context)
    return np.exp(to_numpy(log_prob)).reshape([levels + 1] * SIZE)


# What log p is ------------------------------------------------------------------------


@pytest.mark.parametrize("network, kind, context", CASES)
def test_the_chain_rule_over_what_is_observed_is_exact(network, kind, context):
    """Summed over its last observed entry, a row is the row without that entry."""
    conditional, levels = DISCRETE[kind]
    whole, own = make(network, conditional, context), some_context(context)
    members = []
    for structure in whole.members:
        member = AutoregressiveDensity(
            whole.network, conditional, structures=[structure]
        )
        members.append(probabilities(member, levels, own))
        p = members[-1].transpose(whole.network.orders()[structure])
        while p.ndim:
            without = p[..., levels]
            np.testing.assert_allclose(p[..., :levels].sum(-1), without, rtol=2e-5)
            p = without
        np.testing.assert_allclose(p, 1.0)
    # By induction each pattern of holes sums to one, and so does it in the mixture.
    if len(members) > 1:
        mixture = probabilities(whole, levels, own)
        np.testing.assert_allclose(mixture, np.mean(members, axis=0), rtol=2e-5)


@pytest.mark.parametrize("network, kind", [("orders", "mixture"), ("nade", "normal")])
def test_densities_beside_a_hole_integrate_to_one(network, kind):
    model = make(network, REAL[kind], scale=0.3, support=([-3.0] * 3 + [-np.inf], None))
    grid = np.linspace(-2.999, 60.0, 3001)
    for seen in (0, 2):
        x = np.full((len(grid), SIZE), np.nan, "float32")
        x[:, seen] = grid
        density = np.exp(to_numpy(model(ops.convert_to_tensor(x))).astype("float64"))
        assert abs(np.trapezoid(density, grid) - 1) < 0.02


@pytest.mark.parametrize("network", ["orders", "companion", "nade"])
def test_order_agnostic_completions_are_exact_for_their_member(network):
    model = make(network, DISCRETE["bits"][0])
    states = np.array(list(itertools.product((0, 1), repeat=SIZE)), "float32")
    observed = np.array([False, True, False, True])
    log_prob = to_numpy(model.conditional_log_prob(states, observed))
    given = states[:, observed] @ [2, 1]
    totals = np.bincount(given.astype(int), np.exp(log_prob))
    np.testing.assert_allclose(totals, 1.0, rtol=2e-5)
    row = np.where(observed, states[5], np.nan)
    completed = to_numpy(model.impute(np.tile(row, (3000, 1)), seed=0))
    p = np.where((states[:, observed] == row[observed]).all(1), np.exp(log_prob), 0.0)
    counts = np.bincount(state_index(completed), minlength=len(states))
    assert not counts[p == 0].any()
    assert chi_square_p(counts[p > 0], p[p > 0]) > 1e-3


# How it is trained --------------------------------------------------------------------

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]
if BACKEND != "jax":
    POLICIES.append("float64")
TRAINED = [
    (network, kind, POLICIES[i % len(POLICIES)], bool(i % 3))
    for i, (network, kind) in enumerate(itertools.product(NETWORKS, REAL))
    if (NETWORKS[network][1] == (SIZE,) or kind != "some columns") and i % 4 != 1
]


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("network, kind, policy, context", TRAINED, indirect=["policy"])
def test_no_hole_reaches_a_weight(network, kind, policy, context):
    support = None if kind == "some columns" else (-3.0, 5.0)
    model = make(network, REAL[kind], context, 0.3, support=support)
    x = np.reshape(real_rows(kind), (-1, *model.event_shape))
    own = some_context(context, len(x))
    model.compile(keras.optimizers.SGD(0.01))

    def weights():
        return [to_numpy(w.value) for w in model.trainable_weights]

    before = weights()
    loss = model.train_on_batch(x if own is None else (x, own))
    assert np.isfinite(loss).all()
    after = weights()
    assert all(np.isfinite(w.astype("float64")).all() for w in after)
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    if kind != "some columns":
        # Rows of which nothing is seen teach nothing.
        nothing = np.full_like(x, np.nan)
        model.train_on_batch(nothing if own is None else (nothing, own))
        for now, then in zip(weights(), after, strict=True):
            np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("support", [None, (-3.0, 5.0), (None, [5.0] * 3 + [np.inf])])
@pytest.mark.parametrize("network", ["orders", "wavenet"])
def test_the_derivative_to_a_hole_is_zero(network, support):
    model = make(network, REAL["mixture"], support=support)
    x = real_rows("mixture")
    model.adapt(x)
    slope = slope_of(model, x)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope != 0, ~np.isnan(x))


class Batches(keras.utils.PyDataset):
    """Batches of eight of rows, their contexts and weights."""

    def __init__(self, x, context, weights):
        super().__init__()
        self.arrays = x, context, weights

    def __len__(self):
        return len(self.arrays[0]) // 8

    def __getitem__(self, i):
        x, context, weights = (a[8 * i : 8 * i + 8] for a in self.arrays)
        return (x, context), np.zeros((len(x), 0), "float32"), weights


def in_forms(x, context, weights):
    """The same rows as arrays, tensors and streams, as arguments of `evaluate`."""
    weighted = {"sample_weight": weights}
    masked = np.ma.masked_invalid(x)
    yield {"x": (x, context), **weighted}
    yield {"x": (masked, context), **weighted}
    yield {"x": (ops.convert_to_tensor(x), ops.convert_to_tensor(context)), **weighted}
    yield {"x": Batches(x, context, weights)}
    if BACKEND == "tensorflow":
        import tensorflow as tf

        nothing = np.zeros((len(x), 0), "float32")
        rows = tf.data.Dataset.from_tensor_slices(((x, context), nothing, weights))
        yield {"x": rows.batch(8)}


@pytest.mark.parametrize(
    "network, kind", [("orders", "some columns"), ("recurrent", "mixture")]
)
def test_rows_with_holes_come_in_every_form(network, kind):
    model = make(network, REAL[kind], True, 0.3)
    x = real_rows(kind, 16)
    context = some_context(True, len(x))
    weights = np.random.RandomState(2).uniform(size=len(x)).astype("float32")
    model.compile(keras.optimizers.SGD(0.01))
    log_prob = to_numpy(model.log_prob(x, context))
    expected = -np.sum(weights * log_prob) / weights.sum()
    for form in in_forms(x, context, weights):
        assert abs(model.evaluate(**form, verbose=0) - expected) < 1e-4
    np.testing.assert_allclose(model.predict((x, context), verbose=0), log_prob, 1e-4)
    before = model.get_weights()
    trained = []
    for form in in_forms(x, context, weights):
        model.set_weights(before)
        model.fit(**form, batch_size=8, shuffle=False, verbose=0)
        trained.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    if model.network.num_masks == 1:
        for other in trained[1:]:
            np.testing.assert_allclose(other, trained[0], atol=1e-5)
    assert np.isfinite(trained).all()


@pytest.mark.compiled
def test_what_is_learned_of_holes_by_chance_is_near_the_truth():
    """Three bits, each but the first like the one before it in nine rows of ten."""
    rng = np.random.RandomState(0)
    x = np.cumsum(rng.uniform(size=(4000, 3)) < [0.5, 0.1, 0.1], axis=1) % 2
    states = np.array(list(itertools.product((0, 1), repeat=3)), "float32")
    changes = np.abs(np.diff(states, axis=1))
    joint = 0.5 * np.prod(np.where(changes, 0.1, 0.9), axis=1)
    network = MADE([24], ordering="random", num_masks=4)
    model = AutoregressiveDensity(network, Incomplete("bernoulli"))
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(with_holes(x, 0.3, seed=1), epochs=15, batch_size=50, verbose=0)
    patterns = np.array([np.where(hole, np.nan, s) for hole in states for s in states])
    agree = (patterns[:, None] == states) | np.isnan(patterns[:, None])
    truth = np.log(agree.all(axis=2) @ joint)
    gaps = (truth - to_numpy(model.log_prob(patterns))).reshape(8, 8) @ joint
    # Two bits say 0.37 nats of each other.
    assert gaps.max() < 0.05
    assert abs(gaps[-1]) < 1e-6


# Units, files, and what else a density does -------------------------------------------


def test_units_are_learned_of_what_is_observed():
    x = real_rows("normal", 200)
    x[:, 3] = np.nan
    model = AutoregressiveDensity(MADE([8], 2), REAL["normal"])
    model.adapt((x[rows],) for rows in np.array_split(np.arange(200), 7))
    for found, expected in (
        (model.units.loc, [*np.nanmean(x[:, :3], axis=0), 0.0]),
        (model.units.scale, [*np.nanstd(x[:, :3], axis=0), 1.0]),
    ):
        np.testing.assert_allclose(to_numpy(found.value), expected, atol=1e-5)


def normalized(loc, scale):
    layer = keras.layers.Normalization(mean=loc, variance=np.square(scale))
    return {"normalization": layer}


@pytest.mark.parametrize("options", [None, normalized], ids=["adapt", "a layer"])
@pytest.mark.parametrize("network", ["orders", "wavenet"])
def test_only_what_is_observed_is_converted_to_units(network, options):
    conditional, x = REAL["mixture"], real_rows("mixture")
    loc, scale = np.array([1.0, -2.0, 0.0, 30.0]), np.array([2.0, 0.5, 1.0, 20.0])
    plain = make(network, conditional)
    other = make(network, conditional, **(options(loc, scale) if options else {}))
    if options is None:
        other.units.loc.assign(loc)
        other.units.scale.assign(scale)
    slopes = np.where(np.isnan(x), 0.0, np.log(scale)).sum(axis=1)
    found = to_numpy(other.log_prob((x * scale + loc).astype("float32")))
    expected = to_numpy(plain.log_prob(x)) - slopes
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:In .* rows, first in row:UserWarning")
@pytest.mark.parametrize(
    "network, kind", [("orders", "some columns"), ("companion", "mixture")]
)
def test_completions_and_draws_have_no_holes(network, kind):
    model = make(network, REAL[kind], True, 0.3)
    x, context = real_rows(kind, 8), some_context(True)
    seen = ~np.isnan(x)
    for particles in (1, 6):
        args = {"context": context, "num_particles": particles, "seed": 0}
        completed = to_numpy(model.impute(x, **args))
        assert np.isfinite(completed).all()
        np.testing.assert_array_equal(completed[seen], x[seen])
        again = model.impute(np.where(seen, x, 0.0), observed=seen, **args)
        np.testing.assert_array_equal(to_numpy(again), completed)
    given = to_numpy(model.conditional_log_prob(completed, seen, context, seed=0))
    assert np.isfinite(given).all()
    assert np.isfinite(to_numpy(model.sample(50, context, seed=0))).all()
    with pytest.raises(ValueError, match="must be finite"):
        model.conditional_log_prob(x, seen, context)


@pytest.mark.parametrize(
    "network, kind",
    [("made", "a table"), ("nade", "some columns"), ("average", "bits")],
)
def test_a_file_keeps_which_entries_may_be_missing(network, kind, tmp_path):
    conditional = REAL[kind] if kind in REAL else DISCRETE[kind][0]
    model = make(network, conditional)
    x = real_rows(kind) if kind in REAL else with_holes(np.ones((9, SIZE)))
    model.compile("adam")
    model.fit(x, verbose=0)
    again = reload(model, tmp_path / "holes.keras")
    assert again.conditional == conditional
    np.testing.assert_array_equal(
        to_numpy(again.log_prob(x)), to_numpy(model.log_prob(x))
    )
    again.fit(x, verbose=0)
    assert np.isfinite(again.evaluate(x, verbose=0))


def test_an_ensemble_takes_the_holes_that_all_members_take():
    some = Columns([Incomplete("normal"), Incomplete("normal"), "normal", "normal"])
    members = [make("made", REAL["normal"]), make("orders", REAL["mixture"])]
    members.append(make("nade", some))
    x = with_holes(real_rows("normal"), where=some.incomplete)
    x = np.where(np.isnan(x) & ~some.incomplete, 0.0, x)
    weights = [0.5, 0.25, 0.25]
    scores = [np.exp(to_numpy(member.log_prob(x))) for member in members]
    mixture = Ensemble(members, weights)
    found = to_numpy(mixture.log_prob(x))
    np.testing.assert_allclose(found, np.log(weights @ np.array(scores)), atol=1e-4)
    assert mixture.may_be_missing().tolist() == [True, True, False, False]
    mixture.adapt(x)
    x[0, 3] = np.nan
    with pytest.raises(ValueError, match=r"nan in row 0, at index \(0, 3\)"):
        mixture.log_prob(x)
    mixture = Ensemble(members[:2])
    assert mixture.may_be_missing().all()
    flow = flows.MAF(SIZE, 1, [4])
    assert not np.any(Ensemble([*members, flow]).may_be_missing())


REFUSED = {
    "a hole in a complete column": ("some columns", (2, 3), np.nan, "nan in row 2"),
    "infinity": ("normal", (1, 0), np.inf, "inf in row 1"),
    "no class": ("some columns", (3, 2), 5.0, "column 2.*5.0 in row 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_hole_is_checked_as_ever(name):
    kind, place, value, message = REFUSED[name]
    model, x = make("made", REAL[kind]), real_rows(kind)
    model.compile("sgd")
    x[place] = value
    for verb in (model.fit, model.evaluate, model.log_prob, model.predict):
        with pytest.raises(ValueError, match=message):
            verb(x, verbose=0)


def test_contexts_are_complete_and_columns_as_many_as_said():
    model, x = make("made", REAL["normal"], True), real_rows("normal")
    with pytest.raises(ValueError, match="`context` must be finite"):
        model.log_prob(x, np.full((len(x), CONTEXT), np.nan))
    for kind in ("a table", "columns"):
        conditional = DISCRETE[kind][0]
        model = AutoregressiveDensity(MADE([8], 2), conditional)
        with pytest.raises(ValueError, match=r"4 conditionals.*shape \(5,\)"):
            model.fit(np.full((3, 5), np.nan))


def test_data_far_from_unit_scale_is_told_of_with_holes_too():
    model = AutoregressiveDensity(MADE([8], 2), REAL["normal"])
    model.compile("sgd")
    x = 1e4 + real_rows("normal")
    x[:, 0] = np.nan
    with pytest.warns(UserWarning, match="column 1 with mean 1e"):
        model.fit(x, verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TFP's distributions")
def test_the_distribution_scores_holes_and_draws_none():
    model, x = make("made", REAL["some columns"], True), real_rows("some columns")
    distribution = model.distribution(some_context(True))
    expected = to_numpy(model.log_prob(x, some_context(True)))
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-5)
    assert np.isfinite(distribution.sample(2, seed=0)).all()
