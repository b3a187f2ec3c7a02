"""Steps of a flow that are alike, run in a loop, so that all compile as one.

The steps of a flow are one computation, each with weights and an order of the entries
of its own. Both are data of a loop: the weights of all steps are stacked, anew in every
call, and step k runs as the first one would with slice k of each stack,

    x' = x[places_k],   u' = template(x'; weights_k),   u = u'[places_k^-1]

where `places_k` puts the entries that step k hears n-th where the first step hears its
n-th. XLA compiles what a loop runs once.

A loop is for functions that are compiled and not differentiated: weights stay where
Keras owns them, and gradients are those of the steps themselves.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_made.generation import FIRST

# Steps may alternate, as those of "lu" do: mixing, network, mixing, network.
LONGEST_PERIOD = 2


class Looped:
    """Groups of alike steps, as one step.

    Args:
        groups: lists of steps; the n-th steps of all groups have one `form()`.
    """

    def __init__(self, groups):
        self.groups = groups
        self.template = groups[0]
        orders = np.stack([group[0].entry_order() for group in groups])
        # Where the template hears each entry.
        ranks = np.argsort(orders[0])
        self.places = orders[:, ranks].astype("int32")
        self.is_in_place = np.all(self.places == np.arange(orders.shape[1]))

    def to_noise(self, x, context=None, training=False):
        """As `FlowStep.to_noise`, through all groups."""
        return self._run("to_noise", x, context, range(len(self.groups)))

    def to_data(self, u, context=None, training=False):
        """As `FlowStep.to_data`, through all groups, from the last."""
        return self._run("to_data", u, context, range(len(self.groups))[::-1])

    def _run(self, direction, value, context, turns):
        variables = [v for step in self.template for v in step.variables]
        stack = _Stack([_values(group) for group in self.groups])
        places = self.places, np.argsort(self.places, axis=1).astype("int32")
        places = [ops.convert_to_tensor(p) for p in places]
        steps = self.template if turns.step > 0 else self.template[::-1]

        def run(turn, value, total):
            k = turns.start + turns.step * turn
            there, back = (ops.take(p, k, axis=0) for p in places)
            value = ops.take(value, there, axis=-1)
            weights = stack.at(k)
            if not self.is_in_place:
                with _scope(variables, weights):
                    weights = [w for s in self.template for w in s.weights_at(there)]
            with _scope(variables, weights):
                for step in steps:
                    value, log_det = getattr(step, direction)(value, context)
                    total = total + log_det
            return turn + 1, ops.take(value, back, axis=-1), total

        start = ops.convert_to_tensor(0, "int32"), value, ops.zeros_like(value[..., 0])
        return ops.while_loop(lambda turn, *_: turn < len(turns), run, start)[1:]


def _values(group):
    variables = [v for step in group for v in step.variables]
    return [ops.convert_to_tensor(v.value) for v in variables]


def _scope(variables, values):
    """A scope in which variables have other values."""
    pairs = list(zip(variables, values, strict=True))
    return keras.StatelessScope(state_mapping=pairs)


def looped(steps):
    """The steps, with runs of alike ones as a `Looped` each."""
    forms, result, index = [step.form() for step in steps], [], 0
    while index < len(steps):
        period, repeats = max(
            ((p, _count(steps, forms, index, p)) for p in range(1, LONGEST_PERIOD + 1)),
            key=lambda found: found[0] * (found[1] - 1),
        )
        groups = [
            steps[start : start + period]
            for start in range(index, index + period * repeats, period)
        ]
        result.append(Looped(groups) if repeats > 1 else steps[index])
        index += period * repeats if repeats > 1 else 1
    return result


def _count(steps, forms, index, period):
    """How often the next `period` steps come, one group after the other."""
    first, count = forms[index : index + period], 1
    orders = [_orders(steps[index : index + period])]
    if None in first or len(first) < period:
        return 1
    while forms[index + count * period : index + (count + 1) * period] == first:
        group = steps[index + count * period : index + (count + 1) * period]
        # A group of several steps is not put in another order.
        if period > 1 and _orders(group) != orders[0]:
            break
        count += 1
    return count


def _orders(steps):
    return [step.entry_order().tolist() for step in steps if step.form()]


class _Stack:
    """Lists of weights of equal shapes, each list as one vector; a matrix of these.

    To stack weight by weight is compiled weight by weight, which takes longer than all
    that the loop saves.

    Args:
        lists: lists of tensors; the n-th of all lists are of one shape and dtype.
    """

    def __init__(self, lists):
        self.first = lists[0]
        self.kinds = sorted({_dtype(weight) for weight in self.first})
        every = [weight for weights in lists for weight in weights]
        self.rows = {
            kind: ops.reshape(_joined(kind, every), (len(lists), -1))
            for kind in self.kinds
        }

    def at(self, k):
        """List k, of which no number is moved before it is used."""
        rows = {kind: _row(matrix, k) for kind, matrix in self.rows.items()}
        begin, weights = dict.fromkeys(self.kinds, 0), []
        for weight in self.first:
            kind, shape = _dtype(weight), tuple(weight.shape)
            start = begin[kind]
            begin[kind] = start + math.prod(shape)
            part = rows[kind][start : begin[kind]]
            weights.append(ops.reshape(part, shape))
        return weights


def _joined(kind, weights):
    parts = [ops.reshape(w, (-1,)) for w in weights if _dtype(w) == kind]
    return ops.concatenate(parts)


def _row(matrix, k):
    return ops.slice(matrix, (k, FIRST), (1, matrix.shape[1]))[0]


def _dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)
