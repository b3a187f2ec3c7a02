"""Layers that multiply weights with structure, and do nothing else."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.masks import connect, count_connections, image_mask
from keras_made.staircase import Staircase

# From this size on, panels are faster than one masked kernel.
STAIRCASE_WEIGHTS = 100_000
# Far from the seeds of a network's other layers, which follow each other.
COMPANION_SEED = 2**16
# A penalty on a kernel is the sum of those on its panels only for these.
ADDITIVE_REGULARIZERS = (
    type(None),
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)


@keras.saving.register_keras_serializable(package="keras_made")
class MaskedDense(keras.layers.Layer):
    """A dense layer whose units hear only the inputs that their degrees allow.

    The mask is two vectors of integers compared, inside `call`: nothing done to the
    weights, by an optimizer, a file or by hand, can open a forbidden connection.

        y = activation(x (W * M) + b),   M[i, j] = degrees[j] >= source_degrees[i]

    With `companion` weights U, a unit also hears which inputs are connected:
    `x (W * M) + 1 (U * M) + b`. With K structures, `row` picks one.

    W starts with the spread that its initializer gives to what is really connected: a
    fan-in counts the inputs that a unit hears, not all of them.

    Args:
        source_degrees: degrees of the inputs, `(K, inputs)` or `(inputs,)` ints.
        degrees: degrees of the units, `(K, units)` or `(units,)` ints.
        strict: a unit hears only inputs of *smaller* degree.
        activation: name or function. None: linear.
        use_bias: whether to add b.
        companion: whether to add the paper's companion weights.
        kernel_initializer: initializer of W and U.
        kernel_regularizer: penalty on the connected weights of W and U.
        kernel_form: how W is stored. `"masked"`: whole. `"staircase"`: what the mask
            keeps, as a few panels (see `keras_made.staircase`); for one structure, no
            companion, and a penalty that is L1 or L2 or both. `"auto"`: the staircase
            where it can be had and the kernel is large enough to gain by it. The
            results are the same up to rounding.

    Call arguments:
        x: floats `(..., inputs)`.
        row: which of the K structures to use, an int or an integer scalar tensor.

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
        activation=None,
        use_bias: bool = True,
        companion: bool = False,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        kernel_form: str = "auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.source_degrees = _degree_rows("source_degrees", source_degrees)
        self.degrees = _degree_rows("degrees", degrees)
        if len(self.source_degrees) != len(self.degrees):
            raise ValueError(
                "`source_degrees` and `degrees` must have one row per structure. "
                f"Received: {len(self.source_degrees)} and {len(self.degrees)} rows."
            )
        self.strict = strict
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.companion = companion
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_form = check_kernel_form(kernel_form)
        self.staircase = self._choose_staircase()

    @property
    def units(self) -> int:
        return self.degrees.shape[1]

    def _choose_staircase(self):
        possible = (
            len(self.degrees) == 1
            and not self.companion
            and type(self.kernel_regularizer) in ADDITIVE_REGULARIZERS
        )
        if self.kernel_form == "staircase" and not possible:
            raise ValueError(
                "kernel_form='staircase' needs one structure, no companion weights, "
                "and no other penalty than L1 and L2, which can be summed over parts. "
                f"Received: {len(self.degrees)} structures, "
                f"companion={self.companion}, "
                f"kernel_regularizer={self.kernel_regularizer}. Pass 'auto'."
            )
        large = self.source_degrees.size * self.degrees.size >= STAIRCASE_WEIGHTS
        if self.kernel_form == "staircase" or (
            self.kernel_form == "auto" and possible and large
        ):
            return Staircase(self.source_degrees[0], self.degrees[0], self.strict)
        return None

    def build(self, input_shape):
        inputs = self.source_degrees.shape[1]
        if input_shape[-1] != inputs:
            raise ValueError(
                f"The layer was made for inputs of width {inputs}, one per entry of "
                f"`source_degrees`. Received: input of shape {tuple(input_shape)}."
            )
        if self.staircase is None:
            self._kernel = self._add_kernel("kernel", self._initializer())
        else:
            self._panels = self._add_panels()
        if self.companion:
            self.companion_kernel = self._add_kernel(
                "companion_kernel", self._initializer(COMPANION_SEED)
            )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer="zeros"
            )

    def _add_kernel(self, name, initializer):
        pairs = zip(self.source_degrees, self.degrees, strict=True)
        return self.add_weight(
            name=name,
            shape=(self.source_degrees.shape[1], self.units),
            initializer=initializer,
            regularizer=self._penalty(
                lambda: np.any([connect(s, t, self.strict) for s, t in pairs], axis=0)
            ),
        )

    def _add_panels(self):
        initializer = self._initializer()

        def start(index):
            return lambda _, dtype=None: initializer.panel(self.staircase, index, dtype)

        return [
            self.add_weight(
                name=f"kernel_panel_{index}",
                shape=(panel.height, panel.stop - panel.start),
                initializer=start(index),
                regularizer=self._penalty(
                    lambda index=index: connect(
                        *self.staircase.panel_degrees(index), self.strict
                    )
                ),
            )
            for index, panel in enumerate(self.staircase.panels)
        ]

    def _penalty(self, make_mask):
        if self.kernel_regularizer is None:
            return None
        return _OnConnected(self.kernel_regularizer, make_mask())

    def _initializer(self, index=0):
        pairs = zip(self.source_degrees, self.degrees, strict=True)
        fans = [count_connections(s, t, self.strict) for s, t in pairs]
        fan_out, fan_in = (np.mean(fan, axis=0) for fan in zip(*fans, strict=True))
        initializer = another_initializer(self.kernel_initializer, index)
        return _OnHeard(initializer, fan_in, fan_out)

    @property
    def kernel(self):
        """W, `(inputs, units)`, in whichever form it is stored."""
        if self.staircase is None:
            return self._kernel
        return self.staircase.join([ops.convert_to_tensor(p) for p in self._panels])

    def mask(self, row=0):
        """Booleans `(inputs, units)`: what structure `row` lets each unit hear."""
        # A table indexed by a scalar would compile once per row; `take` does not.
        return self._compare(
            ops.take(self.source_degrees, row, axis=0),
            ops.take(self.degrees, row, axis=0),
        )

    def _compare(self, sources, targets):
        # Inside the compiled step: masks fuse with the product, and are never stored.
        sources, targets = map(ops.convert_to_tensor, (sources, targets))
        compare = ops.greater if self.strict else ops.greater_equal
        return compare(targets[None, :], sources[:, None])

    def _masked(self, kernel, mask):
        return ops.multiply(kernel, ops.cast(mask, self.compute_dtype))

    def call(self, x, row=0):
        if self.staircase is None:
            mask = self.mask(row)
            y = ops.matmul(x, self._masked(self._kernel, mask))
            if self.companion:
                y = y + ops.sum(self._masked(self.companion_kernel, mask), axis=0)
        else:
            panels = [
                self._masked(panel, self._compare(*self.staircase.panel_degrees(index)))
                for index, panel in enumerate(self._panels)
            ]
            y = self.staircase.matmul(x, panels)
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
        values = self._in_own_form({name: np.asarray(store[name]) for name in names})
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

    def _in_own_form(self, values):
        """The weights of a file by name, with a kernel of either form in this one's."""
        number = sum(name.startswith("kernel_panel_") for name in values)
        names = [f"kernel_panel_{i}" for i in range(number)]
        if "kernel" in values and self.staircase is not None:
            panels = self.staircase.split(values.pop("kernel"))
            values |= {f"kernel_panel_{i}": panel for i, panel in enumerate(panels)}
        elif names and values.keys() >= set(names) and self.staircase is None:
            degrees = self.source_degrees[0], self.degrees[0]
            stairs = Staircase(*degrees, self.strict, number)
            panels = [values.pop(name) for name in names]
            values["kernel"] = ops.convert_to_numpy(stairs.join(panels))
        return values

    def get_config(self):
        return {
            **super().get_config(),
            "source_degrees": self.source_degrees.tolist(),
            "degrees": self.degrees.tolist(),
            "strict": self.strict,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "companion": self.companion,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_form": self.kernel_form,
        }


