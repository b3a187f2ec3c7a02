"""The one loop in which events are generated, rank by rank, and its noise."""

import operator
import random
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

# Uniforms are kept this far from 0 and 1, where quantile functions are infinite.
UNIFORM_MARGIN = 2.0**-24
UNIFORM_MARGIN_FLOAT64 = 2.0**-53
# Where a slice starts along a whole axis: JAX wants all starts of one type, and under
# JAX_ENABLE_X64 a plain 0 is not of that of a tensor of ranks.
FIRST = np.int32(0)


class Steps(NamedTuple):
    """Where entries stand in a row of steps, all of them as long as the longest.

    `entries` `(K, num_ranks * step_size)` tells which entry a place is for: a step that
    has fewer repeats one of its own, and what is drawn there is dropped. `places`
    `(K, event_size)` tells at which place an entry is drawn that counts.
    """

    entries: np.ndarray
    places: np.ndarray

    def counts(self) -> np.ndarray:
        """Bools of the shape of `entries`: where it is no repetition."""
        own = np.take_along_axis(self.places, self.entries, axis=1)
        return own == np.arange(self.entries.shape[1])


def make_steps(ranks: np.ndarray) -> Steps:
    """The steps in which entries are generated.

    Args:
        ranks: when each is, ints `(K, event_size)`.
    """
    order = np.argsort(ranks, axis=1, kind="stable")
    counts = np.stack([np.bincount(row, minlength=ranks.max() + 1) for row in ranks])
    width, firsts = counts.max(), np.cumsum(counts, axis=1) - counts
    places = np.argsort(order, axis=1) - np.take_along_axis(firsts, ranks, axis=1)
    places = places + ranks * width
    inside = np.minimum(np.arange(width), counts[..., None] - 1)
    turns = np.reshape(firsts[..., None] + inside, (len(ranks), -1))
    entries = np.take_along_axis(order, np.maximum(turns, 0), axis=1)
    return Steps(entries.astype("int32"), places.astype("int32"))


def generate(
    network,
    draw,
    batch,
    context=None,
    structure=0,
    order=None,
    dtype="float32",
    heard=None,
):
    """The one generation loop: sampling, imputation and inversion are its uses.

    Args:
        network: an `Autoregressive` layer that is built.
        draw: function of `(params, t)`, with params `(batch, step_size, num_params)`,
            that returns the entries of step t, `(batch, step_size)`, and what to add to
            each example's total, `(batch,)`.
        batch: number of examples.
        context: `(batch, C)` or None.
        structure: which of the K to use, an integer scalar.
        order: ints `(batch, event_size)`, or None for that of `structure`.
        dtype: of the parameters that `draw` is given and of what it returns.
        heard: what a network that `hears_sets` hears before the first step: entries
            and bools, each `(batch, event_size)`. Not with an `order` for each example.

    Returns:
        `(values, total)`: floats `(num_ranks, batch, step_size)` in order of
        generation, as `make_steps` lays them out, and floats `(batch,)`.
    """
    num_ranks, width = network.num_ranks, network.step_size

    def step(t, x_last, values, total, state):
        params, state = network.step(state, x_last, t)
        x_last, increment = draw(ops.cast(params, dtype), t)
        values = ops.slice_update(values, (t, FIRST, FIRST), x_last[None])
        return t + 1, x_last, values, total + increment, state

    def run_block(t, x_last, values, total, state):
        state = network.open(state, x_last, t)
        end = ops.minimum(t + network.block_length, num_ranks)
        loop = (t, x_last, values, total, state)
        return ops.while_loop(lambda t, *_: t < end, step, loop)

    heard = {} if heard is None else {"heard": heard}
    loop = (
        ops.convert_to_tensor(0, "int32"),
        ops.zeros((batch, width), dtype),
        ops.zeros((num_ranks, batch, width), dtype),
        ops.zeros((batch,), dtype),
        network.start(batch, context, structure, order, **heard),
    )
    loop = ops.while_loop(lambda t, *_: t < num_ranks, run_block, loop)
    return loop[2], loop[3]


def draw_uniforms(shape, seed=None, dtype="float32"):
    """Uniform noise strictly between 0 and 1, float32 or float64.

    Args:
        shape: of the noise.
        seed: a `numpy.random.Generator`, for an array; else what `keras.random` takes,
            for a tensor.
        dtype: of the noise.
    """
    if isinstance(seed, np.random.Generator):
        # Never one: the grid of these is that of the margin.
        return np.maximum(seed.random(shape, dtype), uniform_margin(dtype), dtype=dtype)
    uniforms = keras.random.uniform(shape, seed=seed, dtype=dtype)
    # JAX gives float32 for float64 unless told otherwise: what came is asked.
    margin = uniform_margin(keras.backend.standardize_dtype(uniforms.dtype))
    return clip(uniforms, margin, 1.0 - margin)


def clip(x, low, high):
    """As `ops.clip`, with bounds in the precision of x."""
    # Bounds given as numbers are first rounded to Keras's own float type.
    low, high = (ops.convert_to_tensor(bound, x.dtype) for bound in (low, high))
    return ops.clip(x, low, high)


def uniform_margin(dtype) -> float:
    """How far uniforms of a dtype are kept from 0 and 1: half their grid there."""
    return UNIFORM_MARGIN_FLOAT64 if dtype == "float64" else UNIFORM_MARGIN


def noise_generator(seed) -> np.random.Generator:
    """Noise on the host, the same on every back end, and there at once.

    A `SeedGenerator` of Keras is a variable: to make one and ask it takes longer than a
    hundred small events.

    Args:
        seed: an integer, None, a `keras.random.SeedGenerator`, which takes a step, or a
            generator of NumPy.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, keras.random.SeedGenerator):
        return np.random.default_rng(ops.convert_to_numpy(seed.next()).astype("uint32"))
    if seed is None:
        # What `keras.utils.set_random_seed` sets.
        return np.random.default_rng(random.getrandbits(63))
    return np.random.default_rng(check_seed_number(seed) % 2**64)


def check_seed_number(seed) -> int:
    """`seed` as an int, or a ValueError."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool):
        raise ValueError(f"`seed` must be an int or None. Received: seed={seed!r}.")
    return number
