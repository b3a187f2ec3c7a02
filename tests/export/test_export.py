"""A SavedModel gives the model's numbers without keras_made and without Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from laws import all_states, chi_square_p, set_random_weights, state_index

import keras_made
from keras_made import (
    MADE,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    Incomplete,
    Normal,
)

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

from keras_made import flows

SIZE, CONTEXT = 5, 2

# name: (model, shape of an event, size of the context)
MODELS = {
    "one structure": (lambda: AutoregressiveDensity(MADE([16])), (SIZE,), 0),
    "order-agnostic with context": (
        lambda: AutoregressiveDensity(MADE([16], ordering="random", num_masks=3)),
        (SIZE,),
        CONTEXT,
    ),
    "random degrees, real": (
        lambda: AutoregressiveDensity(
            MADE([16], 2, hidden_degrees="random", num_masks=2), "normal"
        ),
        (SIZE,),
        0,
    ),
    "columns": (
        lambda: AutoregressiveDensity(
            MADE([16], 3),
            Columns([Bernoulli(), Categorical(3), Normal(), Normal(), Bernoulli()]),
        ),
        (SIZE,),
        0,
    ),
    "holes": (
        lambda: AutoregressiveDensity(
            MADE([16], 3),
            Incomplete(
                Columns([Bernoulli(), Categorical(3), Normal(), Normal(), Bernoulli()])
            ),
            support=([-np.inf] * 2 + [-0.5, -np.inf, -np.inf], None),
        ),
        (SIZE,),
        0,
    ),
    "nade": (lambda: AutoregressiveDensity(keras_made.NADE(8)), (SIZE,), CONTEXT),
    "pixelcnn": (
        lambda: AutoregressiveDensity(keras_made.PixelCNN((3, 3), 4, num_layers=1)),
        (3, 3),
        0,
    ),
    "pixelrnn": (
        lambda: AutoregressiveDensity(keras_made.PixelRNN((3, 3), 4)),
        (3, 3),
        0,
    ),
    "attention": (
        lambda: AutoregressiveDensity(keras_made.Attention((SIZE,), 8, 1, 2)),
        (SIZE,),
        CONTEXT,
    ),
    "wavenet": (
        lambda: AutoregressiveDensity(keras_made.WaveNet((8,), 4, num_layers=2)),
        (8,),
        0,
    ),
    "recurrent": (
        lambda: AutoregressiveDensity(keras_made.Recurrent((SIZE,), 8)),
        (SIZE,),
        CONTEXT,
    ),
    "average": (
        lambda: AutoregressiveDensity(
            keras_made.NetworkAverage(
                [keras_made.PixelCNN((3, 3), 4, num_layers=1), MADE([8])]
            )
        ),
        (3, 3),
        0,
    ),
    "maf": (
        lambda: flows.MAF(SIZE, 2, (8,), context_size=CONTEXT),
        (SIZE,),
        CONTEXT,
    ),
    "iaf": (lambda: flows.IAF(SIZE, 2, (8,)), (SIZE,), 0),
    "splines": (lambda: flows.SplineMAF(SIZE, 2, (8,)), (SIZE,), 0),
    "realnvp": (lambda: flows.RealNVP(SIZE, 2, (8,)), (SIZE,), 0),
    "nice": (lambda: flows.NICE(SIZE, 2, (8,)), (SIZE,), 0),
}

# No import of keras or of the package can succeed here.
BARE = """
import sys
for name in ("keras", "keras_made", "tf_keras"):
    sys.modules[name] = None
"""
pytestmark = pytest.mark.compiled

SERVER = (
    BARE
    + """
import pathlib
import numpy as np, tensorflow as tf
for folder in pathlib.Path(sys.argv[1]).iterdir():
    loaded, data = tf.saved_model.load(folder / "1"), np.load(folder / "data.npz")
    x, observed, seed = data["x"], data["observed"], tf.constant(7)
    rows = [tf.constant(data["context"])] if "context" in data else []
    one = [tf.constant(data["context"][0])] if rows else []
    named = {"x": tf.constant(x)} | ({"context": rows[0]} if rows else {})
    out = {
        "log_prob": loaded.log_prob(x, *rows),
        "serve": loaded.serve(x[:3], *[r[:3] for r in rows]),
        "default": loaded.signatures["serving_default"](**named)["log_prob"],
        "sample": loaded.sample(tf.constant(4), seed, *one),
    }
    if "impute" in loaded.signatures:
        out["impute"] = loaded.impute(x, observed, seed, *rows)
    np.savez(folder / "served.npz", **out)
