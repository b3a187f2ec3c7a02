"""Base distributions of flows, as plain values that can be saved."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def to_config(base: tfd.Distribution) -> dict:
    """A distribution of `tfd` with constant parameters, as its class and arguments.

    Raises:
        ValueError: for one that is not of `tfd`, or holds what is not a number, an
            array or another such distribution.
    """
    name = type(base).__name__
    if not isinstance(base, tfd.Distribution) or not hasattr(tfd, name):
        raise ValueError(
            "`base` must be a distribution of `tfp.distributions` such as "
            f"tfd.StudentT(5.0, 0.0, 1.0). Received: {base!r}."
        )
    if base.trainable_variables:
        raise ValueError(
            "`base` must have constant parameters: a flow learns location and scale in "
            f"its steps. Received: {name} with tf.Variables."
        )
    # The dtype is that of the flow.
    parameters = {k: v for k, v in base.parameters.items() if k != "dtype"}
    numbers = _numbers(type(base))
    arguments = {k: _plain(name, k, v, k in numbers) for k, v in parameters.items()}
    return {"class_name": name, "arguments": arguments}


def from_config(config: dict, dtype: str) -> tfd.Distribution:
    """The distribution again, in the given dtype."""
    kind, arguments = getattr(tfd, config["class_name"]), {}
    numbers = _numbers(kind)
    for key, value in config["arguments"].items():
        if isinstance(value, dict):
            value = from_config(value, dtype)
        elif key in numbers and value is not None:
            value = tf.constant(value, dtype)
        arguments[key] = value
    return kind(**arguments)


def over_events(base: tfd.Distribution, event_size: int) -> tfd.Distribution:
    """The same distribution over events `(event_size,)`, by repetition if scalar."""
    batch, event = base.batch_shape.as_list(), base.event_shape.as_list()
    if (batch, event) == ([], []):
        return tfd.Sample(base, event_size)
    if (batch, event) == ([event_size], []):
        return tfd.Independent(base, 1)
    if (batch, event) == ([], [event_size]):
        return base
    raise ValueError(
        f"`base` must be one scalar distribution, a batch of {event_size}, or one over "
        f"events of size {event_size}. Received: batch shape {batch}, event shape "
        f"{event}."
    )


def _numbers(kind) -> set[str]:
    """The arguments of a class of distributions that are real numbers.

    They take the dtype of the flow, also when written as integers. The others are
    distributions, and integers that count axes or entries.
    """
    try:
        properties = kind.parameter_properties()
    except NotImplementedError:
        return set()
    return {k for k, v in properties.items() if type(v) is tfp.util.ParameterProperties}


def _plain(name, key, value, is_number):
    if isinstance(value, tfd.Distribution):
        return to_config(value)
    if value is None or isinstance(value, bool | str):
        return value
    try:
        array = np.asarray(value)
    except Exception:
        array = np.asarray(None)
    if array.dtype.kind in "iuf":
        return array.astype("float64" if is_number else array.dtype).tolist()
    raise ValueError(
        f"`base` cannot be saved: the argument `{key}` of {name} is {value!r}, not a "
        "number, an array or another distribution."
    )


def standard_normal(event_size: int, dtype: str) -> tfd.Distribution:
    """Independent standard normals over events `(event_size,)`."""
    zero = tf.constant(0.0, dtype)
    return tfd.Sample(tfd.Normal(zero, tf.ones_like(zero)), event_size)
