"""Recurrent: sequences by a cell that remembers, as a char-RNN."""

import keras
import numpy as np
from keras import ops

from keras_made.autoregressive import Autoregressive
from keras_made.checks import check_event_shape, check_positive
from keras_made.layers import delay

CELLS = {"lstm": keras.layers.LSTMCell, "gru": keras.layers.GRUCell}
# Log-odds against what cannot be: their exponential is zero, and their sum finite.
IMPOSSIBLE = -1e9
IMPOSSIBLE_IN_HALF = -1e4  # In float16 the other is infinite.


@keras.saving.register_keras_serializable(package="keras_made")
class Recurrent(Autoregressive):
    """Stacked LSTM or GRU cells that hear one entry after the other.

        h_t = cell(x_(t-1), context, h_(t-1)),   parameters of x_t = h_t V + c

    A sample costs one cell step per entry.

    Sequences of different length are one event shape: with `end`, the number of a
    class, a sequence is filled up with it, `[3, 1, 2, end, end, end]`. The first `end`
    says that the sequence is over and is predicted as any class is; after it nothing
    else is possible. What follows therefore has probability one, adds exactly zero to
    log p and to the gradient, and samples come out filled up in the same way. The
    density is one over sequences of every length up to that of the event.

    Args:
        event_shape: `(length,)`.
        units: width of the cells.
        cell: `"lstm"` or `"gru"`.
        num_params: parameters per entry. None: one, without an axis of its own. With
            `end`, the number of classes.
        num_layers: number of cells, one above the other.
        end: class that ends a sequence and fills it up. None: all have full length.
        **layer_kwargs: `name`, `dtype`, `trainable` of any Keras layer, and `encoder`
            of `Autoregressive`.

    Call arguments:
        x: `(..., length)`, any number of leading batch axes.
        context: `(..., C)`, one for the whole sequence; heard at every step.
        structure: not used; there is one.
        training: not used.

    Output shape:
        `(..., length)`, or `(..., length, num_params)`.

    Raises:
        ValueError: for an argument outside the above.

    Example:
        >>> import numpy as np
        >>> from keras_made import AutoregressiveDensity, Categorical
        >>> network = Recurrent((4,), 8, num_params=3, end=2)
        >>> model = AutoregressiveDensity(network, Categorical(3))
        >>> p = model.log_prob(np.array([[0, 2, 2, 2], [0, 2, 1, 2]]))
        >>> np.isfinite(p).tolist(), bool(p[1] < -1e6)
        ([True, True], True)

    Reference:
        Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks",
        https://karpathy.github.io/2015/05/21/rnn-effectiveness/; Graves 2013,
        "Generating Sequences With Recurrent Neural Networks",
        https://arxiv.org/abs/1308.0850
    """

    def __init__(
        self,
        event_shape: tuple[int],
        units: int,
        cell: str = "lstm",
        num_params: int | None = None,
        *,
        num_layers: int = 1,
        end: int | None = None,
        **layer_kwargs,
    ):
        shape = check_event_shape(event_shape, "length,")
        super().__init__(num_params, event_shape=shape, **layer_kwargs)
        check_positive("units", units)
        check_positive("num_layers", num_layers)
        if cell not in CELLS:
            raise ValueError(
                f"`cell` must be one of {sorted(CELLS)}. Received: cell={cell!r}."
            )
        if end is not None and not 0 <= end < (num_params or 0):
            raise ValueError(
                "`end` must be one of the classes, from 0 to num_params-1. Received: "
                f"end={end!r} with num_params={num_params}."
            )
        self.units = units
        self.cell = cell
        self.num_layers = num_layers
        self.end = end

    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        if self.end is not None and self.num_features != self.num_params:
            raise ValueError(
                "With `end`, entries must reach the network one-hot, so that the end "
                "can be seen. Use it in a density with a Categorical conditional, or "
                f"pass encoder=Categorical({self.num_params}). Received: "
                f"encoder={self.encoder!r}."
            )
        policy, width = self.dtype_policy, self.num_features + self.context_size
        make = CELLS[self.cell]
        self.cells = [
            make(self.units, dtype=policy, name=f"cell_{index}")
            for index in range(self.num_layers)
        ]
        self.layers = [
            keras.layers.RNN(cell, return_sequences=True, dtype=policy)
            for cell in self.cells
        ]
        for layer in self.layers:
            layer.build((None, self.event_size, width))
            width = self.units
        self.output_layer = keras.layers.Dense(self.params_per_entry, dtype=policy)
        self.output_layer.build((None, self.units))

    def compute_params(self, features, context, structure, training):
        batch, length = ops.shape(features)[:-2], self.event_size
        x = ops.reshape(features, (-1, length, self.num_features))
        h = delay(x, 1)
        if context is not None:
            context = ops.reshape(context, (-1, 1, self.context_size))
            h = ops.concatenate([h, ops.repeat(context, length, axis=1)], axis=-1)
        for layer in self.layers:
            h = layer(h)
        params = self.output_layer(h)
        if self.end is not None:
            # One-hot features: the sum over the past says whether there was an end.
            ended = ops.cumsum(delay(x, 1)[..., self.end], axis=1) > 0
            params = self._after_end(ended, params)
        return ops.reshape(params, (*batch, length, self.params_per_entry))

    def _after_end(self, ended, params):
        """The parameters, where a sequence is over those that leave only `end`."""
        is_half = keras.backend.standardize_dtype(params.dtype) == "float16"
        only_end = np.full(
            self.num_params, IMPOSSIBLE_IN_HALF if is_half else IMPOSSIBLE
        )
        only_end[self.end] = 0.0
        only_end = ops.convert_to_tensor(only_end, params.dtype)
        return ops.where(ended[..., None], only_end, params)

    def start(self, batch, context=None, structure=0, order=None):
        """As `Autoregressive.start`; a step is one step of the cells."""
        if order is not None:
            return super().start(batch, context, structure, order)
        state = {"ended": ops.zeros((batch,), "bool")}
        for i, cell in enumerate(self.cells):
            for j, h in enumerate(cell.get_initial_state(batch)):
                state[f"cell_{i}_{j}"] = ops.cast(h, self.compute_dtype)
        if context is not None:
            state["context"] = ops.cast(context, self.compute_dtype)
        return state

    def step(self, state, x_last, t):
        features = self.encode_entries(x_last, ops.reshape(t - 1, (1, 1)))[:, 0]
        features = features * ops.cast(t > 0, features.dtype)
        h, new = ops.cast(features, self.compute_dtype), {}
        if "context" in state:
            h = ops.concatenate([h, state["context"]], axis=-1)
        for i, cell in enumerate(self.cells):
            names = [name for name in state if name.startswith(f"cell_{i}_")]
            h, states = cell(h, [state[name] for name in names])
            new |= zip(names, states, strict=True)
        params = self.output_layer(h)
        if self.end is not None:
            new["ended"] = ops.logical_or(state["ended"], features[:, self.end] > 0)
            params = self._after_end(new["ended"], params)
        return params[:, None, :], {**state, **new}

    @property
    def floats_per_event(self) -> int:
        return 8 * self.units * self.num_layers * self.event_size

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "cell": self.cell,
            "num_layers": self.num_layers,
            "end": self.end,
        }
