"""Entries that may be missing: trained on with their holes, and scored without them."""

import keras
import numpy as np
from keras import ops

from keras_made.entries.arithmetic import float_of
from keras_made.entries.columns import get
from keras_made.entries.wrapper import Wrapper


@keras.saving.register_keras_serializable(package="keras_made")
class Incomplete(Wrapper):
    """An entry that may be missing, NaN, and otherwise is as another conditional says.

    To what the network hears of an entry a flag is added, 1 where it is observed. A
    missing entry is heard as zeros, like one that comes later in the order, and counts
    nothing. By the chain rule over the observed entries the sum over a row is then

        log p(observed part)

    so that `fit`, `evaluate` and `log_prob` take rows with holes, with any network.
    Draws, completions and the condition of `conditional_log_prob` are complete.

    What it is: a density of the observed part for each pattern of holes, each of which
    sums to one. That they are marginals of one density is not built in; they agree as
    far as training on such patterns made them. Rows with holes of a kind that training
    had none of are scored by chance: hide entries of complete rows at random to train
    for them.

    What it learns: an entry among the rows in which it is observed. That is the density
    of complete rows where holes are made by chance alone, or by the context and the
    observed entries that come before in the order of the network. A column that is
    never missing and says which others are should therefore come first, or be part of
    the context. Where a hole depends on entries that come later, or on what is behind
    it, what is learned is the density of what is seen, not of what is hidden.

    Args:
        conditional: what an entry is like that is not missing: a conditional or its
            name, `Columns` for all columns of a table. Or let some columns alone have
            holes, `Columns([Incomplete("normal"), "bernoulli"])`.

    Raises:
        ValueError: if `conditional` is, or holds, Incomplete itself.

    Example:
        >>> import numpy as np
        >>> from keras_made import MADE, AutoregressiveDensity
        >>> x = np.array([[0.0, 1.0], [np.nan, 1.0], [np.nan, np.nan]], "float32")
        >>> model = AutoregressiveDensity(MADE([8]), Incomplete("bernoulli"))
        >>> model.compile("adam")
        >>> history = model.fit(x, epochs=1, verbose=0)
        >>> float(model.log_prob(x)[2])
        0.0
    """

    incomplete = True

    def __init__(self, conditional):
        conditional = get(conditional)
        if np.any(conditional.incomplete):
            raise ValueError(
                "`conditional` must be one whose entries are never missing. Received: "
                f"{conditional!r}. Mark what may be missing once."
            )
        super().__init__(conditional)
        self.num_features = conditional.num_features + 1

    @property
    def encoder(self):
        return self

    def at(self, entries):
        return _IncompleteAt(self.conditional.at(entries), self)

    def log_prob(self, params, x):
        return _log_prob(self.conditional, params, *_fill(self.conditional, self, x))

    def encode(self, x):
        return _encode(self.conditional, *_fill(self.conditional, self, x))

    def marginal_params(self, values):
        return self.conditional.marginal_params(values[~np.isnan(values)])

    def check(self, x):
        self.check_shape(x.shape[1:])
        # One value stands for all rows; only `Columns` tells entries apart.
        shape = x.shape[-1:] if x.ndim > 1 else ()
        value = _typical(self.conditional, self, shape, "float32")
        self.conditional.check(np.where(np.isnan(x), ops.convert_to_numpy(value), x))


class _IncompleteAt:
    """The conditionals of entries whose indices are known only when run."""

    def __init__(self, conditional, sizes):
        self.conditional = conditional
        self.sizes = sizes

    def log_prob(self, params, x):
        return _log_prob(
            self.conditional, params, *_fill(self.conditional, self.sizes, x)
        )

    def draw(self, params, uniforms):
        return self.conditional.draw(params, uniforms)

    def encode(self, x):
        return _encode(self.conditional, *_fill(self.conditional, self.sizes, x))

    def interval_log_prob(self, params, low, high):
        return self.conditional.interval_log_prob(params, low, high)

    def draw_within(self, params, uniforms, low, high):
        return self.conditional.draw_within(params, uniforms, low, high)


def _fill(conditional, sizes, x):
    """Entries without NaN, and which were missing.

    NaN goes before any arithmetic: zero times NaN is NaN, in a gradient too. A value of
    the support takes its place, where a log-probability has a finite gradient.
    """
    x = ops.convert_to_tensor(x)
    x = ops.cast(x, float_of(x))
    missing = ops.isnan(x)
    value = _typical(conditional, sizes, x.shape[-1:], x.dtype)
    return ops.where(missing, value, x), missing


def _typical(conditional, sizes, shape, dtype):
    """An entry of the support, for each of the last axis."""
    params = ops.zeros((*shape, sizes.num_params), dtype)
    uniforms = ops.full((*shape, sizes.num_uniforms), 0.5, dtype)
    return ops.cast(conditional.draw(params, uniforms), dtype)


def _log_prob(conditional, params, x, missing):
    return ops.where(missing, 0.0, conditional.log_prob(params, x))


def _encode(conditional, x, missing):
    features = conditional.encode(x)
    seen = ops.logical_not(missing)[..., None]
    features = ops.where(seen, features, ops.zeros_like(features))
    # The flag of what is there, not of what is missing: a mask of the order leaves
    # zeros too, which a network of many orders could not tell from a value of zero.
    return ops.concatenate([features, ops.cast(seen, features.dtype)], axis=-1)
