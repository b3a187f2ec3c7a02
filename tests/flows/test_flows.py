"""Flows: invertible, normalised, trained from both sides, and visible from both."""

import math
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("flows run on TensorFlow", allow_module_level=True)

import tensorflow as tf
import tensorflow_probability as tfp
from laws import others_slow, reload, set_random_weights, to_numpy

from keras_made import MADE, flows

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from flow_likelihood import PLANAR

tfb, tfd = tfp.bijectors, tfp.distributions

FLOWS = {
    "maf": flows.MAF,
    "iaf": flows.IAF,
    "spline": flows.SplineMAF,
    "realnvp": flows.RealNVP,
    "nice": flows.NICE,
}
# name: (number of variables, size of the context, batch shape)
SIZES = {
    "one variable": (1, 0, (7,)),
    "plain": (4, 0, (7,)),
    "context": (3, 2, (7,)),
    "batch axes": (3, 2, (4, 2)),
}


def make(name, size=4, context_size=0, dtype="float64", scale=0.3, **options):
    options = {"num_steps": 2, "hidden_units": (8, 8), **options}
    flow = FLOWS[name](size, context_size=context_size, dtype=dtype, **options)
    flow.require_built()
    set_random_weights(flow, scale=scale)
    return flow


def normal(*shape, seed=0, dtype="float64"):
    return np.random.RandomState(seed).normal(size=shape).astype(dtype)


def both_ways(flow, x, context=None):
    """x after its inverse and forward, and the noise, compiled."""

    @tf.function(jit_compile=True)
    def run(x):
        bijector = flow.bijector(context)
        noise = bijector.inverse(x)
        # A copy of the noise: TFP's cache would hand x itself back.
        return bijector.forward(tf.identity(noise)), noise

    return run(tf.constant(x))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", FLOWS)
def test_forward_undoes_inverse(name, sizes):
    size, context_size, batch = SIZES[sizes]
    flow = make(name, size, context_size)
    x = normal(*batch, size)
    # With two batch axes, one context for each entry of the last.
    context = normal(batch[-1], context_size) if context_size else None
    back, noise = both_ways(flow, x, context)
    assert np.abs(to_numpy(back) - x).max() < 1e-9
    assert np.abs(to_numpy(noise) - x).max() > 1e-3


@pytest.mark.parametrize("name", others_slow(FLOWS, "maf", "realnvp"))
def test_five_steps_in_float32_invert_to_four_digits(name):
    # Larger random weights can be as badly conditioned as wanted.
    flow = make(name, 64, 0, "float32", 0.03, num_steps=5, hidden_units=(64, 64))
    x = normal(16, 64, dtype="float32")
    back, _ = both_ways(flow, x)
    assert np.abs(to_numpy(back) - x).max() < 1e-4


@pytest.mark.slow
# The steps of an IAF are those of a MAF, inverted.
@pytest.mark.parametrize("name", [name for name in FLOWS if name != "iaf"])
def test_five_trained_steps_in_float32_invert_to_four_digits(name):
    """On 64 correlated variables, held-out rows and draws alike."""
    rng = np.random.RandomState(0)
    factors = rng.normal(size=(2000, 8)) @ rng.normal(size=(8, 64)) / 2
    x = np.sinh(factors / 2) + 0.3 * rng.normal(size=factors.shape)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    flow = FLOWS[name](64, 5, (64, 64))
    flow.compile(keras.optimizers.Adam(2e-3), jit_compile=False)
    nll = flow.fit(x[:1800], batch_size=100, epochs=10, verbose=0).history["nll"]
    assert nll[-1] < nll[0] - 10
    for rows in (x[1800:], to_numpy(flow.sample(200, seed=1))):
        back, _ = both_ways(flow, rows)
        assert np.abs(to_numpy(back) - rows).max() < 1e-4


