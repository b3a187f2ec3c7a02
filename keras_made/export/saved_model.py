"""A trained density for other runtimes, checked before it is there."""

import os
import shutil
import tempfile

import keras
import numpy as np

from keras_made.autoregressive import check_positive
from keras_made.densities.density import AutoregressiveDensity
from keras_made.densities.likelihood import LikelihoodModel
from keras_made.plots import require

ROWS_CHECKED = 16


def export_saved_model(
    model: LikelihoodModel, path, *, num_particles: int = 100, overwrite: bool = False
) -> None:
    """Write a SavedModel with an endpoint for each verb of a density.

    It loads with `tf.saved_model.load`, `saved_model_cli`, TensorFlow Serving and
    `keras.layers.TFSMLayer`, where neither keras_made nor Keras need be installed.
    Batches are of any size. Exact imputation is compiled by XLA, once per size; the
    other endpoints are plain graphs.

    | endpoint | inputs | output |
    |---|---|---|
    | `log_prob`, `serve` | `x (n, *event)`, `context (n, C)` | `log_prob (n,)`, nats |
    | `sample` | `num_samples ()`, `seed ()`, `context (C,)` | `x` |
    | `impute` | `x`, `observed (n, *event)`, `seed ()`, `context (n, C)` | `x` |

    `context` is there when the model has one, `impute` for autoregressive densities.
    Seeds and numbers are int32 scalars. The default signature is `log_prob`. Equal
    seeds give equal draws, which are not those of `model.sample` with that seed.
    Inputs are not checked for their support, as arrays given to the model are.

    The file is loaded again and compared with the live model, and only then moved to
    `path`: what stands there is whole, or is what stood there before.

    Args:
        model: an `AutoregressiveDensity` or a flow, built.
        path: folder to write. TensorFlow Serving wants a number, such as `name/1`.
        num_particles: completions from which `impute` chooses one, for a network that
            is not order-agnostic (see `AutoregressiveDensity.impute`).
        overwrite: whether a folder at `path` may be replaced.

    Raises:
        ValueError: for another model, one that is not built, or an existing path.
        ImportError: if Keras does not run on TensorFlow.
        RuntimeError: if what was written gives other numbers than the model.
    """
    _check(model, path, num_particles, overwrite)
    # A link stays, and what it points to is written anew.
    path = os.path.realpath(os.fspath(path))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # In the same folder, and so on the same disk: there a move is atomic.
    folder = tempfile.mkdtemp(prefix=".export-", dir=os.path.dirname(path))
    try:
        written = os.path.join(folder, "new")
        module, signatures = _make_module(model, num_particles)
        _save_and_compare(model, module, signatures, written)
        if os.path.exists(path):
            os.rename(path, os.path.join(folder, "old"))
        os.rename(written, path)
    finally:
        shutil.rmtree(folder)


def _check(model, path, num_particles, overwrite):
    if not isinstance(model, LikelihoodModel):
        raise ValueError(
            "`model` must be an AutoregressiveDensity or a flow. Received: "
            f"{model!r}. Other Keras models have `model.export(path)`."
        )
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "A SavedModel is written by Keras on TensorFlow. The backend is "
            f"{keras.backend.backend()!r}: save the model to a `.keras` file and load "
            "it with KERAS_BACKEND=tensorflow."
        )
    check_positive("num_particles", num_particles)
    model._require_built()
    if os.path.exists(path) and not overwrite:
        raise ValueError(
            f"`path` must not exist yet. Received: path={os.fspath(path)!r}, which "
            "does. Pass overwrite=True, or the next version's number."
        )


def _make_module(model, num_particles):
    """A `tf.Module` of functions and variables alone, and its signatures."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    make = {"log_prob": _log_prob, "sample": _sample}
    if isinstance(model, AutoregressiveDensity):
        make["impute"] = _impute_exactly
        if not model.network.order_agnostic:
            make["impute"] = lambda model: _impute_by_particles(model, num_particles)
    signatures = {}
    for name, maker in make.items():
        function, specs, output = maker(model)
        specs = [spec for spec in specs if spec is not None]
        function = tf.function(function, specs, autograph=False)
        setattr(module, name, function)
        signatures[name] = _named(function, specs, output)
    module.serve = module.log_prob
    signatures["serve"] = signatures["serving_default"] = signatures["log_prob"]
    return module, signatures


def _named(function, specs, output):
    """As TensorFlow Serving wants it: a dict of named tensors comes out."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def signature(**inputs):
        return {output: function(*(inputs[spec.name] for spec in specs))}

    return signature.get_concrete_function(**{spec.name: spec for spec in specs})


def _spec(model, name):
    """The `tf.TensorSpec` of an input; None for the context of a model without."""
    import tensorflow as tf

    event, size = model.event_shape, model.context_size
    if name.endswith("context") and not size:
        return None
    shape, dtype = {
        "x": ((None, *event), model.density_dtype),
        "observed": ((None, *event), "bool"),
        "context": ((None, size), model.density_dtype),
        "one context": ((size,), model.density_dtype),
        "seed": ((), "int32"),
        "num_samples": ((), "int32"),
    }[name]
    return tf.TensorSpec(shape, dtype, name=name.split()[-1])


def _log_prob(model):
    def log_prob(x, context=None):
        return model.call(x if context is None else (x, context))

    return log_prob, [_spec(model, "x"), _spec(model, "context")], "log_prob"


