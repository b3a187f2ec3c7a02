"""The structure of MADE: who may hear whom, as integers compared.

Every unit of an autoregressive network carries a *degree*, the rank of the last
variable that it has heard of. An input has the rank at which its variable is
generated, 0 to D-1; context, known before everything else, has degree -1; a hidden
unit has a degree from 0 to D-2 (from -1 with context); an output has the rank of its
variable. A unit hears a unit of the layer before when its own degree is not smaller,
and an output hears a hidden unit or an input only when its own degree is *greater*.

Every path from an input to an output crosses exactly one such strict comparison, and
degrees never fall along a path: so output i depends on input j only when variable j
is generated before variable i. That is the whole proof of the autoregressive property.

Variables may share a rank: they do not hear each other, and are generated together. A
graph of variables, of which an ordering is a special case, replaces the comparison of
degrees by one of sets (see `keras_made.graph_masks`).

Everything here is NumPy and runs before any tensor exists. Random structure comes from
`numpy.random.RandomState`, whose stream is frozen: a saved seed keeps its meaning.

Reference:
    Germain, Gregor, Murray, Larochelle 2015, "MADE: Masked Autoencoder for
    Distribution Estimation", https://arxiv.org/abs/1502.03509
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONTEXT_DEGREE = -1
ORDERING_STREAM, DEGREES_STREAM = 0, 1


def connect(
    sources: np.ndarray,
    targets: np.ndarray,
    strict: bool = False,
    hears: np.ndarray | None = None,
):
    """May a unit of degree `targets[j]` hear one of degree `sources[i]`?

    Args:
        sources: degrees of the layer that speaks, shape `(inputs,)`.
        targets: degrees of the layer that hears, shape `(units,)`.
        strict: equal degrees are kept apart (the output layer, direct connections).
        hears: bools `[s, t]`: a unit of degree t hears one of degree s. Degrees are
            then places in this table, and `strict` says nothing. None: they are
            compared.

    Returns:
        Booleans of shape `(inputs, units)`, laid out like a Keras kernel.

    Example:
        >>> import numpy as np
        >>> connect(np.array([0, 1, 2]), np.array([0, 1])).astype(int)
        array([[1, 1],
               [0, 1],
               [0, 0]])
    """
    if hears is not None:
        return hears[sources[:, None], targets[None, :]]
    compare = np.greater if strict else np.greater_equal
    return compare(targets[None, :], sources[:, None])


def count_connections(
    sources: np.ndarray,
    targets: np.ndarray,
    strict: bool = False,
    hears: np.ndarray | None = None,
):
    """How many connections `connect` leaves; no mask is made where degrees compare.

    Returns:
        Two arrays of ints: for each input how many units hear it, `(inputs,)`, and for
        each unit how many inputs it hears, `(units,)`.
    """
    if hears is not None:
        mask = connect(sources, targets, hears=hears)
        return mask.sum(axis=1), mask.sum(axis=0)
    left, right = ("right", "left") if strict else ("left", "right")
    heard_by = len(targets) - np.searchsorted(np.sort(targets), sources, left)
    return heard_by, np.searchsorted(np.sort(sources), targets, right)


class Degrees(NamedTuple):
    """The degrees of all units of a MADE, in each of K structures.

    `inputs` `(K, inputs)` and `outputs` `(K, D)` are those of the features and of the
    variables, `hidden` and `ranks` hold an array `(K, units)` for each hidden layer.
    `hears` is as in `connect`; `ranks` are those of the last variable that a unit has
    heard of, and so are `hidden` where `hears` is None.
    """

    inputs: np.ndarray
    hidden: list[np.ndarray]
    outputs: np.ndarray
    ranks: list[np.ndarray]
    hears: np.ndarray | None = None


def make_orderings(
    ordering: str | Sequence[int],
    size: int,
    num_masks: int = 1,
    seed: int = 0,
    ties: bool = False,
) -> np.ndarray:
    """The position at which each variable is generated, in each of K structures.

    Args:
        ordering: `"natural"`, `"reversed"`, `"random"`, or `size` ints that hold each
            of 0..size-1 once, or with `ties` each of 0..R-1.
        size: number of variables D.
        num_masks: number of structures K.
        seed: seed of `"random"`.
        ties: whether several variables may have one rank.

    Returns:
        Ranks, an int32 array of shape `(num_masks, size)`.

    Raises:
        ValueError: if `ordering` is none of these.
    """
    if isinstance(ordering, str):
        if ordering == "natural":
            ranks = np.arange(size)
        elif ordering == "reversed":
            ranks = np.arange(size)[::-1]
        elif ordering == "random":
            rng = np.random.RandomState([ORDERING_STREAM, seed])
            draws = [rng.permutation(size) for _ in range(num_masks)]
            return np.stack(draws).astype("int32")
        else:
            raise ValueError(
                "`ordering` must be 'natural', 'reversed', 'random' or a sequence of "
                f"ints. Received: ordering={ordering!r}."
            )
    else:
        ranks = np.asarray(ordering)
        integers = ranks.shape == (size,) and ranks.dtype.kind in "iu"
        known = np.unique(ranks) if ties else np.sort(ranks, axis=None)
        if not integers or not np.array_equal(known, np.arange(len(known))):
            expected = f"each of 0..{size - 1} once"
            if ties:
                expected += f", or {size} ranks with each of 0..R-1 at least once"
            raise ValueError(
                f"`ordering` must hold {expected}. Received: ordering={ordering}. "
                "Pass 'natural' or 'random' to have one made."
            )
    return np.tile(ranks.astype("int32"), (num_masks, 1))


def check_ordering(ordering, ties: bool = False):
    """The name or the positions as plain ints, checked before D is known."""
    if not isinstance(ordering, str):
        ordering = np.asarray(ordering).tolist()
    size = len(ordering) if isinstance(ordering, list) else 1
    make_orderings(ordering, size, ties=ties)
    return ordering


def check_seed(seed):
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(
            "`seed` must be an int from 0 to 2**32 - 1: without it, a random "
            f"structure could not be made again on load. Received: seed={seed!r}."
        )
    return seed


def make_hidden_degrees(
    kind: str,
    units: Sequence[int],
    size: int,
    context: bool = False,
    num_masks: int = 1,
    seed: int = 0,
    share_equal_widths: bool = False,
) -> list[np.ndarray]:
    """The degrees of every hidden layer, in each of K structures.

    `"even"`: sorted, and all layers draw on one set of values. When the narrowest layer
    has at least as many units as there are degrees, the set is all of them; else it is
    the set of cuts that divide the variables into groups of equal size, which keeps the
    most of the D (D - 1) / 2 dependencies. A value that only the wider layers had would
    connect nothing that the others do not.

    `"random"`: the paper's, uniform from the smallest degree of the layer before.

    With context, each layer keeps at least one unit that hears nothing but context
    (degree -1), so that the first variable hears it non-linearly too.

    Args:
        kind: `"even"` or `"random"`.
        units: width of each hidden layer.
        size: number of variables D.
        context: whether the network has context inputs.
        num_masks: number of structures K.
        seed: seed of `"random"`.
        share_equal_widths: successive layers of one width get the same degrees, so
            that residual connections can add them.

    Returns:
        One int32 array of shape `(num_masks, units[l])` per hidden layer.
    """
    lowest = min(CONTEXT_DEGREE if context else 0, size - 2)
    if kind == "even":
        values = _even_values(min(units, default=1), size, lowest)
        layers = [values[np.arange(width) * len(values) // width] for width in units]
        return [np.tile(degrees, (num_masks, 1)) for degrees in layers]
    if kind != "random":
        raise ValueError(
            f"`hidden_degrees` must be 'even' or 'random'. Received: {kind!r}."
        )
    rng = np.random.RandomState([DEGREES_STREAM, seed])
    structures = [
        _random_layers(rng, units, size, lowest, share_equal_widths)
        for _ in range(num_masks)
    ]
    return [np.stack(layer) for layer in zip(*structures, strict=True)]


def _even_values(width: int, size: int, lowest: int) -> np.ndarray:
    """The degrees that hidden units may have when the narrowest layer has `width`."""
    everything = np.arange(lowest, size - 1, dtype="int32")
    if width >= len(everything):
        return everything
    cuts = width - (lowest == CONTEXT_DEGREE)
    values = np.arange(1, cuts + 1) * size // (cuts + 1) - 1
    if lowest == CONTEXT_DEGREE:
        values = np.append(CONTEXT_DEGREE, values)
    return values.astype("int32")


def _random_layers(rng, units, size, lowest, share_equal_widths):
    layers, smallest = [], lowest
    for width in units:
        if share_equal_widths and layers and width == len(layers[-1]):
            layers.append(layers[-1])
            continue
        degrees = rng.randint(smallest, max(size - 1, smallest + 1), size=width)
        if lowest == CONTEXT_DEGREE:
            degrees[0] = CONTEXT_DEGREE
        layers.append(degrees.astype("int32"))
        smallest = degrees.min()
    return layers


def reachability(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Which outputs a chain of masks lets each input reach: `[input, output]`."""
    reach = masks[0]
    for mask in masks[1:]:
        # Counting paths in floats is a fast matrix product, and no count overflows.
        reach = (reach.astype("float64") @ mask.astype("float64")) > 0
    return reach
