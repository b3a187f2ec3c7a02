"""Flows and their steps as bijectors of TensorFlow Probability.

The mathematics is in `keras_made.flows`; what is here lets TFP see it: the weights of
the Keras network are found by whatever holds the bijector, a value and its
log-determinant come from one call of the network, and context is a keyword that is
broadcast with the batch.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from keras_made.tfp.modules import check_event, module_variables

tfb = tfp.bijectors


class FlowBijector(tfb.Bijector):
    """A flow, or one of its steps, as a bijector from noise to data.

    As with every TFP bijector, a result that is still held is looked up, not computed
    again: `bijector.inverse(bijector.forward(u)) is u`.

    Args:
        source: a `Flow` or `FlowStep`: `to_data(u, context)` and `to_noise(x, context)`
            each return a value and its log-determinant.
        context: `(..., C)`, for calls that pass no `context` of their own.
        dtype: of the values; None for any.
        name: of the bijector; `tfb.Chain` routes `context` by it.

    Call arguments:
        x: `(..., *event_shape)`.
        context: keyword; its leading axes are broadcast with those of x.
    """

    def __init__(self, source, *, context=None, dtype=None, name: str = "flow"):
        self._remake_with(source=source, context=context, dtype=dtype, name=name)
        self._source = self._no_dependency(source)
        self._context = context
        self._weights = module_variables(source)
        rank = len(source.event_shape or (0,))
        super().__init__(forward_min_event_ndims=rank, dtype=dtype, name=name)

    def _remake_with(self, **arguments):
        """Keep the constructor's arguments, of which `copy` and `pickle` make another.

        It stands over the same network, or over its copy, and shows the variables of
        the one that it calls.
        """
        self._arguments = self._no_dependency(arguments)

    def copy(self, **overrides):
        return type(self)(**{**self._arguments, **overrides})

    def __reduce__(self):
        return _made_of, (type(self), dict(self._arguments))

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    # TFP's cache keeps a log-determinant for as long as the input lives. Here it is
    # renewed with the value: weights that were trained since are not missed.

    def forward_log_det_jacobian(
        self, x, event_ndims=None, name="forward_log_det_jacobian", **kwargs
    ):
        x = tf.convert_to_tensor(x, dtype_hint=self.dtype)
        y = self.forward(x, **kwargs)  # Held: the pair lives until the return.
        result = super().forward_log_det_jacobian(x, event_ndims, name, **kwargs)
        del y
        return result

    def inverse_log_det_jacobian(
        self, y, event_ndims=None, name="inverse_log_det_jacobian", **kwargs
    ):
        y = tf.convert_to_tensor(y, dtype_hint=self.dtype)
        x = self.inverse(y, **kwargs)
        result = super().inverse_log_det_jacobian(y, event_ndims, name, **kwargs)
        del x
        return result

    def _forward(self, x, **kwargs):
        attributes = self._cache.forward_attributes(x, **kwargs)
        attributes.clear()
        y, log_det = self._run(self._source.to_data, x, **kwargs)
        attributes["ildj"] = -log_det
        return y

    def _inverse(self, y, **kwargs):
        attributes = self._cache.inverse_attributes(y, **kwargs)
        attributes.clear()
        x, attributes["ildj"] = self._run(self._source.to_noise, y, **kwargs)
        return x

    def _forward_log_det_jacobian(self, x, **kwargs):
        return self._run(self._source.to_data, x, **kwargs)[1]

    def _inverse_log_det_jacobian(self, y, **kwargs):
        return self._run(self._source.to_noise, y, **kwargs)[1]

    def _run(self, direction, value, context=None):
        shape = self._source.event_shape
        if shape is not None:
            value = check_event(f"The bijector {self.name!r}", value, shape)
        result = direction(value, self._context if context is None else context)
        # A network that was built by this call has weights only now.
        if not self._weights:
            self._weights = module_variables(self._source)
        return result


def _made_of(kind, arguments):
    return kind(**arguments)
