"""The units of the data: where each entry may lie, its location and its scale.

Networks see z, which is unbounded and of about unit scale; users see x, and log p of x.

    z = (g(x) - loc) / scale,   g of `bounds`
"""

import keras
import numpy as np
from keras import ops

from keras_made.compiling import is_traced
from keras_made.densities.bounds import Bounds, index
from keras_made.precision import full_precision


class Units(keras.layers.Layer):
    """The map from data x to what networks see, and back.

    Args:
        support: `(low, high)`, see `Bounds`.
        normalization: a `keras.layers.Normalization` that gives location and scale,
            behind the bounds. None: they are weights, which `adapt` learns.
        real: bools of an event, or one for all: which entries have units. The others
            pass unchanged.

    Raises:
        ValueError: for bounds or a normalization that are none, or stand where no entry
            is real; from `build`, for bounds that do not fit the event or are on an
            entry that is not real.
    """

    def __init__(self, support=None, normalization=None, real=True, **kwargs):
        super().__init__(autocast=False, name="units", **kwargs)
        self.bounds = Bounds(support)
        self.support = support
        check_normalization(normalization)
        self.normalization = normalization
        self.real = np.asarray(real)
        # Known from the first of `adapt` and `build`.
        self.event_shape = None
        for name, value in (("support", support), ("normalization", normalization)):
            if value is not None and not self.real.any():
                raise ValueError(
                    f"`{name}` is for real variables. Received: a density whose "
                    "variables are all discrete. Leave it out."
                )

    def build(self, x_shape):
        self.event_shape = tuple(x_shape[1:])
        self.bounds.spread(self.event_shape)
        self.real = np.broadcast_to(self.real, self.event_shape)
        wrong = np.argwhere(self.bounds.exist & ~self.real)
        if len(wrong):
            raise ValueError(
                "`support` is for real entries. Received: a bound for entry "
                f"{index(tuple(wrong[0].tolist()))}, which is discrete. Pass one for "
                "each entry, infinite for those without."
            )
        if self.normalization is not None:
            if not self.normalization.built:
                self.normalization.build((None, *self.event_shape))
        elif self.real.any():
            self.loc = self._add("loc", "zeros")
            self.scale = self._add("scale", "ones")

    def build_for(self, event_shape: tuple[int, ...]) -> None:
        """Build, or raise a ValueError when `adapt` saw events of another shape."""
        if not self.built:
            self.build((None, *event_shape))
        elif self.event_shape != tuple(event_shape):
            raise ValueError(
                f"The model was adapted to events of shape {self.event_shape}. "
                f"Received: events of shape {tuple(event_shape)}."
            )

    def compute_output_shape(self, x_shape):
        return x_shape

    def _add(self, name, start):
        return self.add_weight(
            name=name, shape=self.event_shape, initializer=start, trainable=False
        )

    def in_own_units(self):
        """Which entries reach a network as they come: bools, an event's or one."""
        if self.normalization is not None or not self.real.any():
            return np.zeros_like(self.real)
        if not self.built:
            return self.real
        loc, scale = (ops.convert_to_numpy(w) for w in (self.loc, self.scale))
        return self.real & (loc == 0) & (scale == 1)

    def standardize(self, x):
        """z and log dz/dx of every entry, each of the shape of x `(n, *event_shape)`.

        The log slope is minus infinity outside the support, and zero where x is NaN.
        """
        if not self.real.any():
            return x, ops.zeros_like(x)
        log_slope = 0.0
        if self.bounds.exist.any():
            x, log_slope = self.bounds.unbound(x)
        loc, scale = self._loc_and_scale(x)
        log_slope = ops.broadcast_to(log_slope - ops.log(scale), ops.shape(x))
        # What is missing has no density, and so none to convert.
        return (x - loc) / scale, ops.where(ops.isnan(x), 0.0, log_slope)

    def standardize_ends(self, low, high):
        """Ends of intervals as networks see them, floats `(n, *event_shape)` each.

        An end at a bound of the support, or beyond, leaves nothing out: it is infinite.
        """
        if not self.real.any():
            return low, high
        dtype = keras.backend.standardize_dtype(low.dtype)
        point = ops.equal(low, high)
        start, end = self.standardize(low)[0], self.standardize(high)[0]
        # What is wider than a point stays so, though rounding may have closed it.
        number = np.finfo(dtype)
        wider = start + 4.0 * float(number.eps) * ops.abs(start) + float(number.tiny)
        end = ops.where(~point & (end <= start), wider, end)
        bounds = self.bounds.low, self.bounds.high
        least, most = (ops.convert_to_tensor(a.astype(dtype)) for a in bounds)
        start = ops.where(~point & (low <= least), -np.inf, start)
        return start, ops.where(~point & (high >= most), np.inf, end)

    def restore(self, z):
        """x and log dx/dz of every entry: the reverse of `standardize`."""
        if not self.real.any():
            return z, ops.zeros_like(z)
        loc, scale = self._loc_and_scale(z)
        x, log_slope = z * scale + loc, 0.0
        if self.bounds.exist.any():
            x, log_slope = self.bounds.bound(x)
        return x, ops.broadcast_to(log_slope + ops.log(scale), ops.shape(z))

    def _loc_and_scale(self, like):
        """Of every entry, as they are now, whatever the precision of networks is."""
        dtype = keras.backend.standardize_dtype(like.dtype)
        if self.normalization is None:
            with full_precision():
                return ops.cast(self.loc, dtype), ops.cast(self.scale, dtype)
        loc, scale = _read(self.normalization, self.event_shape, dtype)
        return ops.where(self.real, loc, 0.0), ops.where(self.real, scale, 1.0)

    def adapt(self, batches) -> None:
        """Learn location and scale: mean and standard deviation of g(x).

        An entry without variance has no scale of its own, and keeps that of the data;
        NaN is missing, and an entry that is never observed keeps location 0 too.

        Args:
            batches: iterable of arrays `(n, *event_shape)`.
        """
        rows, count, mean, squares = 0, 0, 0.0, 0.0
        for x in batches:
            self.build_for(x.shape[1:])
            y = self.unbound(x)
            seen = ~np.isnan(y)
            number = seen.sum(axis=0)
            total, least = count + number, np.maximum(number, 1)
            center = np.where(seen, y, 0.0).sum(axis=0) / least
            part = number / np.maximum(total, 1)
            shift = center - mean
            mean = mean + part * shift
            inner = np.where(seen, (y - center) ** 2, 0.0).sum(axis=0)
            squares = squares + inner + count * part * shift**2
            count, rows = total, rows + len(y)
        if not rows:
            raise ValueError("`adapt` needs rows. Received: a stream that holds none.")
        scale = np.sqrt(squares / np.maximum(count, 1))
        # The deviation of a constant is rounding.
        varies = self.real & (scale > 1e-12 * np.abs(mean))
        self.loc.assign(np.where(self.real, mean, 0.0))
        self.scale.assign(np.where(varies, scale, 1.0))

    def unbound(self, x: np.ndarray) -> np.ndarray:
        """g(x) of rows of data: what location and scale are those of."""
        return self.bounds.unbound(np.asarray(x, "float64"), np)[0]

    def check(self) -> None:
        """Raise a ValueError for a normalization that has become none."""
        check_normalization(self.normalization)


