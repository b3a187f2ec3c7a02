"""The standard normal within an interval: its mass and draws, exact far into the tails.

    log P(a <= z <= b) = log Q(b) + log(1 - Q(a) / Q(b)),   Q the lower tail

on the side where the tail is the smaller. What is narrow would be lost in that
difference, and is integrated: there the density is nearly an exponential.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from keras_made.generation import clip

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
# Stands for an infinite end; its square is finite in float32.
FAR = 1e9
# Half-width times distance from the centre, up to which an interval is narrow. Both
# ways are exact to a few units of rounding there.
NARROW, LEAST_DISTANCE = 0.5, 5.0
# Each step of Newton's method doubles the digits: three leave 2e-8 of the result.
STEPS = 3


def standard(low, high, loc, scale):
    """Ends and half-width of an interval, counted in scales from the location.

    Args:
        low: lower ends, -inf for none; less than `high`.
        high: upper ends, inf for none.
        loc: locations, in the same units.
        scale: scales.

    Returns:
        `(a, b, half)`, finite, of finite gradients.
    """
    has_low, has_high = low > -np.inf, high < np.inf
    # What is infinite is replaced before it meets a parameter, whose gradient it
    # would make NaN.
    low, high = ops.where(has_low, low, 0.0), ops.where(has_high, high, 0.0)
    a = ops.where(has_low, clip((low - loc) / scale, -FAR, FAR), -FAR)
    b = ops.where(has_high, clip((high - loc) / scale, -FAR, FAR), FAR)
    # Ends that rounding cannot tell apart once they are moved still have a width.
    tiny = float(np.finfo(keras.backend.standardize_dtype(a.dtype)).tiny)
    half = clip(0.5 * (high - low) / scale, tiny, FAR)
    return a, b, ops.where(has_low & has_high, half, FAR)


def log_mass(a, b, half):
    """log P(a <= z <= b), of what `standard` returned."""
    middle, narrow = _narrow(a, b, half)
    inside = _log_integral(*_where(narrow, (middle, half), (0.0, 0.01)))
    a, b = _where(narrow, (-1.0, 1.0), (a, b))
    (below_a, below_b), (above_a, above_b) = _log_sides_of(a, b)
    # On the side of the smaller tails.
    right = a + b > 0
    upper = ops.where(right, above_a, below_b)
    rest = ops.where(right, above_b, below_a) - upper
    # The ratio of the tails is at most exp(-1) here, or their difference a tenth.
    outside = upper + ops.log(-ops.expm1(rest))
    return ops.where(narrow, inside, outside)


def draw(uniforms, a, b, half):
    """z of the standard normal within [a, b], and from its middle: `(z, narrow, t)`.

    Where the interval is narrow, t is the distance from its middle, which z, rounded,
    no longer tells.
    """
    middle, narrow = _narrow(a, b, half)
    m, h = _where(narrow, (middle, half), (0.0, 0.01))
    t = _solve_narrow(uniforms, m, h)
    a, b = _where(narrow, (-1.0, 1.0), (a, b))
    below, above = (log_between(uniforms, *side) for side in _log_sides_of(a, b))
    left = below < above
    z = _solve(ops.where(left, below, above))
    return ops.where(left, z, -z), narrow, t


def log_between(uniforms, start, end):
    """log((1 - u) exp(start) + u exp(end)), for noise u in (0, 1)."""
    start, end = ops.log1p(-uniforms) + start, ops.log(uniforms) + end
    # Not `logaddexp`, which on torch is rounded to float32.
    rising = end > start
    greater = ops.where(rising, end, start)
    return greater + ops.softplus(ops.where(rising, start, end) - greater)


def _log_sides_of(a, b):
    """`log_sides` of two numbers, computed together: `((a, b), (a, b))`."""
    zeros = ops.zeros_like(a + b)
    below, above = log_sides(ops.stack([a + zeros, b + zeros]))
    return (below[0], below[1]), (above[0], above[1])


def log_sides(z):
    """log P(Z <= z) and log P(Z > z), Z standard normal, exact to rounding."""
    left = z < 0
    tail = _log_tail(ops.where(left, -z, z))
    rest = ops.log1p(-ops.exp(tail))
    return ops.where(left, tail, rest), ops.where(left, rest, tail)


def _log_tail(z):
    """log P(Z > z) for z >= 0: log erfcx(z / sqrt 2) - z^2 / 2 - log 2."""
    return ops.log(_scaled_tail(z)) - 0.5 * z * z - math.log(2.0)


def _scaled_tail(z):
    """erfcx(z / sqrt 2) for z >= 0: the tail without what makes it small."""
    x = z * math.sqrt(0.5)
    dtype = keras.backend.standardize_dtype(z.dtype)
    end, coefficients = _weideman(32 if dtype == "float64" else 18)
    ratio, total = (end - x) / (end + x), 0.0
    for coefficient in coefficients:
        total = total * ratio + coefficient
    return (2.0 * total / (end + x) + math.sqrt(1.0 / math.pi)) / (end + x)


@functools.cache
def _weideman(terms):
    """Of a polynomial in (L - x) / (L + x) that gives erfcx(x), x >= 0.

    Weideman 1994, "Computation of the complex error function": with 18 terms the
    relative error is 2e-8, with 32 it is 3e-14.

    Returns:
        `(L, coefficients)`, floats, the highest power first.
    """
    end = math.sqrt(terms / math.sqrt(2.0))
    angles = np.arange(1 - 2 * terms, 2 * terms) * np.pi / (2 * terms)
    t = end * np.tan(angles / 2)
    values = np.append(0.0, np.exp(-t * t) * (end * end + t * t))
    series = np.fft.fft(np.fft.fftshift(values)).real / (4 * terms)
    return end, series[terms:0:-1].tolist()


def _solve(log_p):
    """z <= 0 with log P(Z <= z) = log_p, which is at most log 1/2."""
    # The start is to the left of the root; from there on, the logarithm being concave,
    # Newton's method never passes it.
    log_p = clip(log_p, -FAR * FAR, math.log(0.5))
    radius = ops.sqrt(-2.0 * log_p)
    z = (ops.log(radius) + LOG_SQRT_2PI) / radius - radius
    for _ in range(STEPS):
        scaled = _scaled_tail(-z)
        excess = ops.log(scaled) - 0.5 * z * z - math.log(2.0) - log_p
        # The density over the tail: both are too small to be divided, far out.
        z = clip(z - excess * scaled * math.sqrt(0.5 * math.pi), -2.0 * FAR, 0.0)
    return z


# Narrow intervals: [m - h, m + h], t counted from m -----------------------------------


def _narrow(a, b, half):
    middle = 0.5 * (a + b)
    return middle, half * ops.maximum(ops.abs(middle), LEAST_DISTANCE) < NARROW


def _log_integral(m, h):
    """log of the integral of the density over [m - h, m + h]."""
    return ops.log(2.0 * h * _mean(m, h)) - 0.5 * m * m - LOG_SQRT_2PI


def _mean(m, h):
    """Mean of exp(-m t - t^2 / 2) over [-h, h]: Gauss's rule of six points."""
    points, weights = np.polynomial.legendre.leggauss(6)
    total = 0.0
    for point, weight in zip(points[3:], weights[3:], strict=True):
        t = h * float(point)
        total = total + float(weight) * ops.exp(-0.5 * t * t) * ops.cosh(m * t)
    return total


