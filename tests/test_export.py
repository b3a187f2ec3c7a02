"""A SavedModel gives the model's numbers without keras_made and without Keras."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from laws import all_states, chi_square_p, set_random_weights, state_index

import keras_made
from keras_made import MADE, AutoregressiveDensity

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

from keras_made import flows

SIZE, CONTEXT = 5, 2

# name: (model, size of the context)
MODELS = {
    "one structure": (lambda: AutoregressiveDensity(MADE([16])), 0),
    "order-agnostic with context": (
        lambda: AutoregressiveDensity(MADE([16], ordering="random", num_masks=3)),
        CONTEXT,
    ),
    "random degrees, real": (
        lambda: AutoregressiveDensity(
            MADE([16], 2, hidden_degrees="random", num_masks=2), "normal"
        ),
        0,
    ),
    "nade": (lambda: AutoregressiveDensity(keras_made.NADE(8)), 0),
    "maf with context": (
        lambda: flows.MAF(SIZE, 2, (8,), context_size=CONTEXT),
        CONTEXT,
    ),
    "realnvp": (lambda: flows.RealNVP(SIZE, 2, (8,)), 0),
}

# No import of keras or of the package can succeed here.
SERVER = """
import json, sys
sys.modules["keras"] = sys.modules["keras_made"] = sys.modules["tf_keras"] = None
import numpy as np, tensorflow as tf
path, data = sys.argv[1:]
loaded, data = tf.saved_model.load(path), np.load(data)
x, observed, seed = data["x"], data["observed"], tf.constant(7)
rows = [tf.constant(data["context"])] if "context" in data else []
one = [tf.constant(data["context"][0])] if rows else []
out = {
    "log_prob": loaded.log_prob(x, *rows),
    "serve": loaded.serve(x[:3], *[r[:3] for r in rows]),
    "sample": loaded.sample(tf.constant(4), seed, *one),
}
if "impute" in loaded.signatures:
    out["impute"] = loaded.impute(x, observed, seed, *rows)
named = {"x": tf.constant(x)} | ({"context": rows[0]} if rows else {})
out["default"] = loaded.signatures["serving_default"](**named)["log_prob"]
found = [m for m, it in sys.modules.items() if it and m.startswith("keras")]
assert not found, found
print(json.dumps({name: value.numpy().tolist() for name, value in out.items()}))
"""


def make(name):
    build, context_size = MODELS[name]
    model, shape = build(), (None, SIZE)
    model.build((shape, (None, context_size)) if context_size else shape)
    set_random_weights(model, scale=0.3)
    return model, context_size


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_process_without_keras_gives_the_same_numbers(name, tmp_path):
    model, context_size = make(name)
    rng = np.random.RandomState(0)
    x = rng.randint(0, 2, (9, SIZE)).astype("float32")
    data = {"x": x, "observed": rng.uniform(size=x.shape) < 0.5}
    if context_size:
        data["context"] = rng.normal(size=(9, context_size)).astype("float32")
    np.savez(tmp_path / "data.npz", **data)
    path = tmp_path / "model" / "1"
    keras_made.export_saved_model(model, path, num_particles=5)

    command = [sys.executable, "-c", SERVER, path, tmp_path / "data.npz"]
    run = subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE)
    served = json.loads(run.stdout.splitlines()[-1])

    expected = model.log_prob(x, data.get("context"))
    for endpoint in ("log_prob", "default"):
        np.testing.assert_allclose(served[endpoint], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(served["serve"], expected[:3], rtol=1e-4, atol=1e-4)
    assert np.shape(served["sample"]) == (4, SIZE)
    assert ("impute" in served) == isinstance(model, AutoregressiveDensity)
    if "impute" in served:
        same = np.array(served["impute"]) == x
        assert same[data["observed"]].all() and not same.all()


def test_sampled_and_imputed_values_follow_the_model(tmp_path):
    """Both kinds of imputation, against the enumerated probabilities."""
    import tensorflow as tf

    x, observed = np.tile([0.0, 0, 1], (4000, 1)), np.array([False, False, True])
    for name in ("agnostic", "fixed"):
        masks = {"ordering": "random", "num_masks": 2} if name == "agnostic" else {}
        model = AutoregressiveDensity(MADE([8], **masks))
        model.build((None, 3))
        set_random_weights(model.network, scale=0.7)
        keras_made.export_saved_model(model, tmp_path / name)
        loaded = tf.saved_model.load(tmp_path / name)
        p = np.exp(np.asarray(model.log_prob(all_states(3))))
        draws = loaded.sample(tf.constant(4000), tf.constant(3)).numpy()
        assert chi_square_p(np.bincount(state_index(draws), minlength=8), p) > 1e-3
        if name == "agnostic":
            # What the density of the row-0 structure says, as `impute` does.
            one = AutoregressiveDensity(model.network, rows=[0])
            p = np.exp(np.asarray(one.log_prob(all_states(3))))
        job = tf.constant(x, "float32"), tf.constant(np.tile(observed, (4000, 1)))
        completed = loaded.impute(*job, tf.constant(5)).numpy()
        assert (completed[:, 2] == 1).all()
        if name == "fixed":
            counts = np.bincount(state_index(completed), minlength=8)[1::2]
            assert chi_square_p(counts, p[1::2] / p[1::2].sum()) > 1e-3


def test_keras_loads_it_as_a_layer(tmp_path):
    model, _ = make("one structure")
    keras_made.export_saved_model(model, tmp_path / "1")
    layer = keras.layers.TFSMLayer(tmp_path / "1", call_endpoint="serve")
    x = all_states(SIZE)
    np.testing.assert_allclose(layer(x), model.log_prob(x), rtol=1e-4, atol=1e-4)


def test_an_existing_path_is_left_alone_unless_told(tmp_path):
    model, _ = make("one structure")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mine").write_text("precious")
    with pytest.raises(ValueError, match="overwrite=True"):
        keras_made.export_saved_model(model, tmp_path / "1")
    assert (tmp_path / "1" / "mine").read_text() == "precious"
    keras_made.export_saved_model(model, tmp_path / "1", overwrite=True)
    assert (tmp_path / "1" / "saved_model.pb").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_what_fails_leaves_what_stood_there(tmp_path, monkeypatch):
    import tensorflow as tf

    model, _ = make("one structure")
    keras_made.export_saved_model(model, tmp_path / "1")
    before = (tmp_path / "1" / "saved_model.pb").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space"):
        keras_made.export_saved_model(model, tmp_path / "1", overwrite=True)
    assert (tmp_path / "1" / "saved_model.pb").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(ValueError, match="AutoregressiveDensity or a flow"):
        keras_made.export_saved_model(keras.Sequential(), tmp_path / "1")
    with pytest.raises(ValueError, match="does not know its number"):
        keras_made.export_saved_model(AutoregressiveDensity(MADE([4])), tmp_path / "1")


def test_kerases_own_export_works(tmp_path):
    import tensorflow as tf

    model, _ = make("one structure")
    x = all_states(SIZE)
    expected = model.predict(x, verbose=0)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # Of tf2onnx, on NumPy 2.
def test_onnx_gives_the_same_log_prob(tmp_path):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, _ = make("one structure")
    x = all_states(SIZE)
    expected = model.predict(x, verbose=0)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_litert_gives_the_same_log_prob(tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    model, _ = make("one structure")
    x = all_states(SIZE)
    expected = model.predict(x, verbose=0)
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    interpreter = litert.Interpreter(str(tmp_path / "model.tflite"))
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
