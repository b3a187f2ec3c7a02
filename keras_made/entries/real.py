"""Real entries: normal, and mixtures of normals."""

import functools

import keras
import numpy as np
from keras import ops

from keras_made.entries.arithmetic import (
    check_count,
    check_min_scale,
    draw_class,
    normal_log_prob,
    normal_quantile,
    positive_scale,
    probabilities,
    raise_first,
)
from keras_made.entries.conditional import Conditional, tfp_distributions
from keras_made.entries.intervals import draw_on_intervals, on_intervals
from keras_made.entries.truncated import draw_normal, normal_log_mass


@keras.saving.register_keras_serializable(package="keras_made")
class Normal(Conditional):
    """A real entry; the parameters are its mean and the raw value of its scale.

        scale = softplus(raw + log(e - 1)) + min_scale

    Args:
        min_scale: floor of the scale, in units of x.
    """

    num_params = 2
    continuous = True

    def __init__(self, min_scale: float = 1e-3):
        self.min_scale = check_min_scale(min_scale)

    def loc_and_scale(self, params):
        return params[..., 0], positive_scale(params[..., 1], self.min_scale)

    def log_prob(self, params, x):
        loc, scale = self.loc_and_scale(params)
        return normal_log_prob(x, loc, scale)

    def draw(self, params, uniforms):
        loc, scale = self.loc_and_scale(params)
        return loc + scale * normal_quantile(uniforms[..., 0])

    def interval_log_prob(self, params, low, high):
        loc, scale = self.loc_and_scale(params)

        def log_mass(low, high):
            return normal_log_mass(low, high, loc, scale)

        def log_prob(x):
            return normal_log_prob(x, loc, scale)

        return on_intervals(log_mass, low, high, params.dtype, log_prob)

    def draw_within(self, params, uniforms, low, high):
        loc, scale = self.loc_and_scale(params)

        def draw(low, high):
            return draw_normal(uniforms[..., 0], low, high, loc, scale)

        return draw_on_intervals(draw, low, high, params.dtype)

    def mean(self, params):
        return params[..., 0]

    def distribution(self, params):
        return tfp_distributions().Normal(*self.loc_and_scale(params))

    def check(self, x):
        raise_first(~np.isfinite(x), x, f"finite under {self!r}", "")

    def get_config(self):
        return {"min_scale": self.min_scale}


class Mixture(Conditional):
    """Base of the mixtures: `n` logits, then `n` locations, then `n` raw scales.

    Locations are counted from centres spread over [-1, 1]. Without them the components
    of an entry that hears nothing, such as the first, would start equal, get equal
    gradients, and stay one component for ever.
    """

    num_uniforms = 2

    def components(self, params):
        """Logits, locations and scales, each `(..., n)`."""
        logits, loc, raw = ops.split(params, 3, axis=-1)
        centers = np.linspace(-1.0, 1.0, self.n) if self.n > 1 else np.zeros(1)
        loc = loc + ops.convert_to_tensor(centers, loc.dtype)
        return logits, loc, positive_scale(raw, self.min_scale)

    def log_prob(self, params, x):
        logits, loc, scale = self.components(params)
        x = ops.convert_to_tensor(x)[..., None]
        parts = self._component_log_prob(x, loc, scale)
        return ops.logsumexp(ops.log_softmax(logits, axis=-1) + parts, axis=-1)

    def draw(self, params, uniforms):
        loc, scale = self._draw_component(*self.components(params), uniforms)
        return self._quantile(uniforms[..., 1], loc, scale)

    def _draw_component(self, logits, loc, scale, uniforms):
        """Location and scale of the component that the first uniform chooses."""
        chosen = ops.one_hot(
            draw_class(logits, uniforms[..., :1]), self.n, dtype=loc.dtype
        )
        return ops.sum(chosen * loc, -1), ops.sum(chosen * scale, -1)

    def interval_log_prob(self, params, low, high):
        components = self.components(params)

        def log_mass(low, high):
            return ops.logsumexp(self._log_masses(*components, low, high), axis=-1)

        log_prob = functools.partial(self.log_prob, params)
        return on_intervals(
            log_mass, low, high, params.dtype, log_prob if self.continuous else None
        )

    def _log_masses(self, logits, loc, scale, low, high):
        """log of what each component has within: `(..., n)`."""
        parts = self._component_log_mass(low[..., None], high[..., None], loc, scale)
        return ops.log_softmax(logits, axis=-1) + parts

    def draw_within(self, params, uniforms, low, high):
        logits, loc, scale = self.components(params)

        def draw(low, high):
            masses = self._log_masses(logits, loc, scale, low, high)
            one = self._draw_component(masses, loc, scale, uniforms)
            return self._quantile_within(uniforms[..., 1], low, high, *one)

        return draw_on_intervals(draw, low, high, params.dtype)


@keras.saving.register_keras_serializable(package="keras_made")
class MixtureOfNormals(Mixture):
    """A real entry of any shape; with it, NADE is RNADE and MADE its relative.

    The 3n parameters are n logits, n means and n raw scales (as in `Normal`); means
    are counted from n centres evenly spread over [-1, 1].

    Args:
        n: number of components.
        min_scale: floor of the scales, in units of x.

    Reference:
        Uria, Murray, Larochelle 2013, "RNADE", https://arxiv.org/abs/1306.0186
    """

    continuous = True

    def __init__(self, n: int, min_scale: float = 1e-3):
        self.n = check_count("n", n, 1)
        self.min_scale = check_min_scale(min_scale)
        self.num_params = 3 * self.n

    def _component_log_prob(self, x, loc, scale):
        return normal_log_prob(x, loc, scale)

    def _quantile(self, u, loc, scale):
        return loc + scale * normal_quantile(u)

    def _component_log_mass(self, low, high, loc, scale):
        return normal_log_mass(low, high, loc, scale)

    def _quantile_within(self, u, low, high, loc, scale):
        return draw_normal(u, low, high, loc, scale)

    def mean(self, params):
        logits, loc, _ = self.components(params)
        return ops.sum(probabilities(logits) * loc, axis=-1)

    def distribution(self, params):
        tfd = tfp_distributions()
        logits, loc, scale = self.components(params)
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=logits), tfd.Normal(loc, scale)
        )

    def check(self, x):
        raise_first(~np.isfinite(x), x, f"finite under {self!r}", "")

    def get_config(self):
        return {"n": self.n, "min_scale": self.min_scale}
