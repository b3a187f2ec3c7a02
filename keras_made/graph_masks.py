"""The rule of `keras_made.masks` over a directed acyclic graph: degrees become sets.

In an ordering a unit of degree d has heard of the variables of rank 0 to d: one number
stands for a set. In a graph the sets themselves are compared. An input has the set of
its own variable alone, an output the set of its variable's parents, and a hidden unit
is given the parents of some variable. A unit hears another whose set is within its own,

    M[i, j] = set_i is a subset of set_j

and sets only grow along a path: so output i depends on input j only when j is among the
parents of i. An ordering is the graph in which the parents of a variable are all that
come before it. Columns of the context are elements of the sets like any variable.

A layer holds small integers, the places of its units' sets in one table, and the table
`hears` says which may hear which: what `connect` compares otherwise.

Reference:
    Chen, Shi, Gao, Baptista, Krishnan 2023, "Structured Neural Networks for Density
    Estimation and Causal Inference", https://arxiv.org/abs/2311.02221
    Wehenkel, Louppe 2021, "Graphical Normalizing Flows",
    https://arxiv.org/abs/2006.02548
"""

import heapq
from collections.abc import Sequence

import numpy as np

from keras_made.masks import CONTEXT_DEGREE, Degrees, reachability


def check_adjacency(adjacency) -> np.ndarray:
    """The graph as bools (D, D), `[i, j]`: variable i may hear variable j.

    Raises:
        ValueError: if it is no square matrix of booleans, or has a cycle.
    """
    graph = check_relation("adjacency", adjacency, "(D, D)")
    if graph.shape[0] != graph.shape[1]:
        raise ValueError(
            "`adjacency` must be square, (D, D), a row and a column for each "
            f"variable. Received: shape {graph.shape}."
        )
    cycle = find_cycle(graph)
    if cycle:
        steps = zip(cycle, [*cycle[1:], cycle[0]], strict=True)
        shown = ", ".join(f"{i} hears {j}" for i, j in steps)
        raise ValueError(
            "`adjacency` must have no cycle: a variable cannot be generated before "
            f"itself. Received a graph in which {shown}. Drop one of these."
        )
    return graph


def check_relation(name, relation, shape) -> np.ndarray:
    """A matrix of booleans, or of zeros and ones, as booleans; or a ValueError."""
    matrix = np.asarray(relation)
    known = matrix.ndim == 2 and matrix.dtype.kind in "biuf" and matrix.shape[0] > 0
    if not known or not np.isin(matrix, (0, 1)).all():
        raise ValueError(
            f"`{name}` must be a matrix of booleans, or of zeros and ones, of shape "
            f"{shape}. Received: shape {matrix.shape}, dtype {matrix.dtype}."
        )
    return matrix.astype(bool)


def as_list(relation):
    """A matrix as lists for a config; None stays None."""
    return None if relation is None else np.asarray(relation).tolist()


def depths(adjacency: np.ndarray) -> np.ndarray:
    """The rank of each variable, which is its depth in the graph: ints (D,).

    It is 0 without parents, else one more than the greatest of the parents; variables
    of one depth do not hear each other, and are generated together. On a cycle, and
    after one, it is -1.

    Example:
        >>> depths(np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0]], bool)).tolist()
        [0, 1, 1]
    """
    heard = adjacency.astype("float32")
    ranks = np.full(len(heard), -1, "int32")
    for rank in range(len(heard)):
        waiting = ranks < 0
        ready = waiting & (heard @ waiting.astype("float32") == 0)
        if not ready.any():
            break
        ranks[ready] = rank
    return ranks


def find_cycle(adjacency: np.ndarray) -> list[int]:
    """Variables each of which hears the next, and the last the first; [] for none."""
    stuck = depths(adjacency) < 0
    if not stuck.any():
        return []
    # Whoever is stuck hears somebody who is: the walk comes back to where it was.
    path = [int(np.argmax(stuck))]
    while path[-1] not in path[:-1]:
        path.append(int(np.argmax(adjacency[path[-1]] & stuck)))
    return path[path.index(path[-1]) : -1]


def ancestors(adjacency: np.ndarray) -> np.ndarray:
    """Bools (D, D), `[i, j]`: a path of the graph leads from variable j to i."""
    reach, before = adjacency.astype(bool), None
    # Paths of twice the length in every round, until there are none that are new.
    while before is None or not np.array_equal(reach, before):
        before, heard = reach, reach.astype("float32")
        reach = before | (heard @ heard > 0)
    return reach


