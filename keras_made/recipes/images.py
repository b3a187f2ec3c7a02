"""Whether rows of bits are images that were laid out row by row."""

import numpy as np

# Rows that are looked at, the least height and width, and what tells an image: columns
# one apart, and those that lie above each other, are alike by as much as the first
# number, and by as much as the second more than those half a width apart.
LOOKED_AT, LEAST_SIDE = 2000, 6
ALIKE, MORE_ALIKE = 0.1, 0.08


def image_shape(x) -> tuple[int, int] | None:
    """Height and width of the images that rows are, or None where they are none.

    Pixels are like those beside them and like those above them, and less like what is
    half a width away. That a network of images suits such rows is then left to their
    validation.

    Args:
        x: bits `(n, D)`.

    Example:
        >>> corner = np.random.RandomState(0).randint(1, 7, (500, 2))
        >>> inside = np.arange(8) < corner[..., None]
        >>> x = inside[:, 0, :, None] & inside[:, 1, None, :]
        >>> image_shape(x.reshape(500, 64).astype("float32"))
        (8, 8)
    """
    size = x.shape[1]
    widths = [w for w in range(LEAST_SIDE, size // LEAST_SIDE + 1) if size % w == 0]
    if not widths:
        return None
    x = x[:: -(-len(x) // LOOKED_AT)].astype("float64")
    x = x - x.mean(axis=0)
    beside = _likeness(x, 1)
    found = max(widths, key=lambda width: _likeness(x, width))
    above, half = _likeness(x, found), _likeness(x, found // 2)
    if min(beside, above) < max(ALIKE, half + MORE_ALIKE):
        return None
    return size // found, found


def _likeness(x, lag):
    """Of columns so far apart: the mean of their correlations, weighted by spread."""
    first, second = x[:, :-lag], x[:, lag:]
    spread = np.sqrt((first**2).mean(axis=0) * (second**2).mean(axis=0)).sum()
    return float((first * second).mean(axis=0).sum() / max(spread, 1e-12))
