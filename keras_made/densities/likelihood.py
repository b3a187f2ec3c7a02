"""Models whose output is a log-likelihood: `fit` is maximum likelihood."""

import functools
import math
import operator
import os
import tempfile
import types

import keras
import numpy as np
from keras import ops

from keras_made.checks import (
    check_finite,
    check_pieces,
    check_weights,
    first_batch,
    is_generator,
    is_stream,
    is_tensor,
    refuse_target,
    to_array,
)
from keras_made.compiling import compiled, run_in_chunks

# From this size on, XLA on a CPU saves more in an epoch or two than compiling costs.
XLA_WEIGHTS = 1_000_000


@keras.saving.register_keras_serializable(package="keras_made")
class NegativeLogLikelihood(keras.losses.Loss):
    """Mean of -log p over rows in nats; a row of weight 2 counts as two rows."""

    def __init__(self, reduction="mean_with_sample_weight", name="nll", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return -y_pred


class NegativeMean(keras.metrics.Mean):
    """Mean over rows of -log p, in nats or in a unit of some nats.

    Args:
        name: of the metric.
        unit: function without arguments; the nats of one unit.
    """

    def __init__(self, name, unit=lambda: 1.0):
        super().__init__(name=name)
        self._unit = unit
        # What `EarlyStopping` and its kin go by when their mode is "auto".
        self._direction = "down"

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(-y_pred / self._unit(), sample_weight)


class LikelihoodModel(keras.Model):
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

    def typical_event(self) -> np.ndarray:
        """An event of the support, `event_shape`, to stand where values are missing."""
        return np.zeros(self.event_shape, "float32")

    # Keras's loop ---------------------------------------------------------------------

    def call(self, inputs, training=False):
        # Keras's loaders for torch, and some others, make lists of tuples.
        x, context = split_inputs(tuple(inputs) if isinstance(inputs, list) else inputs)
        x = ops.cast(x, self.density_dtype)
        if context is not None:
            context = ops.cast(context, self.density_dtype)
        return self.compute_log_prob(x, context, training)

    @property
    def density_dtype(self) -> str:
        """float64 under a float64 policy, float32 under every other."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    def compute_output_shape(self, input_shape):
        x_shape, _ = split_shapes(input_shape)
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
        metrics = [
            NegativeMean("nll"),
            NegativeMean(
                "bits_per_dim", lambda: math.prod(self.event_shape) * math.log(2.0)
            ),
        ]
        super().compile(optimizer=optimizer, weighted_metrics=metrics, **kwargs)

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
        *args,
        sample_weight=None,
        validation_data=None,
        **kwargs,
    ):
        """Maximise the likelihood; arguments as in `keras.Model.fit`.

        Arrays, tensors and tables are looked at first; a stream is taken at its word,
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
            *args: as in Keras.
            sample_weight: `(n,)`; a row of weight 2 counts as two rows. Not with a
                stream, which brings its own.
            validation_data: like `x`, or a tuple `(x, None, sample_weight)`.
            **kwargs: as in Keras, but for `class_weight`.

        Returns:
            A `History` with `loss` (with penalties), `nll` in nats, `bits_per_dim`.

        Raises:
            ValueError: for data that the density cannot have given, by row and index.
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
        x, y, sample_weight = self._check_data(x, y, sample_weight)
        if validation_data is not None and not is_stream(validation_data):
            validation_data = self._check_validation(validation_data)
        return super().fit(
            x,
            y,
            *args,
            sample_weight=sample_weight,
            validation_data=validation_data,
            **kwargs,
        )

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """One step on a batch, checked as in `fit`; as Keras's own."""
        data = self._check_data(_one_batch(x), y, sample_weight)
        return super().train_on_batch(*data, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """Metrics of a batch, checked as in `fit`; as Keras's own."""
        data = self._check_data(_one_batch(x), y, sample_weight)
        return super().test_on_batch(*data, **kwargs)

    def predict_on_batch(self, x):
        """log p of the rows of a batch, checked as in `fit`: `(n,)` NumPy."""
        x, _, _ = self._check_data(_one_batch(x))
        return super().predict_on_batch(x)

    def make_train_function(self, force=False):
        self._choose_xla()
        return super().make_train_function(force=force)

    def make_test_function(self, force=False):
        self._choose_xla()
        return super().make_test_function(force=force)

    def _choose_xla(self):
        # A large step gains a quarter by XLA; a small one never earns back compiling.
        on_tensorflow = keras.backend.backend() == "tensorflow"
        if not on_tensorflow or not self._xla_by_size or self.jit_compile:
            return
        # Keras, too, leaves XLA out of `tf.distribute`.
        possible = not self.run_eagerly and self._distribute_strategy is None
        if possible and self.built and self.count_params() >= XLA_WEIGHTS:
            self.jit_compile = True

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
            x, y, sample_weight = self._check_data(x, y, sample_weight)
        logs = super().evaluate(
            x, y, *args, sample_weight=sample_weight, return_dict=True, **kwargs
        )
        return logs if return_dict else logs["nll"]

    def predict(self, x, *args, **kwargs):
        """log p of each row in nats, `(n,)` NumPy; `x` as in `evaluate`."""
        x, _, _ = self._check_data(x)
        return super().predict(x, *args, **kwargs)

    def log_prob(self, x, context=None, verbose="auto"):
        """log p of each row in nats.

        Args:
            x: `(n, *event_shape)`. Arrays are checked and scored in chunks by a
                compiled function; a tensor is taken as it is, with its gradient.
            context: `(n, C)`, or `(C,)` for all rows.
            verbose: 0, 1, or `"auto"` for a progress bar when there are many chunks.

        Returns:
            A tensor `(n,)`, float32 (float64 under a float64 policy).

        Raises:
            ValueError: for rows outside the support, or a wrong shape.
        """
        if context is None:
            x, context = split_inputs(x)
        if is_tensor(_one_batch(x)):
            return self._log_prob_of_tensor(x, context)
        x, context = self.check_inputs(x, context)
        return run_in_chunks(
            self._function("log_prob", lambda *inputs: self.call(inputs)),
            [x, context],
            self.floats_per_row(),
            verbose,
        )

    def _log_prob_of_tensor(self, x, context):
        if context is None:
            return self(x)
        if not is_tensor(context):
            context = to_array("context", context)
        context = ops.convert_to_tensor(context)
        if len(context.shape) == 1:
            self._check_context_size(context.shape)
            context = ops.broadcast_to(context, (ops.shape(x)[0], context.shape[0]))
        return self((x, context))

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """As `keras.Model.save`; a `.keras` file is replaced only by a whole one."""
        path = str(filepath)
        if path.endswith((".h5", ".hdf5")):
            raise ValueError(
                "The format of `.h5` files is too old for a density, which could not "
                f"be loaded. Received: filepath={path!r}. Save it to a `.keras` file, "
                "or its weights with `save_weights` to a `.weights.h5` file."
            )
        if not path.endswith(".keras") or "://" in path or not overwrite:
            super().save(filepath, overwrite, zipped, **kwargs)
            return
        write = super().save
        _write_whole(path, lambda name: write(name, True, zipped, **kwargs))

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """As `keras.Model.save_weights`; a file is replaced only by a whole one."""
        path = str(filepath)
        write = super().save_weights
        if "://" in path or not overwrite or max_shard_size is not None:
            write(filepath, overwrite, max_shard_size)
            return
        _write_whole(path, write)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """As `keras.Model.export`: log p of rows, for another runtime.

        What is written with `format="onnx"` or `"litert"` is run by ONNX Runtime or
        LiteRT (`pip install keras_made[export]`) and compared with the model first.
        Their converters need a fixed number of rows for some models: pass it as
        `input_signature=[keras.InputSpec(shape=(n, *event_shape), dtype="float32")]`.

        Raises:
            RuntimeError: when the converter cannot write the model, or what it wrote
                cannot be run or gives other numbers. Nothing is written then.
        """
        self._require_built()
        x, context = self.typical_event()[None], np.zeros((1, self.context_size))
        # Keras exports only what has been called.
        self((x, context) if self.context_size else x)
        write = functools.partial(super().export, format=format, **kwargs)
        if format not in ("onnx", "litert"):
            write(filepath)
            return
        from keras_made.export.saved_model import write_and_compare

        write_and_compare(self, write, filepath, format)

    def build_from_config(self, config):
        # A file keeps lists where the model is built with a tuple of shapes, and Keras
        # exports what it is told here.
        if config:
            x_shape, context_shape = split_shapes(config["input_shape"])
            self.build((x_shape, context_shape) if context_shape else x_shape)

    # Keras does not save the state of dropout's seeds, without which a run that is
    # taken up again would draw other units to drop.

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for index, state in enumerate(self._seed_states()):
            store[f"seed_{index}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        names = list(store.keys())
        own = {name: store[name] for name in names}
        for index, state in enumerate(self._seed_states()):
            # Files of other versions of the package may have none.
            if f"seed_{index}" in own:
                state.assign(own.pop(f"seed_{index}")[()])
        super().load_own_variables(own)

    def _seed_states(self):
        return [v for v in self.variables if v.name == "seed_generator_state"]

    def floats_per_row(self) -> int:
        """About how many floats are held to score or draw one row."""
        return 16 * math.prod(self.event_shape)

    def _function(self, name, function):
        """The compiled form of `function`, made at first use and kept.

        What was compiled reads the variables of its time: other ones, of quantized
        layers or of layers with adapters (LoRA), drop it.
        """
        variables, old = self.variables, self._compiled_for.variables
        if old is not None and list(map(id, old)) != list(map(id, variables)):
            self._functions.clear()
        self._compiled_for.variables = variables
        if name not in self._functions:
            self._functions[name] = compiled(self, function)
        return self._functions[name]

    # Checks ---------------------------------------------------------------------------

    def _check_data(self, x, y=None, sample_weight=None):
        """What Keras's loop is given: `(x, y, sample_weight)`."""
        if y is not None:
            raise ValueError(
                "A density has no target. Received: y. For a conditional density pass "
                "one tuple, (x, context); a `tf.data` dataset yields ((x, context),)."
            )
        if is_stream(x):
            return self._look_at(x), y, sample_weight
        x, context = split_inputs(x)
        if context is not None:
            context = _per_row(to_array("context", context))
        x, context = self.check_inputs(x, context)
        if sample_weight is not None:
            sample_weight = check_weights(sample_weight, len(x))
            # Keras drops the weights when there is no target: one without columns.
            y = np.zeros((len(x), 0), "float32")
        return x if context is None else (x, context), y, sample_weight

    def _look_at(self, stream):
        """The stream, whose first batch was looked at, once after each `compile`.

        A model that is not built learns its sizes here, before Keras asks how many
        weights it has, and a target is refused before Keras builds with half the data.
        """
        if self.built and self._stream_seen:
            return stream
        # In a `tf.distribute` strategy Keras builds, where variables belong to it.
        if getattr(self, "_distribute_strategy", None) is not None:
            return stream
        batch, stream = first_batch(stream)
        if batch is None:
            return stream
        refuse_target(batch)
        self._stream_seen = True
        if not self.built:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            x, context = split_inputs(tuple(x) if isinstance(x, list) else x)
            shapes = tuple(tuple(a.shape) for a in (x, context) if a is not None)
            self.build(shapes if len(shapes) == 2 else shapes[0])
        return stream

    def _check_validation(self, data):
        if isinstance(data, tuple) and len(data) == 3:
            x, y, sample_weight = data
        else:
            x, y, sample_weight = data, None, None
        x, y, sample_weight = self._check_data(x, y, sample_weight)
        return (x,) if sample_weight is None else (x, y, sample_weight)

    def check_inputs(self, x, context=None, missing=False):
        """Rows and context as arrays of the right shape, or a ValueError.

        Args:
            x: array-like `(n, *event_shape)`, a table or a tensor.
            context: array-like `(n, C)` or `(C,)`, or None.
            missing: whether NaN is allowed in `x`; a typical value takes its place.

        Returns:
            `(x, context)`, NumPy; context `(n, C)` or None. Builds the model.
        """
        x = to_array("x", x)
        self._check_shape(x)
        check_finite("x", x, missing)
        if context is not None:
            context = self.check_context(context, len(x))
        if not self.built:
            self.build(x.shape if context is None else (x.shape, context.shape))
        if context is None and self.context_size:
            raise ValueError(
                f"The model has a context of size {self.context_size}. Pass it: "
                "fit((x, context)), log_prob(x, context)."
            )
        if missing:
            x = np.where(np.isnan(x), self.typical_event(), x)
        check_pieces(self.check_support, x)
        return x, context

    def _check_shape(self, x):
        event_shape = self.event_shape
        if event_shape is None and x.ndim == 2 and x.size:
            return
        if event_shape is None or x.ndim != 1 + len(event_shape) or not x.size:
            expected = "D," if event_shape is None else str(event_shape)[1:-1]
            raise ValueError(
                f"`x` must have shape (n, {expected.rstrip(',')}), with n at least 1. "
                f"Received: shape {x.shape}."
            )
        if x.shape[1:] != tuple(event_shape):
            raise ValueError(
                f"`x` must hold events of shape {tuple(event_shape)}, as the model was "
                f"made for. Received: shape {x.shape}."
            )

    def check_context(self, context, num_rows):
        """Context as an array `(num_rows, C)`, or a ValueError."""
        context = to_array("context", context)
        if self.built or context.ndim == 1:
            self._check_context_size(context.shape)
        if context.ndim == 1:
            context = np.tile(context, (num_rows, 1))
        if context.ndim != 2 or len(context) != num_rows:
            raise ValueError(
                f"`context` must have shape ({num_rows}, C), one row for each row, or "
                f"(C,). Received: shape {context.shape}."
            )
        check_finite("context", context)
        return context

    def _check_context_size(self, shape):
        if shape[-1:] == (self.context_size,):
            return
        if self.built or self.context_size:
            declared = f"of size {self.context_size}" if self.context_size else "none"
            raise ValueError(
                f"The context that the model was built with is {declared}. Received: "
                f"context of shape {tuple(shape)}."
            )
        raise ValueError(
            "The model does not know the size of its context yet, and takes one for "
            f"each row, (n, C). Received: context of shape {tuple(shape)}."
        )

    def _require_built(self):
        if self.event_shape is None:
            raise ValueError(
                f"{type(self).__name__} does not know its number of variables yet. "
                "`fit` it, or call `build((None, D))`, first."
            )
        if not self.built:
            self.build((None, *self.event_shape))


def _write_whole(path, write):
    """Let `write` make a file beside `path`, and then take its place."""
    # A link stays, and what it points to is written anew.
    path = os.path.realpath(path)
    # In the same folder, and so on the same disk: there a move is atomic.
    with tempfile.TemporaryDirectory(
        prefix=".save-", dir=os.path.dirname(path)
    ) as folder:
        written = os.path.join(folder, os.path.basename(path))
        write(written)
        os.replace(written, path)


def split_inputs(inputs):
    """`(x, context)` of what a model was called with; context None when absent."""
    if not isinstance(inputs, tuple):
        return inputs, None
    if len(inputs) == 1:
        return inputs[0], None
    if len(inputs) != 2:
        raise ValueError(
            "A model is called with rows `x` or with one tuple `(x, context)`. "
            f"Received: a tuple of {len(inputs)}."
        )
    return inputs


def split_shapes(input_shape):
    """Likewise for the shapes that `build` receives."""
    if input_shape and isinstance(input_shape[0], list | tuple):
        x_shape, context_shape = input_shape
        return tuple(x_shape), tuple(context_shape)
    return tuple(input_shape), None


def _one_batch(x):
    """The rows themselves, and no stream of them."""
    if not is_stream(x):
        return x
    raise ValueError(
        "Rows must be an array, a table or a tensor here. Received: "
        f"{type(x).__name__}. Streams of batches are for `fit`, `evaluate` and "
        "`predict`."
    )


def _per_row(context):
    """The context itself, when it has a row for each row of the data."""
    if context.ndim != 1:
        return context
    raise ValueError(
        "`context` must have shape (n, C), one row for each row of `x`. Received: "
        f"shape {context.shape}. Labels are a column of numbers, `labels[:, None]`, or "
        "classes, `keras.utils.to_categorical(labels)`."
    )


def seed_generator(seed):
    """A `SeedGenerator` of `seed`: an integer, None, or a generator itself."""
    if seed is None or isinstance(seed, keras.random.SeedGenerator):
        return seed or keras.random.SeedGenerator()
    try:
        number = operator.index(seed)
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool):
        raise ValueError(f"`seed` must be an int or None. Received: seed={seed!r}.")
    return keras.random.SeedGenerator(number)
