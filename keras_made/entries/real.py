"""Real entries: normal, and mixtures of normals."""

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
        logits, loc, scale = self.components(params)
        chosen = ops.one_hot(
            draw_class(logits, uniforms[..., :1]), self.n, dtype=params.dtype
        )
        loc, scale = ops.sum(chosen * loc, -1), ops.sum(chosen * scale, -1)
        return self._quantile(uniforms[..., 1], loc, scale)


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
