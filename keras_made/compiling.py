"""Functions of a layer's weights, compiled, and run over many rows in chunks."""

import functools
import sys
import threading

import keras
import numpy as np
from keras import ops

# Floats that one chunk may hold: 64 MB in float32, however many rows are asked for.
FLOATS_PER_CHUNK = 2**24
# Arrays begin at multiples of so many bytes, which back ends want.
ALIGNMENT = 64
# From this size on, a copy costs more than a detour that makes none.
SHARED_BYTES = 2**20
# Rows of a chunk: what is compiled for each shape is compiled at most this often.
LENGTHS = (16, 128, 1024, 8192)
# A call costs as much as so many rows more (D = 16 to 64, two layers, two cores).
ROWS_OF_A_CALL = 200
# Seconds of compiling after which one is told.
SILENCE = 1.0
# From this size on, XLA on a CPU saves more in an epoch or two than compiling costs.
XLA_WEIGHTS = 1_000_000


def compiled(layer, function):
    """Compile `function(*tensors)`, which reads the weights of `layer`, with XLA.

    On TensorFlow a `tf.function`, on JAX a `jit`, on torch the function itself, run
    without gradients. The weights are read at every call: what was trained since is
    seen. It compiles once per shape of the arguments.

    Args:
        layer: a built layer or model, the only owner of variables in `function`.
        function: takes and returns tensors, and changes no variable.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tf_function(function)
    if backend == "jax":
        return _jit(layer, function)
    import torch

    return torch.no_grad()(function)


def _tf_function(function):
    """A `tf.function` for each pattern of arguments that are None.

    TensorFlow looks at every argument of every call; five that are None take as long
    as a small compiled function runs.
    """
    import tensorflow as tf

    functions = {}

    def spread(given, *tensors):
        tensors = iter(tensors)
        return function(*(next(tensors) if g else None for g in given))

    def call(*args):
        given = tuple(a is not None for a in args)
        if given not in functions:
            # Not a function of Python: TensorFlow counts the traces of all that share
            # its code, here those of all models, and would warn of them.
            one = functools.partial(spread, given)
            functions[given] = tf.function(one, jit_compile=True, autograph=False)
        return functions[given](*(a for a in args if a is not None))

    return call


def _jit(layer, function):
    import jax

    @jax.jit
    def pure(values, *args):
        pairs = list(zip(layer.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return function(*args)

    def call(*args):
        return pure([ops.convert_to_tensor(v) for v in layer.variables], *args)

    return call


class Announced:
    """A compiled function that says so, once for each shape, when compiling takes long.

    How long it will take is not known before, and differs tenfold between machines: a
    clock runs beside it.

    Args:
        function: what `compiled` returned.
        name: of what is compiled, a verb.
    """

    def __init__(self, function, name: str):
        self.function = function
        self.name = name
        self.shapes = set()

    def __call__(self, *args, verbose=0):
        args = [None if a is None else ops.convert_to_tensor(a) for a in args]
        shapes = tuple(None if a is None else tuple(a.shape) for a in args)
        if shapes in self.shapes or keras.backend.backend() == "torch":
            return self.function(*args)
        self.shapes.add(shapes)
        rows = next(shape[0] for shape in shapes if shape)
        text = f"compiling {self.name} for {rows} rows, once for this model"
        clock = threading.Timer(SILENCE, print, [text], {"file": sys.stderr})
        if verbose:
            clock.start()
        try:
            return self.function(*args)
        finally:
            clock.cancel()


def gains_by_xla(model) -> bool:
    """Whether XLA, which Keras leaves out on TensorFlow and a CPU, pays in training.

    A large step gains a quarter by it; a small one never earns back compiling, and
    some layers lose by it, as their `gains_by_xla` says.
    """
    if keras.backend.backend() != "tensorflow" or not model.built:
        return False
    # Keras, too, leaves XLA out of `tf.distribute`.
    possible = not model.run_eagerly and model._distribute_strategy is None
    layers = model._flatten_layers(include_self=False)
    possible = possible and all(getattr(one, "gains_by_xla", True) for one in layers)
    return possible and model.count_params() >= XLA_WEIGHTS


def is_traced() -> bool:
    """Whether what runs is being compiled into another function, without values.

    So it is inside `tf.function`, `Dataset.map` and `jax.jit`.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if backend == "jax":
        import jax

        return isinstance(ops.zeros(()), jax.core.Tracer)
    return False


