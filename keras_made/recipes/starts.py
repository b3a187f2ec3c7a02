"""Where training starts: at what each entry is like by itself."""

import numpy as np
from keras import ops

from keras_made.entries import Columns, Incomplete


def start_at_marginals(network, conditional, x) -> None:
    """Output biases by which each discrete entry has its own shares, whatever is heard.

    Without it a network learns first, and for every order, how rare a one is.

    Args:
        network: built, with an `output_bias` of all parameters, which is zero; any
            other, such as one that was trained before, is left as it is.
        conditional: of the entries.
        x: rows `(n, D)`, NaN where missing.
    """
    bias = getattr(network, "output_bias", None)
    start = np.zeros((x.shape[1], network.params_per_entry))
    if bias is None or int(np.prod(bias.shape)) != start.size:
        return
    if ops.convert_to_numpy(bias).any():
        return
    conditionals = _by_entry(conditional, x.shape[1])
    for entry, one in enumerate(conditionals):
        own = one.marginal_params(x[:, entry])
        start[entry, : len(own)] = own
    bias.assign(start.reshape(bias.shape).astype("float32"))


def _by_entry(conditional, size):
    """One conditional for each of `size` entries."""
    if isinstance(conditional, Columns):
        return conditional.conditionals
    if isinstance(conditional, Incomplete) and isinstance(
        conditional.conditional, Columns
    ):
        return [Incomplete(one) for one in conditional.conditional.conditionals]
    return [conditional] * size
