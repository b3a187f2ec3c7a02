"""A dense layer whose units hear only what their degrees allow."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.layers import kernels
from keras_made.layers.initializers import OnHeard, another_initializer
from keras_made.masks import count_connections

# Far from the seeds of a network's other layers, which follow each other.
COMPANION_SEED = 2**16


@keras.saving.register_keras_serializable(package="keras_made")
class MaskedDense(keras.layers.Layer):
    """A dense layer whose units hear only the inputs that their degrees allow.

    The mask is two vectors of integers compared, inside `call`: nothing done to the
    weights, by an optimizer, a file or by hand, can open a forbidden connection.

        y = activation(x (W * M) + b),   M[i, j] = degrees[j] >= source_degrees[i]

    With `companion` weights U, a unit also hears which inputs are connected:
    `x (W * M) + 1 (U * M) + b`. With K structures, `structure` picks one.

    W starts with the spread that its initializer gives to what is really connected: a
    fan-in counts the inputs that a unit hears, not all of them.

    Args:
        source_degrees: degrees of the inputs, `(K, inputs)` or `(inputs,)` ints.
        degrees: degrees of the units, `(K, units)` or `(units,)` ints.
        strict: a unit hears only inputs of *smaller* degree.
        hears: bools (n, n), `[s, t]`: a unit of degree t hears an input of degree s,
            where degrees are the places of sets that are compared as wholes (see
            `keras_made.graph_masks`). None: they are compared as numbers.
        activation: name or function. None: linear.
        use_bias: whether to add b.
        companion: whether to add the paper's companion weights.
        kernel_initializer: initializer of W and U.
        kernel_regularizer: penalty on the connected weights of W and U.
        kernel_form: how W is stored. `"masked"`: whole. `"staircase"`: what the mask
            keeps, as a few panels (see `keras_made.layers.staircase`); for one
            structure, degrees that are numbers, no companion, and a penalty that is L1
            or L2 or both. `"auto"`:
            the staircase where it can be had and the kernel is large enough to gain by
            it. The results are the same up to rounding.

    Call arguments:
        x: floats `(..., inputs)`.
        structure: which of the K to use, an int or an integer scalar tensor.

    Output shape:
        `(..., units)`.

    Raises:
        ValueError: if the degrees are not integers, the input has another width, or a
            staircase is asked for where there is none.

    Example:
        >>> import numpy as np
        >>> layer = MaskedDense([0, 1, 2], [0, 1, 2], strict=True)
        >>> layer(np.ones((2, 3), "float32")).shape[-1]
        3

    Reference:
        Germain et al. 2015, https://arxiv.org/abs/1502.03509
    """

    def __init__(
        self,
        source_degrees: Sequence,
        degrees: Sequence,
        *,
        strict: bool = False,
        hears=None,
        activation=None,
        use_bias: bool = True,
        companion: bool = False,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        kernel_form: str = "auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.source_degrees = degree_rows("source_degrees", source_degrees)
        self.degrees = degree_rows("degrees", degrees)
        if len(self.source_degrees) != len(self.degrees):
            raise ValueError(
                "`source_degrees` and `degrees` must have one row per structure. "
                f"Received: {len(self.source_degrees)} and {len(self.degrees)} rows."
            )
        self.strict = strict
        self.hears = None if hears is None else np.asarray(hears, bool)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.companion = companion
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_form = kernels.check_kernel_form(kernel_form)
        self._kernel = kernels.choose(self, kernel_form)
        self._companion = None
        if companion:
            self._companion = kernels.WholeKernel(self, "companion_kernel")

    @property
    def units(self) -> int:
        return self.degrees.shape[1]

    def build(self, input_shape):
        inputs = self.source_degrees.shape[1]
        if input_shape[-1] != inputs:
            raise ValueError(
                f"The layer was made for inputs of width {inputs}, one per entry of "
                f"`source_degrees`. Received: input of shape {tuple(input_shape)}."
            )
        self._kernel.build(self._initializer(), self.kernel_regularizer)
        if self.companion:
            start = self._initializer(COMPANION_SEED)
            self._companion.build(start, self.kernel_regularizer)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer="zeros"
            )

    def _initializer(self, index=0):
        pairs = zip(self.source_degrees, self.degrees, strict=True)
        fans = [count_connections(s, t, self.strict, self.hears) for s, t in pairs]
        fan_out, fan_in = (np.mean(fan, axis=0) for fan in zip(*fans, strict=True))
        initializer = another_initializer(self.kernel_initializer, index)
        return OnHeard(initializer, fan_in, fan_out)

    @property
    def is_staircase(self) -> bool:
        """Is W stored as panels?"""
        return isinstance(self._kernel, kernels.StaircaseKernel)

    @property
    def kernel(self):
        """W, `(inputs, units)`, in whichever form it is stored."""
        return self._kernel.matrix()

    @property
    def companion_kernel(self):
        """U, `(inputs, units)`."""
        return self._companion.matrix()

    def mask(self, structure=0):
        """Booleans `(inputs, units)`: what a structure lets each unit hear."""
        # A table indexed by a scalar would compile once per value; `take` does not.
        return self.compare(
            ops.take(self.source_degrees, structure, axis=0),
            ops.take(self.degrees, structure, axis=0),
        )

    def compare(self, sources, targets):
        """Booleans `(inputs, units)` for degrees `(inputs,)` and `(units,)`."""
        # Inside the compiled step: masks fuse with the product, and are never stored.
        sources, targets = map(ops.convert_to_tensor, (sources, targets))
        if self.hears is not None:
            heard = ops.take(self.hears, sources, axis=0)
            return ops.take(heard, targets, axis=1)
        compare = ops.greater if self.strict else ops.greater_equal
        return compare(targets[None, :], sources[:, None])

    def call(self, x, structure=0):
        y = self._kernel.product(x, structure)
        if self.companion:
            y = y + ops.sum(self._companion.masked(structure), axis=0)
        if self.use_bias:
            y = y + self.bias
        return self.activation(y)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def save_own_variables(self, store):
        # The names tell which form the file holds.
        for variable in self.weights:
            store[variable.name] = variable

    def load_own_variables(self, store):
        names = list(store.keys())  # A file is not a dict: it has no `in`.
        values = {name: np.asarray(store[name]) for name in names}
        matrix = kernels.matrix_of_file(self, values)
        if matrix is not None:
            values |= self._kernel.split(matrix)
        own = {variable.name: variable for variable in self.weights}
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        expected = {name: tuple(variable.shape) for name, variable in own.items()}
        if shapes != expected:
            raise ValueError(
                f"Layer '{self.name}' expected the weights {expected}. The file holds "
                f"{shapes}: it was saved by another architecture."
            )
        for name, variable in own.items():
            variable.assign(values[name])

    def get_config(self):
        return {
            **super().get_config(),
            "source_degrees": self.source_degrees.tolist(),
            "degrees": self.degrees.tolist(),
            "strict": self.strict,
            "hears": None if self.hears is None else self.hears.tolist(),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "companion": self.companion,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_form": self.kernel_form,
        }


def degree_rows(name, degrees):
    """Degrees as int32 `(K, units)`, or a ValueError."""
    rows = np.atleast_2d(np.asarray(degrees))
    if rows.ndim != 2 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"`{name}` must be integers of shape (units,) or (K, units). "
            f"Received: {degrees}."
        )
    return rows.astype("int32")
