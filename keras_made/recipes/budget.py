"""Training within a budget: how the rate falls, when it ends, what is shown of it."""

import math
import time

import keras
import numpy as np


class Budget(keras.callbacks.Callback):
    """A rate that falls to zero by a cosine as the epochs, or the seconds, run out.

        rate <- rate * cosine(share now) / cosine(share one epoch ago)

    so that other callbacks may lower it too. Training ends when the time is out, a
    compilation included, if need be within an epoch.

    Args:
        epochs: all that are planned.
        seconds: all that may pass.
        most: what may pass, should the second epoch tell that all epochs ask for more
            than `seconds`. None: `seconds`.
    """

    def __init__(
        self, epochs: int, seconds: float = math.inf, most: float | None = None
    ):
        super().__init__()
        self.epochs, self.most = epochs, most
        self.seconds = max(seconds, 1e-9)
        self.share = 0.0

    def on_train_begin(self, logs=None):
        self.started = time.perf_counter()
        self.share = 0.0
        self.ends = [0.0]

    def on_epoch_begin(self, epoch, logs=None):
        share = min(0.99, max(self.share, self._passed(epoch)))
        rate = self.model.optimizer.learning_rate
        rate.assign(float(rate) * _cosine(share) / _cosine(self.share))
        self.share = share

    def on_train_batch_end(self, batch, logs=None):
        # The first two epochs tell whether there may be more time.
        known = self.most is None or len(self.ends) > 2
        if self.is_over and (known or self._since_start() > self.most):
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self._since_start())
        if len(self.ends) == 3 and self.most is not None:
            # The first epoch compiles; the second is like the others.
            rest = (self.epochs - 2) * (self.ends[2] - self.ends[1])
            needed = min(self.most, 1.05 * (self.ends[2] + rest))
            self.seconds = max(self.seconds, needed)
        if self.is_over:
            self.model.stop_training = True

    @property
    def is_over(self) -> bool:
        """Whether the time is out."""
        return self._since_start() >= self.seconds

    def _passed(self, epoch):
        """The share of the epochs or of the time that is gone, whichever is larger."""
        return max(epoch / self.epochs, self._since_start() / self.seconds)

    def _since_start(self):
        return time.perf_counter() - self.started


def _cosine(share):
    return 0.5 * (1 + np.cos(np.pi * share))


def check_minutes(minutes) -> None:
    """Refuse what is no time to train in."""
    if not isinstance(minutes, int | float) or not minutes > 0:
        raise ValueError(
            f"`minutes` must be a number above zero. Received: {minutes!r}."
        )


class EpochBar(keras.callbacks.Callback):
    """One bar for all epochs, with the validation's nats; not a line for each."""

    def on_train_begin(self, logs=None):
        self.bar = keras.utils.Progbar(
            self.params["epochs"], unit_name="epoch", stateful_metrics=["val_nll"]
        )
        self.done = 0

    def on_epoch_end(self, epoch, logs=None):
        self.done += 1
        values = [(k, v) for k, v in (logs or {}).items() if k in ("nll", "val_nll")]
        self.bar.update(self.done, values, finalize=False)

    def on_train_end(self, logs=None):
        self.bar.update(self.done, finalize=True)
