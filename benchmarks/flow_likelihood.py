"""Held-out likelihood of flows beside classical densities, in nats.

    python benchmarks/flow_likelihood.py planar
    python benchmarks/flow_likelihood.py wine --data FOLDER
    python benchmarks/flow_likelihood.py wine --methods RealNVP NICE --json FILE

Planar: three densities whose entropy is known; the table gives the gap to it, the
Kullback-Leibler divergence from the truth, on 20,000 test rows. Wine: the ten folds of
red wine, each standardised by its training rows. All families of flows, beside a
Gaussian with full covariance, a Gaussian mixture and a kernel density. Whatever can be
chosen (components, bandwidth, when to stop) is chosen on a tenth of the training rows.
Coupling flows get twice the steps, of which each moves one half of the variables. What
the file holds of other methods stays there. zuko's flows are in
`flows_side_by_side.py`.

The columns of the wine table are rounded to 57 to 395 values. A density on rounded
values can score without bound by sitting on them: the scales of a flow's steps have a
floor of a tenth of a standard deviation together, and the mixture one of 0.01 on
variances. The flows of wine are small, with dropout, and the mean of their weights over
the last thirty steps or so: what of (64,) and (128,), with and without that mean, was
best on the rows held out of training.
"""

import argparse
import json
import math
from pathlib import Path

import keras
import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from timing import load_data, save_json, steps_together

from keras_made import flows

NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


def banana(rng, size):
    """A parabola with normal width; its map from noise preserves volume up to 0.3."""
    u = rng.normal(size=(size, 2))
    x = np.stack([u[:, 0], 0.7 * (u[:, 0] ** 2 - 1) + 0.3 * u[:, 1]], axis=1)
    return x, 2 * NORMAL_ENTROPY + math.log(0.3)


def ring(rng, size):
    """Radius 1 + 0.1 u with uniform angle: p(x) = p(radius) / (2 pi radius)."""
    radius = 1 + 0.1 * rng.normal(size=size)
    angle = rng.uniform(0, 2 * np.pi, size)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    log_radius = np.sum(weights * np.log(np.abs(1 + 0.1 * nodes))) / weights.sum()
    entropy = NORMAL_ENTROPY + math.log(0.1) + log_radius + math.log(2 * math.pi)
    return x, entropy


def checkerboard(rng, size):
    """Uniform on the eight dark squares, of area 1, of a 4 x 4 board."""
    square = rng.randint(0, 8, size)
    row = square // 2
    column = 2 * (square % 2) + row % 2
    corner = np.stack([column, row], axis=1) - 2.0
    return corner + rng.uniform(size=(size, 2)), math.log(8)


PLANAR = {"banana": banana, "ring": ring, "checkerboard": checkerboard}


def gaussian(x, valid):
    return GaussianMixture(1, reg_covar=1e-6).fit(x).score_samples


def mixture(x, valid):
    counts = (1, 2, 5, 10, 20, 40, 80) if x.shape[1] == 2 else (1, 2, 3, 5, 8, 12)
    floor = 1e-5 if x.shape[1] == 2 else 1e-2
    fits = [GaussianMixture(k, reg_covar=floor, random_state=0).fit(x) for k in counts]
    return max(fits, key=lambda fit: fit.score(valid)).score_samples


def kernel_density(x, valid):
    widths = np.geomspace(0.02, 1.0, 12)
    fits = [KernelDensity(bandwidth=width).fit(x[:10_000]) for width in widths]
    return max(fits, key=lambda fit: fit.score(valid[:1000])).score_samples


