"""Numbers that a network hears in pieces, so that it can turn sharply at any."""

import keras
import numpy as np
from keras import ops

from keras_made.checks import to_array
from keras_made.entries.arithmetic import float_of
from keras_made.entries.columns import Columns, get
from keras_made.entries.wrapper import Wrapper


@keras.saving.register_keras_serializable(package="keras_made")
class PiecewiseLinear(Wrapper):
    """An entry as another conditional says, heard as its number and tents over knots.

    The tent of a knot is 1 there, 0 at its neighbours and beyond, and linear between:
    at most two of them are above zero at once, and they add up to one. A linear map of
    them is any function that is linear between the knots, so that the first layer of a
    network can step, peak or bend where a single number would ask for steep weights.
    What an entry is like given its parameters stays as it is.

    Args:
        conditional: of a numeric entry, or its name; not `Columns`, whose columns are
            wrapped each, and not `Incomplete`, which goes around.
        knots: at least two numbers that rise, in the units that the network hears:
            about standard ones of a real entry that `adapt` has standardised, the
            entry's own otherwise. Beyond the ends the last tent stays 1.

    Raises:
        ValueError: for knots that are no such numbers, or `conditional` as above.

    Example:
        >>> import numpy as np
        >>> from keras_made import Normal
        >>> entry = PiecewiseLinear(Normal(), [-1.0, 0.0, 1.0])
        >>> np.asarray(entry.encode(np.array([0.25, 5.0], "float32"))).tolist()
        [[0.25, 0.0, 0.75, 0.25], [5.0, 0.0, 0.0, 1.0]]

    Reference:
        Gorishniy, Rubachev, Babenko 2022, "On Embeddings for Numerical Features in
        Tabular Deep Learning", https://arxiv.org/abs/2203.05556
    """

    def __init__(self, conditional, knots):
        conditional = get(conditional)
        if isinstance(conditional, Columns) or np.any(conditional.incomplete):
            raise ValueError(
                "`conditional` must be of one numeric entry that is never missing. "
                f"Received: {conditional!r}. Wrap each of the columns, and put "
                "`Incomplete` around the whole."
            )
        super().__init__(conditional)
        self.knots = _check_knots(knots)
        self.num_features = conditional.num_features + len(self.knots)

    @property
    def encoder(self):
        return self

    def at(self, entries):
        return self

    def encode(self, x):
        x = ops.convert_to_tensor(x)
        x = ops.cast(x, float_of(x))
        own = ops.cast(self.conditional.encode(x), x.dtype)
        return ops.concatenate([own, self._tents(x)], axis=-1)

    def _tents(self, x):
        first = ops.convert_to_tensor(self.knots[:-1], x.dtype)
        widths = ops.convert_to_tensor(np.diff(self.knots), x.dtype)
        # The share of each piece between two knots that lies below x.
        below = (x[..., None] - first) / widths
        below = ops.clip(below, 0.0, 1.0)
        one = ops.ones_like(below[..., :1])
        passed = ops.concatenate([one, below], axis=-1)
        return passed - ops.concatenate([below, 0.0 * one], axis=-1)

    def get_config(self):
        return {**super().get_config(), "knots": self.knots.tolist()}

    def __repr__(self):
        ends = f"{self.knots[0]:g} to {self.knots[-1]:g}"
        return f"PiecewiseLinear({self.conditional!r}, {len(self.knots)} knots, {ends})"


def _check_knots(knots):
    expected = "`knots` must be at least two finite numbers that rise."
    array = to_array("knots", knots).astype("float64")
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{expected} Received: shape {array.shape}.")
    if not np.isfinite(array).all() or not (np.diff(array) > 0).all():
        raise ValueError(f"{expected} Received: {array.tolist()}.")
    return array
