"""MADE one variable at a time in few, large operations: for small events.

The blocks of `Incremental` touch every weight once, in many small operations on windows
whose places must be looked up. For a small network those cost more than arithmetic.
Here a step recomputes the hidden layers whole, all but what the first one hears: there
an entry adds what it says to the units of its own or a greater degree,

    a += (features of the entry of rank t-1) W_1 * (degrees >= t-1)

and likewise to outputs that hear it directly. An output hears the units of a smaller
degree than its rank, and that is the only mask that is left.

The order of the variables is `(1, D)`, shared by the batch, or `(batch, D)`, each
example's own. A step takes the weights of the two entries that it is about, of a shared
order once, else for each example.
"""

from keras import ops

from keras_made.networks.slicing import is_shared


class Accumulating:
    """The steps of one `MADE`, as those of `Incremental`; nothing is done by `open`.

    Args:
        made: the layer, built.
    """

    def __init__(self, made):
        self.made = made
        self.size = made.event_size
        self.orders = made.orders()
        self.deep = len(made.hidden_units) > 0

    def start(self, batch, context, structure, order):
        made = self.made
        if order is None:
            order = ops.take(self.orders, structure, axis=0)[None]
        state = {"order": ops.cast(order, "int32")}
        if made.direct_layer is not None:
            state |= self._start_hearing("direct", made.direct_layer, batch, context)
        if not self.deep:
            return state
        state |= self._start_hearing("hidden", made.hidden_layers[0], batch, context)
        for name, degrees in (("first", 0), ("last", -1)):
            degrees = ops.take(made.unit_degrees[degrees], structure, axis=0)
            state[f"degrees_{name}"] = degrees
        for i, layer in enumerate(made.hidden_layers[1:], start=1):
            state |= self._start_layer(i, layer, structure)
        kernel = ops.convert_to_tensor(made.output_layer.kernel)
        bias = ops.convert_to_tensor(made.output_layer.bias)
        shape = (-1, self.size, made.params_per_entry)
        return state | {
            "kernel_out": ops.reshape(kernel, shape),
            "bias_out": ops.reshape(bias, shape),
        }

    def _start_hearing(self, name, layer, batch, context):
        """A kernel over entries, `(D, features, units)`, and what was heard so far.

        That is the bias and the context at first. The companion weights of an entry
        hear a one that it brings beside its features.
        """
        made, units = self.made, layer.units
        kernel = ops.convert_to_tensor(layer.kernel)
        heard = ops.zeros((1, units), kernel.dtype)
        if layer.use_bias:
            heard = heard + ops.convert_to_tensor(layer.bias)
        inputs = self.size * made.num_features
        if context is not None and made.context_size:
            context = ops.cast(context, kernel.dtype)
            heard = heard + ops.matmul(context, kernel[inputs:])
        rows = ops.reshape(kernel[:inputs], (self.size, -1, units))
        if layer.companion:
            companion = ops.convert_to_tensor(layer.companion_kernel)
            heard = heard + ops.sum(companion[inputs:], axis=0)
            companion = ops.reshape(companion[:inputs], (self.size, -1, units))
            known = ops.sum(companion, axis=1, keepdims=True)
            rows = ops.concatenate([rows, known], axis=1)
        return {
            f"kernel_{name}": rows,
            f"heard_{name}": ops.broadcast_to(heard, (batch, units)),
        }

    def _start_layer(self, i, layer, structure):
        """A masked kernel and a bias: between hidden layers the order says nothing."""
        kernel = ops.convert_to_tensor(layer.kernel)
        bias = ops.convert_to_tensor(layer.bias)[None]
        mask = ops.cast(layer.mask(structure), kernel.dtype)
        if layer.companion:
            companion = ops.convert_to_tensor(layer.companion_kernel)
            bias = bias + ops.sum(companion * mask, axis=0)
        return {f"kernel_{i}": kernel * mask, f"bias_{i}": bias}

    def open(self, state, x_last, t):
        return state

    def step(self, state, x_last, t):
        """Hear the entry of rank t-1, and speak for the one of rank t."""
        state = self._hear(state, x_last, t)
        entry = ops.take(state["order"], t, axis=1)
        params = 0.0
        if self.deep:
            params = self._speak(state, self._hidden(state, t), entry)
        if "heard_direct" in state:
            width = state["heard_direct"].shape[-1] // self.size
            heard = ops.reshape(state["heard_direct"], (-1, self.size, width))
            params = params + self.made.beside_zeros(_of_entry(heard, entry))
        return params, state

    def _hear(self, state, x_last, t):
        entry = ops.take(state["order"], ops.maximum(t - 1, 0), axis=1)
        features = self.made.encode_entries(x_last, entry[:, None])[:, 0]
        features = features * ops.cast(ops.greater(t, 0), features.dtype)
        new = {}
        if "heard_direct" in state:
            # It hears whatever is known when its output speaks.
            said = _say(features, state["kernel_direct"], entry)
            new["heard_direct"] = state["heard_direct"] + said
        if self.deep:
            if self.made.companion:
                one = ops.ones_like(features[:, :1])
                one = one * ops.cast(ops.greater(t, 0), features.dtype)
                features = ops.concatenate([features, one], axis=1)
            said = _say(features, state["kernel_hidden"], entry)
            hears = ops.cast(state["degrees_first"] >= t - 1, said.dtype)
            new["heard_hidden"] = state["heard_hidden"] + said * hears
        return {**state, **new}

    def _hidden(self, state, t):
        """The last hidden layer, with zeros for what the output of rank t hears not."""
        layers = self.made.hidden_layers
        h = layers[0].activation(state["heard_hidden"])
        for i, layer in enumerate(layers[1:], start=1):
            hidden = ops.matmul(h, state[f"kernel_{i}"]) + state[f"bias_{i}"]
            hidden = layer.activation(hidden)
            h = hidden + h if self.made.is_residual(i) else hidden
        return h * ops.cast(state["degrees_last"] < t, h.dtype)

    def _speak(self, state, h, entry):
        """The parameters `(batch, 1, num_params)` of an entry of each example."""
        kernel, bias = state["kernel_out"], _of_entry(state["bias_out"], entry)
        if is_shared(entry):
            return ops.matmul(h, ops.take(kernel, entry[0], axis=1))[:, None] + bias
        columns = ops.take(ops.transpose(kernel, (1, 2, 0)), entry, axis=0)
        return ops.sum(columns * h[:, None], axis=-1)[:, None] + bias


def _say(features, kernel, entry):
    """What `features (batch, n)` of an entry say through `kernel (D, n, units)`."""
    if is_shared(entry):
        return ops.matmul(features, ops.take(kernel, entry[0], axis=0))
    rows = ops.take(kernel, entry, axis=0)
    return ops.sum(features[:, :, None] * rows, axis=1)


def _of_entry(values, entry):
    """`values (1 or batch, D, n)` of one entry of each example, `(batch, 1, n)`."""
    if is_shared(entry):
        return ops.take(values, entry, axis=1)
    values = ops.broadcast_to(values, (ops.shape(entry)[0], *values.shape[1:]))
    return ops.take_along_axis(values, entry[:, None, None], axis=1)