def train_flow(make, x, valid, epochs, batch_size, patience, averaged):
    keras.utils.set_random_seed(0)
    flow = make()
    optimizer = keras.optimizers.AdamW(
        2e-3, weight_decay=1e-4, use_ema=averaged, ema_momentum=0.97
    )
    flow.compile(optimizer, steps_per_execution=steps_together(5))
    # The mean of the weights is what is validated, and kept.
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if averaged else []
    callbacks += [
        keras.callbacks.EarlyStopping(
            "val_nll", mode="min", patience=patience, restore_best_weights=True
        ),
        keras.callbacks.ReduceLROnPlateau(
            "val_nll", mode="min", factor=0.3, patience=max(2, patience // 3)
        ),
    ]
    flow.fit(
        x,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=valid,
        callbacks=callbacks,
        verbose=0,
    )
    return lambda rows: flow.predict(rows, batch_size=2000, verbose=0)


def flow_of(kind, size, **options):
    def fit(x, valid):
        planar = x.shape[1] == 2
        epochs, batch, patience = (40, 250, 9) if planar else (200, 100, 12)
        make = lambda: kind(size, **options)  # noqa: E731
        return train_flow(make, x, valid, epochs, batch, patience, not planar)

    return fit


CLASSICAL = {
    "gaussian": gaussian,
    "mixture": mixture,
    "kernel density": kernel_density,
}
FAMILIES = ("MAF", "SplineMAF", "IAF", "RealNVP", "SplineCoupling", "NICE")
COUPLING = ("RealNVP", "SplineCoupling", "NICE")


def method_of(name, size):
    """A function of training and validation rows that gives one of rows to nats."""
    if name in CLASSICAL:
        return CLASSICAL[name]
    number = (5 if size == 2 else 3) * (1 + (name in COUPLING))
    options = {"num_steps": number, "hidden_units": (64, 64)}
    if size > 2:
        options["hidden_units"] = (128,)
        options["dropout"] = 0.3
        if name != "NICE":
            # Of each of the steps: together they can shrink to a tenth.
            options["min_scale"] = 0.1 ** (1 / 3)
    return flow_of(getattr(flows, name), size, **options)


def run_planar(arguments, results):
    for name in arguments.names:
        rng = np.random.RandomState(0)
        x, _ = PLANAR[name](rng, 20_000)
        valid, _ = PLANAR[name](rng, 2000)
        test, entropy = PLANAR[name](rng, 20_000)
        x, valid, test = (a.astype("float32") for a in (x, valid, test))
        own = results.setdefault(name, {"entropy": entropy})
        for method in arguments.methods:
            log_prob = method_of(method, 2)(x, valid)
            gap = own[method] = -float(np.mean(log_prob(test))) - entropy
            print(f"{name:14s}{method:16s}gap to the entropy {gap:7.4f}", flush=True)
            save_json(arguments.json, results)


def run_wine(arguments, results):
    data = load_data("red_wine", arguments.data)
    folds = [data[f"fold{fold}_test"] for fold in range(1, 11)]
    scores = {method: [] for method in arguments.methods}
    for fold in range(arguments.folds):
        rest = np.concatenate([f for i, f in enumerate(folds) if i != fold])
        rest = (rest, folds[fold])
        x, test = ((a - rest[0].mean(0)) / rest[0].std(0) for a in rest)
        x = x[np.random.RandomState(fold).permutation(len(x))].astype("float32")
        valid, x = x[: len(x) // 10], x[len(x) // 10 :]
        for method, values in scores.items():
            log_prob = method_of(method, x.shape[1])(x, valid)
            values.append(float(np.mean(log_prob(test.astype("float32")))))
            print(f"fold {fold + 1:2d} {method:16s}{values[-1]:8.3f}", flush=True)
        save_json(arguments.json, {**results, **scores})
    for method, values in scores.items():
        error = np.std(values) / math.sqrt(len(values))
        print(
            f"{method:16s}mean test log-likelihood {np.mean(values):.3f} ({error:.3f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["planar", "wine"])
    parser.add_argument("--data", help="folder that holds red_wine.npz")
    parser.add_argument("--names", nargs="*", default=list(PLANAR), choices=PLANAR)
    parser.add_argument("--folds", type=int, default=10)
    every = (*CLASSICAL, *FAMILIES)
    parser.add_argument("--methods", nargs="*", default=every, choices=every)
    parser.add_argument("--json", help="write the numbers here, beside what it holds")
    arguments = parser.parse_args()
    known = Path(arguments.json) if arguments.json else None
    results = json.loads(known.read_text()) if known and known.exists() else {}
    results.pop("on", None)
    run = run_planar if arguments.what == "planar" else run_wine
    run(arguments, results)


if __name__ == "__main__":
    main()