@pytest.mark.parametrize("batch", [(5,), (3, 2)])
@pytest.mark.parametrize("name", FLOWS)
def test_log_det_is_that_of_autodiff(name, batch):
    """In the direction that takes one pass: a while-loop has no Jacobian."""
    flow = make(name, 3, 2, permutation="random")
    x, context = tf.constant(normal(math.prod(batch), 3)), normal(batch[-1], 2)

    @tf.function
    def run(x):
        bijector = flow.bijector(context)
        bijector = tfb.Invert(bijector) if name == "iaf" else bijector
        with tf.GradientTape() as tape:
            tape.watch(x)
            rows = tf.reshape(x, (*batch, 3))
            noise = tf.reshape(bijector.inverse(rows), (-1, 3))
        log_det = bijector.inverse_log_det_jacobian(rows, 1)
        return log_det, tape.batch_jacobian(noise, x)

    log_det, jacobian = run(x)
    expected = np.linalg.slogdet(to_numpy(jacobian))[1].reshape(batch)
    assert np.abs(to_numpy(log_det) - expected).max() < 1e-8


@pytest.mark.parametrize("name", others_slow(["maf", "iaf", "spline"], "maf"))
def test_the_sequential_gradient_is_that_of_finite_differences(name):
    flow = make(name, 4, 2)
    noise, context = normal(3, 4), normal(3, 2, seed=1)
    weights = flow.networks[0].trainable_variables[0].value
    cotangent = normal(3, 4, seed=2)

    # Splines take long to compile, and XLA is tested with the other two.
    @tf.function(jit_compile=name != "spline")
    def total(noise, context):
        bijector = flow.bijector(context)
        run = bijector.inverse if name == "iaf" else bijector.forward
        return tf.reduce_sum(run(noise) * cotangent)

    @tf.function(jit_compile=name != "spline")
    def gradients(noise, context):
        with tf.GradientTape() as tape:
            tape.watch([noise, context])
            result = total(noise, context)
        return tape.gradient(result, [noise, context, weights])

    found = gradients(tf.constant(noise), tf.constant(context))
    start, step = weights.numpy(), 1e-6
    for index, gradient in enumerate(found):
        direction = normal(*gradient.shape, seed=3)

        def moved(sign, index=index, direction=direction):
            values = [noise, context, start]
            values[index] = values[index] + sign * step * direction
            weights.assign(values[2])
            return float(total(*map(tf.constant, values[:2])))

        expected = (moved(1) - moved(-1)) / (2 * step)
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-6)
        weights.assign(start)


