"""Conditionals that are another one, and change what is heard of it."""

import keras

from keras_made.entries.conditional import Conditional


class Wrapper(Conditional):
    """Base: probabilities, draws and checks are those of `conditional`."""

    def __init__(self, conditional):
        self.conditional = conditional
        self.num_params = conditional.num_params
        self.num_uniforms = conditional.num_uniforms

    @property
    def continuous(self):
        return self.conditional.continuous

    def log_prob(self, params, x):
        return self.conditional.log_prob(params, x)

    def draw(self, params, uniforms):
        return self.conditional.draw(params, uniforms)

    def interval_log_prob(self, params, low, high):
        return self.conditional.interval_log_prob(params, low, high)

    def draw_within(self, params, uniforms, low, high):
        return self.conditional.draw_within(params, uniforms, low, high)

    def marginal_params(self, values):
        return self.conditional.marginal_params(values)

    def mean(self, params):
        return self.conditional.mean(params)

    def distribution(self, params):
        return self.conditional.distribution(params)

    def check_shape(self, event_shape):
        self.conditional.check_shape(event_shape)

    def check(self, x):
        self.conditional.check(x)

    def get_config(self):
        return {"conditional": keras.saving.serialize_keras_object(self.conditional)}

    def __repr__(self):
        return f"{type(self).__name__}({self.conditional!r})"
