"""What one entry is like, given the parameters that the network computes for it.

A conditional is a small object with `num_params` parameters to an entry. Its numbers
are exact log-probabilities (or densities) in nats, and its samples are a deterministic
map of uniform noise: `draw`. That keeps every way of generating an event the same, and
lets noise be drawn once, outside the loop.

To add one, subclass `Conditional`, set `num_params`, write `log_prob` and `draw`, and
register the class with Keras; `get_config` when its constructor takes arguments;
`num_uniforms`, `mean`, `check`, `encode` and `distribution` where the defaults do not
fit.
"""

import functools
import inspect
import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

# A scale is softplus(raw + OFFSET) + floor, so that raw = 0 gives about 1.
SCALE_OFFSET = math.log(math.e - 1)
# Uniforms are kept this far from 0 and 1, where quantile functions are infinite.
UNIFORM_MARGIN = 2.0**-24
UNIFORM_MARGIN_FLOAT64 = 2.0**-53
# Entries travel as float32, which holds every integer up to here and not the next.
MAX_LEVELS = 2**24


class Conditional:
    """Base: the family of p(x_i | the entries before it).

    Parameters have one axis more than the entries: `(..., num_params)`.
    """

    num_params = 1
    num_uniforms = 1
    num_features = 1
    # Whether log_prob is a density, so that data may be standardised around it.
    continuous = False

    def log_prob(self, params, x):
        """Log-probability of each entry in nats, the shape of `x`.

        What is no value of a discrete entry (a level that is not there, a number
        between two) has probability zero, and the logarithm -inf, whose gradient is
        zero; NaN has NaN.
        """
        raise NotImplementedError

    def draw(self, params, uniforms):
        """Entries from uniform noise `(..., num_uniforms)` in (0, 1): exact draws."""
        raise NotImplementedError

    def sample(self, params, seed=None):
        """One draw of each entry; `seed` is an int, a `SeedGenerator` or None."""
        shape = (*ops.shape(params)[:-1], self.num_uniforms)
        return self.draw(params, draw_uniforms(shape, seed, _float(params)))

    def mean(self, params):
        """Expectation of each entry."""
        raise NotImplementedError

    def distribution(self, params):
        """The same conditional as a `tfd.Distribution` (TensorFlow)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no TensorFlow Probability counterpart. "
            "Write its `distribution` method to give it one."
        )

    def check(self, x: np.ndarray) -> None:
        """Raise a ValueError that names the first value outside the support."""

    def encode(self, x):
        """Features `(..., num_features)` in which entries reach the network."""
        return x[..., None]

    def at(self, entries):
        """The conditional of the entries with these indices, ints `(..., n)`."""
        return self

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), repr(self.get_config())))

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="keras_made")
class Bernoulli(Conditional):
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

        return _on_levels(log_prob, x, 2, params.dtype)

    def draw(self, params, uniforms):
        heads = uniforms[..., 0] < ops.sigmoid(params[..., 0])
        return ops.cast(heads, params.dtype)

    def mean(self, params):
        return ops.sigmoid(params[..., 0])

    def distribution(self, params):
        return _tfd().Bernoulli(logits=params[..., 0], dtype=params.dtype)

    def check(self, x):
        _raise_first(
            (x != 0) & (x != 1),
            x,
            "0 or 1 under Bernoulli()",
            "Binarize grey values first, `(x > threshold).astype('float32')`, or model "
            "them with MixtureOfLogistics.",
        )


@keras.saving.register_keras_serializable(package="keras_made")
class Categorical(Conditional):
    """A class from 0 to num_classes-1; the parameters are the logits of the classes.

    Entries reach the network one-hot: the number of a class says nothing by its size.
    Classes have no mean; `mean` gives the most probable class.

    Args:
        num_classes: number of classes, from 2 to 2**24: entries travel as float32,
            which tells no more apart.
    """

    def __init__(self, num_classes: int):
        self.num_classes = _check_levels_told_apart("num_classes", num_classes)
        self.num_params = self.num_features = self.num_classes

    def log_prob(self, params, x):
        # Impossible classes may have a logit of -inf; `where` keeps 0 * inf out.
        log_probs = ops.log_softmax(params, axis=-1)

        def log_prob(x):
            return ops.sum(ops.where(self._is_class(x), log_probs, 0.0), axis=-1)

        return _on_levels(log_prob, x, self.num_classes, params.dtype)

    def _is_class(self, x):
        # `one_hot` fails on torch for what is no class: the reals of other columns.
        # Compared as floats, 1.5 is no class, and what is none is all zeros.
        x = ops.cast(x, _float(x))
        return ops.equal(x[..., None], ops.arange(self.num_classes, dtype=x.dtype))

    def draw(self, params, uniforms):
        return ops.cast(_draw_class(params, uniforms[..., :1]), params.dtype)

    def mean(self, params):
        return ops.cast(ops.argmax(params, axis=-1), params.dtype)

    def distribution(self, params):
        return _tfd().Categorical(logits=params, dtype=params.dtype)

    def check(self, x):
        _check_levels(x, self.num_classes, repr(self))

    def encode(self, x):
        return ops.cast(self._is_class(x), _float(x))

    def get_config(self):
        return {"num_classes": self.num_classes}


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
        self.min_scale = _check_min_scale(min_scale)

    def loc_and_scale(self, params):
        return params[..., 0], _scale(params[..., 1], self.min_scale)

    def log_prob(self, params, x):
        loc, scale = self.loc_and_scale(params)
        return _normal_log_prob(x, loc, scale)

    def draw(self, params, uniforms):
        loc, scale = self.loc_and_scale(params)
        return loc + scale * _normal_quantile(uniforms[..., 0])

    def mean(self, params):
        return params[..., 0]

    def distribution(self, params):
        return _tfd().Normal(*self.loc_and_scale(params))

    def check(self, x):
        _raise_first(~np.isfinite(x), x, f"finite under {self!r}", "")

    def get_config(self):
        return {"min_scale": self.min_scale}


class _Mixture(Conditional):
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
        return logits, loc, _scale(raw, self.min_scale)

    def log_prob(self, params, x):
        logits, loc, scale = self.components(params)
        x = ops.convert_to_tensor(x)[..., None]
        parts = self._component_log_prob(x, loc, scale)
        return ops.logsumexp(ops.log_softmax(logits, axis=-1) + parts, axis=-1)

    def draw(self, params, uniforms):
        logits, loc, scale = self.components(params)
        chosen = ops.one_hot(
            _draw_class(logits, uniforms[..., :1]), self.n, dtype=params.dtype
        )
        loc, scale = ops.sum(chosen * loc, -1), ops.sum(chosen * scale, -1)
        return self._quantile(uniforms[..., 1], loc, scale)


@keras.saving.register_keras_serializable(package="keras_made")
class MixtureOfNormals(_Mixture):
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
        self.n = _check_count("n", n, 1)
        self.min_scale = _check_min_scale(min_scale)
        self.num_params = 3 * self.n

    def _component_log_prob(self, x, loc, scale):
        return _normal_log_prob(x, loc, scale)

    def _quantile(self, u, loc, scale):
        return loc + scale * _normal_quantile(u)

    def mean(self, params):
        logits, loc, _ = self.components(params)
        return ops.sum(_probabilities(logits) * loc, axis=-1)

    def distribution(self, params):
        tfd = _tfd()
        logits, loc, scale = self.components(params)
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=logits), tfd.Normal(loc, scale)
        )

    def check(self, x):
        _raise_first(~np.isfinite(x), x, f"finite under {self!r}", "")

    def get_config(self):
        return {"n": self.n, "min_scale": self.min_scale}


@keras.saving.register_keras_serializable(package="keras_made")
class MixtureOfLogistics(_Mixture):
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
        self.n = _check_count("n", n, 1)
        self.num_levels = _check_levels_told_apart("num_levels", num_levels)
        self.min_scale = _check_min_scale(min_scale)
        self.num_params = 3 * self.n

    def components(self, params):
        """Logits, and locations and scales in units of levels."""
        logits, loc, scale = super().components(params)
        half = 0.5 * (self.num_levels - 1)
        return logits, (loc + 1.0) * half, scale * half

    def log_prob(self, params, x):
        log_prob = functools.partial(super().log_prob, params)
        return _on_levels(log_prob, x, self.num_levels, params.dtype)

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

    def _quantile(self, u, loc, scale):
        level = ops.round(loc + scale * (ops.log(u) - ops.log1p(-u)))
        return _clip(level, 0.0, self.num_levels - 1.0)

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
        tfd = _tfd()
        logits, loc, scale = self.components(params)
        # TFP gives level k the mass of (k-1, k]: a shift by a half centres it.
        logistic = tfd.Logistic(loc - 0.5, scale)
        high = ops.cast(self.num_levels - 1, loc.dtype)
        quantized = tfd.QuantizedDistribution(logistic, ops.zeros_like(high), high)
        return tfd.MixtureSameFamily(tfd.Categorical(logits=logits), quantized)

    def check(self, x):
        _check_levels(x, self.num_levels, repr(self))

    def encode(self, x):
        return (x * (2.0 / (self.num_levels - 1)) - 1.0)[..., None]

    def get_config(self):
        return {
            "n": self.n,
            "num_levels": self.num_levels,
            "min_scale": self.min_scale,
        }


@keras.saving.register_keras_serializable(package="keras_made")
class Columns(Conditional):
    """A conditional of its own for each variable: tables of mixed columns.

    The network gives every variable as many parameters as the most demanding column
    needs, and hears every variable in as many features; a column uses the first of
    them and the rest are zero.

    Args:
        conditionals: one conditional per variable, in order.

    Example:
        >>> table = Columns([Bernoulli(), Categorical(5), Normal()])
        >>> table.num_params
        5
    """

    def __init__(self, conditionals: Sequence[Conditional]):
        self.conditionals = [get(conditional) for conditional in conditionals]
        if not self.conditionals or any(
            isinstance(c, Columns) for c in self.conditionals
        ):
            raise ValueError(
                "`conditionals` must hold one conditional per variable, none of them "
                f"Columns. Received: {self.conditionals!r}."
            )
        # Equal conditionals are computed together, however many columns have them.
        self.kinds = list(dict.fromkeys(self.conditionals))
        self.kind_of = np.array(
            [self.kinds.index(c) for c in self.conditionals], dtype="int32"
        )
        self.num_params = max(c.num_params for c in self.kinds)
        self.num_uniforms = max(c.num_uniforms for c in self.kinds)
        self.num_features = max(c.num_features for c in self.kinds)

    @property
    def continuous(self):
        return np.array([c.continuous for c in self.conditionals])

    def at(self, entries):
        return _ColumnsAt(self, ops.take(self.kind_of, entries, axis=0))

    def _by_kind(self, compute):
        """Compute each kind on its own columns, and put the columns back in order."""
        columns = [np.flatnonzero(self.kind_of == k) for k in range(len(self.kinds))]
        parts = [compute(kind, c) for kind, c in zip(self.kinds, columns, strict=True)]
        return parts, np.argsort(np.concatenate(columns))

    def log_prob(self, params, x):
        parts, order = self._by_kind(
            lambda kind, c: kind.log_prob(
                ops.take(params, c, axis=-2)[..., : kind.num_params],
                ops.take(x, c, axis=-1),
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def draw(self, params, uniforms):
        parts, order = self._by_kind(
            lambda kind, c: kind.draw(
                ops.take(params, c, axis=-2)[..., : kind.num_params],
                ops.take(uniforms, c, axis=-2)[..., : kind.num_uniforms],
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def mean(self, params):
        parts, order = self._by_kind(
            lambda kind, c: kind.mean(
                ops.take(params, c, axis=-2)[..., : kind.num_params]
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def encode(self, x):
        parts, order = self._by_kind(
            lambda kind, c: self._pad(kind, kind.encode(ops.take(x, c, axis=-1)))
        )
        return ops.take(ops.concatenate(parts, axis=-2), order, axis=-2)

    def _pad(self, kind, features):
        padding = self.num_features - kind.num_features
        pairs = [(0, 0)] * (len(features.shape) - 1) + [(0, padding)]
        return ops.pad(ops.cast(features, _float(features)), pairs)

    def distribution(self, params):
        """A `tfd.Blockwise` over the columns: they are one event of shape (D,)."""
        columns = [
            conditional.distribution(params[..., i : i + 1, : conditional.num_params])
            for i, conditional in enumerate(self.conditionals)
        ]
        tfd = _tfd()
        columns = [tfd.Independent(c, reinterpreted_batch_ndims=1) for c in columns]
        return tfd.Blockwise(columns)

    def check(self, x):
        if x.shape[-1] != len(self.conditionals):
            raise ValueError(
                f"Columns holds {len(self.conditionals)} conditionals, one per "
                f"variable. Received: data of shape {x.shape}."
            )
        for column, conditional in enumerate(self.conditionals):
            try:
                conditional.check(x[..., column])
            except ValueError as error:
                raise ValueError(f"In column {column}: {error}") from error

    def get_config(self):
        return {
            "conditionals": [
                keras.saving.serialize_keras_object(c) for c in self.conditionals
            ]
        }

    def __repr__(self):
        return f"Columns({self.conditionals!r})"


class _ColumnsAt:
    """The conditionals of entries whose indices are known only when run."""

    def __init__(self, columns, kind_of):
        self.columns = columns
        self.kind_of = kind_of

    def _select(self, compute, trailing=0):
        result = None
        for k, kind in enumerate(self.columns.kinds):
            is_kind = ops.equal(self.kind_of, k)
            for _ in range(trailing):
                is_kind = is_kind[..., None]
            part = compute(kind)
            # Zero is in every support's neighbourhood and is finite everywhere.
            part = ops.where(is_kind, part, ops.zeros_like(part))
            result = part if result is None else result + part
        return result

    def log_prob(self, params, x):
        return self._select(
            lambda kind: kind.log_prob(params[..., : kind.num_params], x)
        )

    def draw(self, params, uniforms):
        return self._select(
            lambda kind: kind.draw(
                params[..., : kind.num_params], uniforms[..., : kind.num_uniforms]
            )
        )

    def encode(self, x):
        return self._select(
            lambda kind: self.columns._pad(kind, kind.encode(x)), trailing=1
        )


def get(identifier) -> Conditional:
    """A conditional from its name (`"bernoulli"`, `"normal"`), config or itself."""
    names = {"bernoulli": Bernoulli, "normal": Normal}
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, Conditional):
        _check_config(identifier)
        return identifier
    if isinstance(identifier, str) and identifier.lower() in names:
        return names[identifier.lower()]()
    raise ValueError(
        f"`conditional` must be one of {sorted(names)} or a conditional such as "
        f"Categorical(10). Received: {identifier!r}."
    )


def draw_uniforms(shape, seed=None, dtype="float32"):
    """Uniform noise strictly between 0 and 1, float32 or float64."""
    uniforms = keras.random.uniform(shape, seed=seed, dtype=dtype)
    # JAX gives float32 for float64 unless told otherwise: what came is asked.
    margin = uniform_margin(keras.backend.standardize_dtype(uniforms.dtype))
    return _clip(uniforms, margin, 1.0 - margin)


def uniform_margin(dtype) -> float:
    """How far uniforms of a dtype are kept from 0 and 1: half their grid there."""
    return UNIFORM_MARGIN_FLOAT64 if dtype == "float64" else UNIFORM_MARGIN


def _on_levels(log_prob, x, num_levels, dtype):
    """`log_prob(x)` where x is a level, -inf where it is none, NaN where it is NaN.

    Args:
        log_prob: function of levels, floats in `dtype`.
        x: entries, numbers of any dtype.
        num_levels: the levels are the integers from 0 to `num_levels - 1`.
        dtype: of the parameters.
    """
    x = ops.convert_to_tensor(x)
    x = ops.cast(x, _float(x))
    is_level = (x >= 0) & (x < num_levels) & ops.equal(x, ops.floor(x))
    # At no level, that of zero is computed and not used: were it computed at x, it
    # could be NaN, and so would be the gradient, whatever `where` chooses.
    levels = ops.cast(ops.where(is_level, x, ops.zeros_like(x)), dtype)
    impossible = ops.cast(ops.where(ops.isnan(x), np.nan, -np.inf), dtype)
    return ops.where(is_level, log_prob(levels), impossible)


def _scale(raw, floor):
    return ops.softplus(raw + SCALE_OFFSET) + floor


def _normal_log_prob(x, loc, scale):
    z = ops.subtract(x, loc) / scale
    return -0.5 * z * z - ops.log(scale) - 0.5 * math.log(2.0 * math.pi)


def _normal_quantile(u):
    return math.sqrt(2.0) * ops.erfinv(2.0 * u - 1.0)


def _probabilities(logits):
    """`ops.softmax`, which warns of a mixture of one, without the warning."""
    return ops.exp(ops.log_softmax(logits, axis=-1))


def _draw_class(logits, uniforms):
    """Index of the class whose interval of cumulated probability holds the noise."""
    cumulated = ops.cumsum(_probabilities(logits), axis=-1)
    # Rounding leaves the total near one; noise on its scale can hit no class of
    # probability zero, the last one included.
    passed = cumulated[..., :-1] <= uniforms * cumulated[..., -1:]
    return ops.sum(ops.cast(passed, "int32"), axis=-1)


def _float(x):
    """The floating type in which entries become features: that of `x` or float32."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    # On torch Keras gives float32 for the result of float64 and float64.
    return dtype if dtype == "float64" else keras.backend.result_type(dtype, "float32")