def test_one_affine_step_is_a_normal_for_each_entry():
    """With the location and the scale that the network gives it, in their bounds."""
    flow = make("maf", 5, dtype="float32", num_steps=1, min_scale=0.2)
    x = normal(50, 5, dtype="float32")
    loc, raw = np.moveaxis(to_numpy(flow.networks[0](x)), -1, 0)
    scale = np.exp(raw / (1 + np.abs(raw) / np.log(5)))
    assert np.all((scale > 0.2) & (scale < 5)) and scale.std() > 0.01
    expected = -0.5 * ((x - loc) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))
    scores = to_numpy(flow.log_prob(x))
    assert scores == pytest.approx(expected.sum(axis=1), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", FLOWS)
def test_the_density_integrates_to_one(name, size):
    flow = make(name, size, scale=0.15)
    axis = np.linspace(-12, 12, 4001 if size == 1 else 301)
    grid = np.stack(np.meshgrid(*[axis] * size), -1).reshape(-1, size)
    total = np.exp(to_numpy(flow.log_prob(grid))).sum() * (axis[1] - axis[0]) ** size
    assert total == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", others_slow(FLOWS, "maf", "nice"))
def test_samples_agree_with_log_prob(name):
    flow = make(name, 2, dtype="float32", scale=0.15)
    x = to_numpy(flow.sample(5000, seed=1))
    assert np.array_equal(x, to_numpy(flow.sample(5000, seed=1)))
    # E_p[q / p] = 1 for any density q that is narrower than p.
    center, spread = x.mean(0), 0.7 * x.std(0)
    q = -0.5 * ((x - center) / spread) ** 2 - np.log(spread * math.sqrt(2 * math.pi))
    weights = np.exp(q.sum(1) - to_numpy(flow.log_prob(x)))
    assert weights.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", FLOWS)
def test_a_reloaded_flow_is_the_same(name, tmp_path):
    flow = make(
        name,
        3,
        2,
        dtype="float32",
        permutation="random",
        base=tfd.StudentT(5.0, 0.0, 1.0),
        dropout=0.1,
    )
    x, context = normal(6, 3), normal(6, 2)
    flow.compile("adam")
    flow.fit((x, context), verbose=0)
    again = reload(flow, tmp_path / "flow.keras")
    assert again.get_config() == flow.get_config()
    scores = to_numpy(flow.log_prob(x, context))
    assert np.array_equal(to_numpy(again.log_prob(x, context)), scores)


@pytest.mark.parametrize("name", others_slow(FLOWS, "maf"))
def test_training_goes_on_after_a_reload_as_if_nothing_had_been(name, tmp_path):
    options = {"permutation": "random", "dropout": 0.2, "dtype": "float32"}
    x, context = normal(64, 3, dtype="float32"), normal(64, 2, dtype="float32")

    def fit(flow):
        return flow.fit((x, context), batch_size=16, shuffle=False, verbose=0)

    ends = []
    for pause in (False, True):
        flow = make(name, 3, 2, num_steps=1 if name == "iaf" else 2, **options)
        keras.utils.set_random_seed(0)
        flow.compile("adam")
        fit(flow)
        if pause:
            flow = reload(flow, tmp_path / "flow.keras")
        fit(flow)
        ends.append(flow.get_weights())
    for straight, paused in zip(*ends, strict=True):
        assert np.array_equal(straight, paused)


@pytest.mark.parametrize("name", ["maf", "realnvp"])
def test_context_moves_the_first_variable_of_every_step_nonlinearly(name):
    flow = make(name, 3, 1, num_steps=3)
    x = tf.zeros((3, 3), tf.float64)
    context = np.array([[-1.0], [0.0], [1.0]])
    for index in range(3):
        noise = to_numpy(flow.steps[index].to_noise(x, tf.constant(context))[0])
        moved = noise[:, -1 if index % 2 or name == "realnvp" else 0]
        if name == "realnvp":
            moved = noise[:, 0 if index % 2 else -1]
        assert abs(moved[0] - 2 * moved[1] + moved[2]) > 1e-4


def test_fit_and_a_hand_written_tfp_loop_end_at_the_same_weights():
    x = normal(64, 2, dtype="float32") * [0.5, 2.0] + [1.0, -1.0]
    x = x.astype("float32")
    flow = flows.MAF(2, 1, (8,))
    flow.require_built()
    made = MADE([8], 2, encoder=flows.Bounded())
    made.build((None, 2))
    made.set_weights(flow.networks[0].get_weights())
    flow.compile(keras.optimizers.SGD(0.05))
    history = flow.fit(x, batch_size=64, epochs=20, verbose=0)
    assert history.history["nll"][-1] < history.history["nll"][0]

    distribution = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), 2), flows.MaskedAutoregressiveFlow(made)
    )
    data = tf.constant(x)
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(distribution.log_prob(data))
        variables = distribution.trainable_variables
        for variable, gradient in zip(
            variables, tape.gradient(loss, variables), strict=True
        ):
            variable.assign_sub(0.05 * gradient)
    for mine, theirs in zip(
        flow.networks[0].get_weights(), made.get_weights(), strict=True
    ):
        assert mine == pytest.approx(theirs, abs=1e-4)


def built_made(size=3, context_size=0):
    made = MADE([8], num_params=2)
    made.build((None, size), (None, context_size) if context_size else None)
    set_random_weights(made, scale=0.3)
    return made


def test_weights_are_seen_through_every_wrapper():
    made = built_made()
    expected = {id(v.value) for v in made.trainable_variables}
    bijector = flows.MaskedAutoregressiveFlow(made)
    wrapped = {
        "itself": bijector,
        "invert": tfb.Invert(bijector),
        "chain": tfb.Chain([tfb.Scale(2.0), bijector]),
        "distribution": tfd.TransformedDistribution(
            tfd.Sample(tfd.Normal(0.0, 1.0), 3), tfb.Invert(bijector)
        ),
    }
    for _ in range(2):
        for name, module in wrapped.items():
            assert {id(v) for v in module.trainable_variables} == expected, name
        wrapped["distribution"].log_prob(tf.zeros((2, 3)))
    unbuilt = flows.MaskedAutoregressiveFlow(MADE([8], num_params=2))
    unbuilt.forward(tf.zeros((2, 3)))
    assert len(unbuilt.trainable_variables) == len(expected)


