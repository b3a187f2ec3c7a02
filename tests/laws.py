"""The laws that every autoregressive network keeps, and the tools to test them."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_made.autoregressive import Autoregressive


def to_numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def set_random_weights(layer, seed=0, scale=1.0):
    """Weights that no initializer would give; positions and units of data stay."""
    rng = np.random.RandomState(seed)
    for weight in layer.trainable_weights:
        weight.assign(scale * rng.normal(size=weight.shape))


def dependence(network, context_size=0, structure=0, num_points=48, make_x=None):
    """Which entry's parameters change with which entry: bools (outputs, inputs).

    An entry is changed by a finite amount at many points. A forbidden dependence is
    bit for bit no change; an allowed one shows at some point.
    """
    rng = np.random.RandomState(1)
    size = network.event_size
    if make_x is None:
        x = rng.normal(size=(num_points, size))
        other = x + rng.choice([-2.0, 2.0], size=x.shape)
    else:
        x, other = make_x(rng, num_points), make_x(rng, num_points)
    context = None
    if context_size:
        context = rng.normal(size=(num_points, context_size)).astype("float32")

    def params(entries):
        entries = entries.reshape(num_points, *network.event_shape).astype("float32")
        out = to_numpy(network(entries, context, structure=structure))
        return out.reshape(num_points, size, -1)

    base, result = params(x), np.zeros((size, size), dtype=bool)
    for j in range(size):
        changed = x.copy()
        changed[:, j] = other[:, j]
        result[:, j] = np.any(params(changed) != base, axis=(0, 2))
    return result


def past(network, structure=0):
    """What the contract allows: entry i hears j when j has the smaller rank."""
    ranks = network.ranks(structure).ravel()
    return ranks[:, None] > ranks[None, :]


def run_steps(network, x, context=None, structure=0, order=None, slow=False):
    """Parameters of every entry, computed one step at a time: (n, size, params)."""
    kind = Autoregressive if slow else type(network)
    length = network.num_ranks if slow else network.block_length
    layout = network.step_layout()
    orders = layout.entries[structure][None] if order is None else order
    x, width = x.reshape(len(x), -1), network.step_size
    state = kind.start(network, len(x), context, structure, None if slow else order)
    last = np.zeros((len(x), width), "float32")
    out = np.zeros((len(x), network.event_size, network.params_per_entry))
    for t in range(network.num_ranks):
        known, step = ops.convert_to_tensor(last), ops.convert_to_tensor(t, "int32")
        if t % length == 0:
            state = kind.open(network, state, known, step)
        params, state = kind.step(network, state, known, step)
        now = orders[:, t * width : (t + 1) * width]
        now = np.broadcast_to(now, (len(x), width))
        # A step that is short repeats an entry, whose parameters are the same.
        np.put_along_axis(out, now[..., None], to_numpy(params), axis=1)
        last = np.take_along_axis(x, now, axis=1)
    return out


def others_slow(names, *kept):
    """Parameters of a test that takes long: those that are not kept are slow."""
    return [n if n in kept else pytest.param(n, marks=pytest.mark.slow) for n in names]


def all_states(size, num_values=2):
    """Every event of `size` entries with values 0..num_values-1."""
    values = itertools.product(range(num_values), repeat=size)
    return np.array(list(values), dtype="float32")


def state_index(x):
    """The row of each binary event in `all_states`."""
    size = x.shape[1]
    return (x @ (2 ** np.arange(size)[::-1])).astype(int)


def chi_square_p(counts, probabilities, least=5.0):
    """P-value of counts under probabilities; rare states are pooled."""
    from scipy import stats

    expected = counts.sum() * probabilities
    order = np.argsort(expected)
    # The rare ones, and as many more as the pool needs to be expected often enough.
    pooled = np.searchsorted(np.cumsum(expected[order]), least) + 1
    pooled = max(pooled, np.sum(expected < least))
    pool, rest = order[:pooled], order[pooled:]
    if not len(rest):
        return 1.0
    observed = np.append(counts[rest], counts[pool].sum())
    expected = np.append(expected[rest], expected[pool].sum())
    statistic = np.sum((observed - expected) ** 2 / expected)
    return stats.chi2.sf(statistic, len(rest))


def reload(model, path):
    """The model as it comes back from a file."""
    model.save(path)
    return keras.saving.load_model(path)
