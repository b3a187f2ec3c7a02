"""A masked kernel stored as what its mask keeps: a few panels of columns.

With inputs and units sorted by degree, a mask is a staircase: unit j hears the first
`height_j` inputs, and heights never fall. Cut into a few panels of columns, each stored
only as tall as its tallest column, the kernel loses nearly all of the half that is
never used, and with it that half of the multiplications, of the gradient and of the
optimizer's slots:

    inputs  | #
       |    | # #          #: stored (and masked where a column of the panel is
       v    | # # #           shorter than its tallest)
            +--------> units

Panels are few, so that each is still a large matrix product.
"""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_made.masks import count_connections

NUM_PANELS = 4


class Panel(NamedTuple):
    """Columns `start` to `stop` of the sorted kernel, of which `height` rows count."""

    start: int
    stop: int
    height: int


class Staircase:
    """How one logical kernel, `(inputs, units)`, is cut.

    Args:
        source_degrees: degrees of the inputs, ints `(inputs,)`.
        degrees: degrees of the units, ints `(units,)`.
        strict: a unit hears only inputs of smaller degree.
        num_panels: number of panels, at most one for each unit.
    """

    def __init__(
        self,
        source_degrees: np.ndarray,
        degrees: np.ndarray,
        strict: bool = False,
        num_panels: int = NUM_PANELS,
    ):
        self.source_order = np.argsort(source_degrees, kind="stable")
        self.unit_order = np.argsort(degrees, kind="stable")
        self.source_degrees = source_degrees[self.source_order]
        self.degrees = degrees[self.unit_order]
        _, heights = count_connections(source_degrees, self.degrees, strict)
        cuts = np.linspace(0, len(degrees), min(num_panels, len(degrees)) + 1)
        cuts = cuts.astype(int)
        # A panel that hears nothing still has a row, all masked, and needs no rule.
        self.panels = [
            Panel(start, stop, max(1, int(heights[stop - 1])))
            for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
        ]

    def panel_degrees(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The degrees of the inputs and of the units of one panel."""
        start, stop, height = self.panels[index]
        return self.source_degrees[:height], self.degrees[start:stop]

    def split(self, kernel):
        """The panels of a logical kernel; what lies outside them is never heard."""
        kernel = _reorder(_reorder(kernel, self.source_order, 0), self.unit_order, 1)
        return [kernel[: p.height, p.start : p.stop] for p in self.panels]

    def join(self, panels):
        """The logical kernel, zero outside the panels."""
        inputs = len(self.source_order)
        columns = [
            ops.pad(panel, ((0, inputs - panel.shape[0]), (0, 0))) for panel in panels
        ]
        kernel = _reorder(
            ops.concatenate(columns, axis=1), _inverse(self.unit_order), 1
        )
        return _reorder(kernel, _inverse(self.source_order), 0)

    def matmul(self, x, panels):
        """`x @ join(panels)`, for panels that are masked already."""
        x = _reorder(x, self.source_order, -1)
        columns = [ops.matmul(x[..., : panel.shape[0]], panel) for panel in panels]
        y = ops.concatenate(columns, axis=-1)
        return _reorder(y, _inverse(self.unit_order), -1)


def _inverse(order):
    return np.argsort(order)


def _reorder(x, order, axis):
    if np.array_equal(order, np.arange(len(order))):
        return x
    return ops.take(x, order, axis=axis)
