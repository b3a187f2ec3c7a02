"""Pictures: who hears whom in a network, samples, densities in the plane, tables."""

import numpy as np

from keras_made.checks import require
from keras_made.graph_masks import check_adjacency, depths
from keras_made.networks.made import MADE
from keras_made.tables.pictures import (
    new_figure,
    plot_marginals,
    plot_missing,
    plot_pairs,
)

__all__ = [
    "image_grid",
    "plot_connectivity",
    "plot_density",
    "plot_marginals",
    "plot_missing",
    "plot_pairs",
    "plot_samples",
]


def plot_connectivity(network, structure: int = 0):
    """The figure of the paper: layers, degrees, live weights, and who hears whom.

    Every unit shows its degree, the rank of the last variable that it has heard of,
    inputs below and outputs above; a line is a weight that the masks keep. Beside it is
    the matrix of `network.connectivity(structure)`.

    Args:
        network: a `MADE` that is built; small ones, of up to about 12 variables, are
            legible.
        structure: which one to show.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if the network is not a `MADE`.
        ImportError: if matplotlib is not installed.

    Reference:
        Germain et al. 2015, figure 1, https://arxiv.org/abs/1502.03509
    """
    if not isinstance(network, MADE):
        raise ValueError(
            f"`network` must be a MADE, whose units have degrees. Received: {network!r}"
        )
    ranks = network.ranks(structure)
    layers = [ranks, *(d[structure] for d in network.unit_degrees), ranks]
    *masks, direct = network.masks(structure)
    # The context has no place in the picture.
    masks = [mask[: len(below)] for mask, below in zip(masks, layers, strict=False)]
    direct = direct[: len(ranks)]
    figure = new_figure((10, 5))
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    _draw_layers(left, layers, masks or [direct])
    if network.direct and network.hidden_layers:
        _draw_direct(left, direct, len(layers) - 1)
    _draw_matrix(right, network.connectivity(structure))
    return figure


def _draw_layers(axes, layers, masks):
    for height, mask in enumerate(masks):
        below, above = (_places(count) for count in mask.shape)
        for i, j in np.argwhere(mask):
            ends = below[i], above[j]
            axes.plot(ends, (height, height + 1), color="tab:blue", lw=0.8, alpha=0.6)
    for height, degrees in enumerate(layers):
        for place, degree in zip(_places(len(degrees)), degrees, strict=True):
            edge = {"boxstyle": "circle,pad=0.35", "fc": "white", "ec": "black"}
            axes.text(place, height, degree, bbox=edge, ha="center", va="center")
    names = [f"hidden {i}" for i in range(len(layers) - 2)]
    axes.set_yticks(range(len(layers)), ["inputs", *names, "outputs"])
    axes.set_xticks([])
    axes.margins(0.08, 0.12)
    axes.spines[:].set_visible(False)
    axes.set_title("degree of every unit")


def _draw_direct(axes, mask, height):
    places = _places(len(mask))
    for i, j in np.argwhere(mask):
        ends = places[i], places[j]
        axes.plot(ends, (0, height), color="tab:orange", lw=0.6, alpha=0.4, zorder=0)
    axes.plot([], [], color="tab:orange", lw=1, label="direct")
    axes.legend(loc="upper right", frameon=False, bbox_to_anchor=(1.0, -0.01))


def _places(count):
    return (np.arange(count) + 0.5) / count


def _draw_matrix(axes, heard):
    axes.imshow(heard, cmap="Blues", vmin=0, vmax=1.3)
    axes.set(xlabel="input j", ylabel="output i", title="output i hears input j")
    axes.set_xticks(range(len(heard)) if len(heard) <= 12 else [])
    axes.set_yticks(range(len(heard)) if len(heard) <= 12 else [])