def _clip(x, low, high):
    # Bounds given as numbers are first rounded to Keras's own float type.
    low, high = (ops.convert_to_tensor(bound, x.dtype) for bound in (low, high))
    return ops.clip(x, low, high)


def _check_count(name, value, least):
    integral = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integral or value < least:
        raise ValueError(
            f"`{name}` must be an int of at least {least}. Received: {value!r}."
        )
    return int(value)


def _check_levels_told_apart(name, value):
    value = _check_count(name, value, 2)
    if value > MAX_LEVELS:
        raise ValueError(
            f"`{name}` must be at most 2**24 = {MAX_LEVELS}. Received: {value}. "
            "Entries travel as float32, which does not tell greater integers apart. "
            "Divide them into fewer levels, `x // width`, or model real numbers."
        )
    return value


def _check_config(conditional):
    """Refuse a conditional whose config does not say what it was made with.

    Two of them could not be told apart, and a file would hold neither.
    """
    cls = type(conditional)
    own = getattr(cls.from_config, "__func__", None)
    if own is not Conditional.from_config.__func__:
        return
    config = conditional.get_config()
    # What comes as `*args` or `**kwargs` may be said under any name, but not by an
    # empty config.
    unsaid = [
        p.name
        for p in inspect.signature(cls).parameters.values()
        if p.name not in config
        and (not config or p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    ]
    if unsaid:
        raise ValueError(
            f"{cls.__name__} takes the arguments {unsaid}, and its `get_config` does "
            "not return them: conditionals of other arguments would be taken for it, "
            "and it would be loaded with its defaults. Write a `get_config` that "
            "returns every argument of the constructor by its name."
        )


def _check_min_scale(min_scale):
    if not min_scale > 0:
        raise ValueError(f"`min_scale` must be positive. Received: {min_scale!r}.")
    return float(min_scale)


def _check_levels(x, num_levels, name):
    wrong = (x != np.floor(x)) | (x < 0) | (x >= num_levels)
    _raise_first(wrong, x, f"an integer from 0 to {num_levels - 1} under {name}", "")


def _raise_first(wrong, x, expected, advice):
    if np.any(wrong):
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"Every value must be {expected}. Received: {x[index]} in row {index[0]}, "
            f"at index {index}. {advice}".rstrip()
        )


def _tfd():
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "TensorFlow Probability distributions need Keras on TensorFlow. The "
            f"backend is {keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow."
        )
    import tensorflow_probability as tfp

    return tfp.distributions
