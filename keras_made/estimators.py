"""Densities of tables as scikit-learn estimators: scores, completions, outliers.

They go into a `Pipeline`, under `GridSearchCV` and `cross_val_score`, are cloned and
pickled. Needs scikit-learn and pandas, `pip install keras_made[tables]`.
"""

import contextlib
import random

import keras
import numpy as np

from keras_made.checks import require
from keras_made.recipes import mixed as recipe
from keras_made.tables import Real, Schema, TableDensity, columns_of

require("pandas")
_base = require("sklearn.base")
_validation = require("sklearn.utils.validation")


class _TableEstimator(_base.BaseEstimator):
    """Base: fits a `TableDensity` to an array or a DataFrame.

    The columns of an array are real numbers; those of a DataFrame are what
    `Schema.from_frame` guesses. NaN is missing.
    """

    def __init__(
        self,
        hidden_units=None,
        num_masks=None,
        dropout=None,
        schema=None,
        max_epochs=None,
        batch_size=None,
        validation_fraction=0.1,
        random_state=0,
        verbose=0,
    ):
        self.hidden_units = hidden_units
        self.num_masks = num_masks
        self.dropout = dropout
        self.schema = schema
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Fit the density of the rows; `y` is not used.

        Args:
            X: array `(n, D)` or DataFrame, NaN where missing.
            y: ignored.
        """
        frame = self._frame(X, reset=True)
        schema = self.schema
        if schema is None and self._named:
            schema = Schema.from_frame(frame)
        elif schema is None:
            schema = _real_schema(frame)
        random_state = _validation.check_random_state(self.random_state)
        seed = int(random_state.randint(2**31 - 1))
        with _seeded(seed):
            self.density_ = TableDensity(schema, self._network(schema, seed))
            self.density_.fit(
                frame,
                self.validation_fraction,
                epochs=self.max_epochs,
                batch_size=self.batch_size,
                seed=seed,
                verbose=self.verbose,
            )
        self._after_fit(frame)
        return self

    def _after_fit(self, frame):
        """What else is learned from the rows."""

    def _network(self, schema, seed):
        """The network by the arguments; what is None is the recipe's choice."""
        own = {"num_masks": self.num_masks, "dropout": self.dropout}
        own = {name: value for name, value in own.items() if value is not None}
        return recipe.default_network(
            schema.num_rows or 1000,
            len(schema.modelled),
            columns_of(schema).num_params,
            hidden_units=self.hidden_units,
            seed=seed,
            **own,
        )

    def _frame(self, X, reset=False):
        """A DataFrame of what came, checked as scikit-learn does."""
        pd = require("pandas")
        if not reset:
            _validation.check_is_fitted(self, "density_")
        # As scikit-learn has it: names that are not strings are none.
        named = isinstance(X, pd.DataFrame) and all(
            isinstance(name, str) for name in X.columns
        )
        if reset:
            self._named = named
        if named and self._named:
            _validation.validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        X = _validation.validate_data(
            self,
            X,
            reset=reset,
            dtype="float64",
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )
        names = [f"x{i}" for i in range(X.shape[1])]
        if not reset and self._named:
            names = list(self.density_.schema.columns)
        return pd.DataFrame(X, columns=names)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class _ScoringEstimator(_TableEstimator):
    """Base of those that tell how probable a row is."""

    def score_samples(self, X):
        """log p of each row (of its observed part), nats, `(n,)`."""
        frame = self._frame(X)
        return self.density_.log_prob(frame, verbose=0).to_numpy()