def plot_graph(adjacency, names=None):
    """A directed acyclic graph, its variables in layers of equal depth.

    Args:
        adjacency: bools (D, D), `[i, j]`: variable i hears variable j, an arrow from
            j to i.
        names: of the variables. None: their numbers.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    graph = check_adjacency(adjacency)
    ranks, names = depths(graph), names or [str(i) for i in range(len(graph))]
    places = np.zeros((len(graph), 2))
    for rank in range(ranks.max() + 1):
        layer = np.flatnonzero(ranks == rank)
        # Every other layer is moved, so that arrows past it do not run through it.
        places[layer, 0] = _places(len(layer)) - 0.12 * (rank % 2)
        places[layer, 1] = -rank
    figure = new_figure((7, 1 + 1.2 * (ranks.max() + 1)))
    axes = figure.add_subplot()
    for i, j in np.argwhere(graph):
        arrow = {"arrowstyle": "->", "color": "tab:blue", "shrinkA": 16, "shrinkB": 16}
        axes.annotate("", places[i], places[j], arrowprops=arrow)
    for (x, y), name in zip(places, names, strict=True):
        box = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": "black"}
        axes.text(x, y, name, bbox=box, ha="center", va="center")
    axes.set(xlim=(-0.17, 1.05), ylim=(-ranks.max() - 0.6, 0.6))
    axes.set_axis_off()
    return figure


def plot_samples(samples, image_shape=None, columns: int | None = None):
    """A grid of pictures.

    Args:
        samples: `(n, H, W)`, `(n, H, W, channels)`, or `(n, D)` with `image_shape`.
        image_shape: shape of one picture, `(H, W)` or `(H, W, channels)`.
        columns: pictures to a line. None: about as many as lines.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    grid = image_grid(samples, image_shape, columns)
    height, width = grid.shape[:2]
    figure = require("matplotlib.figure").Figure(figsize=(6, 6 * height / width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(grid, cmap="gray")
    axes.set_axis_off()
    return figure


def image_grid(samples, image_shape=None, columns=None) -> np.ndarray:
    """The pictures of `plot_samples` as one, with values from 0 to 1.

    Returns:
        Floats `(lines * (H + 1) - 1, columns * (W + 1) - 1)`, and channels if any.
    """
    x = np.asarray(samples, dtype="float32")
    shape = tuple(image_shape or x.shape[1:])
    if len(shape) not in (2, 3) or x[:1].size != np.prod(shape):
        raise ValueError(
            "`image_shape` must be (H, W) or (H, W, channels) and hold one sample. "
            f"Received: image_shape={image_shape}, samples of shape {x.shape}."
        )
    low, high = x.min(), x.max()
    x = (x.reshape(-1, *shape) - low) / max(high - low, 1e-12)
    columns = columns or int(np.ceil(np.sqrt(len(x))))
    lines = -(-len(x) // columns)
    height, width = shape[0] + 1, shape[1] + 1
    grid = np.full((lines * height - 1, columns * width - 1, *shape[2:]), 0.5)
    for i, picture in enumerate(x):
        top, left = i // columns * height, i % columns * width
        grid[top : top + shape[0], left : left + shape[1]] = picture
    return grid[..., 0] if grid.shape[2:] == (1,) else grid


def plot_density(model, limits=(-3.0, 3.0), context=None, data=None, points=200):
    """p(x) of a density over two variables, as colours in the plane.

    Args:
        model: a `LikelihoodModel` over events of shape (2,).
        limits: of both axes, or `((left, right), (bottom, top))`.
        context: `(C,)` or None.
        data: rows `(n, 2)` to show as dots, or None.
        points: along each axis.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    if tuple(model.event_shape or ()) != (2,):
        raise ValueError(
            "`model` must be a density of two variables. Received: event_shape="
            f"{model.event_shape}."
        )
    (left, right), (bottom, top) = np.broadcast_to(limits, (2, 2))
    plane = np.meshgrid(
        np.linspace(left, right, points), np.linspace(bottom, top, points)
    )
    x = np.stack(plane, axis=-1).reshape(-1, 2).astype("float32")
    log_prob = np.asarray(model.log_prob(x, context, verbose=0))
    figure = new_figure((5.5, 5))
    axes = figure.add_subplot()
    image = axes.imshow(
        np.exp(log_prob).reshape(points, points),
        origin="lower",
        extent=(left, right, bottom, top),
        aspect="auto",
    )
    if data is not None:
        axes.plot(*np.asarray(data).T[:2], ".", color="white", ms=1.5, alpha=0.5)
    axes.set(xlabel="$x_0$", ylabel="$x_1$", xlim=(left, right), ylim=(bottom, top))
    figure.colorbar(image, label="p(x)")
    return figure
