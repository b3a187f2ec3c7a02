"""Options of the networks crossed: what holds of each holds of them together."""

import numpy as np
import pytest
from keras import ops
from laws import set_random_weights, to_numpy

from keras_made import MADE, Categorical

pytestmark = pytest.mark.neutral


def run_blocks(network, x, context=None, row=0, order=None):
    """As `laws.run_steps`, block by block as the generation loop does it: (n, D, p)."""
    state = network.start(len(x), context, row, order)
    order = network.orders()[row][None] if order is None else order
    order, flat = (
        np.broadcast_to(order, (len(x), network.event_size)),
        x.reshape(len(x), -1),
    )
    last, width = np.zeros((len(x), network.step_size), "float32"), network.step_size
    out = np.zeros((*flat.shape, network.params_per_entry))
    for t in range(network.num_steps):
        now, entry = order[:, t * width : (t + 1) * width], ops.convert_to_tensor(last)
        step = ops.convert_to_tensor(t, "int32")
        if t % network.block_length == 0:
            state = network.open(state, entry, step)
        params, state = network.advance(state, entry, step)
        np.put_along_axis(out, now[..., None], to_numpy(params), axis=1)
        last = np.take_along_axis(flat, now, axis=1)
    return out


# An order for each example ------------------------------------------------------------

SIZE = 5
OPTIONS = {
    "plain": {},
    "residual": {"residual": True},
    "not direct": {"direct": False, "hidden_degrees": "random"},
    "visible": {"hidden_units": []},
    "reversed": {"ordering": "reversed", "num_masks": 1},
}


def all_at_once(network, x, context, row, order):
    """The network's own whole pass, its entries' ranks being those of each order."""
    out = []
    for i, own in enumerate(np.broadcast_to(order, x.shape)):
        ranks = np.argsort(own).astype("int32")
        size = network.event_size
        for layer in network.masked_layers:
            # The ranks stand in the degrees of inputs and outputs, and nowhere else.
            if layer in (*network.hidden_layers[:1], network.direct_layer):
                heard = np.repeat(ranks, network.num_features)
                layer.source_degrees[row, : size * network.num_features] = heard
            if layer in (network.output_layer, network.direct_layer):
                layer.degrees[row] = np.repeat(ranks, network.params_per_entry)
        context_i = None if context is None else context[i : i + 1]
        whole = to_numpy(network(x[i : i + 1], context_i, row=row))
        out.append(whole.reshape(size, -1))
    return np.stack(out)


@pytest.mark.parametrize("companion", [False, True], ids=["", "companion"])
@pytest.mark.parametrize("options", OPTIONS)
def test_steps_in_any_order_are_the_whole_pass(options, companion):
    """Shared or an order for each example, with classes and context or without."""
    for encoder, context_size in [(Categorical(3), 2), (None, 0)][: 1 + companion]:
        arguments = {"hidden_units": [6, 6], "ordering": "random", "num_masks": 2}
        arguments |= OPTIONS[options]
        network = MADE(num_params=2, companion=companion, encoder=encoder, **arguments)
        context_shape = (None, context_size) if context_size else None
        network.build((None, SIZE), context_shape)
        set_random_weights(network, scale=0.6)
        rng = np.random.RandomState(1)
        x = rng.randint(3, size=(3, SIZE)).astype("float32")
        context = rng.normal(size=(3, context_size)).astype("float32")
        context = context if context_size else None
        row = network.num_masks - 1
        orders = np.stack([rng.permutation(SIZE) for _ in x]).astype("int32")
        for order in (orders[:1], orders):
            steps = run_blocks(network, x, context, row, order)
            expected = all_at_once(network, x, context, row, order)
            np.testing.assert_allclose(steps, expected, rtol=1e-4, atol=1e-4)
