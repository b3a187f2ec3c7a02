"""What a table's density is made of when nobody says: chosen by rows and columns."""

import keras
import numpy as np

from keras_made.networks.made import MADE
from keras_made.networks.nade import NADE

# Orders that are trained, one a step: any pattern of holes has one that suits it.
NUM_ORDERS = 256
# Those that are mixed when rows are scored; more are slower, and hardly better.
NUM_SCORED = 8
# Up to so many columns a pass for each is paid for.
MOST_PASSES = 48
EPOCHS, PATIENCE = 300, 20
RATE, DECAY = 2e-3, 1e-3


def default_network(num_rows: int, num_columns: int, num_params: int):
    """A deep NADE for a table of so many rows and columns; for many columns, a MADE.

    What a deep NADE says of a column depends on which others it has heard, and not on
    their order: all orders train one function. It costs a pass for each column.
    """
    units = 128 if num_rows < 500 else 256
    orders = {"ordering": "random", "num_masks": NUM_ORDERS}
    common = {"activation": "gelu", "dropout": 0.2, **orders}
    if num_columns > MOST_PASSES:
        return MADE([units, units], num_params, **common)
    return NADE(units, num_params, num_blocks=1, **common)


def default_batch_size(num_rows: int) -> int:
    """Some twenty steps an epoch, of 32 to 512 rows."""
    return int(np.clip(2 ** np.round(np.log2(max(1, num_rows / 20))), 32, 512))


def default_optimizer():
    return keras.optimizers.AdamW(RATE, weight_decay=DECAY, clipnorm=1.0)


def default_callbacks(verbose) -> list:
    """A lower rate when validation no longer falls, then stop at the best weights."""
    return [
        keras.callbacks.ReduceLROnPlateau(
            "val_nll", factor=0.3, patience=PATIENCE // 3, min_lr=RATE / 50
        ),
        keras.callbacks.EarlyStopping(
            "val_nll", patience=PATIENCE, restore_best_weights=True
        ),
        *([EpochBar()] if verbose else []),
    ]


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