found = [m for m, it in sys.modules.items() if it and m.startswith("keras")]
assert not found, found
"""
)


def make(name):
    build, event_shape, context_size = MODELS[name]
    model, shape = build(), (None, *event_shape)
    model.build((shape, (None, context_size)) if context_size else shape)
    # Larger weights make splines so steep that rounding shows.
    set_random_weights(model, scale=0.1 if name == "splines" else 0.3)
    rng = np.random.RandomState(0)
    x = rng.randint(0, 2, (9, *event_shape)).astype("float32")
    observed = rng.uniform(size=x.shape) < 0.5
    if np.any(model.may_be_missing()):
        x = np.where(observed, x, np.float32(np.nan))
    data = {"x": x, "observed": observed}
    if context_size:
        data["context"] = rng.normal(size=(9, context_size)).astype("float32")
    return model, data


@pytest.mark.parametrize(
    "names",
    [
        ["holes", "maf"],
        pytest.param(list(MODELS), marks=pytest.mark.slow),
    ],
    ids=["some", "every kind"],
)
def test_a_fresh_process_without_keras_gives_the_same_numbers(names, tmp_path):
    """Every endpoint of the models, all in one process."""
    models = {name: make(name) for name in names}
    for name, (model, data) in models.items():
        keras_made.export_saved_model(model, tmp_path / name / "1", num_particles=5)
        np.savez(tmp_path / name / "data.npz", **data)
    subprocess.run([sys.executable, "-c", SERVER, tmp_path], check=True, timeout=600)
    for name, (model, data) in models.items():
        with np.load(tmp_path / name / "served.npz") as served:
            check_endpoints(name, model, data, dict(served))


def check_endpoints(name, model, data, served):
    import tensorflow as tf

    from keras_made.export.saved_model import _make_module

    def check(endpoint, expected, tolerance=1e-4):
        np.testing.assert_allclose(
            served[endpoint],
            expected,
            rtol=tolerance,
            atol=tolerance,
            err_msg=f"{name}: {endpoint}",
        )

    contexts = [data["context"]] if "context" in data else []
    expected = model.log_prob(data["x"], *contexts)
    check("log_prob", expected)
    check("default", expected)
    check("serve", expected[:3])
    # The seeds of `distribution` and of the endpoint are the same pair of integers.
    distribution = model.distribution(*[c[0] for c in contexts])
    check("sample", distribution.sample(4, seed=tf.constant([7, 0])), 1e-3)
    assert ("impute" in served) == isinstance(model, AutoregressiveDensity)
    if "impute" in served:
        same = served["impute"] == data["x"]
        assert same[data["observed"]].all() and not same.all()
        module, _ = _make_module(model, 5)
        job = data["x"], data["observed"], tf.constant(7)
        check("impute", module.impute(*job, *contexts), 1e-3)


def saved_model_cli(*arguments):
    run = f"{BARE}\nfrom tensorflow.python.tools import saved_model_cli\n"
    run += "saved_model_cli.main()"
    command = [sys.executable, "-c", run, *arguments]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True)
    return done.stdout.decode()


@pytest.mark.slow
def test_the_command_line_tool_shows_and_runs_it(tmp_path):
    model, _ = make("one structure")
    path = str(tmp_path / "1")
    keras_made.export_saved_model(model, path)
    shown = saved_model_cli("show", "--dir", path, "--all")
    for name in ("log_prob", "serve", "serving_default", "sample", "impute"):
        assert f"signature_def['{name}']" in shown
    x = all_states(SIZE)
    np.save(tmp_path / "x.npy", x)
    signature = ["--dir", path, "--tag_set", "serve", "--signature_def", "log_prob"]
    job = ["--inputs", f"x={tmp_path / 'x.npy'}", "--outdir", str(tmp_path)]
    saved_model_cli("run", *signature, *job)
    found = np.load(tmp_path / "log_prob.npy")
    np.testing.assert_allclose(found, model.log_prob(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["agnostic", pytest.param("fixed", marks=pytest.mark.slow)]
)
def test_sampled_and_imputed_values_follow_the_model(name, tmp_path):
    """Both kinds of imputation, against the enumerated probabilities."""
    import tensorflow as tf

    x, observed = np.tile([0.0, 0, 1], (4000, 1)), np.array([False, False, True])
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
        # The same weights in a network of one ordering, the observed entry first.
        first = model.network.orders()[0]
        order = [2, *first[first != 2]]
        one = AutoregressiveDensity(MADE([8], ordering=np.argsort(order).tolist()))
        one.build((None, 3))
        weights = [w for w in model.network.get_weights() if w.dtype.kind == "f"]
        one.network.set_weights(weights)
        p = np.exp(np.asarray(one.log_prob(all_states(3))))
    job = tf.constant(x, "float32"), tf.constant(np.tile(observed, (4000, 1)))
    completed = loaded.impute(*job, tf.constant(5)).numpy()
    assert (completed[:, 2] == 1).all()
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


CONVERTED = {
    "onnx": [
        "order-agnostic with context",
        "columns",
        "nade",
        "attention",
        "pixelcnn",
        "recurrent",
        "maf",
        "holes",
    ],
    "litert": ["nade", "attention", "pixelcnn", "maf", "nice"],
}
# With a fixed number of rows, more models can be converted.
CONVERTED_AT_A_FIXED_SIZE = {
    "onnx": ["splines"],
    "litert": ["order-agnostic with context", "recurrent", "holes"],
}
CONVERTED_IN_EVERY_RUN = [
    ("onnx", "columns", False),
    ("onnx", "maf", False),
    ("litert", "nade", False),
    ("litert", "order-agnostic with context", True),
]
RUNTIMES = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}


def run_onnx(path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [place.name for place in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


def run_litert(path, inputs):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    names = run.get_input_details()
    return next(iter(run(**dict(zip(names, inputs, strict=True))).values()))


def signature(arrays):
    specs = [keras.InputSpec(shape=a.shape, dtype="float32") for a in arrays]
    return [tuple(specs) if len(specs) > 1 else specs[0]]


@pytest.mark.filterwarnings("ignore")  # Of tf2onnx and tf.lite.
@pytest.mark.parametrize(
    "format, name, fixed",
    [
        pytest.param(
            *case, marks=[] if case in CONVERTED_IN_EVERY_RUN else [pytest.mark.slow]
        )
        for case in (
            *[(f, name, False) for f in CONVERTED for name in CONVERTED[f]],
            *[(f, n, True) for f in CONVERTED for n in CONVERTED_AT_A_FIXED_SIZE[f]],
        )
    ],
)
def test_other_runtimes_give_the_same_log_prob(format, name, fixed, tmp_path):
    pytest.importorskip(RUNTIMES[format])
    model, data = make(name)
    inputs = [data[key] for key in ("x", "context") if key in data]
    path = tmp_path / {"onnx": "model.onnx", "litert": "model.tflite"}[format]
    size = {"input_signature": signature(inputs)} if fixed else {}
    model.export(path, format=format, verbose=False, **size)
    found = {"onnx": run_onnx, "litert": run_litert}[format](path, inputs)
    expected = model.predict(tuple(inputs) if len(inputs) > 1 else inputs[0], verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "format, name, told",
    [
        # An operation that ONNX does not have.
        ("onnx", "iaf", "XlaDynamicUpdateSlice"),
        # Operations of TensorFlow, which LiteRT alone does not have.
        ("litert", "recurrent", "not supported by this interpreter"),
    ],
)
def test_what_a_converter_cannot_do_is_said(format, name, told, tmp_path):
    pytest.importorskip(RUNTIMES[format])
    model, _ = make(name)
    path = tmp_path / {"onnx": "model.onnx", "litert": "model.tflite"}[format]
    with pytest.raises(RuntimeError, match=told) as error:
        model.export(path, format=format, verbose=False)
    assert "fixed number of rows" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_a_loaded_model_with_context_is_exported(tmp_path):
    import tensorflow as tf

    model, data = make("order-agnostic with context")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.export(tmp_path / "saved", verbose=False)
    inputs = data["x"], data["context"]
    exported = tf.saved_model.load(tmp_path / "saved")
    found = exported.serve(inputs)
    np.testing.assert_allclose(found, model.log_prob(*inputs), rtol=1e-4, atol=1e-4)
