"""Functions of a layer's weights, compiled, and run over many rows in chunks."""

import keras
import numpy as np
from keras import ops

# Floats that one chunk may hold: 64 MB in float32, however many rows are asked for.
FLOATS_PER_CHUNK = 2**24
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
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    if backend == "jax":
        return _jit(layer, function)
    import torch

    return torch.no_grad()(function)


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


def gains_by_xla(model) -> bool:
    """Whether XLA, which Keras leaves out on TensorFlow and a CPU, pays in training.

    A large step gains a quarter by it; a small one never earns back compiling.
    """
    if keras.backend.backend() != "tensorflow" or not model.built:
        return False
    # Keras, too, leaves XLA out of `tf.distribute`.
    possible = not model.run_eagerly and model._distribute_strategy is None
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


def run_in_chunks(function, arrays, floats_per_row, verbose="auto", least_rows=16):
    """Call `function` on chunks of rows and join what it returns.

    Chunks are padded to a few standard lengths, so that a function compiled per shape
    is not compiled anew for every number of rows.

    Args:
        function: takes one slice of each array (None stays None), all with the same
            number of rows, and returns a tensor with that many rows.
        arrays: arrays with equal first axes, or None. The first is not None.
        floats_per_row: about how many floats `function` holds for one row.
        verbose: 0 for silence, 1 for a progress bar, `"auto"` for one when there is
            more than one chunk.
        least_rows: rows of a chunk, however much they hold: fewer are slow. 1 for a
            `function` that makes many rows of each.

    Returns:
        A tensor with one row per row.
    """
    num_rows = len(arrays[0])
    longest = int(np.clip(most_at_once(floats_per_row), least_rows, 16384))
    # Equal chunks: the last one, padded to the length of the others, wastes little.
    chunk = standard_length(-(-num_rows // -(-num_rows // longest)))
    starts = range(0, num_rows, chunk)
    shown = verbose == 1 or (verbose == "auto" and len(starts) > 1)
    bar = keras.utils.Progbar(len(starts), unit_name="chunk") if shown else None
    results = []
    for start in starts:
        rows = min(chunk, num_rows - start)
        pieces = [
            None if a is None else _pad_rows(a[start : start + rows], chunk)
            for a in arrays
        ]
        results.append(function(*pieces)[:rows])
        if bar:
            bar.add(1)
    return results[0] if len(results) == 1 else ops.concatenate(results, axis=0)


def standard_length(rows: int) -> int:
    """The least of the standard lengths that holds `rows`: eight to every octave."""
    unit = 2 ** max(0, (rows - 1).bit_length() - 4)
    return -(-rows // unit) * unit


def _pad_rows(array, length):
    padding = length - len(array)
    if not padding:
        return array
    # Copies of a real row keep the padded ones within the support.
    return np.concatenate([array, np.repeat(array[-1:], padding, axis=0)])
