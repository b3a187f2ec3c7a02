"""Every check of an argument and of data, written once."""

import importlib
import math
import numbers
import sys
import warnings

import keras
import numpy as np
from keras import ops

# What is looked at together stays in the processor's cache.
ENTRIES_CHECKED_AT_ONCE = 2**17
IN_MEMORY = (list, dict, set, str, bytes, numbers.Number, type(None))
# Which of the package's extras brings an optional module; see `setup.py`.
EXTRA_OF = {
    "ai_edge_litert": "export",
    "matplotlib": "examples",
    "onnxruntime": "export",
    "pandas": "tables",
    "sklearn": "tables",
    "tf2onnx": "export",
}


# Arguments -----------------------------------------------------------------------


def check_event_shape(event_shape, *axes):
    """The event shape as a tuple, or a ValueError; `axes` names what it may hold."""
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    for size in shape:
        check_positive("event_shape", size)
    if len(shape) not in [len(names.split(", ")) for names in axes]:
        expected = " or ".join(f"({names})" for names in axes)
        raise ValueError(
            f"`event_shape` must be {expected}. Received: event_shape={event_shape}."
        )
    return shape


def check_positive(name, value):
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be an int of at least 1. Received: {value!r}.")


def check_rate(name, value):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be a number in [0, 1). Received: {value!r}.")
    return value


def require(module: str):
    """A module of an optional package, or an ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        if isinstance(error, ModuleNotFoundError) and _is_within(error.name, package):
            source = package
            if package in EXTRA_OF:
                source = f"keras_made[{EXTRA_OF[package]}]"
            reason = f"is not installed: pip install {source}."
        else:
            reason = f"is installed but cannot be imported: {error}"
        raise ImportError(f"This needs {package}, which {reason}") from error


def _is_within(module, package):
    return module == package or str(module).startswith(package + ".")


def warn(message: str) -> None:
    """Warn at the line outside this package and Keras from which all began."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and _package_of(frame) in ("keras", "keras_made"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _package_of(frame):
    return frame.f_globals.get("__name__", "").split(".")[0]


# What came in ---------------------------------------------------------------------


def is_tensor(x) -> bool:
    """Whether `x` is a tensor of the back end, of numbers or symbolic."""
    return ops.is_tensor(x) or isinstance(x, keras.KerasTensor)


def is_stream(x) -> bool:
    """Whether `x` yields batches, and is not data in memory that can be looked at."""
    if isinstance(x, tuple):
        return False
    held = isinstance(x, IN_MEMORY) or hasattr(x, "__array__") or is_sparse(x)
    return not held and not is_tensor(x)


def is_generator(x) -> bool:
    """Whether `x` is a stream that can be read once, and does not tell its length."""
    return hasattr(x, "send") and hasattr(x, "throw")


def is_sparse(x) -> bool:
    return hasattr(x, "toarray") and hasattr(x, "tocoo")


def first_batch(stream):
    """The first batch of a stream, and the stream with that batch still to come.

    Args:
        stream: a generator, `PyDataset`, `tf.data.Dataset`, `DataLoader`, ...

    Returns:
        `(batch, stream)`; the batch is None when there is none. Of a `tf.data.Dataset`
        it is the `element_spec`, shapes without numbers.
    """
    if hasattr(stream, "element_spec"):
        return stream.element_spec, stream
    if isinstance(stream, keras.utils.PyDataset):
        batch = stream[0]
        _refuse_none(batch)
        return batch, stream
    batches = iter(stream)
    batch = next(batches, None)
    if is_generator(stream) and batch is not None:
        return batch, _again(batch, stream)
    return batch, stream


def _refuse_none(batch):
    """Keras cannot pass None from a `PyDataset` to TensorFlow."""
    if keras.backend.backend() != "tensorflow" or not isinstance(batch, tuple | list):
        return
    if any(part is None for part in batch):
        raise ValueError(
            "On TensorFlow a batch of a `PyDataset` cannot hold None. Weights stand "
            "beside a target without columns: "
            "(x, np.zeros((len(x), 0)), sample_weight)."
        )


