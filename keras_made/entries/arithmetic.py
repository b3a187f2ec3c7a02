"""Formulas and checks that several conditionals share."""

import math

import keras
import numpy as np
from keras import ops

# A scale is softplus(raw + OFFSET) + floor, so that raw = 0 gives about 1.
SCALE_OFFSET = math.log(math.e - 1)
# Entries travel as float32, which holds every integer up to here and not the next.
MAX_LEVELS = 2**24


def on_levels(log_prob, x, num_levels, dtype):
    """`log_prob(x)` where x is a level, -inf where it is none, NaN where it is NaN.

    Args:
        log_prob: function of levels, floats in `dtype`.
        x: entries, numbers of any dtype.
        num_levels: the levels are the integers from 0 to `num_levels - 1`.
        dtype: of the parameters.
    """
    x = ops.convert_to_tensor(x)
    x = ops.cast(x, float_of(x))
    is_level = (x >= 0) & (x < num_levels) & ops.equal(x, ops.floor(x))
    # At no level, that of zero is computed and not used: were it computed at x, it
    # could be NaN, and so would be the gradient, whatever `where` chooses.
    levels = ops.cast(ops.where(is_level, x, 0.0), dtype)
    # Constants, one to a `where`: ONNX is given a choice between two tensors as a sum
    # of products, in which zero times infinity is NaN.
    result = ops.where(is_level, log_prob(levels), -np.inf)
    return ops.where(ops.isnan(x), np.nan, result)


def positive_scale(raw, floor):
    return ops.softplus(raw + SCALE_OFFSET) + floor


def raw_scale(scale: np.ndarray, floor) -> np.ndarray:
    """The parameter of which `positive_scale` makes a scale above the floor."""
    return np.log(np.expm1(scale - floor)) - SCALE_OFFSET


def normal_log_prob(x, loc, scale):
    z = ops.subtract(x, loc) / scale
    return -0.5 * z * z - ops.log(scale) - 0.5 * math.log(2.0 * math.pi)


def normal_quantile(u):
    return math.sqrt(2.0) * ops.erfinv(2.0 * u - 1.0)


def probabilities(logits):
    """`ops.softmax`, which warns of a mixture of one, without the warning."""
    return ops.exp(ops.log_softmax(logits, axis=-1))


def draw_class(logits, uniforms):
    """Index of the class whose interval of cumulated probability holds the noise."""
    cumulated = ops.cumsum(probabilities(logits), axis=-1)
    # Rounding leaves the total near one; noise on its scale can hit no class of
    # probability zero, the last one included.
    passed = cumulated[..., :-1] <= uniforms * cumulated[..., -1:]
    return ops.sum(ops.cast(passed, "int32"), axis=-1)


def float_of(x):
    """The floating type in which entries become features: that of `x` or float32."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    # On torch Keras gives float32 for the result of float64 and float64.
    return dtype if dtype == "float64" else keras.backend.result_type(dtype, "float32")


def log_mean_exp(members):
    """Log of the mean probability over the first axis."""
    # Where all are -inf, so is the mean; `logsumexp` would have NaN for a gradient.
    impossible = ops.max(members, axis=0) == -np.inf
    members = ops.where(impossible, 0.0, members)
    result = ops.logsumexp(members, axis=0) - math.log(members.shape[0])
    return ops.where(impossible, -np.inf, result)


def check_count(name, value, least):
    integral = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integral or value < least:
        raise ValueError(
            f"`{name}` must be an int of at least {least}. Received: {value!r}."
        )
    return int(value)


def check_levels_told_apart(name, value):
    value = check_count(name, value, 2)
    if value > MAX_LEVELS:
        raise ValueError(
            f"`{name}` must be at most 2**24 = {MAX_LEVELS}. Received: {value}. "
            "Entries travel as float32, which does not tell greater integers apart. "
            "Divide them into fewer levels, `x // width`, or model real numbers."
        )
    return value


def check_min_scale(min_scale):
    if not min_scale > 0:
        raise ValueError(f"`min_scale` must be positive. Received: {min_scale!r}.")
    return float(min_scale)


def check_levels(x, num_levels, name):
    wrong = (x != np.floor(x)) | (x < 0) | (x >= num_levels)
    raise_first(wrong, x, f"an integer from 0 to {num_levels - 1} under {name}", "")


def raise_first(wrong, x, expected, advice):
    if np.any(wrong):
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"Every value must be {expected}. Received: {x[index]} in row {index[0]}, "
            f"at index {index}. {advice}".rstrip()
        )