def most_at_once(floats_each) -> int:
    """How many things that hold so many floats each fit into a chunk, at least one."""
    return max(1, FLOATS_PER_CHUNK // max(1, floats_each))


def run_in_chunks(function, arrays, floats_per_row, verbose="auto"):
    """Call `function` on chunks of rows and join what it returns.

    Args:
        function: takes some rows of each array (None stays None), as many of all, and
            returns a tensor or an array with that many rows.
        arrays: arrays with equal first axes, or None. The first is not None.
        floats_per_row: about how many floats `function` holds for one row.
        verbose: 0 for silence, 1 for a progress bar, `"auto"` for one when the rows
            hold more floats than a chunk may.

    Returns:
        A tensor with one row per row.
    """
    return to_tensor(join_chunks(function, arrays, floats_per_row, verbose))


def join_chunks(
    function,
    arrays,
    floats_per_row,
    verbose="auto",
    lengths=LENGTHS,
    groups=None,
    padded=True,
):
    """As `run_in_chunks`, what is returned as one array, into which chunks are written.

    Chunks are padded to a few standard lengths, so that a function compiled per shape
    is not compiled anew for every number of rows.

    Args:
        function: as there.
        arrays: as there.
        floats_per_row: as there.
        verbose: as there.
        lengths: those that a chunk may have; those that hold too many floats are not
            used, but for the least.
        groups: arrays of the numbers of rows that may share a chunk. None: any may.
        padded: whether a chunk is padded at all.

    Returns:
        A NumPy array with one row per row, aligned as back ends want it.
    """
    num_rows, most = len(arrays[0]), most_at_once(floats_per_row)
    pieces = list(_cut(num_rows, groups, lengths, most))
    shown = verbose == 1 or (verbose == "auto" and num_rows > most)
    bar = keras.utils.Progbar(len(pieces), unit_name="chunk") if shown else None
    joined = None
    for rows, count, length in pieces:
        chunk = [None if a is None else a[rows] for a in arrays]
        if padded:
            chunk = [None if a is None else _pad_rows(a, length) for a in chunk]
        result = ops.convert_to_numpy(function(*chunk))
        if joined is None:
            joined = aligned_empty((num_rows, *result.shape[1:]), result.dtype)
        joined[rows] = result[:count]
        if bar:
            bar.add(1)
    return joined


def run_on_tensors(function, tensors, floats_per_row):
    """As `run_in_chunks`, on tensors, with the gradient of all that is done.

    Args:
        function: takes some rows of each tensor, and returns a tensor of as many.
        tensors: tensors with equal first axes, or None. The first is not None.
        floats_per_row: about how many floats `function` holds for one row.

    Returns:
        A tensor with one row per row.
    """
    results, num_rows = [], tensors[0].shape[0]
    most = most_at_once(floats_per_row)
    for rows, count, length in _cut(num_rows, None, LENGTHS, most):
        whole = count == num_rows
        pieces = [t if t is None or whole else t[rows] for t in tensors]
        pieces = [None if t is None else _pad_tensor(t, length) for t in pieces]
        result = function(*pieces)
        # One operation; brackets are several on TensorFlow, half a millisecond.
        start, shape = (0,) * len(result.shape), (count, *result.shape[1:])
        results.append(result if count == length else ops.slice(result, start, shape))
    return results[0] if len(results) == 1 else ops.concatenate(results)


def _pad_tensor(tensor, length):
    rows, shape = tensor.shape[0], tensor.shape[1:]
    if rows == length:
        return tensor
    # Few operations: on TensorFlow each costs a tenth of a millisecond, `ops.take` four
    # of them and `ops.repeat` twenty.
    last = ops.slice(tensor, (rows - 1,) + (0,) * len(shape), (1, *shape))
    return ops.concatenate([tensor, ops.broadcast_to(last, (length - rows, *shape))])


def _cut(num_rows, groups, lengths, most):
    """Which rows make a chunk, how many they are, and how many they are padded to."""
    lengths = [n for n in lengths if n <= most] or lengths[:1]
    for group in [None] if groups is None else groups:
        size = num_rows if group is None else len(group)
        length = best_length(size, lengths)
        for start in range(0, size, length):
            rows = slice(start, min(start + length, size))
            count = rows.stop - rows.start
            yield rows if group is None else group[rows], count, length


def best_length(rows: int, lengths=LENGTHS) -> int:
    """The length of chunks in which so many rows cost least, padding and calls."""
    return min(lengths, key=lambda n: -(-rows // n) * (n + ROWS_OF_A_CALL))


def as_floats(array, dtype):
    """Numbers in a dtype, so that each is not compiled for; too large ones infinite."""
    if array is None:
        return None
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def _pad_rows(array, length):
    padding = length - len(array)
    if not padding:
        return array
    # Copies of a real row keep the padded ones within the support.
    return np.concatenate([array, np.repeat(array[-1:], padding, axis=0)])


def aligned_empty(shape, dtype):
    """`np.empty` at an address that back ends take over without a copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, "uint8")
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def to_tensor(array):
    """A tensor of an array that nobody else holds, without a copy where possible."""
    backend, flags = keras.backend.backend(), array.flags
    aligned = array.ctypes.data % ALIGNMENT == 0 and flags.c_contiguous
    if backend == "tensorflow" and aligned and array.nbytes >= SHARED_BYTES:
        import tensorflow as tf

        if not tf.config.list_logical_devices("GPU"):
            return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    if backend == "torch":
        import torch

        return ops.convert_to_tensor(torch.from_numpy(array))
    return ops.convert_to_tensor(array)
