"""Models that learn the units of their data."""

import keras
import numpy as np

from keras_made.densities import inputs


class Adaptable:
    """The verb and the arguments that concern units; a model has them in `units`."""

    @property
    def support(self):
        return self.units.support

    @property
    def normalization(self):
        return self.units.normalization

    def is_bounded(self) -> bool:
        """Whether there are events that it cannot give, because of its support."""
        return bool(np.any(self.units.bounds.exist))

    def get_units_config(self) -> dict:
        """The two arguments as a file keeps them."""
        ends = self.support and [
            None if end is None else np.asarray(end).tolist() for end in self.support
        ]
        normalization = keras.saving.serialize_keras_object(self.normalization)
        return {"support": ends, "normalization": normalization}

    def adapt(self, x) -> None:
        """Learn location and scale of the data, before `fit`.

        The network then sees values of about unit scale, those of bounded entries on
        the unbounded scale of `support`; log p stays in the data's own units. What is
        learned is saved with the model. Discrete entries are left as they are.

        Args:
            x: rows `(n, *event_shape)`, a table, or a tuple `(x, context)`, of which
                the context is left as it is; or a stream of batches, read to its end.

        Raises:
            ValueError: for rows that are not finite or outside the support; when the
                model was made with a `normalization`, or has no real entry.
        """
        if self.units.normalization is not None or not self.units.real.any():
            raise ValueError(
                "`adapt` learns location and scale of real variables. Received: a "
                "model with a `normalization` of its own, or without real variables. "
                "Adapt that layer itself, or leave it out."
            )
        self.units.adapt(inputs.rows_of(self, x))
