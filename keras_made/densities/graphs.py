"""The verbs of a density in a TensorFlow graph: for other runtimes, and for TFP."""

from collections.abc import Callable
from typing import NamedTuple

from keras_made.densities.drawing import generate_rows, noise_shape, observed_first
from keras_made.generation import uniform_margin


class Endpoint(NamedTuple):
    """A function of tensors, its inputs, and the name of its output.

    The inputs are names among `x`, `observed`, `context`, `one context`, `seed` and
    `num_samples`, of which a model without context leaves those out, or are
    `tf.TensorSpec`s with a name. A function that returns several tensors names each.
    """

    function: Callable
    inputs: tuple
    output: str | tuple[str, ...]


def log_prob_endpoint(model) -> Endpoint:
    def log_prob(x, context=None):
        return model.call(x if context is None else (x, context))

    return Endpoint(log_prob, ("x", "context"), "log_prob")


def sample_endpoint(model) -> Endpoint:
    def sample(num_samples, seed, context=None):
        distribution = model.distribution(context)
        return distribution.sample(num_samples, seed=_pair(seed))

    return Endpoint(sample, ("num_samples", "seed", "one context"), "x")


def impute_exactly_endpoint(model):
    """Each row in an ordering of its own that has its observed entries first."""
    import tensorflow as tf

    structure, typical = model.members[0], _flat(model, _typical(model))
    generate = model.compiled_function("impute", generate_rows)

    def impute(x, observed, seed, context=None):
        known, seen = _flat(model, x), _flat(model, observed)
        order = tf.cast(observed_first(model, seen), tf.int32)
        noise = draw_noise(model, tf.shape(x)[0], _pair(seed))
        known = tf.where(seen, known, typical)
        draws = generate(tf.constant(structure), noise, context, order, known, seen)
        return tf.reshape(draws[:, :-1], tf.shape(x))

    return Endpoint(impute, ("x", "observed", "seed", "context"), "x")


def impute_by_particles_endpoint(model, num_particles):
    """One of several completions, by the likelihood of the observed entries."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    typical = _flat(model, _typical(model))
    # Rounded up, so that every structure completes a row equally often.
    members = len(model.members)
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

    return Endpoint(impute, ("x", "observed", "seed", "context"), "x")


def _pair(seed):
    import tensorflow as tf

    return tf.stack([seed, 0])


def _flat(model, x):
    import tensorflow as tf

    return tf.reshape(x, (-1, model.network.event_size))


def _typical(model):
    return model.typical_event().astype(model.density_dtype)


def draw_noise(model, size, seed):
    """The uniforms behind `size` rows of a density, in its dtype, from TFP's seed."""
    import tensorflow as tf

    dtype = model.density_dtype
    margin = uniform_margin(dtype)
    shape = (size, *noise_shape(model))
    return tf.random.stateless_uniform(shape, seed, margin, 1 - margin, dtype)


def draw_rows(model, size, seed, context=None, evenly=False, **arguments):
    """Rows generated from a seed in a graph; each draws its structure by itself.

    That is the mixture of the structures, without strata.

    Args:
        model: an `AutoregressiveDensity`.
        size: number of rows, an integer scalar.
        seed: ints `(2,)`, as TFP's stateless draws want.
        context: `(size, C)` or None.
        evenly: whether the structures take turns instead.
        **arguments: of `generate_rows`.

    Returns:
        Floats `(size, event_size + 1)`, as `generate_rows`.
    """
    import tensorflow as tf
    import tensorflow_probability as tfp

    noise_seed, row_seed = tfp.random.split_seed(seed, n=2)
    structures = tf.constant(model.members, tf.int32)
    noise = draw_noise(model, size, noise_seed)
    chosen = tf.random.stateless_uniform(
        (size,), row_seed, maxval=len(model.members), dtype=tf.int32
    )
    if evenly:
        chosen = tf.range(size) % len(model.members)
    if len(model.members) == 1:
        return generate_rows(model, structures[0], noise, context, **arguments)
    draws = tf.map_fn(
        lambda structure: generate_rows(model, structure, noise, context, **arguments),
        structures,
        fn_output_signature=model.density_dtype,
    )
    return tf.gather(tf.transpose(draws, (1, 0, 2)), chosen, axis=1, batch_dims=1)