def _read(layer, event_shape: tuple[int, ...], dtype: str):
    """What a `keras.layers.Normalization` subtracts and divides by, as it is now.

    It is read from the layer's variables, or from the numbers that the layer was made
    with. Its `mean` and `variance` are copies, rounded to its compute dtype, which a
    compiled function would keep when the layer is adapted or loaded again. An entry
    without variance has scale 1.
    """
    if layer.input_mean is None:
        mean, variance = layer.adapt_mean, layer.adapt_variance
    else:
        mean, variance = layer.input_mean, layer.input_variance
    mean = _over_events(mean, layer.axis, event_shape, dtype)
    variance = _over_events(variance, layer.axis, event_shape, dtype)
    return mean, ops.sqrt(ops.where(variance > 0, variance, 1.0))


def check_normalization(layer) -> None:
    """Raise a ValueError for what is no `Normalization` that standardises.

    Args:
        layer: as it was passed to a constructor; None is no normalization.
    """
    if layer is None:
        return
    if not isinstance(layer, keras.layers.Normalization) or layer.invert:
        inverted = " with invert=True" if getattr(layer, "invert", False) else ""
        raise ValueError(
            "`normalization` must be a `keras.layers.Normalization`, adapted to "
            f"the data and not inverted. Received: {layer!r}{inverted}."
        )
    if layer.input_mean is not None:
        _check_numbers(layer.input_mean, layer.input_variance)
    elif layer.built and not is_traced():
        _check_numbers(layer.adapt_mean, layer.adapt_variance)


def _check_numbers(mean, variance):
    for name, values in (("mean", mean), ("variance", variance)):
        values = np.asarray(ops.convert_to_numpy(values)).astype("float64")
        wrong = np.argwhere(~np.isfinite(values))
        if not len(wrong):
            continue
        index = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"`normalization` must have finite numbers. Received: {name}"
            f"{list(index) or ''} = {values[index]}, as after `adapt` on rows that are "
            "not finite. Adapt it to complete rows, `x[np.isfinite(x).all(axis=1)]`."
        )


def _over_events(values, axes, event_shape, dtype):
    """`values`, which lie along some axes of the rows, for every entry of an event."""
    with full_precision():
        values = ops.cast(ops.convert_to_tensor(values, dtype), dtype)
    rank = 1 + len(event_shape)
    sizes, shape = list(values.shape), [1] * rank
    # As Keras aligns them: fewer values than axes belong to the last ones.
    for axis in sorted((axis % rank for axis in axes), reverse=True)[: len(sizes)]:
        shape[axis] = sizes.pop()
    return ops.broadcast_to(ops.reshape(values, shape)[0], event_shape)