def _solve_narrow(uniforms, m, h):
    """t that has the part `uniforms` of the mass on its left."""
    goal, t = uniforms * (2.0 * h * _mean(m, h)), h * (2.0 * uniforms - 1.0)
    for _ in range(STEPS):
        # From the left end to t, as an interval with a middle of its own.
        c, k = 0.5 * (t - h), 0.5 * (t + h)
        left = 2.0 * k * ops.exp(-m * c - 0.5 * c * c) * _mean(m + c, k)
        t = t - (left - goal) * ops.exp(m * t + 0.5 * t * t)
    return t


def _where(narrow, values, others):
    """Each value where an interval is narrow, and each other elsewhere."""
    pairs = zip(values, others, strict=True)
    return [ops.where(narrow, value, other) for value, other in pairs]


# In units of the data -----------------------------------------------------------------


def normal_log_mass(low, high, loc, scale):
    """log P(low <= x <= high) of normals; arguments are those of `standard`."""
    return log_mass(*standard(low, high, loc, scale))


def draw_normal(uniforms, low, high, loc, scale):
    """x of normals within [low, high], but for rounding."""
    z, narrow, t = draw(uniforms, *standard(low, high, loc, scale))
    low, high = _where(narrow, (low, high), (0.0, 0.0))
    return ops.where(narrow, 0.5 * (low + high) + scale * t, loc + scale * z)