def _again(batch, generator):
    # Not `yield from`, which would close the caller's generator along with this one.
    yield batch
    for following in generator:  # noqa: UP028
        yield following


def refuse_target(data) -> None:
    """Raise a ValueError when a batch of a stream has a target."""
    _, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    # Weights travel beside a target without columns, which says nothing.
    if any(0 not in leaf.shape for leaf in keras.tree.flatten(y) if _has_shape(leaf)):
        raise ValueError(
            "A density has no target. Received: a batch (x, y), which is how Keras "
            "reads a stream of pairs. Yield ((x, context),) for a context, "
            "(x, None, sample_weight) for weights, and (x,) for rows alone."
        )


def _has_shape(leaf):
    return isinstance(getattr(leaf, "shape", None), tuple) or (
        getattr(getattr(leaf, "shape", None), "rank", None) is not None
    )


# Arrays ---------------------------------------------------------------------------


def to_array(name, x) -> np.ndarray:
    """Numbers as a NumPy array, or a ValueError; what is missing is NaN.

    Masked entries of `numpy.ma`, None, and the NA of pandas are missing. The columns of
    a table may be of any numeric type, with categories that are numbers among them.

    Args:
        name: of the argument, for the error.
        x: array-like, tensor, or table.
    """
    expected = f"`{name}` must be an array of numbers"
    if is_sparse(x):
        raise ValueError(
            f"{expected}. Received: a sparse matrix, {type(x).__name__}. Pass "
            f"`{name}.toarray()`."
        )
    if isinstance(x, dict):
        raise ValueError(
            f"{expected}, one column for each variable. Received: a dict with keys "
            f"{list(x)}. Pass `np.stack(list({name}.values()), axis=1)`."
        )
    if x is None or isinstance(x, str | bytes | set):
        raise ValueError(f"{expected}. Received: {x!r}.")
    try:
        array = _convert(name, x)
    except ValueError as error:
        raise ValueError(f"{expected}. {error}") from error
    if array.dtype.kind == "V" and "float" in array.dtype.name:
        # Half precisions that NumPy does not know itself.
        array = array.astype("float32")
    if array.dtype.kind not in "buif":
        raise ValueError(f"{expected}. Received: dtype {array.dtype}.")
    return _plain(array)


def _convert(name, x):
    if is_tensor(x):
        try:
            return ops.convert_to_numpy(x)
        except Exception as error:
            raise ValueError(f"Received: {type(x).__name__}. {error}") from error
    if isinstance(x, list) and any(isinstance(row, np.ma.MaskedArray) for row in x):
        x = np.ma.array(x)
    if isinstance(x, np.ma.MaskedArray):
        return _unmasked(x)
    if hasattr(x, "items") and hasattr(x, "columns"):
        return _table(x)
    if hasattr(x, "to_numpy") and hasattr(x, "dtype"):
        return _column(name, x)
    array = np.asarray(x)
    if array.dtype.names:
        raise ValueError(
            f"Received: records with the fields {list(array.dtype.names)}. Pass their "
            "numbers, one column for each variable, such as "
            "`numpy.lib.recfunctions.structured_to_unstructured` makes."
        )
    if array.dtype.kind in "US" and array.dtype != getattr(x, "dtype", None):
        # NumPy has made text of the numbers beside the text of a nested list.
        array = np.asarray(x, dtype="O")
    return _numbers(array) if array.dtype.kind in "OUS" else array


def _unmasked(x):
    if not np.ma.is_masked(x) or x.dtype.kind not in "buif":
        return np.asarray(x)
    floats = x if x.dtype.kind == "f" else x.astype("float64")
    return floats.filled(np.nan)


def _table(frame):
    """A DataFrame, of which only the methods are known here, column by column."""
    kinds = {getattr(dtype, "kind", "O") for dtype in frame.dtypes}
    if len(kinds) == 1 and all(isinstance(d, np.dtype) for d in frame.dtypes):
        array = np.asarray(frame)
        if array.dtype.kind in "buif":
            return array
    columns = [_column(f"column {label!r}", column) for label, column in frame.items()]
    return np.stack(columns, axis=1) if columns else np.zeros(frame.shape)


