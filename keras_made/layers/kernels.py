"""How a masked kernel is stored: whole, or as the few panels that its mask keeps.

Both forms own their weights through the layer that they are made for, and answer alike:

    build(...)          makes the weights
    product(x, k)       x times the kernel, masked for structure k
    matrix()            the kernel, `(inputs, units)`
    split(matrix)       the weights, by name, of a kernel given as one matrix
"""

import keras
import numpy as np
from keras import ops

from keras_made.layers.staircase import Staircase
from keras_made.masks import connect

# From this size on, panels are faster than one masked kernel.
STAIRCASE_WEIGHTS = 100_000
# A penalty on a kernel is the sum of those on its panels only for these.
ADDITIVE_REGULARIZERS = (
    type(None),
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)
PANEL = "kernel_panel_"


class WholeKernel:
    """One matrix, masked at every call.

    Args:
        layer: the `MaskedDense` whose weights these are.
        name: of the weight.
    """

    def __init__(self, layer, name: str = "kernel"):
        self.layer = layer
        self.name = name

    def build(self, initializer, regularizer) -> None:
        layer = self.layer
        pairs = zip(layer.source_degrees, layer.degrees, strict=True)
        how = layer.strict, layer.hears
        self.weight = layer.add_weight(
            name=self.name,
            shape=(layer.source_degrees.shape[1], layer.units),
            initializer=initializer,
            regularizer=penalty(
                regularizer,
                lambda: np.any([connect(s, t, *how) for s, t in pairs], axis=0),
            ),
        )

    def matrix(self):
        return self.weight

    def masked(self, structure):
        """The kernel with zeros where structure `structure` keeps units apart."""
        return masked(self.weight, self.layer.mask(structure), self.layer.compute_dtype)

    def product(self, x, structure):
        return ops.matmul(x, self.masked(structure))

    def split(self, matrix) -> dict:
        return {self.name: matrix}


class StaircaseKernel:
    """What the mask of one structure keeps, as panels (see `Staircase`).

    Args:
        layer: the `MaskedDense` whose weights these are.
    """

    def __init__(self, layer):
        self.layer = layer
        self.staircase = Staircase(
            layer.source_degrees[0], layer.degrees[0], layer.strict
        )

    def build(self, initializer, regularizer) -> None:
        def start(index):
            return lambda _, dtype=None: initializer.panel(self.staircase, index, dtype)

        def mask(index):
            return lambda: connect(
                *self.staircase.panel_degrees(index), self.layer.strict
            )

        self.panels = [
            self.layer.add_weight(
                name=f"{PANEL}{index}",
                shape=(panel.height, panel.stop - panel.start),
                initializer=start(index),
                regularizer=penalty(regularizer, mask(index)),
            )
            for index, panel in enumerate(self.staircase.panels)
        ]

    def matrix(self):
        return self.staircase.join([ops.convert_to_tensor(p) for p in self.panels])

    def product(self, x, structure):
        layer = self.layer
        panels = [
            masked(
                panel,
                layer.compare(*self.staircase.panel_degrees(index)),
                layer.compute_dtype,
            )
            for index, panel in enumerate(self.panels)
        ]
        return self.staircase.matmul(x, panels)

    def split(self, matrix) -> dict:
        panels = self.staircase.split(matrix)
        return {f"{PANEL}{index}": panel for index, panel in enumerate(panels)}


def choose(layer, kernel_form: str):
    """The form in which `layer` stores its kernel.

    Raises:
        ValueError: if a staircase is asked for where there is none.
    """
    possible = (
        len(layer.degrees) == 1
        and layer.hears is None
        and not layer.companion
        and type(layer.kernel_regularizer) in ADDITIVE_REGULARIZERS
    )
    if kernel_form == "staircase" and not possible:
        raise ValueError(
            "kernel_form='staircase' needs one structure, of an ordering, no companion "
            "weights, and no other penalty than L1 and L2, which can be summed over "
            f"parts. Received: {len(layer.degrees)} structures, of "
            f"{'an ordering' if layer.hears is None else 'a graph'}, companion="
            f"{layer.companion}, kernel_regularizer={layer.kernel_regularizer}. "
            "Pass 'auto'."
        )
    large = layer.source_degrees.size * layer.degrees.size >= STAIRCASE_WEIGHTS
    if kernel_form == "staircase" or (kernel_form == "auto" and possible and large):
        return StaircaseKernel(layer)
    return WholeKernel(layer)


def matrix_of_file(layer, values: dict):
    """Take a kernel of either form out of the weights of a file, as one matrix.

    Returns:
        The matrix `(inputs, units)`, or None where the file holds no whole kernel.
    """
    if "kernel" in values:
        return values.pop("kernel")
    number = sum(name.startswith(PANEL) for name in values)
    names = [f"{PANEL}{index}" for index in range(number)]
    if not names or not values.keys() >= set(names):
        return None
    stairs = Staircase(layer.source_degrees[0], layer.degrees[0], layer.strict, number)
    return ops.convert_to_numpy(stairs.join([values.pop(name) for name in names]))


def masked(kernel, mask, dtype):
    return ops.multiply(kernel, ops.cast(mask, dtype))


def penalty(regularizer, make_mask):
    """The regularizer, counting what `make_mask()` keeps; None for none."""
    return None if regularizer is None else _OnConnected(regularizer, make_mask())


class _OnConnected(keras.regularizers.Regularizer):
    """A weight penalty that does not count the weights which no structure uses."""

    def __init__(self, regularizer, connected):
        self.regularizer = regularizer
        self.connected = connected

    def __call__(self, kernel):
        connected = ops.cast(self.connected, kernel.dtype)
        return self.regularizer(ops.multiply(kernel, connected))


def check_kernel_form(kernel_form):
    if kernel_form not in ("auto", "masked", "staircase"):
        raise ValueError(
            "`kernel_form` must be 'auto', 'masked' or 'staircase'. Received: "
            f"kernel_form={kernel_form!r}."
        )
    return kernel_form
