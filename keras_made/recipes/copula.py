"""A Gaussian copula of incomplete rows: what few rows say of how columns go together.

Each column becomes normal scores by its ranks, the correlations of the scores are found
by expectation and maximisation over what is missing, and draws go back through the
columns' own values. No row of a network's needs to be spent on learning that.
"""

import numpy as np
from keras import ops

from keras_made.entries.arithmetic import normal_quantile

# Of the rows that correlations are learned from, times the squared columns; and rounds.
MOST_NUMBERS, ROUNDS = 4_000_000, 15
# Uncorrelated rows that are counted beside the data, for each column: a quarter.
PRIOR_ROWS = 0.25


class GaussianCopula:
    """Rows with normal scores of their ranks, of which each has the data's own values.

    Args:
        x: `(n, D)`, NaN where missing; a column of nothing else is drawn as NaN.
        continuous: one boolean or D, the columns that may be drawn between their
            values; such of which few differ are not.
        seed: of the order of equal values.

    Reference:
        Nelsen 2006, "An Introduction to Copulas"; EM for normals with holes: Little,
        Rubin 2002, "Statistical Analysis with Missing Data", section 11.2.
    """

    def __init__(self, x, continuous, seed: int = 0):
        rng = np.random.RandomState(seed)
        self.values = [np.sort(column[~np.isnan(column)]) for column in x.T]
        self.continuous = [
            line and 2 * len(np.unique(own)) > len(own)
            for line, own in zip(
                np.broadcast_to(continuous, x.shape[1]), self.values, strict=True
            )
        ]
        # Where each of the values lies, one after the other.
        self.scores = [_normal_quantiles(len(own)) for own in self.values]
        chosen = rng.permutation(len(x))[: MOST_NUMBERS // x.shape[1] ** 2]
        scores = np.stack([normal_scores(c, rng) for c in x[chosen].T], axis=1)
        self.correlation = correlation(scores, PRIOR_ROWS * x.shape[1])

    def sample(self, num_samples: int, rng) -> np.ndarray:
        """Complete rows `(num_samples, D)` of values as the data have them."""
        noise = rng.standard_normal((num_samples, len(self.values)))
        scores = noise @ np.linalg.cholesky(self.correlation).T
        own = self.values, self.scores, self.continuous
        columns = zip(scores.T, *own, strict=True)
        return np.stack([_values_at(*column) for column in columns], axis=1)


def normal_scores(column, rng):
    """Normal quantiles of the ranks of what is seen, equal values in random order."""
    seen = np.flatnonzero(~np.isnan(column))
    order = np.lexsort((rng.uniform(size=len(seen)), column[seen]))
    scores = np.full(len(column), np.nan)
    scores[seen[order]] = _normal_quantiles(len(seen))
    return scores


def _normal_quantiles(count):
    middles = ((np.arange(count) + 0.5) / count).astype("float32")
    return ops.convert_to_numpy(normal_quantile(middles)).astype("float64")


def _values_at(scores, values, places, continuous):
    """The values of a column at some normal scores, or what is between them."""
    if not len(values):
        return np.full(len(scores), np.nan)
    ranks = np.interp(scores, places, np.arange(len(values)))
    if continuous:
        return np.interp(ranks, np.arange(len(values)), values)
    return values[np.round(ranks).astype(int)]


def correlation(scores, prior_rows):
    """Correlations `(D, D)` of normal rows `(n, D)` with holes, by EM."""
    size = scores.shape[1]
    seen = ~np.isnan(scores)
    both = seen[:, :, None] & seen[:, None, :]
    neither = ~seen[:, :, None] & ~seen[:, None, :]
    known = np.where(seen, scores, 0.0)
    found = np.eye(size)
    for _ in range(ROUNDS):
        # Of each row, the inverse among what is seen, and ones elsewhere.
        inverse = np.linalg.inv(np.where(both, found, np.eye(size)))
        slopes = found @ np.where(both, inverse, 0.0)
        expected = np.where(seen, known, np.einsum("nij,nj->ni", slopes, known))
        left = np.where(neither, found - slopes @ found, 0.0).sum(axis=0)
        total = expected.T @ expected + left + prior_rows * np.eye(size)
        spread = np.sqrt(np.diag(total))
        found = total / np.outer(spread, spread)
    return found