def test_the_network_is_called_once_for_a_score(monkeypatch):
    made, calls = built_made(), []
    call = made.call
    monkeypatch.setattr(made, "call", lambda *a, **k: calls.append(1) or call(*a, **k))
    distribution = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), 3), flows.MaskedAutoregressiveFlow(made)
    )
    distribution.log_prob(tf.zeros((2, 3)))
    assert len(calls) == 1


def test_a_score_follows_the_weights_and_the_cache_holds_pairs():
    made = built_made()
    bijector = flows.MaskedAutoregressiveFlow(made)
    x = tf.constant(normal(4, 3, dtype="float32"))
    before = to_numpy(bijector.inverse_log_det_jacobian(x, 1))
    made.set_weights([2 * w for w in made.get_weights()])
    after = to_numpy(bijector.inverse_log_det_jacobian(x, 1))
    fresh = to_numpy(bijector.inverse_log_det_jacobian(tf.identity(x), 1))
    assert np.array_equal(after, fresh) and not np.allclose(after, before)
    y = bijector.forward(x)
    assert bijector.inverse(y) is x


def test_context_and_batch_axes_as_a_tfp_keyword():
    made = built_made(3, 2)
    bijector = flows.MaskedAutoregressiveFlow(made)
    x = tf.constant(normal(5, 1, 3, dtype="float32"))
    context = tf.constant(normal(4, 2, dtype="float32"))
    y = bijector.forward(x, context=context)
    assert y.shape == (5, 4, 3)
    one = bijector.inverse(y[2, 1][None], context=context[1][None])
    assert to_numpy(one)[0] == pytest.approx(to_numpy(x)[2, 0], abs=1e-5)
    log_det = bijector.inverse_log_det_jacobian(tf.identity(y), 1, context=context)
    assert log_det.shape == (5, 4)


def test_a_distribution_with_a_context_batch():
    flow = make("maf", 3, 2, dtype="float32")
    distribution = flow.distribution(normal(4, 2, dtype="float32"))
    assert distribution.batch_shape == (4,)
    x = distribution.sample(5, seed=[1, 2])
    assert x.shape == (5, 4, 3) and distribution.log_prob(x).shape == (5, 4)
    with pytest.raises(ValueError, match="context of size 2"):
        flow.distribution()


@pytest.mark.parametrize("kind", ["maf", "realnvp"])
def test_plain_tfp_bijectors_run_our_networks(kind):
    if kind == "maf":
        network = built_made()
        bijector = tfb.MaskedAutoregressiveFlow(network)
    else:
        network = make("realnvp", 3, dtype="float32").networks[0]

        def shift_and_log_scale(x, units):
            return tf.split(network(x), [units, units], axis=-1)

        bijector = tfb.RealNVP(1, shift_and_log_scale_fn=shift_and_log_scale)
    x = tf.constant(normal(4, 3, dtype="float32"))
    with tf.GradientTape() as tape:
        noise = bijector.inverse(x)
        log_det = bijector.inverse_log_det_jacobian(x, 1)
        loss = tf.reduce_sum(noise**2) - tf.reduce_sum(log_det)
    weights = [v.value for v in network.trainable_variables]
    assert all(g is not None for g in tape.gradient(loss, weights))
    assert to_numpy(bijector.forward(tf.identity(noise))) == pytest.approx(
        to_numpy(x), abs=1e-5
    )


def test_a_flow_is_a_piece_of_a_functional_model():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, make("maf", 3, dtype="float32")(inputs))
    assert model.predict(normal(5, 3), verbose=0).shape == (5,)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
# The direction of an IAF that is bounded far out is the draw.
@pytest.mark.parametrize("name", [name for name in FLOWS if name != "iaf"])
def test_far_outliers_have_finite_scores_and_gradients(name, dtype):
    # Splines take long to compile.
    num_steps = 3 if name == "spline" else 10
    flow = make(name, 3, dtype=dtype, num_steps=num_steps, scale=0.5)
    x = tf.constant([[1e12, -1e12, 1.0], [0.0, 1e10, 0.0]])

    @tf.function(jit_compile=True)
    def run(x):
        with tf.GradientTape() as tape:
            log_prob = flow((x,))
        return log_prob, tape.gradient(log_prob, [v.value for v in flow.weights])

    log_prob, gradients = run(x)
    assert np.all(np.isfinite(to_numpy(log_prob)))
    assert all(np.all(np.isfinite(to_numpy(g))) for g in gradients if g is not None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("df", [1, 2])
def test_ten_steps_train_on_heavy_tails(df, dtype):
    x = np.random.RandomState(0).standard_t(df, size=(10_000, 4)).astype("float32")
    flow = flows.MAF(4, 10, (32, 32), dtype=dtype)
    flow.compile("adam")
    history = flow.fit(x, batch_size=100, epochs=10, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))


