"""The gradient of a value that was found by substitution.

`to_data` of an autoregressive step finds x with `to_noise(x) = u` entry by entry, in a
loop that has no gradient of its own (on TensorFlow it would keep every step, on JAX
there is none). The gradient is that of the implicit function:

    J dx = du,   J = d to_noise / dx at x: triangular, with a diagonal that is known

Each round of substitution settles at least one more rank, so `num_ranks` rounds solve
it exactly. On torch the loop is recorded as it runs, and nothing is needed.
"""

import keras
from keras import ops


def attach(x, u, to_noise, num_ranks: int):
    """x, found without a gradient, with the gradient of the solution.

    Args:
        x: the solution of `to_noise(x) = u`, `(..., *event_shape)`.
        u: of the same shape.
        to_noise: function of x that returns `(u, log_slope)`, each of that shape, and
            may read variables and tensors, which get gradients too.
        num_ranks: rounds of substitution that are exact.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _attach_tensorflow(x, u, to_noise, num_ranks)
    if backend == "jax":
        return _attach_jax(x, u, to_noise, num_ranks)
    return x


def _attach_tensorflow(x, u, to_noise, num_ranks):
    import tensorflow as tf

    x = tf.stop_gradient(x)
    # One parallel call says how far the solution moves with u, the weights and the
    # context; x itself does not carry a gradient into it.
    residual = u - to_noise(x)[0]

    @tf.custom_gradient
    def attached(residual):
        def gradient(dx):
            cotangent = _solve(x, to_noise, tf.stop_gradient(dx), num_ranks)
            return _first_only(cotangent, dx, u)

        return tf.identity(x) + tf.zeros_like(residual), gradient

    return attached(residual)


def _first_only(cotangent, *sources):
    """The cotangent, which must not be differentiated again, by any of its sources."""
    import tensorflow as tf

    @tf.custom_gradient
    def first_only(cotangent, *sources):
        def gradient(*_):
            raise NotImplementedError(
                "The sequential direction of an autoregressive flow (drawing with MAF, "
                "scoring with IAF) has first derivatives only. Take second derivatives "
                "of the other direction, which is one call of the network."
            )

        return tf.identity(cotangent), gradient

    return first_only(cotangent, *sources)


def _solve(x, to_noise, dx, num_ranks):
    """The cotangent of u, given that of x: solves J^T cotangent = dx."""
    import tensorflow as tf

    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        u, log_slope = to_noise(x)
    slope = tf.exp(log_slope)

    def settle(t, cotangent, _):
        through_all = tape.gradient(u, x, cotangent, unconnected_gradients="zero")
        new = cotangent + (dx - through_all) / slope
        change = tf.reduce_max(tf.abs(new - cotangent))
        return t + 1, new, change > precision * tf.reduce_max(tf.abs(new))

    precision = 1e-15 if x.dtype == tf.float64 else 1e-7
    _, cotangent, _ = tf.while_loop(
        lambda t, _, moving: (t < num_ranks) & moving,
        settle,
        (0, dx / slope, tf.constant(num_ranks > 1)),
    )
    return cotangent


def _attach_jax(x, u, to_noise, num_ranks):
    import jax

    def tangent_solve(linear, du):
        """dx with linear(dx) = du."""
        slope = ops.exp(to_noise(jax.lax.stop_gradient(x))[1])

        def settle(dx, _):
            return dx + (du - linear(dx)) / slope, None

        # A loop of fixed length, since it must be transposed.
        dx, _ = jax.lax.scan(settle, du / slope, None, length=num_ranks - 1)
        return dx

    return jax.lax.custom_root(
        lambda x: to_noise(x)[0] - u,
        jax.lax.stop_gradient(x),
        lambda _, found: found,
        tangent_solve,
    )