class DensityEstimator(_ScoringEstimator):
    """The density of rows, as `sklearn.neighbors.KernelDensity` has it.

    Args:
        hidden_units: sizes of hidden layers. None here and below: chosen by the
            numbers of rows and columns (`keras_made.recipes.mixed`).
        num_masks: orders that are trained.
        dropout: share of hidden units that is dropped in training.
        schema: a `keras_made.tables.Schema`. None: read from a DataFrame; the columns
            of an array are real.
        max_epochs: at most.
        batch_size: rows of a step.
        validation_fraction: share of the rows by which training stops; 0: none.
        random_state: an int, a `numpy.random.RandomState` or None, of everything
            random. `fit` seeds the back end by it.
        verbose: 0, or 1 for a bar over the epochs.

    Attributes:
        density_: the fitted `TableDensity`.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> from keras_made.estimators import DensityEstimator
        >>> X = np.random.RandomState(0).normal(size=(60, 2))
        >>> estimator = DensityEstimator([8], 4, max_epochs=2).fit(X)
        >>> estimator.score_samples(X).shape, estimator.sample(3).shape
        ((60,), (3, 2))
    """

    def score(self, X, y=None):
        """The mean of `score_samples`: greater is better, whatever the rows' number."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples=1, random_state=None):
        """Synthetic rows, an array `(n_samples, D)` or a DataFrame as was fitted."""
        _validation.check_is_fitted(self, "density_")
        seed = None
        if random_state is not None:
            seed = int(_validation.check_random_state(random_state).randint(2**31 - 1))
        frame = self.density_.sample(n_samples, seed=seed, verbose=0)
        return frame if self._named else frame.to_numpy()


class DensityImputer(_base.TransformerMixin, _TableEstimator):
    """Fills holes by draws from p(missing | observed), or by their middle.

    Args:
        n_copies: completions of the rows for multiple imputation; `transform` then
            returns `(n_copies, n, D)`, or a list of DataFrames. None: one.
        point: whether holes get the median (of categories the mode) of draws.
        hidden_units, num_masks, dropout, schema, max_epochs, batch_size,
            validation_fraction, random_state, verbose: as in `DensityEstimator`.

    Example:
        >>> import numpy as np
        >>> from keras_made.estimators import DensityImputer
        >>> X = np.random.RandomState(0).normal(size=(60, 2))
        >>> X[::3, 1] = np.nan
        >>> imputer = DensityImputer(hidden_units=[8], num_masks=4, max_epochs=2)
        >>> int(np.isnan(imputer.fit_transform(X)).sum())
        0
    """

    def __init__(
        self,
        n_copies=None,
        point=False,
        hidden_units=None,
        num_masks=None,
        dropout=None,
        schema=None,
        max_epochs=None,
        batch_size=None,
        validation_fraction=0.1,
        random_state=0,
        verbose=0,
    ):
        super().__init__(
            hidden_units,
            num_masks,
            dropout,
            schema,
            max_epochs,
            batch_size,
            validation_fraction,
            random_state,
            verbose,
        )
        self.n_copies = n_copies
        self.point = point

    def _after_fit(self, frame):
        random_state = _validation.check_random_state(self.random_state)
        self._seed = int(random_state.randint(2**31 - 1))

    def transform(self, X):
        """Completed rows, as an array or a DataFrame as came."""
        frame = self._frame(X)
        completed = self.density_.impute(
            frame, self.n_copies, point=self.point, seed=self._seed, verbose=0
        )
        if self._named:
            return completed
        if self.n_copies is None:
            return completed.to_numpy()
        return np.stack([copy.to_numpy() for copy in completed])

    def get_feature_names_out(self, input_features=None):
        """Names of the columns that come out: those that went in."""
        _validation.check_is_fitted(self, "density_")
        return _validation._check_feature_names_in(self, input_features)


class OutlierDetector(_base.OutlierMixin, _ScoringEstimator):
    """Rows of low density are outliers.

    Args:
        contamination: share of the fitted rows that is to be called outliers.
        hidden_units, num_masks, dropout, schema, max_epochs, batch_size,
            validation_fraction, random_state, verbose: as in `DensityEstimator`.

    Attributes:
        offset_: log p, in nats, below which a row is an outlier.

    Example:
        >>> import numpy as np
        >>> from keras_made.estimators import OutlierDetector
        >>> X = np.random.RandomState(0).normal(size=(60, 2))
        >>> detector = OutlierDetector(hidden_units=[8], num_masks=4, max_epochs=2)
        >>> sorted(set(detector.fit_predict(X).tolist()))
        [-1, 1]
    """

    def __init__(
        self,
        contamination=0.1,
        hidden_units=None,
        num_masks=None,
        dropout=None,
        schema=None,
        max_epochs=None,
        batch_size=None,
        validation_fraction=0.1,
        random_state=0,
        verbose=0,
    ):
        super().__init__(
            hidden_units,
            num_masks,
            dropout,
            schema,
            max_epochs,
            batch_size,
            validation_fraction,
            random_state,
            verbose,
        )
        self.contamination = contamination

    def fit(self, X, y=None):
        """Fit the density of the rows, and the score below which one is an outlier."""
        if not 0 < self.contamination <= 0.5:
            raise ValueError(
                "`contamination` must be a share of the rows, above 0 and at most "
                f"0.5. Received: {self.contamination!r}."
            )
        return super().fit(X, y)

    def _after_fit(self, frame):
        scores = self.density_.log_prob(frame, verbose=0).to_numpy()
        self.offset_ = float(np.quantile(scores, self.contamination))

    def decision_function(self, X):
        """`score_samples` less `offset_`: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """-1 for outliers, 1 for the others, ints `(n,)`."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _real_schema(frame) -> Schema:
    """Every column a real number, also those that hold few or whole ones."""
    means = frame.mean().fillna(0.0)
    columns = {name: Real(origin=float(means[name])) for name in frame.columns}
    return Schema(columns, len(frame))


@contextlib.contextmanager
def _seeded(seed):
    """All that is random follows a seed; Python's and NumPy's go on as before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
