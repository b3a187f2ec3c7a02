"""Who hears whom in a dense network: an ordering or a graph, without any weights."""

import itertools
from collections.abc import Sequence

import numpy as np

from keras_made.autoregressive import Autoregressive
from keras_made.checks import check_positive, warn
from keras_made.graph_masks import (
    as_list,
    check_adjacency,
    check_relation,
    depths,
    describe_lost,
    least_width,
    make_graph_degrees,
)
from keras_made.masks import (
    CONTEXT_DEGREE,
    Degrees,
    check_ordering,
    check_seed,
    connect,
    make_hidden_degrees,
    make_orderings,
    reachability,
)


class Structured(Autoregressive):
    """The structure of `MADE`: the degrees of its units, and what they let through.

    Arguments are those of `MADE`, but for the ones that say what weights there are.
    After `build`, `degrees` are those that masks compare, and `unit_degrees` the ranks
    of the last variable that the units of each hidden layer have heard of.
    """

    # Masked connections from inputs to outputs, past the hidden layers.
    direct = True

    def __init__(
        self,
        hidden_units: Sequence[int],
        num_params: int | None = None,
        *,
        ordering: str | Sequence[int] = "natural",
        hidden_degrees: str = "even",
        num_masks: int = 1,
        adjacency=None,
        context_adjacency=None,
        residual: bool = False,
        seed: int = 0,
        **layer_kwargs,
    ):
        super().__init__(num_params, num_masks=num_masks, **layer_kwargs)
        if isinstance(hidden_units, int | str):
            raise ValueError(
                "`hidden_units` must be a sequence with the width of each hidden "
                f"layer. Received: hidden_units={hidden_units!r}. "
                "Pass [500] for one layer of 500 units."
            )
        self.hidden_units = tuple(hidden_units)
        for units in self.hidden_units:
            check_positive("hidden_units", units)
        self.ordering = check_ordering(ordering, ties=True)
        self.hidden_degrees = hidden_degrees
        self.adjacency = self.context_adjacency = None
        if adjacency is not None:
            self.adjacency = check_adjacency(adjacency)
        if context_adjacency is not None:
            relation = check_relation("context_adjacency", context_adjacency, "(D, C)")
            self.context_adjacency = relation
        self.residual = residual
        self.seed = check_seed(seed)
        self._check_cycle()
        self._check_graph()

    def _check_cycle(self):
        make_hidden_degrees(self.hidden_degrees, self.hidden_units, 2)
        if self.num_masks > 1 and "random" not in (self.ordering, self.hidden_degrees):
            raise ValueError(
                f"With ordering={self.ordering!r} and "
                f"hidden_degrees={self.hidden_degrees!r}, all {self.num_masks} "
                "structures of the cycle would be the same. Make one of them 'random', "
                "or leave `num_masks` at 1."
            )

    def _check_graph(self):
        if self.adjacency is not None and self.ordering != "natural":
            raise ValueError(
                "`adjacency` says when each variable is generated. Received: ordering="
                f"{self.ordering!r} beside it. Pass one of them."
            )
        if self.has_graph and (self.hidden_degrees != "even" or self.num_masks > 1):
            raise ValueError(
                "`adjacency` and `context_adjacency` make one structure of sets, for "
                "hidden_degrees='even' and num_masks=1. Received: hidden_degrees="
                f"{self.hidden_degrees!r}, num_masks={self.num_masks}."
            )

    @property
    def has_graph(self) -> bool:
        """Are sets compared, rather than degrees?"""
        return self.adjacency is not None or self.context_adjacency is not None

    @property
    def has_ties(self) -> bool:
        """Does the ordering hold one rank several times?"""
        ranks = [] if isinstance(self.ordering, str) else self.ordering
        return len(set(ranks)) < len(ranks)

    @property
    def order_agnostic(self) -> bool:
        return self.ordering == "random" and self.num_masks > 1

    @property
    def orderings_only(self) -> bool:
        if self.has_graph or self.has_ties:
            return False
        return self.hidden_degrees == "even" or not self.hidden_units

    def make_ranks(self):
        shape = (self.num_masks, *self.event_shape)
        if self.adjacency is not None:
            return depths(self.adjacency).reshape(shape)
        size, masks = self.event_size, self.num_masks
        ranks = make_orderings(self.ordering, size, masks, self.seed, ties=True)
        return ranks.reshape(shape)

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        self._check_sizes()
        self.degrees = self._graph_degrees() if self.has_graph else self._degrees()
        self.unit_degrees = self.degrees.ranks
        if self.has_graph and not self._is_loading:
            self._warn_of_lost_edges()

    def _degrees(self):
        masks, size, ranks = self.num_masks, self.context_size, self.all_ranks
        hidden = make_hidden_degrees(
            self.hidden_degrees,
            self.hidden_units,
            self.num_ranks,
            size > 0,
            masks,
            self.seed,
            share_equal_widths=self.residual,
        )
        ranks = ranks.reshape(masks, -1)
        context = np.full((masks, size), CONTEXT_DEGREE)
        inputs = np.concatenate([ranks, context], axis=1)
        return Degrees(inputs, hidden, ranks, ranks=hidden)

    def _graph_degrees(self):
        return make_graph_degrees(
            self._graph(), self.hidden_units, self.context_size, self.context_adjacency
        )

    def _graph(self):
        """Bools (D, D): the graph, or that of the ordering."""
        return super().connectivity() if self.adjacency is None else self.adjacency

    def is_residual(self, index: int) -> bool:
        """Is hidden layer `index` added to the one before it?"""
        units = self.hidden_units
        return self.residual and index > 0 and units[index] == units[index - 1]

    def connectivity(self, structure: int = 0) -> np.ndarray:
        """What the masks let through: bools (D, D), `[i, j]` = output i can hear x_j.

        Under `"even"` degrees it is all that the ordering or the graph allows, unless a
        hidden layer is too narrow and there are no direct connections.
        """
        self.check_structure(structure)
        return self._reach(structure)[: self.event_size].T

    def _reach(self, structure):
        """Bools (D + C, D): which variable and column of the context reaches whom."""
        masks = self.masks(structure)
        reach = np.zeros((self.event_size + self.context_size, self.event_size), bool)
        if self.hidden_units:
            reach |= reachability(masks[:-1])
        if self.direct:
            reach |= masks[-1]
        return reach

    def masks(self, structure: int = 0) -> list[np.ndarray]:
        """Who hears whom, variable by variable: what `MaskedDense` has by feature.

        Returns:
            Bools `(sources, targets)`: from the D variables and the C columns of the
            context to the first hidden layer, and so on, to the D outputs; and last,
            from the variables and the context to the outputs directly.
        """
        inputs, hidden, outputs, _, hears = self.degrees
        chain = [inputs[structure], *(units[structure] for units in hidden)]
        masks = [connect(s, t, hears=hears) for s, t in itertools.pairwise(chain)]
        for source in ([chain[-1]] if hidden else []) + [chain[0]]:
            masks.append(connect(source, outputs[structure], True, hears))
        return masks

    def _check_sizes(self):
        size, context = self.event_size, self.context_size
        for name, expected in (
            ("adjacency", (size, size)),
            ("context_adjacency", (size, context)),
        ):
            relation = getattr(self, name)
            if relation is not None and relation.shape != expected:
                raise ValueError(
                    f"`{name}` must have shape {expected} for {size} variables and a "
                    f"context of size {context}. Received: shape {relation.shape}."
                )

    def _warn_of_lost_edges(self):
        graph, heard = self._graph(), self._reach(0).T
        if self.context_size:
            columns = self.context_adjacency
            if columns is None:
                columns = np.ones((self.event_size, self.context_size), bool)
            graph = np.concatenate([graph, columns], axis=1)
        if (graph & ~heard).any():
            warn(
                "The hidden layers are too narrow for the graph, and lose connections: "
                f"{describe_lost(graph, heard)}. Make each at least "
                f"{least_width(graph)} wide, or pass `direct=True`."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_units": list(self.hidden_units),
            "ordering": self.ordering,
            "hidden_degrees": self.hidden_degrees,
            "adjacency": as_list(self.adjacency),
            "context_adjacency": as_list(self.context_adjacency),
            "residual": self.residual,
            "seed": self.seed,
        }
