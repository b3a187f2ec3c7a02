"""Densities of tables: DataFrames in, DataFrames out."""

import math

import keras
import numpy as np
from keras import ops

from keras_made.checks import check_positive, require
from keras_made.densities.density import AutoregressiveDensity
from keras_made.densities.likelihood import LikelihoodModel
from keras_made.entries import Columns, Incomplete
from keras_made.generation import noise_generator
from keras_made.recipes import mixed as recipe
from keras_made.recipes.budget import EpochBar, check_minutes
from keras_made.recipes.starts import (
    start_at_copula,
    start_at_marginals,
    was_trained,
)
from keras_made.tables import serving
from keras_made.tables.estimate import Estimate
from keras_made.tables.schema import Schema, as_frame

# Completions behind a point estimate.
POINT_DRAWS = 101


@keras.saving.register_keras_serializable(package="keras_made")
class TableDensity(LikelihoodModel):
    """The density of a table's rows: mixed columns, holes and all.

    A `Schema` says how each column becomes a number, an `Incomplete` conditional lets
    any be missing, and an order-agnostic MADE is their network: its completions are
    exact draws from p(missing | observed) of one of its orders, and what is asked for
    goes first in order. log p of a row is that of its observed part.

    Args:
        schema_or_frame: a `Schema`, or a DataFrame to read one from (see
            `Schema.from_frame`); print `model.schema` to see what was guessed.
        network: an `Autoregressive` layer over as many entries as columns vary, with
            `num_params` of `columns_of(schema)`. None: one chosen by the numbers of
            rows and columns (`recipes.mixed`).
        structures: those of the network that are mixed when rows are scored. None: the
            first eight.

    Raises:
        ValueError: by name, for a column that cannot be read.
        ImportError: without pandas, `pip install keras_made[tables]`.

    Example:
        >>> import numpy as np, pandas as pd
        >>> from keras_made import TableDensity
        >>> rng = np.random.RandomState(0)
        >>> frame = pd.DataFrame({"sex": rng.choice(["F", "M"], 80)})
        >>> frame["height"] = np.where(frame["sex"] == "F", 166.0, 179.0)
        >>> frame["height"] += rng.normal(0, 6, 80)
        >>> frame.loc[::5, "height"] = np.nan
        >>> model = TableDensity(frame)
        >>> history = model.fit(frame, epochs=2, verbose=0)
        >>> int(model.impute(frame, seed=0).isna().sum().sum())
        0
    """

    def __init__(self, schema_or_frame, network=None, *, structures=None, **kwargs):
        super().__init__(**kwargs)
        schema = schema_or_frame
        self.schema = (
            schema if isinstance(schema, Schema) else Schema.from_frame(schema)
        )
        columns = columns_of(self.schema)
        size = len(self.schema.modelled)
        if network is None:
            rows = self.schema.num_rows or 1000
            network = recipe.default_network(rows, size, columns.num_params)
        if structures is None:
            structures = range(min(recipe.NUM_SCORED, network.num_masks))
        self.density = AutoregressiveDensity(
            network,
            columns,
            support=self.schema.support(),
            structures=structures,
            dtype=self.dtype_policy,
        )
        # Units pass between the density and the data; there are none outside.
        self.units = self.density.units
        self.build((None, size))

    # As a likelihood ----------------------------------------------------------------

    @property
    def event_shape(self):
        return (len(self.schema.modelled),)

    @property
    def context_size(self):
        return 0

    def build(self, input_shape):
        if not self.density.built:
            self.density.build(input_shape)
        self.built = True

    def compute_log_prob(self, x, context, training):
        return self.density.compute_log_prob(x, context, training)

    def check_support(self, x):
        self.density.check_support(x)

    def may_be_missing(self):
        return self.density.may_be_missing()

    def typical_event(self):
        return self.density.typical_event()

    def floats_per_row(self):
        return self.density.floats_per_row()

    # Frames -------------------------------------------------------------------------

    def adapt(self, frame) -> None:
        """Learn location and scale of the real columns; `fit` does it at first use."""
        if self.units.real.any():
            self.density.adapt(self.encode(frame))

    def fit(
        self,
        frame,
        validation_split: float = 0.1,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        callbacks=None,
        validation_data=None,
        minutes: float | None = None,
        seed: int = 0,
        verbose="auto",
        **kwargs,
    ):
        """Maximum likelihood on the observed part of each row.

        Stops when a validation share no longer gains, with the best weights, unless
        `callbacks` are given. A model that has no optimizer yet is compiled with
        AdamW and learns the units of the real columns; a network that was never
        trained starts at the shares of the others and, unless `epochs` are given, with
        the columns' rank correlations: up to 50 rows for each column are preceded by
        draws of a Gaussian copula (`recipes.starts`).

        Args:
            frame: a DataFrame with the columns of the schema, missing values and all.
            validation_split: share of the rows, chosen by `seed`, to stop by; 0: none,
                and all epochs are run.
            epochs: at most. None: those of 10,000 steps.
            batch_size: None: about a twentieth of the rows, 32 to 512.
            callbacks: of Keras, in place of the default ones.
            validation_data: a DataFrame to stop by, in place of a share of the rows.
            minutes: about as many at most. None: any number.
            seed: of the share.
            verbose: 0, or one bar over all epochs.
            **kwargs: as in `keras.Model.fit`.

        Returns:
            A `History` with `nll` and `val_nll`, nats a row.

        Raises:
            ValueError: by name, for columns and values that do not fit the schema; for
                minutes that are none.
        """
        left = math.inf
        if minutes is not None:
            check_minutes(minutes)
            left = 60.0 * minutes
        x = self.encode(frame)
        if validation_data is None:
            x, valid = recipe.split(x, validation_split, seed)
        else:
            valid = self.encode(validation_data)
        batch_size = batch_size or recipe.default_batch_size(len(x))
        if not self.compiled:
            if self.units.real.any():
                self.density.adapt(x)
            is_new = not was_trained(self.density.network)
            start_at_marginals(self.density.network, self.density.conditional, x)
            self.compile(recipe.default_optimizer())
            if epochs is None and is_new:
                left -= start_at_copula(
                    self,
                    super().fit,
                    x,
                    continuous=self.density.conditional.continuous,
                    batch_size=batch_size,
                    seconds=left / 4,
                )
        steps = -(-len(x) // batch_size)
        epochs = recipe.default_epochs(steps) if epochs is None else epochs
        if callbacks is None:
            validated = valid is not None
            callbacks = recipe.default_callbacks(steps, epochs, validated, left)
            if verbose not in (0, "0", False):
                callbacks.append(EpochBar())
        return super().fit(
            x,
            batch_size=batch_size,
            epochs=epochs,
            verbose=0,
            callbacks=callbacks,
            validation_data=valid,
            **kwargs,
        )

    def evaluate(self, x=None, *args, **kwargs):
        """Mean negative log-likelihood in nats of the observed parts of a frame's rows.

        Arguments are those of `keras.Model.evaluate`, with a DataFrame as `x`.
        """
        # Within `fit`, Keras asks with the numbers that it was given.
        if "_use_cached_eval_dataset" not in kwargs:
            x = self.encode(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, frame, **kwargs):
        """log p of each row, `(n,)` NumPy, by Keras's loop."""
        return super().predict(self.encode(frame), **kwargs)

    def encode(self, frame) -> np.ndarray:
        """The columns that vary as numbers `(n, D)`, NaN where missing."""
        return self.schema.encode(frame).astype(self.density_dtype)

    def log_prob(self, frame, verbose="auto"):
        """log p of each row's observed part in nats, a Series with the frame's index.

        Real columns count by their density, in their own units; days and seconds for
        dates. A constant column counts nothing.
        """
        frame = as_frame(frame)
        scores = super().log_prob(self.encode(frame), verbose=verbose)
        return self._series(scores, frame, "log_prob")

    def log_prob_by_column(self, frame, verbose="auto"):
        """log p(value | the rest of its row), nats: which values make a row odd?

        The difference of two scores, log p(row) - log p(row without the value), for
        each column: D + 1 times the cost of `log_prob`.

        Returns:
            A DataFrame of the columns that vary, with the frame's index; NaN where the
            value is missing.
        """
        pd = require("pandas")
        frame = as_frame(frame)
        x = self.encode(frame)
        whole = self._scores(x, verbose)
        found = {}
        for place, name in enumerate(self.schema.modelled):
            rest = x.copy()
            rest[:, place] = np.nan
            own = whole - self._scores(rest, verbose)
            found[name] = np.where(np.isnan(x[:, place]), np.nan, own)
        return pd.DataFrame(found, index=frame.index)

    def _scores(self, x, verbose):
        return ops.convert_to_numpy(super().log_prob(x, verbose=verbose))

    def _series(self, values, frame, name):
        values = ops.convert_to_numpy(values).astype("float64")
        return require("pandas").Series(values, index=frame.index, name=name)

    def impute(
        self, frame, num_copies=None, *, point: bool = False, seed=None, verbose="auto"
    ):
        """Fill the holes: by draws from p(missing | observed), or by their middle.

        Args:
            frame: a DataFrame with the columns of the schema.
            num_copies: number of completed frames (multiple imputation). None: one.
            point: whether each hole gets the median (of a category, the mode) of 101
                draws, which is closest to the truth on average, and has too little
                variance for statistics; only without `num_copies`.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: as in `AutoregressiveDensity.impute`.

        Returns:
            A DataFrame with the index, order and dtypes of `frame`, what was observed
            untouched; a list of `num_copies` of them where that is given.
        """
        frame = as_frame(frame)
        if point and num_copies is not None:
            raise ValueError(
                "A point estimate is one frame. Received: point=True and num_copies="
                f"{num_copies!r}. Leave one of them out."
            )
        x = self.encode(frame)
        copies = POINT_DRAWS if point else num_copies or 1
        check_positive("num_copies", 1 if num_copies is None else num_copies)
        draws = self.density.impute(x, num_copies=copies, seed=seed, verbose=verbose)
        draws = ops.convert_to_numpy(draws)
        if point:
            draws = self._middle(draws)[None]
        frames = [self._complete(frame, x, copy) for copy in draws]
        return frames[0] if num_copies is None else frames

    def _middle(self, draws):
        columns = [self.schema[name] for name in self.schema.modelled]
        middles = [c.middle(draws[..., i]) for i, c in enumerate(columns)]
        return np.stack(middles, axis=-1)

    def _complete(self, frame, x, codes):
        """The frame, with numbers in the place of its holes."""
        decoded = self.schema.decode(codes, frame.index)
        complete = frame.copy()
        for name in self.schema.columns:
            missing = frame[name].isna().to_numpy()
            if missing.any() and not decoded[name].isna().all():
                column = complete[name].copy()
                column[missing] = decoded[name][missing].to_numpy()
                complete[name] = column.astype(frame[name].dtype)
        return complete

    def sample(
        self,
        num_samples: int,
        given=None,
        seed=None,
        verbose="auto",
        *,
        num_particles: int = 24,
    ):
        """Synthetic rows, all of them or those that meet conditions.

        Args:
            num_samples: number of rows.
            given: conditions by column, as in `probability`, that every row meets.
            num_particles: rows to choose each from, with `given`; see
                `AutoregressiveDensity.sample`.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: as in `AutoregressiveDensity.sample`.

        Returns:
            A DataFrame of `num_samples` rows in the dtypes of the schema.
        """
        check_positive("num_samples", num_samples)
        bounds = {}
        if given is not None:
            noise = noise_generator(seed)
            low, high = self.schema.boxes(given)
            chosen = self._choose_boxes(low, high, num_samples, noise, verbose)
            bounds = {"low": low[chosen], "high": high[chosen]}
            bounds["num_particles"] = num_particles
            seed = noise
        x = self.density.sample(num_samples, seed=seed, verbose=verbose, **bounds)
        return self.schema.decode(ops.convert_to_numpy(x))

    def _choose_boxes(self, low, high, num_samples, noise, verbose):
        """A box for each draw, by their probabilities."""
        if len(low) == 1:
            return np.zeros(num_samples, int)
        logs = self._log_masses(low, high, 200, noise, verbose)[0]
        weights = np.exp(logs - logs.max())
        return noise.choice(len(low), num_samples, p=weights / weights.sum())

    def probability(
        self, event, given=None, *, num_particles: int = 1000, seed=0, verbose="auto"
    ) -> Estimate:
        """P(event), or P(event | given), of a row: a float with its `standard_error`.

        Progressive sampling: the columns of the conditions are drawn one after the
        other within their bounds, and what their intervals weigh is multiplied.
        Unbiased without `given`; with it, the ratio of two unbiased estimates.

        Args:
            event: dict of column to a value, a range `(low, high)` with None for no
                end, both ends within, or a list of values.
            given: the same, for columns that are not in `event`. A single number of a
                real column is a value that was observed.
            num_particles: draws behind the estimate.
            seed: of the draws; the same seed gives the same estimate.
            verbose: as elsewhere.

        Raises:
            ValueError: by name, for an unknown column, an empty interval, or a single
                number of a real column in `event`, which has probability zero.

        Reference:
            Yang et al. 2019, "Deep Unsupervised Cardinality Estimation" (Naru),
            https://arxiv.org/abs/1905.04278
        """
        check_positive("num_particles", num_particles)
        self._refuse_points(event)
        noise = noise_generator(seed)
        if given is None:
            log, error = self._log_probability(event, num_particles, noise, verbose)
            return Estimate(np.exp(log), np.exp(log) * error)
        twice = [name for name in event if name in given]
        if twice:
            raise ValueError(
                f"Column {twice[0]!r} is in `event` and in `given`. Put both "
                "conditions on it into one of them."
            )
        both = {**event, **given}
        joint, error = self._log_probability(both, num_particles, noise, verbose)
        alone, other = self._log_probability(given, num_particles, noise, verbose)
        value = min(1.0, np.exp(joint - alone))
        return Estimate(value, value * np.hypot(error, other))

    def _refuse_points(self, event):
        low, high = self.schema.boxes(event)
        points = (low == high) & self.units.real
        if points.any():
            name = self.schema.modelled[np.argwhere(points)[0][1]]
            raise ValueError(
                f"Column {name!r}: a single real number has probability zero. Pass a "
                "range, (low, high)."
            )

    def _log_probability(self, event, num_particles, noise, verbose):
        """log P of conditions, and its relative standard error."""
        low, high = self.schema.boxes(event)
        logs, errors = self._log_masses(low, high, num_particles, noise, verbose)
        top = logs.max()
        if not np.isfinite(top):
            return -np.inf, 0.0
        parts = np.exp(logs - top)
        total = parts.sum()
        return top + np.log(total), np.sqrt(((parts * errors) ** 2).sum()) / total

    def _log_masses(self, low, high, num_particles, noise, verbose):
        """log P of each box, and its relative standard error."""
        found = self.density.estimate_interval(
            low, high, num_particles=num_particles, seed=noise, verbose=verbose
        )
        return tuple(ops.convert_to_numpy(part).astype("float64") for part in found)

    def endpoints(self, num_particles: int) -> dict:
        return serving.endpoints(self)

    def get_config(self):
        return {
            **keras.Model.get_config(self),
            "schema_or_frame": keras.saving.serialize_keras_object(self.schema),
            "network": keras.saving.serialize_keras_object(self.density.network),
            "structures": self.density.structures,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("schema_or_frame", "network"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects
            )
        return cls(**config)


def columns_of(schema: Schema) -> Incomplete:
    """The conditional of a table's rows: a column each, any of which may be missing."""
    return Incomplete(Columns(schema.conditionals()))
