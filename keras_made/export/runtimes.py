"""ONNX and LiteRT files, run by their own runtimes before they are there."""

import keras
import numpy as np

from keras_made.checks import require
from keras_made.files import whole

ROWS_CHECKED = 16


def write_and_compare(model, write, path, format):
    """Let Keras write a file, and move it to `path` once its runtime has agreed.

    Args:
        model: a density or a flow, built.
        write: function of a path, Keras's own export.
        path: file to write.
        format: `"onnx"` or `"litert"`.
    """
    run, name, modules = {
        "onnx": (_run_onnx, "ONNX Runtime", ["onnxruntime"]),
        "litert": (_run_litert, "LiteRT", ["ai_edge_litert"]),
    }[format]
    if format == "onnx" and keras.backend.backend() == "tensorflow":
        modules = ["tf2onnx", *modules]
    # Before the work of converting, which would be for nothing.
    for module in modules:
        require(module)
    with whole(path) as written:
        try:
            write(written)
            inputs, found = run(model, written)
            live = model.log_prob(*inputs, verbose=0)
            compare("log_prob", found, keras.ops.convert_to_numpy(live))
        except ImportError:
            raise
        except Exception as error:
            raise RuntimeError(
                f"Keras's converter to {format!r} could not write this model, or {name}"
                " does not run what it wrote. Nothing was written. More models can be "
                "converted with a fixed number of rows, `input_signature=[keras."
                "InputSpec(shape=(n, *event_shape), dtype='float32')]`, and "
                f"`export_saved_model` takes every model. {error}"
            ) from error


def _run_onnx(model, path):
    """Rows that the model may have seen, and what ONNX Runtime makes of them."""
    session = require("onnxruntime").InferenceSession(path)
    places = session.get_inputs()
    rows = places[0].shape[0]
    inputs = _some_rows(model, rows if isinstance(rows, int) else ROWS_CHECKED)
    names = [place.name for place in places]
    return inputs, session.run(None, dict(zip(names, inputs, strict=True)))[0]


def _run_litert(model, path):
    litert = require("ai_edge_litert.interpreter")
    run = litert.Interpreter(path).get_signature_runner()
    places = run.get_input_details()
    rows = next(iter(places.values()))["shape_signature"][0]
    inputs = _some_rows(model, rows if rows > 0 else ROWS_CHECKED)
    return inputs, next(iter(run(**dict(zip(places, inputs, strict=True))).values()))


def _some_rows(model, count):
    """Rows of the support, and contexts for a model that has them."""
    if not model.context_size:
        contexts = []
    else:
        noise = np.random.RandomState(0).normal(size=(count, model.context_size))
        contexts = [noise.astype(model.input_dtype)]
    x = model.sample(int(count), *contexts, seed=0, verbose=0)
    return [with_holes(model, x).astype(model.input_dtype), *contexts]


def with_holes(model, x):
    """Rows as an array, with every third entry missing where the model takes NaN."""
    x = keras.ops.convert_to_numpy(x)
    holes = np.arange(x.size).reshape(x.shape) % 3 == 0
    return np.where(holes & model.may_be_missing(), np.nan, x)


def compare(endpoint, written, live):
    """Raise a RuntimeError when what was written gives other numbers or names."""
    if isinstance(live, list | tuple):
        for one, other in zip(written, live, strict=True):
            compare(endpoint, one, other)
        return
    written, live = np.asarray(written), np.asarray(live)
    if live.dtype.kind == "O":
        written, live = written != live, np.zeros(live.shape)
    # Rounding is amplified by steep flows; a wrong file is off by more than this.
    if not np.allclose(written, live, rtol=1e-3, atol=1e-2, equal_nan=True):
        raise RuntimeError(
            f"The endpoint {endpoint!r} gives other numbers than the model, by up to "
            f"{np.abs(written - live).max()}. Nothing was written."
        )
