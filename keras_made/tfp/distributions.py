"""An autoregressive density as a TensorFlow Probability distribution."""

import tensorflow as tf
import tensorflow_probability as tfp

from keras_made.tfp.modules import check_event, module_variables

tfd = tfp.distributions


class AutoregressiveDistribution(tfd.Distribution):
    """A view of an `AutoregressiveDensity`, made on demand.

    Args:
        model: the density; it owns the weights and stays the one place to train them.
        draw_rows: function of `(model, size, seed, context)` that draws in a graph.
        context: None, or a tensor `batch_shape + (C,)`.
    """

    def __init__(
        self, model, draw_rows, context=None, name="AutoregressiveDistribution"
    ):
        parameters = dict(locals())
        if context is not None:
            context = tf.convert_to_tensor(context, model.density_dtype)
        if (context is not None) != (model.context_size > 0) or (
            context is not None and context.shape[-1] != model.context_size
        ):
            raise ValueError(
                f"The model has a context of size {model.context_size}. Received: "
                f"context of shape {getattr(context, 'shape', None)}."
            )
        self._model = model
        self._draw_rows = draw_rows
        self._context = context
        # TFP finds variables in its own attributes, and Keras 3 layers are not among
        # the objects that it looks into.
        self._weights = module_variables(model)
        super().__init__(
            dtype=tf.as_dtype(model.density_dtype),
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def __reduce__(self):
        # Made anew over the model or its copy, whose weights the copy then shows.
        arguments = self._model, self._draw_rows, self._context, self.name
        return AutoregressiveDistribution, arguments

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _batch_shape(self):
        return tf.TensorShape([]) if self._context is None else self._context.shape[:-1]

    def _batch_shape_tensor(self):
        return tf.constant(self._batch_shape().as_list(), tf.int32)

    def _event_shape(self):
        return tf.TensorShape(self._model.event_shape)

    def _event_shape_tensor(self):
        return tf.constant(self._model.event_shape, tf.int32)

    def _log_prob(self, x):
        event_shape = self._model.event_shape
        x = check_event(f"The distribution {self.name!r}", x, event_shape)
        shape = tf.shape(x)[: tf.rank(x) - len(event_shape)]
        shape = tf.broadcast_dynamic_shape(shape, self._batch_shape_tensor())
        x = tf.broadcast_to(x, tf.concat([shape, event_shape], axis=0))
        rows = tf.reshape(x, (-1, *event_shape))
        log_prob = self._model((rows, self._flat_context(shape)))
        return tf.reshape(log_prob, shape)

    def _sample_n(self, n, seed=None):
        model = self._model
        shape = tf.concat([[n], self._batch_shape_tensor()], axis=0)
        context = self._flat_context(shape)
        draws = self._draw_rows(model, tf.reduce_prod(shape), seed, context)
        draws = tf.cast(draws[:, :-1], self.dtype)
        return tf.reshape(draws, tf.concat([shape, model.event_shape], axis=0))

    def _flat_context(self, shape):
        if self._context is None:
            return None
        size = self._model.context_size
        context = tf.broadcast_to(self._context, tf.concat([shape, [size]], axis=0))
        return tf.reshape(context, (-1, size))


def flow_distribution(flow, base, context=None) -> tfd.TransformedDistribution:
    """A flow over its base, read as they are at each call."""
    dtype = flow.density_dtype
    noise = base.distribution(dtype, context)
    if context is not None and len(context.shape) > 1 and not noise.batch_shape.rank:
        noise = tfd.BatchBroadcast(noise, with_shape=tf.shape(context)[:-1])
    return tfd.TransformedDistribution(noise, flow.bijector(context))