def within(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Is set i of the sources within set j of the targets? Bools (sources, targets).

    Args:
        sources: bools `(n, elements)`.
        targets: bools `(m, elements)`.
    """
    return sources.astype("float32") @ (~targets).T.astype("float32") == 0


def make_graph_degrees(
    adjacency: np.ndarray,
    units: Sequence[int],
    context_size: int = 0,
    context_adjacency: np.ndarray | None = None,
) -> Degrees:
    """The sets of every unit of a network over a graph, as places in one table.

    Args:
        adjacency: bools (D, D), without cycles.
        units: width of each hidden layer.
        context_size: width of the context, C.
        context_adjacency: bools (D, C); None: every variable hears all of the context,
            which is then one element.
    """
    size, columns = len(adjacency), np.arange(context_size)
    if context_adjacency is None:
        context_adjacency = np.ones((size, min(context_size, 1)), bool)
        columns = np.zeros(context_size, int)
    parents = np.concatenate([adjacency, context_adjacency], axis=1)
    elements = parents.shape[1]
    last = np.append(depths(adjacency), np.full(elements - size, CONTEXT_DEGREE))
    hidden = choose_sets(parents, min(units, default=elements))
    # The rank of the last variable that is in a set: when a unit of that set is final.
    finals = np.where(hidden, last, CONTEXT_DEGREE).max(axis=1)
    order = np.argsort(finals, kind="stable")
    hidden, finals = hidden[order], finals[order]
    sets = np.concatenate([np.eye(elements, dtype=bool), parents, hidden])
    spread = [np.arange(width) * len(hidden) // width for width in units]
    return Degrees(
        inputs=np.append(np.arange(size), size + columns)[None].astype("int32"),
        hidden=[(elements + size + s)[None].astype("int32") for s in spread],
        outputs=np.arange(elements, elements + size, dtype="int32")[None],
        ranks=[finals[s][None].astype("int32") for s in spread],
        hears=within(sets, sets),
    )


def choose_sets(parents: np.ndarray, width: int) -> np.ndarray:
    """The sets that hidden units have, at most `width`: bools `(sets, elements)`.

    All the different sets of parents, if there is room. Else those that are no union of
    others, or every element by itself, each of which still lets every output hear all
    of its parents; and where neither fits, one after the other what lets through most.

    Args:
        parents: bools `(variables, elements)`.
        width: of the narrowest hidden layer.
    """
    different = _different(parents)
    if len(different) <= width:
        return different
    for kept in (_irreducible(different), _singles(different)):
        if len(kept) <= width:
            known = within(different, kept) & within(kept, different).T
            others = different[~known.any(axis=1)]
            return np.concatenate([kept, others[: width - len(kept)]])
    return _most_heard(parents, np.concatenate([different, _singles(different)]), width)


def least_width(parents: np.ndarray) -> int:
    """From this width on, hidden layers keep every connection."""
    different = _different(parents)
    return max(1, min(len(_irreducible(different)), len(_singles(different))))


def describe_lost(adjacency: np.ndarray, connectivity: np.ndarray) -> str:
    """The edges that a network does not hear, the first of them by name."""
    lost = np.argwhere(adjacency & ~connectivity)
    shown = ", ".join(f"{i} hears {j}" for i, j in lost[:5])
    more = ", ..." if len(lost) > 5 else ""
    return f"{len(lost)} of {int(adjacency.sum())} ({shown}{more})"


def _different(sets):
    """Each of the sets once, and the empty one only if there is no other."""
    filled = sets[sets.any(axis=1)]
    return np.unique(filled, axis=0) if len(filled) else sets[:1]


def _irreducible(different):
    """Those that are not the union of the others within them."""
    inside = within(different, different) & ~np.eye(len(different), dtype=bool)
    unions = reachability([different.T, inside]).T
    return different[(unions != different).any(axis=1)]


def _singles(different):
    """Every element of the sets, as a set of its own."""
    elements = different.shape[1]
    return np.eye(elements, dtype=bool)[different.any(axis=0)]


def _most_heard(parents, candidates, width):
    """One set after the other, each time the one that connects most that was not yet.

    What a set connects becomes less with every choice, never more: so only those need
    to be counted again that once connected more than the best that is known.
    """
    inside = within(candidates, parents)
    missing = parents.astype("float32")
    gains = (inside * (candidates.astype("float32") @ missing.T)).sum(axis=1)
    heap, chosen = [(-gain, k) for k, gain in enumerate(gains)], []
    heapq.heapify(heap)
    while len(chosen) < width:
        _, k = heapq.heappop(heap)
        gain = missing[np.ix_(inside[k], candidates[k])].sum()
        if heap and gain < -heap[0][0]:
            heapq.heappush(heap, (-gain, k))
            continue
        missing[np.ix_(inside[k], candidates[k])] = 0.0
        chosen.append(k)
    return candidates[np.sort(chosen)]
