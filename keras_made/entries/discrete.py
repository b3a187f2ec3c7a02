"""Discrete entries: bits, classes, levels."""

import functools

import keras
import numpy as np
from keras import ops

from keras_made.entries.arithmetic import (
    check_count,
    check_levels,
    check_levels_told_apart,
    check_min_scale,
    draw_class,
    float_of,
    on_levels,
    raise_first,
)
from keras_made.entries.conditional import tfp_distributions
from keras_made.entries.intervals import ends
from keras_made.entries.listed import Listed
from keras_made.entries.real import Mixture
from keras_made.entries.truncated import log_between, standard
from keras_made.generation import clip


@keras.saving.register_keras_serializable(package="keras_made")
class Bernoulli(Listed):
    """A binary entry, 0 or 1; the parameter is its logit.

    Example:
        >>> import numpy as np
        >>> p = Bernoulli().log_prob(np.zeros((1, 1), "float32"), np.ones(1, "float32"))
        >>> round(float(p[0]), 3)
        -0.693
    """

    def log_prob(self, params, x):
        def log_prob(x):
            return -ops.softplus((1.0 - 2.0 * x) * params[..., 0])

        return on_levels(log_prob, x, 2, params.dtype)

    def log_probs(self, params):
        logit = params[..., 0]
        return ops.stack([-ops.softplus(logit), -ops.softplus(-logit)], axis=-1)

    def values(self, dtype):
        return ops.arange(2, dtype=dtype)

    def draw(self, params, uniforms):
        heads = uniforms[..., 0] < ops.sigmoid(params[..., 0])
        return ops.cast(heads, params.dtype)

    def marginal_params(self, values):
        share = (np.sum(values) + 0.5) / (len(values) + 1.0)
        return np.array([np.log(share) - np.log1p(-share)])

    def mean(self, params):
        return ops.sigmoid(params[..., 0])

    def distribution(self, params):
        return tfp_distributions().Bernoulli(logits=params[..., 0], dtype=params.dtype)

    def check(self, x):
        raise_first(
            (x != 0) & (x != 1),
            x,
            "0 or 1 under Bernoulli()",
            "Binarize grey values first, `(x > threshold).astype('float32')`, or model "
            "them with MixtureOfLogistics.",
        )


