"""A column as the values that it takes: a class each, with smooth logits."""

import keras
import numpy as np
from keras import ops

import keras_made as km


def cells_of(values, most):
    """Distinct values in at most about `most` cells of equal counts.

    Returns:
        `(low, high, counts, sizes)`: the least and the greatest value of each cell, how
        many entries lie in it, and how many distinct values.
    """
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(distinct) > most:
        middle = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
        _, cell = np.unique(np.floor(middle * most), return_inverse=True)
    else:
        cell = np.arange(len(distinct))
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    last = np.append(first[1:], len(distinct)) - 1
    sums = np.add.reduceat(counts, first)
    return distinct[first], distinct[last], sums, last - first + 1


def curves_of(low, high, counts, knots, ordered):
    """Functions of a cell, `(cells, functions)`: hats over knots, and powers."""
    cells = len(low)
    at = np.linspace(0, cells - 1, min(knots, cells))
    step = max((cells - 1) / max(len(at) - 1, 1), 1e-9)
    hats = np.maximum(1 - np.abs(np.arange(cells)[:, None] - at) / step, 0)
    hats = np.pad(hats, [(0, 0), (0, knots - len(at))])
    middle, weights = 0.5 * (low + high), counts / counts.sum()
    mean = np.sum(weights * middle)
    spread = np.sqrt(np.sum(weights * (middle - mean) ** 2)) or 1.0
    z = np.clip((middle - mean) / spread, -4, 4)
    rank = np.cumsum(weights) - 0.5 * weights
    score = np.sqrt(12) * (rank - 0.5)
    powers = np.stack([z, score], axis=1) * float(ordered)
    return hats, powers


@keras.saving.register_keras_serializable(package="keras_made_benchmarks")
class ValueTable(km.Conditional):
    """Every column of a table takes values that were seen; all columns at once.

    p(cell k) = softmax(log frequency + sum_j params_j curve_j(k))
    """

    num_uniforms = 2

    def __init__(self, columns, kinds, cells=128, knots=24, mixture=0, heard=24):
        self.columns = [np.asarray(c, "float64").tolist() for c in columns]
        self.kinds, self.cells, self.knots = list(kinds), cells, knots
        self.mixture, self.heard = mixture, heard
        made = [cells_of(np.asarray(c), cells) for c in self.columns]
        width = max(len(c[0]) for c in made)
        D = len(made)
        self.low = np.full((D, width), np.inf, "float32")
        self.high = np.full((D, width), np.inf, "float32")
        self.prior = np.full((D, width), -1e9, "float32")
        self.log_sizes = np.zeros((D, width), "float32")
        knots, heard = min(self.knots, width), min(self.heard, width)
        self.features = np.zeros((D, width, heard + 2), "float32")
        self.curves = np.zeros((D, width, knots + 4), "float32")
        for d, (low, high, counts, sizes) in enumerate(made):
            n = len(low)
            self.low[d, :n], self.high[d, :n] = low, high
            self.low[d, n:] = self.high[d, n:] = np.inf
            self.prior[d, :n] = np.log(counts / counts.sum())
            self.log_sizes[d, :n] = np.log(sizes)
            hats, powers = curves_of(
                low, high, counts, knots, kinds[d] != "categorical"
            )
            self.curves[d, :n] = np.concatenate([hats, powers, powers**2], 1)
            hats, powers = curves_of(
                low, high, counts, heard, kinds[d] != "categorical"
            )
            self.features[d, :n] = np.concatenate([hats, powers], 1)
        # Values are compared halfway down to the next lower one: they are rounded.
        edge = self.low.copy()
        below = np.concatenate([np.full((D, 1), -np.inf), self.high[:, :-1]], 1)
        with np.errstate(invalid="ignore"):
            edge = np.where(np.isinf(edge), np.inf, 0.5 * (edge + below))
        edge[:, 0] = -np.inf
        self.edges = edge.astype("float32")
        self.width = width
        self.num_features = heard + 2
        self.num_params = knots + 4 + 3 * mixture
        self.constants = (
            self.low,
            self.high,
            self.prior,
            self.log_sizes,
            self.features,
            self.curves,
            self.edges,
        )

    def get_config(self):
        names = ("columns", "kinds", "cells", "knots", "mixture", "heard")
        return {name: getattr(self, name) for name in names}

    def at(self, entries):
        return _At(self, [ops.take(c, entries, axis=0) for c in self.constants])

    def _whole(self):
        return _At(self, [ops.convert_to_tensor(c) for c in self.constants])

    def log_prob(self, params, x):
        return self._whole().log_prob(params, x)

    def draw(self, params, uniforms):
        return self._whole().draw(params, uniforms)

    def encode(self, x):
        return self._whole().encode(x)


class _At:
    def __init__(self, table, constants):
        self.table = table
        (
            self.low,
            self.high,
            self.prior,
            self.log_sizes,
            self.features,
            self.curves,
            self.edges,
        ) = constants

    def cell(self, x):
        x = ops.cast(x, "float32")
        inside = ops.cast(x[..., None] >= self.edges, "float32")
        after = ops.concatenate([inside[..., 1:], ops.zeros_like(inside[..., :1])], -1)
        return inside - after

    def logits(self, params):
        n = self.table.mixture
        if not n:
            return self.log_linear(params)
        mix, params = params[..., : 3 * n], params[..., 3 * n :]
        logits, loc, raw = ops.split(mix, 3, axis=-1)
        loc = loc + np.linspace(-1, 1, n).astype("float32") if n > 1 else loc
        scale = ops.softplus(raw + 1.5) + 1e-2
        z = self.curves[..., -3]
        u = (z[..., None] - loc[..., None, :]) / scale[..., None, :]
        parts = -0.5 * u * u - ops.log(scale)[..., None, :]
        parts = parts + ops.log_softmax(logits, -1)[..., None, :]
        return self.log_linear(params) + ops.logsumexp(parts, -1)

    def log_linear(self, params):
        return (
            ops.sum(params[..., None, :] * self.curves, -1) + self.prior
            if len(params.shape) != 3 or len(self.curves.shape) != 3
            else ops.einsum("bdp,dkp->bdk", params, self.curves) + self.prior
        )

    def log_prob(self, params, x):
        log_probs = ops.log_softmax(self.logits(params), -1) - self.log_sizes
        return ops.sum(self.cell(x) * log_probs, -1)

    def draw(self, params, uniforms):
        p = ops.softmax(self.logits(params), -1)
        c = ops.cumsum(p, -1)
        passed = c[..., :-1] <= uniforms[..., :1] * c[..., -1:]
        k = ops.sum(ops.cast(passed, "int32"), -1)
        hot = ops.cast(ops.one_hot(k, self.table.width), "bool")
        low = ops.sum(ops.where(hot, self.low, 0.0), -1)
        high = ops.sum(ops.where(hot, self.high, 0.0), -1)
        return low + (high - low) * uniforms[..., 1]

    def encode(self, x):
        cell = self.cell(x)
        if len(cell.shape) == 3 and len(self.features.shape) == 3:
            return ops.einsum("bdk,dkf->bdf", cell, self.features)
        return ops.sum(cell[..., None] * self.features, -2)
