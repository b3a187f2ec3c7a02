"""The rule of `keras_made.masks` over images, in raster order."""

import numpy as np

from keras_made.masks import connect


def image_mask(
    kernel_size: tuple[int, int],
    sources: np.ndarray,
    targets: np.ndarray,
    strict: bool = False,
    by_row: bool = False,
) -> np.ndarray:
    """What a convolution over an image may hear, at each place of its kernel.

    Pixels are generated row by row, the channels of a pixel in order. That place in
    the order is the degree, so the rule is the one of `connect`, with degrees counted
    from the pixel that hears. The kernel ends with that pixel's row: rows below it are
    never heard, and have no weights.

    Args:
        kernel_size: height and width, odd.
        sources: channel of the image that each input map belongs to, `(inputs,)`.
        targets: likewise for the maps that hear, `(units,)`.
        strict: equal degrees are kept apart: mask type A of the papers, else type B.
        by_row: the rank of a row decides alone, for all its columns and channels.

    Returns:
        Booleans of shape `(height // 2 + 1, width, inputs, units)`.

    Example:
        >>> import numpy as np
        >>> channel = np.array([0])
        >>> image_mask((3, 3), channel, channel, strict=True)[..., 0, 0].astype(int)
        array([[1, 1, 1],
               [1, 0, 0]])

    Reference:
        van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural
        Networks", https://arxiv.org/abs/1601.06759
    """
    height, width = kernel_size
    rows = np.arange(-(height // 2), 1)[:, None, None]
    columns = (np.arange(width) - width // 2)[None, :, None]
    if by_row:
        degrees = rows + 0 * columns + 0 * sources
        targets = np.zeros_like(targets)
    else:
        # A row outweighs every column of the kernel, and a column every channel.
        channels = 1 + max(sources.max(), targets.max())
        degrees = (rows * width + columns) * channels + sources
    mask = connect(degrees.ravel(), targets, strict)
    return mask.reshape(*degrees.shape, len(targets))


def image_reach(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask of a convolution as one over all entries of an image.

    Args:
        mask: booleans `(kernel rows, kernel columns, channels, channels)` as from
            `image_mask`.
        height: rows of the image.
        width: columns of the image.

    Returns:
        Booleans `(entries, entries)`, `[input, output]`, entries being in the order
        row, column, channel.
    """
    channels = mask.shape[2]
    reach = np.zeros((height, width, channels) * 2, dtype=bool)
    rows, columns = np.indices((height, width)).reshape(2, -1)
    for i, j in np.ndindex(mask.shape[:2]):
        row = rows + i - mask.shape[0] + 1
        column = columns + j - mask.shape[1] // 2
        inside = (row >= 0) & (column >= 0) & (column < width)
        source = row[inside], column[inside]
        target = rows[inside], columns[inside]
        reach[source[0], source[1], :, target[0], target[1], :] |= mask[i, j]
    return reach.reshape(height * width * channels, -1)
