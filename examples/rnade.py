"""Densities in the plane: two moons and a sheared ring, beside their data.

A MADE whose variables are mixtures of normals gives any density of the plane that is
smooth enough, exactly normalized. The standardisation of the data is a part of the
model: its log-density is in the data's own units.

    python examples/rnade.py

Reference:
    Uria, Murray, Larochelle 2013, "RNADE", https://arxiv.org/abs/1306.0186
"""

import argparse
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import keras_made as km


def moons(num_rows, seed):
    x, _ = make_moons(num_rows, noise=0.06, random_state=seed)
    return x.astype("float32")


def sheared_ring(num_rows, seed):
    rng = np.random.RandomState(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, num_rows), rng.normal(20, 1.2, num_rows)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return (ring @ [[1.0, 0.6], [0.0, 0.5]] + [100.0, -30.0]).astype("float32")


def fit(x, epochs):
    keras.utils.set_random_seed(0)
    model = km.AutoregressiveDensity(
        km.MADE([64, 64], num_params=30, activation="gelu"),
        km.MixtureOfNormals(10, min_scale=0.02),
    )
    steps = epochs * -(-len(x) // 200)
    rate = keras.optimizers.schedules.CosineDecay(0.01, steps)
    model.adapt(x)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0))
    model.fit(x, epochs=epochs, batch_size=200, verbose=0)
    return model


def grid_over(x, points):
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.25 * (high - low)
    axes = np.linspace(low - margin, high + margin, points).T
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    return axes, np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2), cell


def draw_row(axes, name, x, model, points):
    grid_axes, grid, cell = grid_over(x, points)
    log_prob = np.asarray(model.log_prob(grid, verbose=0))
    mass = np.exp(log_prob.astype("float64")).sum() * cell
    draws = np.asarray(model.sample(len(x), seed=1, verbose=0))
    extent = [grid_axes[0][0], grid_axes[0][-1], grid_axes[1][0], grid_axes[1][-1]]
    style = {"s": 2, "alpha": 0.35, "linewidths": 0}
    axes[0].scatter(*x.T, color="#333333", **style)
    image = np.exp(log_prob).reshape(points, points)
    axes[1].imshow(image, origin="lower", extent=extent, aspect="auto", cmap="magma")
    axes[2].scatter(*draws.T, color="#b5367a", **style)
    titles = [f"{name}: data", f"density, mass {mass:.3f}", "samples"]
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlim=extent[:2], ylim=extent[2:], title=title)
    return mass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/rnade.png"))
    args = parser.parse_args()
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 6.6))
    for row, (name, make) in enumerate(
        {"two moons": moons, "sheared ring": sheared_ring}.items()
    ):
        x = make(4000, seed=0)
        model = fit(x, 8 if args.quick else 120)
        nll = model.evaluate(make(4000, seed=1), verbose=0)
        mass = draw_row(axes[row], name, x, model, 100 if args.quick else 300)
        print(f"{name}: {nll:.3f} nats on new data, mass on the grid {mass:.4f}")
    figure.tight_layout()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=130)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
