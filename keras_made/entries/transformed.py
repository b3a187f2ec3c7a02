"""A real entry of any shape: a standard normal pushed through a transform."""

import math

import keras
import numpy as np
from keras import ops

from keras_made.entries import truncated
from keras_made.entries.arithmetic import normal_log_prob, normal_quantile, raise_first
from keras_made.entries.conditional import Conditional
from keras_made.entries.intervals import draw_on_intervals, on_intervals

# Points of Gauss's rule for the mean.
POINTS = 32


@keras.saving.register_keras_serializable(package="keras_made")
class Transformed(Conditional):
    """A real entry x = T(u), u standard normal; the parameters are those of T.

        log p(x) = log N(u; 0, 1) + log du/dx,   u the inverse of T at x

    With a spline the shape of the entry is free: skewed, of several peaks, flat. Rows
    should be of about unit scale, which `adapt` sees to: a spline bends its interval,
    `[-bound, bound]`, and is the identity outside. Columns that are positive or lie
    between bounds are real ones with a `support`, infinite for the columns without.

    Args:
        transform: an elementwise transform that rises, such as `flows.Spline(8)` or
            `flows.Affine()`: `num_params`, `forward(params, u)` and
            `inverse(params, x)`, each of which returns the value and the logarithm of
            the slope.

    Raises:
        ValueError: for what is no such transform.

    Example:
        >>> import numpy as np
        >>> from keras_made import MADE, AutoregressiveDensity, Columns, Normal, flows
        >>> price = Transformed(flows.Spline(8))
        >>> price.num_params
        25
        >>> model = AutoregressiveDensity(
        ...     MADE([8], num_params=25),
        ...     Columns([price, Normal()]),
        ...     support=([0.0, -np.inf], np.inf),
        ... )
        >>> model.build((None, 2))
        >>> bool((np.asarray(model.sample(9))[:, 0] > 0).all())
        True

    Reference:
        Durkan, Bekasov, Murray, Papamakarios 2019, "Neural Spline Flows",
        https://arxiv.org/abs/1906.04032
    """

    continuous = True

    def __init__(self, transform):
        if isinstance(transform, dict):
            transform = keras.saving.deserialize_keras_object(transform)
        members = ("num_params", "forward", "inverse")
        if not all(hasattr(transform, name) for name in members):
            raise ValueError(
                "`transform` must be an elementwise transform such as "
                f"`flows.Spline(8)`, with {', '.join(members)}. Received: "
                f"{transform!r}."
            )
        self.transform = transform
        self.num_params = transform.num_params

    def log_prob(self, params, x):
        x = ops.cast(ops.convert_to_tensor(x), params.dtype)
        u, log_slope = self.transform.inverse(params, x)
        return normal_log_prob(u, 0.0, ops.ones_like(u)) + log_slope

    def draw(self, params, uniforms):
        return self.transform.forward(params, normal_quantile(uniforms[..., 0]))[0]

    def mean(self, params):
        """Expectation, by Gauss's rule of 32 points: an approximation."""
        points, weights = np.polynomial.hermite_e.hermegauss(POINTS)
        u = ops.convert_to_tensor(points, params.dtype)
        u = ops.broadcast_to(u, (*ops.shape(params)[:-1], POINTS))
        x, _ = self.transform.forward(params[..., None, :], u)
        weights = ops.convert_to_tensor(weights / weights.sum(), params.dtype)
        return ops.sum(x * weights, axis=-1)

    def interval_log_prob(self, params, low, high):
        def log_mass(low, high):
            ends, thin, middle = self._noise_within(params, low, high)
            # What moving the ends has rounded away is the density times the width.
            width = ops.where(thin, high - low, 1.0)
            as_density = self.log_prob(params, middle) + ops.log(width)
            return ops.where(thin, as_density, truncated.log_mass(*ends))

        def log_prob(x):
            return self.log_prob(params, x)

        return on_intervals(log_mass, low, high, params.dtype, log_prob)

    def draw_within(self, params, uniforms, low, high):
        u = uniforms[..., 0]

        def draw(low, high):
            ends, thin, _ = self._noise_within(params, low, high)
            z, narrow, t = truncated.draw(u, *ends)
            z = ops.where(narrow, 0.5 * (ends[0] + ends[1]) + t, z)
            start, end = ops.where(thin, low, 0.0), ops.where(thin, high, 0.0)
            flat = start + u * (end - start)
            return ops.where(thin, flat, self.transform.forward(params, z)[0])

        return draw_on_intervals(draw, low, high, params.dtype)

    def _noise_within(self, params, low, high):
        """Where the noise lies: ends as of `truncated.standard`, thinness, a middle.

        A thin interval is one over which the density does not change, to rounding.
        """
        has_low, has_high = low > -np.inf, high < np.inf
        a, _ = self.transform.inverse(params, ops.where(has_low, low, 0.0))
        b, _ = self.transform.inverse(params, ops.where(has_high, high, 0.0))
        a, b = ops.where(has_low, a, -np.inf), ops.where(has_high, b, np.inf)
        closed = has_low & has_high
        between = ops.where(closed, b, 0.0) - ops.where(closed, a, 0.0)
        dtype = keras.backend.standardize_dtype(params.dtype)
        thin = closed & (between < math.sqrt(float(np.finfo(dtype).eps)))
        middle = 0.5 * (ops.where(thin, low, 0.0) + ops.where(thin, high, 0.0))
        # The ends of a thin one may have come to lie the wrong way round.
        a, b = ops.where(thin, -1.0, a), ops.where(thin, 1.0, b)
        one = ops.ones_like(between)
        return truncated.standard(a, b, 0.0 * one, one), thin, middle

    def check(self, x):
        raise_first(~np.isfinite(x), x, f"finite under {self!r}", "")

    def get_config(self):
        return {"transform": keras.saving.serialize_keras_object(self.transform)}

    def __repr__(self):
        return f"Transformed({self.transform!r})"