@keras.saving.register_keras_serializable(package="keras_made")
class Categorical(Listed):
    """A class from 0 to num_classes-1; the parameters are the logits of the classes.

    Entries reach the network one-hot: the number of a class says nothing by its size.
    Classes have no mean; `mean` gives the most probable class.

    Args:
        num_classes: number of classes, from 2 to 2**24: entries travel as float32,
            which tells no more apart.
    """

    def __init__(self, num_classes: int):
        self.num_classes = check_levels_told_apart("num_classes", num_classes)
        self.num_params = self.num_features = self.num_classes

    def log_prob(self, params, x):
        # Impossible classes may have a logit of -inf; `where` keeps 0 * inf out.
        log_probs = self.log_probs(params)

        def log_prob(x):
            return ops.sum(ops.where(self._is_class(x), log_probs, 0.0), axis=-1)

        return on_levels(log_prob, x, self.num_classes, params.dtype)

    def log_probs(self, params):
        return ops.log_softmax(params, axis=-1)

    def values(self, dtype):
        return ops.arange(self.num_classes, dtype=dtype)

    def _is_class(self, x):
        # `one_hot` fails on torch for what is no class: the reals of other columns.
        # Compared as floats, 1.5 is no class, and what is none is all zeros.
        x = ops.cast(x, float_of(x))
        return ops.equal(x[..., None], ops.arange(self.num_classes, dtype=x.dtype))

    def draw(self, params, uniforms):
        return ops.cast(draw_class(params, uniforms[..., :1]), params.dtype)

    def marginal_params(self, values):
        counts = np.bincount(values.astype(int), minlength=self.num_classes) + 0.5
        return np.log(counts / counts.sum())

    def mean(self, params):
        return ops.cast(ops.argmax(params, axis=-1), params.dtype)

    def distribution(self, params):
        return tfp_distributions().Categorical(logits=params, dtype=params.dtype)

    def check(self, x):
        check_levels(x, self.num_classes, repr(self))

    def encode(self, x):
        return ops.cast(self._is_class(x), float_of(x))

    def get_config(self):
        return {"num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="keras_made")
class MixtureOfLogistics(Mixture):
    """An integer from 0 to num_levels-1, such as a grey level: a mixture of logistic
    densities, each level getting the mass of its interval.

    The intervals of the lowest and the highest level are open, so the masses sum to
    one. Locations and scales live on the levels mapped to [-1, 1], which is also how
    entries reach the network. The 3n parameters are n logits, n locations, counted
    from n centres evenly spread over [-1, 1], and n raw scales (as in `Normal`).

    Args:
        n: number of components.
        num_levels: number of levels, from 2 to 2**24: entries travel as float32, which
            tells no more apart.
        min_scale: floor of the scales, on the interval [-1, 1].

    Reference:
        Salimans, Karpathy, Chen, Kingma 2017, "PixelCNN++",
        https://arxiv.org/abs/1701.05517
    """

    def __init__(self, n: int, num_levels: int = 256, min_scale: float = 1e-3):
        self.n = check_count("n", n, 1)
        self.num_levels = check_levels_told_apart("num_levels", num_levels)
        self.min_scale = check_min_scale(min_scale)
        self.num_params = 3 * self.n

    def components(self, params):
        """Logits, and locations and scales in units of levels."""
        logits, loc, scale = super().components(params)
        half = 0.5 * (self.num_levels - 1)
        return logits, (loc + 1.0) * half, scale * half

    def log_prob(self, params, x):
        log_prob = functools.partial(super().log_prob, params)
        return on_levels(log_prob, x, self.num_levels, params.dtype)

    def _component_log_prob(self, x, loc, scale):
        # Levels and halves are exact in floating point: the upper edge of one interval
        # is bit for bit the lower edge of the next, and the masses sum to one.
        upper, lower = (x + 0.5 - loc) / scale, (x - 0.5 - loc) / scale
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), and each
        # of the three has a logarithm that is exact far into the tails.
        below, above = ops.log_sigmoid(upper), ops.log_sigmoid(-lower)
        inside = below + above + ops.log(-ops.expm1(-1.0 / scale))
        inside = ops.where(x >= self.num_levels - 1, above, inside)
        return ops.where(x <= 0, below, inside)

    def interval_log_prob(self, params, low, high):
        low, high = self._levels_within(low, high, params.dtype)
        return super().interval_log_prob(params, low, high)

    def draw_within(self, params, uniforms, low, high):
        low, high = self._levels_within(low, high, params.dtype)
        x = super().draw_within(params, uniforms, low, high)
        return clip(x, 0.0, self.num_levels - 1.0)

    def _levels_within(self, low, high, dtype):
        """The first and the last level inside, infinite where all on that side are."""
        low, high = ends(low, high, dtype)
        low = ops.where(low <= 0, -np.inf, ops.ceil(low))
        high = ops.where(high >= self.num_levels - 1, np.inf, ops.floor(high))
        # Beyond all levels an interval is empty, though it has room.
        low = ops.where(low > self.num_levels - 1, np.inf, low)
        return low, ops.where(high < 0, -np.inf, high)

    def _component_log_mass(self, first, last, loc, scale):
        """The same from one level to another; infinite ones have open intervals."""
        lower, upper, _ = standard(first - 0.5, last + 0.5, loc, scale)
        closed = (first > -np.inf) & (last < np.inf)
        levels = ops.where(closed, last - first + 1.0, 1.0)
        rest = ops.log(-ops.expm1(-levels / scale))
        outer = ops.log_sigmoid(upper) + ops.log_sigmoid(-lower)
        return outer + ops.where(closed, rest, 0.0)

    def _quantile_within(self, u, first, last, loc, scale):
        lower, upper, _ = standard(first - 0.5, last + 0.5, loc, scale)
        # A part of what lies between, counted from either side: its log-odds.
        below = log_between(u, ops.log_sigmoid(lower), ops.log_sigmoid(upper))
        above = log_between(u, ops.log_sigmoid(-lower), ops.log_sigmoid(-upper))
        return ops.round(loc + scale * (below - above))

    def _quantile(self, u, loc, scale):
        level = ops.round(loc + scale * (ops.log(u) - ops.log1p(-u)))
        return clip(level, 0.0, self.num_levels - 1.0)

    def log_probs(self, params):
        """Log-probability of every level: `(..., num_levels)`."""
        levels = ops.arange(self.num_levels, dtype=params.dtype)
        shape = (*ops.shape(params)[:-1], self.num_levels)
        return self.log_prob(params[..., None, :], ops.broadcast_to(levels, shape))

    def mean(self, params):
        """Expected level, summed over the levels."""
        levels = ops.arange(self.num_levels, dtype=params.dtype)
        return ops.sum(ops.exp(self.log_probs(params)) * levels, axis=-1)

    def distribution(self, params):
        tfd = tfp_distributions()
        logits, loc, scale = self.components(params)
        # TFP gives level k the mass of (k-1, k]: a shift by a half centres it.
        logistic = tfd.Logistic(loc - 0.5, scale)
        high = ops.cast(self.num_levels - 1, loc.dtype)
        quantized = tfd.QuantizedDistribution(logistic, ops.zeros_like(high), high)
        return tfd.MixtureSameFamily(tfd.Categorical(logits=logits), quantized)

    def check(self, x):
        check_levels(x, self.num_levels, repr(self))

    def encode(self, x):
        return (x * (2.0 / (self.num_levels - 1)) - 1.0)[..., None]

    def get_config(self):
        return {
            "n": self.n,
            "num_levels": self.num_levels,
            "min_scale": self.min_scale,
        }
