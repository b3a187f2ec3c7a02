"""A trained density for other runtimes, checked before it is there."""

import os

import keras
import numpy as np

from keras_made.checks import check_positive
from keras_made.export.runtimes import ROWS_CHECKED, compare, with_holes
from keras_made.files import whole


def export_saved_model(
    model: keras.Model, path, *, num_particles: int = 100, overwrite: bool = False
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
    A `TableDensity` has its columns as inputs and outputs by name, each `(n,)`, in
    place of `x` and `observed`: numbers as float64, NaN where missing, names as
    strings, `""` where missing, dates as seconds since 1970.
    Seeds and numbers are int32 scalars. The default signature is `log_prob`. Equal
    seeds give equal draws, which are not those of `model.sample` with that seed.
    Inputs are not checked for their support, as arrays given to the model are; entries
    of an `Incomplete` conditional may be NaN.

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
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with whole(path) as written:
        module, signatures = _make_module(model, num_particles)
        _save_and_compare(model, module, signatures, written)


def _check(model, path, num_particles, overwrite):
    if not hasattr(model, "endpoints"):
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
    model.require_built()
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
    signatures = {}
    for name, endpoint in model.endpoints(num_particles).items():
        specs = [_spec(model, name) for name in endpoint.inputs]
        specs = [spec for spec in specs if spec is not None]
        function = tf.function(endpoint.function, specs, autograph=False)
        setattr(module, name, function)
        signatures[name] = _named(function, specs, endpoint.output)
    module.serve = module.log_prob
    signatures["serve"] = signatures["serving_default"] = signatures["log_prob"]
    return module, signatures


def _named(function, specs, output):
    """As TensorFlow Serving wants it: a dict of named tensors comes out."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def signature(**inputs):
        found = function(*(inputs[spec.name] for spec in specs))
        if isinstance(output, str):
            return {output: found}
        return dict(zip(output, found, strict=True))

    return signature.get_concrete_function(**{spec.name: spec for spec in specs})


def _spec(model, name):
    """The `tf.TensorSpec` of an input; None for the context of a model without."""
    import tensorflow as tf

    if isinstance(name, tf.TensorSpec):
        return name
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


def _save_and_compare(model, module, signatures, path):
    import tensorflow as tf

    tf.saved_model.save(module, path, signatures=signatures)
    loaded = tf.saved_model.load(path)
    context = [np.zeros(model.context_size, model.density_dtype)]
    context = context if model.context_size else []
    counts = tf.constant(ROWS_CHECKED), tf.constant(0)
    x = module.sample(*counts, *context)
    contexts = [np.tile(c, (ROWS_CHECKED, 1)) for c in context]
    compare("sample", loaded.sample(*counts, *context), x)
    if isinstance(x, tuple):
        _compare_columns(model, loaded, x)
        return
    # A tensor is scored eagerly, by the operations that were written; XLA would round
    # otherwise, which a badly conditioned flow amplifies.
    rows = tf.constant(with_holes(model, x), x.dtype)
    live = model.log_prob(rows, *contexts)
    compare("log_prob", loaded.log_prob(rows, *contexts), live)
    if hasattr(module, "impute"):
        job = x, tf.random.stateless_uniform(x.shape, (0, 0)) < 0.5, tf.constant(0)
        completed = module.impute(*job, *contexts)
        compare("impute", loaded.impute(*job, *contexts), completed)


def _compare_columns(model, loaded, columns):
    """As for one tensor of rows, when an event is a tensor a column."""
    import tensorflow as tf

    third = np.arange(ROWS_CHECKED) % 3 == 0
    missing = ["" if c.dtype == tf.string else np.nan for c in columns]
    rows = [
        tf.where(np.roll(third, place), tf.constant(hole, column.dtype), column)
        for place, (hole, column) in enumerate(zip(missing, columns, strict=True))
    ]
    live = model.endpoints(1)
    compare("log_prob", loaded.log_prob(*rows), live["log_prob"].function(*rows))
    if "impute" in live:
        job = (*rows, tf.constant(0))
        compare("impute", loaded.impute(*job), live["impute"].function(*job))
