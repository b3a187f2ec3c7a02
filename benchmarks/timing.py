"""What the benchmarks share: interleaved timings, tables, the data folder."""

import functools
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np


def interleaved_medians(functions, repeats=9):
    """Median seconds of each function, called in turn so that drift cancels.

    Args:
        functions: dict of name to a function without arguments that returns an array
            or tensor; what it returns is brought to NumPy, so work is finished.
        repeats: number of rounds after one to warm up (and compile).

    Returns:
        Dict of name to seconds.
    """
    times = {name: [] for name in functions}
    for round_ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            np.asarray(function())
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def describe_machine():
    """What numbers were measured on: processor, cores, back end, versions."""
    import keras

    backend = keras.backend.backend()
    packages = ("keras_made", "keras", backend, "numpy")
    processor = platform.processor() or platform.machine()
    return {
        "machine": f"{processor}, {os.cpu_count()} cores",
        "backend": backend,
        "python": platform.python_version(),
        **{name: version(name) for name in packages if is_installed(name)},
    }


def is_installed(name):
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def steps_together(number):
    """`steps_per_execution` of that many, or 1 on torch, where Keras takes no more."""
    import keras

    return 1 if keras.backend.backend() == "torch" else number


def fit_until_worse(model, rows, valid, batch_size, epochs, patience, callbacks=()):
    """Validation nats of every epoch; the weights of the best one are kept.

    Args:
        model: a compiled model of keras_made.
        rows: rows, or `(rows, context)`, to train on.
        valid: the same, to say when to stop.
        batch_size: as in `fit`.
        epochs: at most so many.
        patience: epochs without a better one before it stops.
        callbacks: those that come first.
    """
    import keras

    stop = keras.callbacks.EarlyStopping(
        "val_nll", patience=patience, restore_best_weights=True
    )
    history = model.fit(
        rows,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=valid,
        callbacks=[*callbacks, stop],
        verbose=0,
    )
    return history.history["val_nll"]


def print_row(row):
    """The values of one row of a table, at once, for what takes long."""
    values = (f"{v:.3f}" if isinstance(v, float) else v for v in row.values())
    print(*values, flush=True)


def choose_backend(backend, device="cpu"):
    """Before Keras is imported: which back end runs, and where.

    Raises:
        RuntimeError: after that, when another back end would be timed under this name.
    """
    if "keras" in sys.modules:
        raise RuntimeError(
            f"The back end {backend!r} must be chosen before Keras is imported, and it "
            "is. Import keras_made inside the functions that use it."
        )
    os.environ["KERAS_BACKEND"] = backend
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def dense(size, hidden, direct=False):
    """The net without masks, what anybody would write: the peer of MADE."""
    import keras

    inputs = h = keras.Input((size,))
    for units in hidden:
        h = keras.layers.Dense(units, "relu")(h)
    outputs = keras.layers.Dense(size)(h)
    if direct:
        outputs = keras.layers.Add()([outputs, keras.layers.Dense(size)(inputs)])
    return keras.Model(inputs, outputs)


def print_table(title, rows):
    """Rows are dicts with the same keys; numbers are printed with four digits."""
    print(f"\n{title}\n")
    columns = list(rows[0])
    cells = [[_format(row[c]) for c in columns] for row in rows]
    widths = [
        max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)
    ]
    for line in [columns, ["-" * w for w in widths], *cells]:
        padded = (cell.rjust(w) for cell, w in zip(line, widths, strict=True))
        print("| " + " | ".join(padded) + " |")


def _format(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save_json(path, rows):
    """Say what was measured on; write it beside the rows, if there is a path.

    Args:
        path: of the file, or None.
        rows: of a table, or a dict of results.
    """
    about = say_machine()
    if path:
        results = {"rows": rows} if isinstance(rows, list) else rows
        Path(path).write_text(json.dumps({"on": about, **results}, indent=1) + "\n")


@functools.cache
def say_machine():
    """Print once what numbers are measured on, and return it."""
    about = describe_machine()
    print("Measured on", ", ".join(f"{k} {v}" for k, v in about.items()), flush=True)
    return about


def load_data(name, folder=None):
    """Arrays of `NAME.npz` from `folder` or $KERAS_MADE_DATA, or a clear exit."""
    folder = folder or os.environ.get("KERAS_MADE_DATA")
    path = Path(folder or ".") / f"{name}.npz"
    if not folder or not path.exists():
        raise SystemExit(
            f"This benchmark needs {name}.npz: pass --data FOLDER or set "
            f"KERAS_MADE_DATA. Looked for: {path if folder else 'no folder given'}."
        )
    return np.load(path)
