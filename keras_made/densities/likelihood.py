"""Models whose output is a log-likelihood: `fit` is maximum likelihood."""

import functools
import math
import types

import keras
import numpy as np
from keras import ops

from keras_made.checks import (
    is_generator,
    is_stream,
    is_tensor,
    refuse_target,
)
from keras_made.compiling import (
    Announced,
    compiled,
    gains_by_xla,
)
from keras_made.densities import graphs, inputs
from keras_made.densities.adapting import Adaptable
from keras_made.densities.saving import SavedModel
from keras_made.densities.scoring import score_arrays, score_tensor
from keras_made.densities.training import warn_of_units, with_cause
from keras_made.precision import full_precision


@keras.saving.register_keras_serializable(package="keras_made")
class NegativeLogLikelihood(keras.losses.Loss):
    """Mean of -log p over rows in nats; a row of weight 2 counts as two rows."""

    def __init__(self, reduction="mean_with_sample_weight", name="nll", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return -y_pred


class NegativeMean(keras.metrics.Mean):
    """Mean over rows of -log p, in nats."""

    def __init__(self, name="nll"):
        super().__init__(name=name)
        # What `EarlyStopping` and its kin go by when their mode is "auto".
        self._direction = "down"

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(-y_pred, sample_weight)


class InUnits(keras.metrics.Metric):
    """What another metric has found, in a unit of some nats: nothing is summed twice.

    Args:
        metric: the other metric.
        unit: function without arguments; the nats of one unit.
        name: of the metric.
    """

    def __init__(self, metric, unit, name):
        super().__init__(name=name)
        # Not as an attribute, in which Keras would find its variables once more.
        self._find = metric.result
        self._unit = unit
        self._direction = "down"

    def update_state(self, *args, **kwargs):
        pass

    def reset_state(self):
        pass

    def result(self):
        return self._find() / self._unit()


class LikelihoodModel(Adaptable, SavedModel):
    """Base of the models whose output is log p of each row.

    Keras's own loop then does everything: `fit` maximises the likelihood, `evaluate`
    gives the mean negative log-likelihood, `predict` log p of each row.

    A subclass writes `compute_log_prob`, `build`, `event_shape`, `context_size` and
    `check_support`.
    """

    def __init__(self, **kwargs):
        # Rows keep their precision until the density has compared them with levels
        # and locations; networks cast what they hear.
        super().__init__(autocast=False, **kwargs)
        self._nll = NegativeLogLikelihood()
        self._functions = {}
        # In a namespace, where Keras does not look for variables to track.
        self._compiled_for = types.SimpleNamespace(variables=None)
        self._xla_by_size = False
        self._stream_seen = False

    # What a subclass writes -----------------------------------------------------------

    @property
    def event_shape(self):
        """Shape of one row; None before it is known."""
        raise NotImplementedError

    @property
    def context_size(self) -> int:
        """Width of the context, 0 for none."""
        raise NotImplementedError

    def compute_log_prob(self, x, context, training):
        """log p of each row, float: what `call` returns."""
        raise NotImplementedError

    def check_support(self, x: np.ndarray) -> None:
        """Raise a ValueError when a row cannot come from this density."""

    def causes_of_no_density(self) -> list[str]:
        """What about this model may give rows no density, in words."""
        return []

    def may_be_missing(self):
        """Which entries may be NaN: bools, an event's or one for all."""
        return False

    def typical_event(self) -> np.ndarray:
        """An event of the support, `event_shape`, to stand where values are missing."""
        return np.zeros(self.event_shape, "float32")

    # Keras's loop ---------------------------------------------------------------------

    def call(self, x, training=False):
        # Keras's loaders for torch, and some others, make lists of tuples.
        x, context = inputs.split_inputs(tuple(x) if isinstance(x, list) else x)
        x = ops.cast(x, self.density_dtype)
        if context is not None:
            context = ops.cast(context, self.density_dtype)
        # Its own arithmetic is in the density's dtype; networks under a policy of half
        # precision open their scope of it again.
        with full_precision():
            return self.compute_log_prob(x, context, training)

    @property
    def density_dtype(self) -> str:
        """float64 under a float64 policy, float32 under every other."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def compute_output_shape(self, input_shape):
        x_shape, _ = inputs.split_shapes(input_shape)
        return tuple(x_shape[: len(x_shape) - len(self.event_shape)])

    def compile(self, optimizer="adam", **kwargs):
        """As `keras.Model.compile`; the loss is fixed, -log p.

        Args:
            optimizer: name or instance.
            **kwargs: `jit_compile`, `steps_per_execution`, `run_eagerly`, ... With
                `jit_compile="auto"`, the default, a large model is compiled by XLA on
                TensorFlow and a CPU too, where Keras would not.

        Raises:
            ValueError: if a loss or metric is given.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"`{name}` cannot be chosen: the loss of a density is its negative "
                    "log-likelihood, and `nll` and `bits_per_dim` are reported. "
                    f"Received: {name}={kwargs[name]!r}. Leave it out."
                )
        self._xla_by_size = kwargs.get("jit_compile", "auto") == "auto"
        self._stream_seen = False
        for name in ("metrics", "weighted_metrics"):
            kwargs.pop(name, None)
        # Among the metrics of `compile`, callbacks find which way is better.
        nll = NegativeMean()
        metrics = [nll, InUnits(nll, self._bits_per_dim, "bits_per_dim")]
        super().compile(optimizer=optimizer, weighted_metrics=metrics, **kwargs)

    def _bits_per_dim(self):
        return math.prod(self.event_shape) * math.log(2.0)

    def compile_from_config(self, config):
        # Keras asks models with a `compile` of their own to say how it is repeated.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = self._nll(y_pred, y_pred, sample_weight)
        if self.losses:
            loss = loss + super().compute_loss(x=x, y_pred=y_pred, training=training)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        # Metrics want a target of the form of what was predicted, and do not read it.
        return super().compute_metrics(x, y_pred, y_pred, sample_weight)

    # A step takes (data) or, on JAX, (state, data).

    def train_step(self, *args):
        refuse_target(args[-1])
        return super().train_step(*args)

    def test_step(self, *args):
        refuse_target(args[-1])
        return super().test_step(*args)

    def predict_step(self, *args):
        refuse_target(args[-1])
        return super().predict_step(*args)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        *args,
        sample_weight=None,
        validation_data=None,
        **kwargs,
    ):
        """Maximise the likelihood; arguments as in `keras.Model.fit`.

        Arrays, tensors and tables are looked at first, with a warning of real columns
        that are far from unit scale and not normalized; a stream is taken at its word,
        but for a target. What a stream yields is

        | batch | meaning |
        |---|---|
        | `(x,)` | rows alone |
        | `((x, context),)` | rows, each with its context |
        | `(x, None, w)`, `((x, context), None, w)` | the same, with weights `(n,)` |

        `(x, context)` would be read as `(x, y)`, and is refused. A `PyDataset` on
        TensorFlow, which cannot hold None, and loaders that cannot stack it, write
        `np.zeros((n, 0))` in its place, a target without columns. A generator is read
        once, and does not tell how long it is: pass `steps_per_epoch`, and yield at
        least `epochs * steps_per_epoch` batches.

        `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` know that `loss`,
        `nll` and `bits_per_dim`, and the same after `val_`, are better when smaller.

        Args:
            x: rows `(n, *event_shape)`, or a tuple `(x, context)` with a context
                `(n, C)`: arrays, tensors, tables of pandas. Or a stream of batches:
                `tf.data.Dataset`, `PyDataset`, `DataLoader`, generator. A model that
                does not know its sizes learns them here.
            y: not used. A density has no target.
            batch_size: as in Keras.
            epochs: as in Keras.
            verbose: as in Keras.
            callbacks: as in Keras.
            *args: as in Keras.
            sample_weight: `(n,)`; a row of weight 2 counts as two rows. Not with a
                stream, which brings its own.
            validation_data: like `x`, or a tuple `(x, None, sample_weight)`.
            **kwargs: as in Keras, but for `class_weight`.

        Returns:
            A `History` with `loss` (with penalties), `nll` in nats, `bits_per_dim`.

        Raises:
            ValueError: for data that the density cannot have given, by row and index;
                for a loss that is no longer finite, with the likely causes.
        """
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                "A density has no classes. Received: class_weight. Pass a weight for "
                "each row, `sample_weight`."
            )
        if kwargs.get("steps_per_epoch") is None and is_generator(x):
            raise ValueError(
                "A generator does not tell how long an epoch is. Pass "
                "`steps_per_epoch`, or the batches as a `keras.utils.PyDataset`."
            )
        if kwargs.get("validation_steps") is None and is_generator(validation_data):
            raise ValueError(
                "A generator does not tell how long a validation is. Pass "
                "`validation_steps`, or the batches as a `keras.utils.PyDataset`."
            )
        labels = getattr(inputs.split_inputs(x)[0], "columns", None)
        x, y, sample_weight = inputs.check_data(self, x, y, sample_weight)
        if not is_stream(x):
            warn_of_units(self, inputs.split_inputs(x)[0], labels)
        if validation_data is not None and not is_stream(validation_data):
            validation_data = inputs.check_validation(self, validation_data)
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            with_cause(callbacks),
            *args,
            sample_weight=sample_weight,
            validation_data=validation_data,
            **kwargs,
        )

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """One step on a batch, checked as in `fit`; as Keras's own."""
        data = inputs.check_data(self, inputs.one_batch(x), y, sample_weight)
        return super().train_on_batch(*data, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """Metrics of a batch, checked as in `fit`; as Keras's own."""
        data = inputs.check_data(self, inputs.one_batch(x), y, sample_weight)
        return super().test_on_batch(*data, **kwargs)

    def predict_on_batch(self, x):
        """log p of the rows of a batch, checked as in `fit`: `(n,)` NumPy."""
        x, _, _ = inputs.check_data(self, inputs.one_batch(x))
        return super().predict_on_batch(x)

    def make_train_function(self, force=False):
        self._choose_xla()
        return super().make_train_function(force=force)

    def make_test_function(self, force=False):
        self._choose_xla()
        return super().make_test_function(force=force)

    def _choose_xla(self):
        if self._xla_by_size and not self.jit_compile:
            self.jit_compile = gains_by_xla(self)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            # `compile` gives these itself.
            config.pop("weighted_metrics")
        if config and self._xla_by_size:
            # What was chosen here may be no choice where the model is loaded.
            config["jit_compile"] = "auto"
        return config

    def evaluate(
        self,
        x=None,
        y=None,
        *args,
        sample_weight=None,
        return_dict=False,
        **kwargs,
    ):
        """Mean negative log-likelihood of the rows in nats, without penalties.

        Arguments are those of `fit`; a generator is read to its end, or `steps`
        batches of it. With `return_dict=True`, the dict of `loss`, `nll` and
        `bits_per_dim`.
        """
        if "_use_cached_eval_dataset" not in kwargs:
            x, y, sample_weight = inputs.check_data(self, x, y, sample_weight)
        logs = super().evaluate(
            x, y, *args, sample_weight=sample_weight, return_dict=True, **kwargs
        )
        return logs if return_dict else logs["nll"]

    def predict(self, x, *args, **kwargs):
        """log p of each row in nats, `(n,)` NumPy; `x` as in `evaluate`."""
        x, _, _ = inputs.check_data(self, x)
        return super().predict(x, *args, **kwargs)

    def log_prob(self, x, context=None, verbose="auto"):
        """log p of each row in nats.

        Args:
            x: `(n, *event_shape)`. Arrays are checked and scored in chunks by a
                compiled function; a tensor is taken as it is, with its gradient, by a
                compiled function too (on torch by the layers themselves).
            context: `(n, C)`, or `(C,)` for all rows.
            verbose: 0, 1, or `"auto"` for a progress bar when there are many chunks.

        Returns:
            A tensor `(n,)`, float32 (float64 under a float64 policy).

        Raises:
            ValueError: for rows outside the support, or a wrong shape.
        """
        if context is None:
            x, context = inputs.split_inputs(x)
        score = score_arrays
        if is_tensor(inputs.one_batch(x)):
            score = score_tensor
        return score(self, x, context, verbose)

    def score(self, x, context=None):
        """log p of tensors, as a call, inside what is compiled for `log_prob`.

        Nothing of it is differentiated, which may allow what a call does not.
        """
        return self.call((x, context))

    def endpoints(self, num_particles: int) -> dict:
        """What an exported model can be asked, by name: `graphs.Endpoint`s.

        Args:
            num_particles: of those that choose among completions.
        """
        return {
            "log_prob": graphs.log_prob_endpoint(self),
            "sample": graphs.sample_endpoint(self),
        }

    def floats_per_row(self) -> int:
        """About how many floats are held to score or draw one row."""
        return 16 * math.prod(self.event_shape)

    def compiled_function(self, name, function):
        """`function(self, *tensors)`, compiled at first use and kept.

        What was compiled reads the variables of its time: other ones, of quantized
        layers or of layers with adapters (LoRA), drop it.
        """
        variables, old = self.variables, self._compiled_for.variables
        if old is not None and list(map(id, old)) != list(map(id, variables)):
            self._functions.clear()
        self._compiled_for.variables = variables
        if name not in self._functions:
            function = compiled(self, functools.partial(function, self))
            self._functions[name] = Announced(function, name)
        return self._functions[name]

    def require_built(self):
        if self.event_shape is None:
            raise ValueError(
                f"{type(self).__name__} does not know its number of variables yet. "
                "`fit` it, or call `build((None, D))`, first."
            )
        if not self.built:
            self.build((None, *self.event_shape))
