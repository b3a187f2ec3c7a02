"""What a table's density is made of when nobody says: chosen by rows and columns."""

import math

import keras
import numpy as np

from keras_made.entries import MixtureOfNormals, PiecewiseLinear
from keras_made.networks.made import MADE
from keras_made.networks.nade import NADE
from keras_made.recipes.budget import Budget

# Orders that are trained, one a step: any pattern of holes has one that suits it.
NUM_ORDERS = 256
# Those that are mixed when rows are scored; more are slower, and hardly better.
NUM_SCORED = 8
FEW_ROWS = 2000
# Up to so many columns a pass for each is paid for.
MOST_PASSES = 48
# Gradient steps at most, and those without a better validation before it stops; the
# latter are 10 epochs at least.
STEPS, PATIENCE, PATIENT_EPOCHS = 10_000, 1000, 10
RATE, DECAY = 2e-3, 1e-3
# A number is heard in pieces, between so many knots: as many standard deviations to
# either side of a real one as the second number says.
KNOTS, REACH = 25, 3.0


def default_network(num_rows, num_columns, num_params, hidden_units=None, **own):
    """A deep NADE for a table of so many rows and columns; for many columns, a MADE.

    What a deep NADE says of a column depends on which others it has heard, and not on
    their order: all orders train one function. It costs a pass for each column.

    Args:
        num_rows: of the table.
        num_columns: those that vary.
        num_params: of each, by its conditional.
        hidden_units: of a MADE in its place; None: by the numbers above.
        **own: arguments of the network in place of the chosen ones.
    """
    if hidden_units is None and num_columns > MOST_PASSES:
        hidden_units = (256, 256)
    if hidden_units is not None:
        return MADE(list(hidden_units), num_params, **_any_order(own))
    return deep_nade(num_rows, num_params, **own)


def deep_nade(num_rows, num_params, **own):
    """A deep NADE for so many rows, as `default_network` has it."""
    # As good from 2,000 rows on, at half the cost.
    units, num_blocks = (256, 1) if num_rows < FEW_ROWS else (128, 2)
    return NADE(units, num_params, num_blocks=num_blocks, **_any_order(own))


def _any_order(own):
    options = {"activation": "gelu", "dropout": 0.2, "num_masks": NUM_ORDERS, **own}
    return {**options, "ordering": "random"}


def real_entry(num_components, min_scale=1e-3):
    """A real entry on the standardised scale: a mixture of normals, heard in pieces."""
    knots = np.linspace(-REACH, REACH, KNOTS)
    return PiecewiseLinear(MixtureOfNormals(num_components, min_scale), knots)


def split(x, share, seed):
    """Rows to train on, and a share of them to stop by: None where the share is 0."""
    if not 0 <= share < 1:
        raise ValueError(
            "`validation_split` must be a share of the rows, at least 0 and less "
            f"than 1. Received: {share!r}."
        )
    held = round(share * len(x))
    if len(x) - held < 2:
        raise ValueError(
            "`fit` needs two rows at least, beside those of the validation. "
            f"Received: a frame of {len(x)} row{'s' * (len(x) != 1)}, of which "
            f"{held} would be held out."
        )
    if not held:
        return x, None
    train, valid = hold_out(len(x), held, seed)
    return x[train], x[valid]


def hold_out(num_rows, held, seed):
    """Places of rows to train on, and of so many that are held out, each in order."""
    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[held:]), np.sort(order[:held])


def default_batch_size(num_rows: int) -> int:
    """Some twenty steps an epoch, of 32 to 512 rows."""
    return int(np.clip(2 ** np.round(np.log2(max(1, num_rows / 20))), 32, 512))


def default_optimizer():
    return keras.optimizers.AdamW(RATE, weight_decay=DECAY, clipnorm=1.0)


def default_epochs(steps_per_epoch: int) -> int:
    return max(PATIENT_EPOCHS, STEPS // steps_per_epoch)


def default_callbacks(steps_per_epoch, epochs, validated, seconds=math.inf) -> list:
    """A lower rate when validation no longer falls, then stop at the best weights.

    The rate falls to zero by a cosine in all epochs, or seconds, should there be few.
    """
    budget = Budget(epochs, seconds)
    if not validated:
        return [budget]
    patience = max(PATIENT_EPOCHS, PATIENCE // steps_per_epoch)
    return [
        budget,
        keras.callbacks.ReduceLROnPlateau(
            "val_nll", factor=0.3, patience=patience // 3, min_lr=RATE / 50
        ),
        keras.callbacks.EarlyStopping(
            "val_nll", patience=patience, restore_best_weights=True
        ),
    ]
