"""Pictures of tables: marginals beside those of another table, pairs, and holes."""

import numpy as np

from keras_made.checks import require
from keras_made.tables.schema import as_frame

# Bars of a column of names; the rest is left out.
MOST_BARS = 20
COLOURS = ("#9a9a9a", "#b5367a")


def plot_marginals(real, synthetic, columns=None):
    """Each column of a real table beside that of a synthetic (or completed) one.

    Args:
        real: a DataFrame; what is missing is left out.
        synthetic: a DataFrame with the same columns.
        columns: names of those to show. None: all.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: by name, for a column that one of the tables has not.
    """
    real, synthetic = as_frame(real), as_frame(synthetic)
    names = _names(columns, real, synthetic)
    wide = min(4, len(names))
    figure = new_figure((3.2 * wide, 2.4 * -(-len(names) // wide)))
    for place, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // wide), wide, place + 1)
        _draw_column(axes, real[name].dropna(), synthetic[name].dropna())
        axes.set(title=name, yticks=[])
    axes.legend(["real", "synthetic"], fontsize=8)
    return figure


def plot_pairs(real, synthetic, columns=None, most_points=1000):
    """Each pair of columns of numbers, real rows below, synthetic ones above.

    Args:
        real: a DataFrame.
        synthetic: a DataFrame with the same columns.
        columns: names of two or more columns of numbers. None: the first four.
        most_points: rows of each that are shown.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    pd = require("pandas")
    real, synthetic = as_frame(real), as_frame(synthetic)
    if columns is None:
        numeric = pd.api.types.is_numeric_dtype
        columns = [name for name in real.columns if numeric(real[name].dtype)][:4]
    names = _names(columns, real, synthetic)
    if len(names) < 2:
        raise ValueError(f"Pairs need two columns of numbers. Received: {names}.")
    figure = new_figure((2.2 * len(names), 2.2 * len(names)))
    axes = figure.subplots(len(names), len(names), squeeze=False)
    for i, below in enumerate(names):
        for j, across in enumerate(names):
            frame, colour = (real, 0) if i > j else (synthetic, 1)
            if i == j:
                _draw_column(
                    axes[i, j], real[below].dropna(), synthetic[below].dropna()
                )
            else:
                rows = frame.iloc[:most_points].astype({across: float, below: float})
                axes[i, j].plot(
                    rows[across], rows[below], ".", ms=2, color=COLOURS[colour]
                )
            axes[i, j].set(xticks=[], yticks=[])
        axes[i, 0].set_ylabel(below)
        axes[-1, i].set_xlabel(below)
    return figure


def plot_missing(frame, most_rows=500):
    """Where a table has holes: rows down, columns across, black where missing.

    Args:
        frame: a DataFrame.
        most_rows: rows that are shown, evenly spread.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    frame = as_frame(frame)
    rows = np.unique(
        np.linspace(0, len(frame) - 1, min(most_rows, len(frame))).astype(int)
    )
    holes = frame.isna().to_numpy()
    figure = new_figure((1 + 0.5 * frame.shape[1], 4))
    axes = figure.add_subplot()
    axes.imshow(
        holes[rows], cmap="Greys", aspect="auto", interpolation="none", vmin=0, vmax=1
    )
    labels = [
        f"{name} ({share:.0%})"
        for name, share in zip(frame.columns, holes.mean(axis=0), strict=True)
    ]
    axes.set_xticks(range(frame.shape[1]), labels, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel(f"{len(rows)} of {len(frame)} rows")
    return figure


def _names(columns, *frames):
    names = list(frames[0].columns if columns is None else columns)
    for frame in frames:
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise ValueError(
                f"Column {missing[0]!r} is not in both tables. Received: columns "
                f"{list(frame.columns)}."
            )
    return names


def _draw_column(axes, real, synthetic):
    pd = require("pandas")
    is_number = pd.api.types.is_numeric_dtype(real.dtype)
    if is_number and not pd.api.types.is_bool_dtype(real.dtype):
        both = [s.astype(float) for s in (real, synthetic)]
        bins = np.histogram_bin_edges(both[0], bins=_bins(both[0]))
        for values, colour, style in zip(
            both, COLOURS, ("stepfilled", "step"), strict=True
        ):
            axes.hist(values, bins, density=True, color=colour, histtype=style)
    elif pd.api.types.is_datetime64_any_dtype(real.dtype):
        for values, colour, style in zip(
            (real, synthetic), COLOURS, ("stepfilled", "step"), strict=True
        ):
            axes.hist(values, 30, density=True, color=colour, histtype=style)
        axes.tick_params(axis="x", labelrotation=30, labelsize=7)
    else:
        counts = real.astype(str).value_counts()
        if isinstance(real.dtype, pd.CategoricalDtype) and real.dtype.ordered:
            counts = counts.reindex(real.cat.categories.astype(str)).fillna(0)
        names = counts.index[:MOST_BARS]
        for shift, (values, colour) in enumerate(
            zip((real, synthetic), COLOURS, strict=True)
        ):
            shares = (
                values.astype(str).value_counts(normalize=True).reindex(names).fillna(0)
            )
            axes.bar(
                np.arange(len(names)) + 0.4 * shift - 0.2, shares, 0.4, color=colour
            )
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)


def _bins(values):
    distinct = np.unique(values)
    if len(distinct) > 40:
        return 40
    edges = (distinct[1:] + distinct[:-1]) / 2
    gap = np.diff(distinct).min() if len(distinct) > 1 else 1.0
    return np.concatenate([[distinct[0] - gap / 2], edges, [distinct[-1] + gap / 2]])


def new_figure(size):
    """A figure of matplotlib that belongs to no window; `size` in inches."""
    return require("matplotlib.figure").Figure(figsize=size, layout="constrained")
