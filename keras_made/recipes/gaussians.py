"""Mixtures of Gaussians by expectation and maximisation, as densities of this package.

What few rows say is often linear, in one cluster or in several; gradient steps are slow
to find it where columns nearly depend on each other.
"""

import numpy as np
from keras import ops

from keras_made.densities.density import AutoregressiveDensity
from keras_made.densities.ensemble import Ensemble
from keras_made.entries import Normal
from keras_made.entries.arithmetic import raw_scale
from keras_made.networks.made import MADE

# Of EM: starts, of which the likeliest is taken, and rounds of each.
STARTS, ROUNDS = 5, 100


def gaussian_mixture(x, number: int, floor: float, seed: int = 0):
    """The density of a number of Gaussians with covariances of their own.

    A Gaussian is a density of normals whose locations are linear in the entries before,
    `MADE([])`, and a mixture of several is their `Ensemble`.

    Args:
        x: complete rows `(n, D)`.
        number: of Gaussians.
        floor: of a standard deviation in any direction, in those of the columns.
        seed: of the starts.

    Returns:
        An `AutoregressiveDensity`, or an `Ensemble` of these.

    Reference:
        Dempster, Laird, Rubin 1977, "Maximum Likelihood from Incomplete Data via the
        EM Algorithm".
    """
    members = [_linear(x, floor) for _ in range(number)]
    z, _ = members[0].units.standardize(ops.convert_to_tensor(x, "float32"))
    z = ops.convert_to_numpy(z).astype("float64")
    rng = np.random.RandomState(seed)
    starts = [expect_and_maximise(z, number, floor, rng) for _ in range(STARTS)]
    weights, means, covariances = max(starts, key=lambda found: found[0])[1:]
    for member, *moments in zip(members, means, covariances, strict=True):
        _assign(member, *moments)
    return members[0] if number == 1 else Ensemble(members, weights)


def expect_and_maximise(z, number, floor, rng):
    """Mean log p of rows `(n, D)`, then weights, means and covariances of Gaussians."""
    centres = z[rng.choice(len(z), number, replace=False)]
    distance = ((z[:, None] - centres) ** 2).sum(axis=-1)
    shares = np.eye(number)[distance.argmin(axis=1)]
    for _ in range(ROUNDS if number > 1 else 1):
        # A Gaussian that has lost all rows keeps a thousandth of one.
        counts = shares.sum(axis=0) + 1e-3
        means = shares.T @ z / counts[:, None]
        apart = z - means[:, None]
        covariances = np.einsum("nk,kni,knj->kij", shares, apart, apart)
        covariances = covariances / counts[:, None, None] + floor**2 * np.eye(len(z.T))
        weights = counts / counts.sum()
        scores = np.log(weights) + _log_normal(apart, covariances)
        total = np.logaddexp.reduce(scores, axis=1)
        shares = np.exp(scores - total[:, None])
    return total.mean(), weights, means, covariances


def _log_normal(apart, covariances):
    """log N of rows about each of K means, `(K, n, D)` to `(n, K)`."""
    scaled = np.linalg.solve(covariances, apart.transpose(0, 2, 1))
    squares = np.einsum("knd,kdn->nk", apart, scaled)
    log_det = np.linalg.slogdet(covariances)[1]
    return -0.5 * (squares + log_det + apart.shape[-1] * np.log(2 * np.pi))


def _linear(x, floor):
    """A density whose locations are linear in the entries before, in units of rows."""
    network = MADE([], 2, kernel_form="masked")
    model = AutoregressiveDensity(network, Normal(min_scale=0.1 * floor))
    model.build((None, x.shape[1]))
    model.adapt(x)
    return model


def _assign(model, mean, covariance):
    """A Gaussian of standardised entries, as regressions on the entries before."""
    size, layer = len(mean), model.network.direct_layer
    kernel, bias = np.zeros((size, 2 * size)), np.zeros((size, 2))
    for entry in range(size):
        before = covariance[:entry, :entry]
        slopes = np.linalg.solve(before, covariance[:entry, entry])
        left = covariance[entry, entry] - slopes @ covariance[:entry, entry]
        kernel[:entry, 2 * entry] = slopes
        loc = mean[entry] - slopes @ mean[:entry]
        bias[entry] = loc, raw_scale(np.sqrt(left), model.conditional.min_scale)
    layer.kernel.assign(kernel.astype("float32"))
    layer.bias.assign(bias.ravel().astype("float32"))