def _column(name, column):
    dtype = column.dtype
    if isinstance(dtype, np.dtype) or getattr(dtype, "kind", "O") not in "buif":
        array = np.asarray(column)
    else:
        array = column.to_numpy(dtype="float64", na_value=np.nan)
    try:
        array = _numbers(array) if array.dtype.kind in "OUS" else array
    except ValueError as error:
        raise ValueError(f"In {name}: {error}") from error
    if array.dtype.kind not in "buif":
        raise ValueError(f"Received: {name} of dtype {dtype}.")
    return array


def _numbers(objects):
    """Floats from an array of Python objects; None and pandas' NA are missing."""
    values = np.empty(objects.size, "float64")
    for place, value in enumerate(objects.ravel()):
        values[place] = _number(value, place, objects.shape)
    return values.reshape(objects.shape)


def _number(value, place, shape):
    if value is None or type(value).__name__ == "NAType":
        return np.nan
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    remedy = "Give every value as a number"
    if isinstance(value, str | bytes):
        value = value.item() if isinstance(value, np.generic) else value
        remedy = (
            "Give classes as numbers from 0 on, `np.unique(column, return_inverse="
            "True)[1]`, and numbers that are written as text with `astype(float)`"
        )
    raise ValueError(
        f"Received: {value!r}, a {type(value).__name__}, in {_where(place, shape)}. "
        f"{remedy}."
    )


def _where(place, shape):
    """Where in a table, or in a larger array, a value stands."""
    index = tuple(int(i) for i in np.unravel_index(place, shape))
    if len(index) == 2:
        return f"row {index[0]}, column {index[1]}"
    return f"row {index[0]}" if len(index) == 1 else f"index {index}"


def _plain(array):
    """The same numbers in a form that every back end takes, copied only if need be."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.name == "uint64" or array.dtype.itemsize > 8:
        array = array.astype("float64")
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    return array


def check_finite(name, x, missing=False) -> None:
    """Raise a ValueError that names the first entry which is not finite.

    Args:
        name: of the argument, for the error.
        x: array `(n, ...)`.
        missing: where NaN is allowed: bools that broadcast to a row.
    """
    if x.dtype.kind != "f":
        return
    missing = np.asarray(missing)
    if missing.ndim and missing.shape[-1] != x.shape[-1]:
        # Another check says that the number of columns is wrong.
        missing = np.asarray(True)
    for start, piece in _pieces(x):
        wrong = ~np.isfinite(piece) & ~(np.isnan(piece) & missing)
        if not np.any(wrong):
            continue
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        index = (start + index[0], *index[1:])
        raise ValueError(
            f"`{name}` must be finite. Received: {x[index]} in row {index[0]}, at "
            f"index {index}. Rows with missing values can be completed by `impute`, "
            "and `Incomplete(conditional)` trains on rows with holes."
        )


def check_pieces(check, x) -> None:
    """Check piece after piece; an error then speaks of the whole."""
    for start, piece in _pieces(x):
        try:
            check(piece)
        except ValueError:
            # Once more up to this piece, so that the row has its number in `x`.
            check(x[: start + len(piece)])


def _pieces(x):
    """Some rows at a time, and where they start.

    A file that is mapped into memory must not be held in it as a whole.
    """
    rows = max(1, ENTRIES_CHECKED_AT_ONCE // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def check_weights(weights, num_rows) -> np.ndarray:
    """Weights of rows as an array `(num_rows,)`, or a ValueError."""
    weights = to_array("sample_weight", weights)
    if weights.shape == (num_rows, 1):
        weights = weights[:, 0]
    if weights.shape != (num_rows,):
        raise ValueError(
            f"`sample_weight` must have shape ({num_rows},), one number for each row. "
            f"Received: shape {weights.shape}."
        )
    check_finite("sample_weight", weights)
    if np.any(weights < 0):
        raise ValueError(
            "`sample_weight` must not be negative. Received: "
            f"{weights[weights < 0][0]} in row {int(np.argmax(weights < 0))}."
        )
    return weights if weights.dtype.kind == "f" else weights.astype("float32")