def _sample(model):
    def sample(num_samples, seed, context=None):
        distribution = model.distribution(context)
        return distribution.sample(num_samples, seed=_pair(seed))

    names = ("num_samples", "seed", "one context")
    return sample, [_spec(model, name) for name in names], "x"


def _impute_exactly(model):
    """Each row in an ordering of its own that has its observed entries first."""
    import tensorflow as tf

    from keras_made.distributions import draw_noise

    row, typical = model._rows[0], _flat(model, _typical(model))
    natural = model.network.orders()[row]
    generate = model._function("generate", model.generate_rows)

    def impute(x, observed, seed, context=None):
        known, seen = _flat(model, x), _flat(model, observed)
        missing = tf.cast(~tf.gather(seen, natural, axis=1), tf.int32)
        order = tf.gather(natural, tf.argsort(missing, axis=1, stable=True))
        noise = draw_noise(model, tf.shape(x)[0], _pair(seed))
        known = tf.where(seen, known, typical)
        draws = generate(tf.constant(row), noise, context, order, known, seen)
        return tf.reshape(draws[:, :-1], tf.shape(x))

    names = ("x", "observed", "seed", "context")
    return impute, [_spec(model, name) for name in names], "x"


def _impute_by_particles(model, num_particles):
    """One of several completions, by the likelihood of the observed entries."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    from keras_made.distributions import draw_rows

    typical = _flat(model, _typical(model))
    # Rounded up, so that every structure completes a row equally often.
    members = len(model._rows)
    num_particles = -(-num_particles // members) * members

    def repeat(a):
        return None if a is None else tf.repeat(a, num_particles, axis=0)

    def impute(x, observed, seed, context=None):
        draw_seed, choice_seed = tfp.random.split_seed(_pair(seed), n=2)
        seen = _flat(model, observed)
        known = tf.where(seen, _flat(model, x), typical)
        known, seen, size = repeat(known), repeat(seen), tf.shape(x)[0]
        draws = draw_rows(
            model,
            size * num_particles,
            draw_seed,
            repeat(context),
            evenly=True,
            known=known,
            observed=seen,
            counted=seen,
        )
        weights = tf.reshape(draws[:, -1], (size, num_particles))
        chosen = tf.random.stateless_categorical(weights, 1, choice_seed)
        draws = tf.reshape(draws[:, :-1], (size, num_particles, -1))
        draws = tf.gather(draws, chosen[:, 0], axis=1, batch_dims=1)
        return tf.reshape(draws, tf.shape(x))

    names = ("x", "observed", "seed", "context")
    return impute, [_spec(model, name) for name in names], "x"


def _pair(seed):
    import tensorflow as tf

    return tf.stack([seed, 0])


def _flat(model, x):
    import tensorflow as tf

    return tf.reshape(x, (-1, model.network.event_size))


def _typical(model):
    return model.typical_event().astype(model.density_dtype)


def _save_and_compare(model, module, signatures, path):
    import tensorflow as tf

    tf.saved_model.save(module, path, signatures=signatures)
    loaded = tf.saved_model.load(path)
    context = [np.zeros(model.context_size, model.density_dtype)]
    context = context if model.context_size else []
    counts = tf.constant(ROWS_CHECKED), tf.constant(0)
    x = module.sample(*counts, *context)
    _compare("sample", loaded.sample(*counts, *context), x)
    contexts = [np.tile(c, (ROWS_CHECKED, 1)) for c in context]
    # A tensor is scored eagerly, by the operations that were written; XLA would round
    # otherwise, which a badly conditioned flow amplifies.
    live = model.log_prob(x, *contexts)
    _compare("log_prob", loaded.log_prob(x, *contexts), live)
    if isinstance(model, AutoregressiveDensity):
        job = x, tf.random.stateless_uniform(x.shape, (0, 0)) < 0.5, tf.constant(0)
        completed = module.impute(*job, *contexts)
        _compare("impute", loaded.impute(*job, *contexts), completed)


def write_and_compare(model, write, path, format):
    """Let Keras write a file, and move it to `path` once its runtime has agreed.

    Args:
        model: a `LikelihoodModel`, built.
        write: function of a path, Keras's own export.
        path: file to write.
        format: `"onnx"` or `"litert"`.
    """
    run, name = {
        "onnx": (_run_onnx, "ONNX Runtime"),
        "litert": (_run_litert, "LiteRT"),
    }[format]
    path = os.path.realpath(os.fspath(path))
    with tempfile.TemporaryDirectory(
        prefix=".export-", dir=os.path.dirname(path)
    ) as folder:
        written = os.path.join(folder, os.path.basename(path))
        try:
            write(written)
            inputs, found = run(model, written)
            live = model.log_prob(*inputs, verbose=0)
            _compare("log_prob", found, keras.ops.convert_to_numpy(live))
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
        os.replace(written, path)


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
    return [keras.ops.convert_to_numpy(x).astype(model.input_dtype), *contexts]


def _compare(endpoint, written, live):
    written, live = np.asarray(written), np.asarray(live)
    # Rounding is amplified by steep flows; a wrong file is off by more than this.
    if not np.allclose(written, live, rtol=1e-3, atol=1e-2, equal_nan=True):
        raise RuntimeError(
            f"The endpoint {endpoint!r} gives other numbers than the model, by up to "
            f"{np.abs(written - live).max()}. Nothing was written."
        )