@pytest.mark.parametrize("base", ["student", "batch", "mixture"])
def test_any_base_is_saved(base):
    made = {
        "student": lambda: tfd.StudentT(3.0, 0.0, 2.0),
        "batch": lambda: tfd.Laplace([0.0, 1.0], 1.0),
        "mixture": lambda: tfd.MixtureSameFamily(
            tfd.Categorical(logits=[0.0, 1.0]), tfd.Normal([-2.0, 2.0], 1.0)
        ),
    }[base]()
    flow = flows.MAF(2, 1, (4,), base=made)
    again = flows.MAF.from_config(flow.get_config())
    x = normal(5, 2, dtype="float32")
    again.require_built(), flow.require_built()
    again.set_weights(flow.get_weights())
    assert np.array_equal(to_numpy(again.log_prob(x)), to_numpy(flow.log_prob(x)))
    u = to_numpy(flow.bijector().inverse(tf.constant(x)))
    log_det = to_numpy(flow.bijector().inverse_log_det_jacobian(tf.constant(x), 1))
    expected = to_numpy(made.log_prob(u)).sum(1) + log_det
    assert to_numpy(flow.log_prob(x)) == pytest.approx(expected, abs=1e-4)


def test_normalization_keeps_the_units_of_the_data():
    x = normal(500, 2, dtype="float32") * [1e-3, 1e4] + [5.0, -2e5]
    layer = keras.layers.Normalization()
    layer.adapt(x)
    flow = flows.MAF(2, 1, (4,), normalization=layer)
    inside = flows.MAF(2, 1, (4,))
    flow.require_built(), inside.require_built()
    inside.networks[0].set_weights(flow.networks[0].get_weights())
    z = (x - x.mean(0)) / x.std(0)
    expected = to_numpy(inside.log_prob(z)) - np.log(x.std(0)).sum()
    assert to_numpy(flow.log_prob(x)) == pytest.approx(expected, abs=0.02)


def test_a_loss_that_is_not_finite_names_its_cause():
    flow = flows.MAF(2, 1, (4,))
    flow.compile(keras.optimizers.SGD(1e30))
    with pytest.raises(ValueError, match=r"weights are not finite .*learning rate"):
        flow.fit(normal(64, 2, dtype="float32"), batch_size=8, epochs=2, verbose=0)


@pytest.mark.parametrize("name", PLANAR)
def test_the_entropy_of_the_planar_densities(name):
    """Beside the estimate of Kozachenko and Leonenko, from distances to neighbours."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    size, neighbour = 20_000, 4
    x, entropy = PLANAR[name](np.random.RandomState(0), size)
    distance = cKDTree(x).query(x, neighbour + 1)[0][:, -1]
    areas = np.log(math.pi * distance**2)
    estimate = areas.mean() + digamma(size) - digamma(neighbour)
    assert estimate == pytest.approx(entropy, abs=0.03)


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    {
        "event size": (lambda: flows.MAF(0), "event_size"),
        "permutation": (lambda: flows.MAF(2, permutation="no"), "permutation"),
        "base": (lambda: flows.MAF(2, base="normal"), "tfp.distributions"),
        "base shape": (lambda: flows.MAF(2, base=tfd.Normal([0.0] * 3, 1.0)), "size 2"),
        "trainable base": (
            lambda: flows.MAF(2, base=tfd.Normal(tf.Variable(0.0), 1.0)),
            "constant",
        ),
        "params": (
            lambda: flows.MaskedAutoregressiveFlow(MADE([4], 3)),
            "num_params=2",
        ),
        "structures": (
            lambda: flows.MaskedAutoregressiveFlow(
                MADE([4], 2, ordering="random", num_masks=2)
            ),
            "num_masks=1",
        ),
        "bins": (lambda: flows.SplineMAF(2, num_bins=1), "num_bins"),
    }.values(),
)
def test_errors_say_what_to_do(make_wrong, message):
    with pytest.raises(ValueError, match=message):
        make_wrong()
