"""What a table's density is made of when nobody says: chosen by rows and columns."""

import keras
import numpy as np

from keras_made.networks.made import MADE

# Orders that are trained, one a step: any pattern of holes has one that suits it.
NUM_ORDERS = 256
# Those that are mixed when rows are scored; more are slower, and hardly better.
NUM_SCORED = 8
EPOCHS, PATIENCE = 500, 40
RATE, DECAY = 2e-3, 1e-3


def default_network(num_rows: int, num_columns: int, num_params: int) -> MADE:
    """A MADE for a table of so many rows and columns."""
    units = int(np.clip(2 ** np.ceil(np.log2(32 * num_columns)), 128, 256))
    dropout = 0.2 if num_rows < 1000 else 0.1 if num_rows < 5000 else 0.0
    return MADE(
        [units, units],
        num_params,
        ordering="random",
        num_masks=NUM_ORDERS,
        activation="gelu",
        dropout=dropout,
    )


def default_batch_size(num_rows: int) -> int:
    """Some twenty steps an epoch, of 32 to 512 rows."""
    return int(np.clip(2 ** np.round(np.log2(max(1, num_rows / 20))), 32, 512))


def default_optimizer():
    return keras.optimizers.AdamW(RATE, weight_decay=DECAY, clipnorm=1.0)


def default_callbacks(verbose) -> list:
    """Half the rate when validation no longer falls, then stop at the best weights."""
    return [
        keras.callbacks.ReduceLROnPlateau(
            "val_nll", factor=0.5, patience=PATIENCE // 3, min_lr=RATE / 50
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