@keras.saving.register_keras_serializable(package="keras_made")
class MaskedConv2D(keras.layers.Layer):
    """A convolution over images that hears only what comes earlier in raster order.

    Every input map and every unit belongs to a channel of the image; with channels in
    order within a pixel, their place in the order is their degree (see
    `keras_made.masks.image_mask`). The mask acts inside `call`.

    Args:
        source_degrees: channel of each input map, ints `(inputs,)`.
        degrees: channel of each unit, ints `(units,)`.
        kernel_size: height and width, odd ints. The rows below the middle one, which
            are never heard, are not stored.
        strict: mask type A of the papers, which leaves out the entry itself; else
            type B.
        by_row: only rows are compared, so that all of a row is heard at once.
        use_bias: whether to add a bias.
        kernel_initializer: initializer of the kernel.

    Call arguments:
        x: floats `(batch, height, width, inputs)`.

    Output shape:
        `(batch, height, width, units)`; outside the image there are zeros.

    Raises:
        ValueError: if the kernel size is not odd.

    Example:
        >>> import numpy as np
        >>> layer = MaskedConv2D([0], [0, 0], (3, 3), strict=True)
        >>> layer(np.ones((1, 4, 4, 1), "float32")).shape[-1]
        2

    Reference:
        van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural
        Networks", https://arxiv.org/abs/1601.06759
    """

    def __init__(
        self,
        source_degrees: Sequence[int],
        degrees: Sequence[int],
        kernel_size: tuple[int, int],
        *,
        strict: bool = False,
        by_row: bool = False,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.source_degrees = _degree_rows("source_degrees", source_degrees)[0]
        self.degrees = _degree_rows("degrees", degrees)[0]
        self.kernel_size = tuple(kernel_size)
        if len(self.kernel_size) != 2 or any(n < 1 or n % 2 == 0 for n in kernel_size):
            raise ValueError(
                "`kernel_size` must be two odd ints, so that the kernel has a middle. "
                f"Received: kernel_size={kernel_size}."
            )
        self.strict = strict
        self.by_row = by_row
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        mask = self.mask()
        self.kernel = self.add_weight(
            name="kernel", shape=mask.shape, initializer=self.kernel_initializer
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(len(self.degrees),), initializer="zeros"
            )

    def mask(self) -> np.ndarray:
        """Booleans of the kernel's shape: `(rows, columns, inputs, units)`."""
        return image_mask(
            self.kernel_size,
            self.source_degrees,
            self.degrees,
            self.strict,
            self.by_row,
        )

    def call(self, x):
        height, width = self.kernel_size
        kernel = ops.multiply(self.kernel, ops.cast(self.mask(), self.compute_dtype))
        sides = (width // 2, width // 2)
        x = ops.pad(x, [(0, 0), (height // 2, 0), sides, (0, 0)])
        y = ops.conv(x, kernel, padding="valid", data_format="channels_last")
        return y + self.bias if self.use_bias else y

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], len(self.degrees))

    def get_config(self):
        return {
            **super().get_config(),
            "source_degrees": self.source_degrees.tolist(),
            "degrees": self.degrees.tolist(),
            "kernel_size": list(self.kernel_size),
            "strict": self.strict,
            "by_row": self.by_row,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_made")
class CausalConv1D(keras.layers.Layer):
    """A dilated convolution over a sequence that hears the present and the past.

        y_t = sum_j x_(t - (kernel_size - 1 - j) dilation) W_j + b

    Args:
        units: width of the output.
        kernel_size: number of places heard.
        dilation: distance between them.
        kernel_initializer: initializer of the kernel.

    Call arguments:
        x: floats `(..., length, inputs)`.

    Output shape:
        `(..., length, units)`; before the sequence there are zeros.

    Example:
        >>> import numpy as np
        >>> layer = CausalConv1D(1, 2, dilation=4, kernel_initializer="ones")
        >>> np.asarray(layer(np.ones((6, 1), "float32")))[:, 0].tolist()
        [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]

    Reference:
        van den Oord et al. 2016, "WaveNet", https://arxiv.org/abs/1609.03499
    """

    def __init__(
        self,
        units: int,
        kernel_size: int = 2,
        *,
        dilation: int = 1,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        shape = (self.kernel_size, input_shape[-1], self.units)
        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer="zeros"
        )

    @property
    def delays(self) -> list[int]:
        """How far back each place of the kernel hears, the furthest first."""
        return [j * self.dilation for j in reversed(range(self.kernel_size))]

    def call(self, x):
        return self.join([delay(x, steps) for steps in self.delays])

    def join(self, heard):
        """The output, given what is heard at each of the `delays`."""
        y = ops.cast(self.bias, self.compute_dtype)
        for j, x in enumerate(heard):
            y = y + ops.matmul(x, ops.cast(self.kernel, self.compute_dtype)[j])
        return y

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def delay(x, steps: int):
    """A sequence `(..., length, width)` some steps later, zeros before it."""
    length = x.shape[-2]
    pairs = [(0, 0)] * (len(x.shape) - 2) + [(min(steps, length), 0), (0, 0)]
    return ops.pad(x, pairs)[..., :length, :]


class _OnConnected(keras.regularizers.Regularizer):
    """A weight penalty that does not count the weights which no structure uses."""

    def __init__(self, regularizer, connected):
        self.regularizer = regularizer
        self.connected = connected

    def __call__(self, kernel):
        connected = ops.cast(self.connected, kernel.dtype)
        return self.regularizer(ops.multiply(kernel, connected))


class _OnHeard(keras.initializers.Initializer):
    """An initializer of scaled variance, with fans that count only what is connected.

    Args:
        initializer: any; one whose scale does not follow from fans is left alone.
        fan_in: number of inputs that each unit hears, `(units,)`.
        fan_out: number of units that hear each input, `(inputs,)`.
    """

    def __init__(self, initializer, fan_in, fan_out):
        self.initializer = initializer
        self.fan_in = fan_in
        self.fan_out = fan_out

    def __call__(self, shape, dtype=None):
        kernel = self.initializer(shape, dtype=dtype)
        return self._scale(kernel, self.fan_in, self.fan_out)

    def panel(self, staircase, index, dtype=None):
        """One panel, cut from what the kernel would have been, so as to start alike."""
        shape = len(self.fan_out), len(self.fan_in)
        kernel = staircase.split(self.initializer(shape, dtype=dtype))[index]
        start, stop, height = staircase.panels[index]
        fan_in = self.fan_in[staircase.unit_order[start:stop]]
        fan_out = self.fan_out[staircase.source_order[:height]]
        return self._scale(kernel, fan_in, fan_out)

    def _scale(self, kernel, fan_in, fan_out):
        initializer = getattr(self.initializer, "initializer", self.initializer)
        if not isinstance(initializer, keras.initializers.VarianceScaling):
            return kernel
        inputs, units = len(self.fan_out), len(self.fan_in)
        # A large kernel's scales are as large as itself: not in double precision.
        fan_in = fan_in[None, :].astype("float32")
        fan_out = fan_out[:, None].astype("float32")
        full, heard = {
            "fan_in": (inputs, fan_in),
            "fan_out": (units, fan_out),
            "fan_avg": (inputs + units, fan_in + fan_out),
        }[initializer.mode]
        scale = np.sqrt(full / np.maximum(heard, 1))
        return kernel * ops.cast(scale, kernel.dtype)


@keras.saving.register_keras_serializable(package="keras_made")
class Shrunk(keras.initializers.Initializer):
    """What another initializer gives, times a factor."""

    def __init__(self, initializer, factor: float):
        self.initializer = keras.initializers.get(initializer)
        self.factor = factor

    def __call__(self, shape, dtype=None):
        return self.factor * self.initializer(shape, dtype=dtype)

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, "factor": self.factor}


def another_initializer(initializer, index: int):
    """One more of its kind: called again, a Keras initializer repeats itself."""
    if not isinstance(getattr(initializer, "seed", None), int):
        return initializer
    config = {**initializer.get_config(), "seed": initializer.seed + index}
    return type(initializer).from_config(config)


def check_kernel_form(kernel_form):
    if kernel_form not in ("auto", "masked", "staircase"):
        raise ValueError(
            "`kernel_form` must be 'auto', 'masked' or 'staircase'. Received: "
            f"kernel_form={kernel_form!r}."
        )
    return kernel_form


def _degree_rows(name, degrees):
    rows = np.atleast_2d(np.asarray(degrees))
    if rows.ndim != 2 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"`{name}` must be integers of shape (units,) or (K, units). "
            f"Received: {degrees}."
        )
    return rows.astype("int32")
