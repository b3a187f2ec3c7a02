"""What is said to somebody whose training goes wrong, or is about to."""

import keras
import numpy as np
from keras import ops

from keras_made.checks import warn

# Standard deviations and means beyond these are far from unit scale: optimizers and
# initial weights are made for numbers about one.
FAR, NARROW = 100.0, 1e-2
ROWS_LOOKED_AT = 16384


def warn_of_units(model, x, labels=None) -> None:
    """Warn of real entries far from unit scale that reach the network as they are.

    Args:
        model: a `LikelihoodModel`.
        x: rows `(n, *event_shape)`.
        labels: names of the columns of a table, or None.
    """
    raw = np.broadcast_to(model.units.in_own_units(), x.shape[1:])
    if not np.any(raw):
        return
    # Evenly spaced: a hint needs no more, and a file mapped into memory stays there.
    rows = x[:: -(-len(x) // ROWS_LOOKED_AT)]
    with np.errstate(over="ignore", invalid="ignore"):
        rows = model.units.unbound(rows)
        rows = np.ma.array(rows, mask=np.isnan(rows))
        mean, spread = (np.ma.filled(a, 0.0) for a in (rows.mean(0), rows.std(0)))
    # A constant near zero has no scale of its own to be far from.
    far = (np.abs(mean) > FAR) | (spread > FAR) | ((spread > 0) & (spread < NARROW))
    found = np.argwhere(raw & far)
    if not len(found):
        return
    index = tuple(int(i) for i in found[0])
    name = f"column {index[0]}" if len(index) == 1 else f"entry {index}"
    if labels is not None and len(index) == 1:
        name = f"column {labels[index[0]]!r}"
    others = f", and {len(found) - 1} more like it" if len(found) > 1 else ""
    warn(
        f"Data far from unit scale trains badly. Received: {name} with mean "
        f"{mean[index]:.3g} and standard deviation {spread[index]:.3g}{others}. Call "
        "`model.adapt(x)` before `fit`: log p stays in the data's own units."
    )


class NameTheCause(keras.callbacks.Callback):
    """Stops a training whose loss is not finite, and says what usually helps."""

    def on_epoch_end(self, epoch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if np.isfinite(loss):
            return
        broken = [v.path for v in self.model.weights if not _is_finite(v)]
        where = (
            f"weights are not finite ({broken[0]}, ...)"
            if broken
            else "all weights are finite, so some row has no finite log p"
        )
        causes = [
            "rows of a stream that are not finite or cannot come from this density "
            "(only arrays and tables are looked at)",
            "steps that are too large (a smaller learning rate than "
            f"{float(self.model.optimizer.learning_rate):g}, or optimizer "
            "clipnorm=1.0)",
        ]
        if np.any(self.model.units.in_own_units()):
            causes[:0] = [
                "data far from unit scale (call `model.adapt(x)` before `fit`)",
                "outliers beyond 1e12",
            ]
        causes[:0] = self.model.causes_of_no_density()
        raise ValueError(
            f"The loss became {loss} in epoch {epoch + 1}; {where}. The likely causes: "
            f"{'; '.join(causes)}."
        )


def with_cause(callbacks):
    """Callbacks of `fit`, with one more that names why a loss is not finite."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    listed = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    # The first, so that none saves a model that is broken.
    return [NameTheCause(), *(c for c in listed if c is not None)]


def _is_finite(variable):
    values = ops.convert_to_numpy(variable)
    return bool(np.all(np.isfinite(values.astype("float64"))))
