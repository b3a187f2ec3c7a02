"""A table's density in a TensorFlow graph, its columns by name: what is exported.

Numbers go in and come out as float64, NaN where missing; names as strings, `""` where
missing; dates as seconds since 1970. A column without variance is left out.
"""

import re

import numpy as np

from keras_made.densities.graphs import (
    Endpoint,
    impute_exactly_endpoint,
    sample_endpoint,
)
from keras_made.tables.names import Boolean, Category
from keras_made.tables.quantities import DateTime, Integer, Real, Values


def endpoints(model) -> dict:
    """The verbs of a `TableDensity`, their inputs and outputs the columns by name."""
    specs, names = _specs(model.schema)
    draw = sample_endpoint(model.density).function

    def log_prob(*columns):
        return model.call(encode(model, columns))

    def sample(num_samples, seed):
        return decode(model, draw(num_samples, seed))

    verbs = {
        "log_prob": Endpoint(log_prob, specs, "log_prob"),
        "sample": Endpoint(sample, ("num_samples", "seed"), names),
    }
    if model.density.network.order_agnostic:
        verbs["impute"] = Endpoint(_impute(model), (*specs, "seed"), names)
    return verbs


def _impute(model):
    import tensorflow as tf

    fill = impute_exactly_endpoint(model.density).function

    def impute(*inputs):
        *columns, seed = inputs
        x = encode(model, columns)
        observed = ~tf.math.is_nan(x)
        drawn = decode(model, fill(x, observed, seed))
        seen = tf.unstack(observed, axis=1)
        # What was observed comes back as it went in, to the last digit.
        return tuple(
            tf.where(known, own, new)
            for known, own, new in zip(seen, columns, drawn, strict=True)
        )

    return impute


def _specs(schema):
    """`tf.TensorSpec`s of the modelled columns, and their names."""
    import tensorflow as tf

    names = tuple(
        re.sub(r"^(\d)", r"_\1", re.sub(r"\W", "_", name)) for name in schema.modelled
    )
    for place, name in enumerate(names):
        first = names.index(name)
        if first < place:
            raise ValueError(
                f"Columns {schema.modelled[first]!r} and {schema.modelled[place]!r} "
                f"would both be the input {name!r} of what is exported. Rename one."
            )
    kinds = [schema[name] for name in schema.modelled]
    types = ["string" if isinstance(kind, Category) else "float64" for kind in kinds]
    specs = tuple(
        tf.TensorSpec((None,), dtype, name=name)
        for dtype, name in zip(types, names, strict=True)
    )
    return specs, names


def encode(model, columns):
    """Columns as tensors `(n,)` to the numbers of the density, `(n, D)`."""
    import tensorflow as tf

    kinds = [model.schema[name] for name in model.schema.modelled]
    codes = [_code(k, c) for k, c in zip(kinds, columns, strict=True)]
    return tf.cast(tf.stack(codes, axis=1), model.density_dtype)


def _code(kind, column):
    import tensorflow as tf

    if isinstance(kind, DateTime):
        return (column - kind.epoch()) / kind.seconds
    if not isinstance(kind, Category):
        return column - _origin(kind)
    names = tf.constant([str(value) for value in kind.categories])
    same = tf.equal(column[:, None], names)
    known = tf.reduce_any(same, axis=1)
    check = tf.debugging.Assert(
        tf.reduce_all(known | tf.equal(column, "")),
        ["A name is none of the categories", names],
    )
    with tf.control_dependencies([check]):
        place = tf.cast(tf.argmax(same, axis=1), "float64")
        return tf.where(known, place, tf.constant(np.nan, "float64"))


def decode(model, codes):
    """Numbers of the density `(n, D)` to columns, a tuple of tensors `(n,)`."""
    import tensorflow as tf

    kinds = [model.schema[name] for name in model.schema.modelled]
    columns = tf.unstack(tf.cast(codes, "float64"), axis=1)
    return tuple(_value(k, c) for k, c in zip(kinds, columns, strict=True))


def _value(kind, codes):
    import tensorflow as tf

    if isinstance(kind, Category):
        names = tf.constant([str(value) for value in kind.categories])
        return tf.gather(names, tf.cast(tf.round(codes), "int32"))
    if isinstance(kind, Values):
        known = tf.constant(kind.values, "float64")
        return tf.gather(known, tf.argmin(tf.abs(codes[:, None] - known), axis=1))
    if isinstance(kind, Integer):
        codes = tf.clip_by_value(tf.round(codes), 0.0, float(kind.levels - 1))
    if isinstance(kind, Boolean):
        codes = tf.round(codes)
    if isinstance(kind, DateTime):
        return tf.round(codes) * kind.seconds + kind.epoch()
    return codes + _origin(kind)


def _origin(kind):
    """What the density's numbers are counted from."""
    if isinstance(kind, Integer):
        return float(kind.low)
    return kind.origin if isinstance(kind, Real) else 0.0
