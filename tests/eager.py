"""Functions run as they are: for tests of numbers, which pay for no compiling."""

import contextlib

import keras


@contextlib.contextmanager
def uncompiled():
    """On TensorFlow, what the package compiles runs operation by operation.

    On torch it always does, and on JAX a loop of operations costs more than compiling.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
