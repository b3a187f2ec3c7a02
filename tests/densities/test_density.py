"""The density model: sums to one, samples what it scores, trains, saves, checks."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from laws import (
    all_states,
    chi_square_p,
    others_slow,
    reload,
    set_random_weights,
    state_index,
    to_numpy,
)

from keras_made import MADE, NADE, AutoregressiveDensity, Normal, compiling
from keras_made.autoregressive import Autoregressive

pytestmark = pytest.mark.neutral

# name: (network, size of the context, dtype policy)
MODELS = {
    "one structure": (lambda: MADE([16, 16]), 0, "float32"),
    "fvsbn": (lambda: MADE(()), 0, "float32"),
    "mixture of 5": (lambda: MADE([16], ordering="random", num_masks=5), 0, "float32"),
    "random degrees": (
        lambda: MADE([30, 30], hidden_degrees="random", num_masks=3, residual=True),
        0,
        "float32",
    ),
    "context": (lambda: MADE([16], ordering="random", num_masks=2), 3, "float32"),
    "companion": (lambda: MADE([12, 9], companion=True, dropout=0.2), 0, "float32"),
    "bfloat16": (lambda: MADE([16, 16]), 0, "mixed_bfloat16"),
    "float64": (lambda: MADE([16, 16]), 0, "float64"),
}
if keras.backend.backend() == "jax":
    del MODELS["float64"]  # JAX has float64 only behind a switch of the whole process.


def make(name, size, scale=1.0):
    build, context_size, policy = MODELS[name]
    with_policy = build().get_config() | {"dtype": policy}
    model = AutoregressiveDensity(MADE.from_config(with_policy), dtype=policy)
    shape = (None, size)
    model.build((shape, (None, context_size)) if context_size else shape)
    set_random_weights(model.network, scale=scale)
    context = np.random.RandomState(3).normal(size=context_size).astype("float32")
    return model, context if context_size else None


def binary(num_rows, size, p=0.4, seed=0):
    return (np.random.RandomState(seed).uniform(size=(num_rows, size)) < p).astype(
        "float32"
    )


@pytest.mark.parametrize("size", [1, 4, 10])
@pytest.mark.parametrize("name", MODELS)
def test_probabilities_of_all_states_sum_to_one(name, size):
    model, context = make(name, size)
    log_prob = to_numpy(model.log_prob(all_states(size), context))
    assert log_prob.dtype == ("float64" if name == "float64" else "float32")
    total = np.exp(log_prob.astype("float64")).sum()
    # Half precision rounds logits alike for both values of a variable, so even it
    # stays close; its logits are cast up before any probability is taken.
    assert abs(total - 1) < (1e-3 if name == "bfloat16" else 1e-5)


@pytest.mark.parametrize("name", ["mixture of 5", "context", "random degrees"])
def test_the_mixture_is_the_mean_of_its_members(name):
    model, context = make(name, 5)
    x = all_states(5)
    shared = None if context is None else np.tile(context, (len(x), 1))
    members = []
    for row in range(model.network.num_masks):
        logits = to_numpy(model.network(x, shared, structure=row)).astype("float64")
        members.append(-np.logaddexp(0, (1 - 2 * x) * logits).sum(axis=1))
    expected = np.log(np.mean(np.exp(members), axis=0))
    found = to_numpy(model.log_prob(x, context))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_some_rows_are_a_mixture_too():
    model, _ = make("mixture of 5", 4)
    some = AutoregressiveDensity(model.network, structures=[1, 3])
    log_prob = to_numpy(some.log_prob(all_states(4)))
    assert abs(np.exp(log_prob).sum() - 1) < 1e-5
    draws = some.sample(20_000, seed=5, verbose=0)
    counts = np.bincount(state_index(to_numpy(draws)), minlength=16)
    assert chi_square_p(counts, np.exp(log_prob)) > 1e-3


@pytest.mark.parametrize(
    "name", ["one structure", "mixture of 5", "random degrees", "context"]
)
def test_samples_follow_the_enumerated_probabilities(name):
    model, context = make(name, 4, scale=0.7)
    probabilities = np.exp(to_numpy(model.log_prob(all_states(4), context)))
    draws = to_numpy(model.sample(20_000, context, seed=2, verbose=0))
    assert draws.shape == (20_000, 4)
    counts = np.bincount(state_index(draws), minlength=16)
    assert chi_square_p(counts, probabilities) > 1e-3


@pytest.mark.compiled
def test_few_samples_of_a_mixture_come_from_all_members():
    """A single draw, many times over, follows the mixture and not its first member."""
    model, _ = make("mixture of 5", 3)
    probabilities = np.exp(to_numpy(model.log_prob(all_states(3))))
    seeds = keras.random.SeedGenerator(1)
    draws = [to_numpy(model.sample(1, seed=seeds)) for _ in range(400)]
    counts = np.bincount(state_index(np.concatenate(draws)), minlength=8)
    assert chi_square_p(counts, probabilities) > 1e-3


@pytest.mark.parametrize("name", ["one structure", "mixture of 5", "companion"])
def test_fast_samples_are_slow_samples(name, monkeypatch):
    """The same seed gives the same draws when every step recomputes the network."""
    # Else a mixture's draws run together, each in its own order, with other noise.
    monkeypatch.setattr(MADE, "orderings_only", False)
    fast, _ = make(name, 7)
    drawn = to_numpy(fast.sample(33, seed=11))
    assert np.array_equal(drawn, to_numpy(fast.sample(33, seed=11)))
    assert not np.array_equal(drawn, to_numpy(fast.sample(33, seed=12)))
    for method in ("start", "step", "open", "block_length"):
        monkeypatch.setattr(MADE, method, getattr(Autoregressive, method))
    slow, _ = make(name, 7)
    np.testing.assert_array_equal(to_numpy(slow.sample(33, seed=11)), drawn)


@pytest.mark.parametrize(
    "name", others_slow(MODELS, "mixture of 5", "context", "bfloat16")
)
def test_fit_evaluate_and_predict_agree(name):
    model, context = make(name, 5, scale=0.1)
    x = binary(48, 5)
    data = x if context is None else (x, np.tile(context, (48, 1)))
    model.compile(keras.optimizers.Adam(0.03))
    history = model.fit(
        data, epochs=4, batch_size=16, verbose=0, validation_data=data
    ).history
    assert set(history) == {
        f"{split}{metric}"
        for split in ("", "val_")
        for metric in ("loss", "nll", "bits_per_dim")
    }
    assert history["val_nll"][-1] < history["val_nll"][0]
    nll = model.evaluate(data, verbose=0)
    assert isinstance(nll, float)
    log_prob = to_numpy(model.log_prob(x, context))
    # XLA may keep half-precision values in float32 between operations.
    tolerance = 0.02 if name == "bfloat16" else 1e-4
    np.testing.assert_allclose(nll, -log_prob.mean(), rtol=tolerance)
    np.testing.assert_allclose(
        model.predict(data, verbose=0), log_prob, rtol=tolerance, atol=tolerance
    )
    np.testing.assert_allclose(history["val_nll"][-1], nll, rtol=1e-5)
    logs = model.evaluate(data, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["bits_per_dim"], nll / 5 / math.log(2), rtol=1e-5)


def test_penalties_are_in_the_loss_and_not_in_the_likelihood():
    network = MADE([8], kernel_regularizer=keras.regularizers.L2(0.1))
    model = AutoregressiveDensity(network)
    model.compile("sgd")
    x = binary(20, 4)
    logs = model.evaluate(x, verbose=0, return_dict=True)
    penalty = sum(float(to_numpy(loss)) for loss in model.losses)
    assert penalty > 0.01
    np.testing.assert_allclose(logs["loss"] - logs["nll"], penalty, rtol=1e-4)
    np.testing.assert_allclose(
        logs["nll"], -to_numpy(model.log_prob(x)).mean(), rtol=1e-5
    )


def test_a_row_of_weight_two_is_the_row_twice():
    x, weights = binary(12, 4), np.array([2.0] * 4 + [1.0] * 6 + [0.0] * 2)
    twice = np.concatenate([x[:4], x[:10]])
    models = [make("one structure", 4, scale=0.3)[0] for _ in range(2)]
    for model in models:
        model.compile(keras.optimizers.SGD(0.5))
    models[0].fit(x, sample_weight=weights, batch_size=12, epochs=3, verbose=0)
    models[1].fit(twice, batch_size=14, epochs=3, verbose=0)
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(
        models[0].evaluate(x, sample_weight=weights, verbose=0),
        models[1].evaluate(twice, verbose=0),
        rtol=1e-5,
    )
    plain, weighted = (
        models[0].fit(x, batch_size=12, verbose=0, validation_data=data).history
        for data in (x, ((x,), None, weights))
    )
    assert plain["val_nll"] != weighted["val_nll"]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.data goes with TensorFlow"
)
def test_fit_from_tf_data():
    import tensorflow as tf

    model, context = make("context", 4)
    x, c = binary(24, 4), np.tile(context, (24, 1))
    model.compile("adam")
    stream = tf.data.Dataset.from_tensor_slices(((x, c),)).map(lambda pair: (pair,))
    # Keras warns when it is left to shuffle a stream, which it cannot.
    history = model.fit(
        stream.batch(8), verbose=0, validation_data=stream.batch(8), shuffle=False
    )
    assert np.isfinite(history.history["val_nll"][0])
    np.testing.assert_allclose(
        model.evaluate(stream.batch(8), verbose=0),
        model.evaluate((x, c), verbose=0),
        rtol=1e-5,
    )
    model, _ = make("one structure", 4)
    model.compile("adam")
    bits = tf.data.Dataset.from_tensor_slices(x.astype("uint8")).batch(8)
    model.fit(bits, epochs=2, verbose=0, shuffle=False)


def test_fit_from_a_generator():
    model, _ = make("one structure", 4)
    model.compile("adam")
    x = binary(24, 4)
    batches = ((x[i : i + 8],) for i in range(0, 24, 8))
    history = model.fit(batches, steps_per_epoch=3, verbose=0, shuffle=False)
    assert np.isfinite(history.history["nll"][0])


def test_callbacks_see_the_likelihood():
    model, _ = make("mixture of 5", 4)
    model.compile(keras.optimizers.Adam(0.5))
    stop = keras.callbacks.EarlyStopping("val_nll", min_delta=100, mode="min")
    history = model.fit(
        binary(20, 4), epochs=9, validation_split=0.2, callbacks=[stop], verbose=0
    )
    assert len(history.epoch) == 2


@pytest.mark.parametrize("name", MODELS)
def test_it_comes_back_from_a_file(name, tmp_path):
    model, context = make(name, 5)
    again = reload(model, tmp_path / "m.keras")
    x = all_states(5)
    np.testing.assert_array_equal(
        to_numpy(again.log_prob(x, context)), to_numpy(model.log_prob(x, context))
    )
    np.testing.assert_array_equal(
        to_numpy(again.sample(7, context, seed=3)),
        to_numpy(model.sample(7, context, seed=3)),
    )
    assert again.network.get_config() == model.network.get_config()
    assert again.conditional == model.conditional


RESUME = """
import sys, numpy as np, keras, keras_made
x = np.load(sys.argv[1])
model = keras.saving.load_model(sys.argv[2])
model.fit(x, batch_size=10, epochs=1, shuffle=False, verbose=0)
np.savez(sys.argv[3], *[w for w in model.get_weights()])
"""


@pytest.mark.compiled
def test_ten_steps_a_new_process_and_ten_more_are_twenty(tmp_path):
    """Bit for bit, with a cycle of 7 structures and Adam."""
    x = binary(100, 12)
    np.save(tmp_path / "x.npy", x)

    def build():
        keras.utils.set_random_seed(4)
        network = MADE([30, 30], ordering="random", num_masks=7, residual=True)
        model = AutoregressiveDensity(network)
        model.compile("adam")
        return model

    whole, part = build(), build()
    whole.fit(x, batch_size=10, epochs=2, shuffle=False, verbose=0)
    part.fit(x, batch_size=10, epochs=1, shuffle=False, verbose=0)
    part.save(tmp_path / "part.keras")
    files = [str(tmp_path / name) for name in ("x.npy", "part.keras", "end.npz")]
    subprocess.run([sys.executable, "-c", RESUME, *files], check=True, timeout=300)
    end = np.load(files[2])
    assert len(end.files) == len(whole.get_weights())
    for key, weight in zip(end.files, whole.get_weights(), strict=True):
        np.testing.assert_array_equal(end[key], weight)


def test_one_context_serves_all_rows():
    model, context = make("context", 4)
    x = all_states(4)
    np.testing.assert_allclose(
        to_numpy(model.log_prob(x, context)),
        to_numpy(model.log_prob(x, np.tile(context, (16, 1)))),
        rtol=1e-6,
    )
    many = np.random.RandomState(0).normal(size=(6, 3))
    assert tuple(model.sample(6, many).shape) == (6, 4)


def test_tensors_pass_with_their_gradient():
    model, _ = make("one structure", 4)
    x = binary(3, 4)
    log_prob = model.log_prob(ops.convert_to_tensor(x))
    np.testing.assert_allclose(
        to_numpy(log_prob), to_numpy(model.log_prob(x)), rtol=1e-5
    )


def test_chunks_of_any_length_give_the_same():
    from keras_made import compiling

    model, _ = make("mixture of 5", 4)
    x = binary(2000, 4)
    whole = to_numpy(model.log_prob(x))
    pieces = [to_numpy(model.log_prob(x[i : i + 37])) for i in range(0, 2000, 37)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-5)
    assert [compiling.best_length(n) for n in (1, 16, 100, 300, 3000, 10**6)] == [
        *(16, 16, 128, 128, 1024, 8192)
    ]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float64"])
def test_integers_and_booleans_are_cast(dtype):
    model, _ = make("one structure", 4)
    model.compile("adam")
    x = all_states(4)
    expected = to_numpy(model.log_prob(x))
    np.testing.assert_array_equal(to_numpy(model.log_prob(x.astype(dtype))), expected)
    np.testing.assert_allclose(
        model.predict(x.astype(dtype), verbose=0), expected, atol=1e-5
    )
    model.fit(x.astype(dtype), verbose=0)


def ready(name="one structure", size=4):
    model, _ = make(name, size)
    model.compile("adam")
    return model


X, C = np.zeros((3, 4)), np.zeros((3, 3))
BAD_CALLS = {
    "wrong width": (lambda: ready().fit(np.zeros((3, 5))), r"shape \(4,\)"),
    "wrong rank": (lambda: ready().log_prob(np.zeros(4)), r"\(n, 4\)"),
    "empty": (lambda: ready().evaluate(np.zeros((0, 4))), "at least 1"),
    "nan": (lambda: ready().predict(np.where(X == 0, np.nan, X)), "finite.*row 0"),
    "infinity": (lambda: ready().fit(X + np.inf), "finite"),
    "grey": (lambda: ready().log_prob(X + 0.5), "0 or 1.*0.5 in row 0.*Binarize"),
    "grey in fit": (lambda: ready().fit(X + 200), "Binarize"),
    "text": (lambda: ready().log_prob([["a"] * 4]), "numbers"),
    "ragged": (lambda: ready().log_prob([[0, 1], [1]]), "array of numbers"),
    "target": (lambda: ready().fit(X, X), "no target"),
    "no context": (lambda: ready("context").fit(X), "context of size 3"),
    "no context drawn": (lambda: ready("context").sample(2), "context of size 3"),
    "wrong context": (lambda: ready("context").log_prob(X, C[:, :2]), "size 3"),
    "few contexts": (lambda: ready("context").log_prob(X, C[:2]), r"\(3, C\)"),
    "needless context": (lambda: ready().log_prob(X, C), "none"),
    "needless pair": (lambda: ready().fit((X, C)), "none"),
    "nan context": (lambda: ready("context").fit((X, C * np.nan)), "`context`"),
    "no samples": (lambda: ready().sample(0), "num_samples"),
    "part of a sample": (lambda: ready().sample(1.5), "num_samples"),
    "bad seed": (lambda: ready().sample(1, seed="x"), "seed"),
    "validation": (lambda: ready().fit(X, validation_data=X + 0.5), "0 or 1"),
    "loss": (lambda: ready().compile("adam", loss="mse"), "loss"),
    "unknown size": (lambda: AutoregressiveDensity(MADE([4])).sample(1), "build"),
    "parameters": (
        lambda: AutoregressiveDensity(MADE([4], num_params=3), Normal()),
        "num_params=2",
    ),
    "network": (lambda: AutoregressiveDensity(keras.layers.Dense(4)), "Autoregressive"),
    "conditional": (lambda: AutoregressiveDensity(MADE([4]), "poisson"), "bernoulli"),
    "row": (lambda: AutoregressiveDensity(MADE([4]), structures=[1]), "from 0 to 0"),
    "no rows": (
        lambda: AutoregressiveDensity(MADE([4]), structures=[]),
        "at least one",
    ),
    "three": (lambda: ready()((X, C, C)), "tuple of 3"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_named_before_any_work(name):
    call, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_one_row_and_one_variable():
    model = ready(size=1)
    model.fit(np.ones((1, 1)), verbose=0)
    assert tuple(model.log_prob([[1]]).shape) == (1,)
    assert tuple(model.sample(1).shape) == (1, 1)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Elsewhere Keras decides."
)
def test_large_models_are_compiled_by_xla(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "XLA_WEIGHTS", 100)
    x = np.zeros((4, 6), "float32")

    def fitted(units, network=None, **options):
        model = AutoregressiveDensity(network or MADE([units]))
        model.compile("adam", **options)
        model.fit(x, verbose=0)
        return model

    assert fitted(30).jit_compile
    assert not fitted(2).jit_compile
    assert not fitted(30, jit_compile=False).jit_compile
    assert not fitted(30, run_eagerly=True).jit_compile
    # Its dropout would be drawn anew for every column.
    assert fitted(0, NADE(20, num_blocks=1)).jit_compile
    assert not fitted(0, NADE(20, num_blocks=1, dropout=0.2)).jit_compile
    again = reload(fitted(30), tmp_path / "m.keras")
    again.fit(x, verbose=0)
    assert again.jit_compile
