"""A conditional flow beside a posterior known in closed form.

Parameters z are standard normal in the plane and the context is a noisy measurement,
c = A z + 0.3 e. A flow trained on pairs (z, c) gives p(z | c) for every c at once; the
exact posterior is Gaussian. A second flow learns a posterior that is not: c = |z| + e.
"""

import argparse
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_made import flows

A = np.array([[1.0, 0.8], [-0.3, 0.6]])
NOISE = 0.3


def simulate_linear(num_rows, seed):
    rng = np.random.RandomState(seed)
    z = rng.normal(size=(num_rows, 2))
    context = z @ A.T + NOISE * rng.normal(size=z.shape)
    return z.astype("float32"), context.astype("float32")


def simulate_ring(num_rows, seed):
    rng = np.random.RandomState(seed)
    z = rng.normal(size=(num_rows, 2))
    radius = np.linalg.norm(z, axis=1, keepdims=True)
    context = radius + 0.2 * rng.normal(size=radius.shape)
    return z.astype("float32"), context.astype("float32")


def linear_posterior(z, context):
    """log p(z | context) in nats."""
    covariance = np.linalg.inv(np.eye(2) + A.T @ A / NOISE**2)
    mean = context @ (A / NOISE**2) @ covariance
    delta = z - mean
    quadratic = np.einsum("ni,ij,nj->n", delta, np.linalg.inv(covariance), delta)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return -0.5 * (quadratic + log_det)


def ring_posterior(z, context):
    """log p(z | context) in nats, normalised by a sum over radii."""

    def log_joint(radius, context):
        return -0.5 * radius**2 - 0.5 * ((context - radius) / 0.2) ** 2

    radii = np.linspace(0, 8, 4001)
    joint = np.exp(log_joint(radii, context)) * 2 * np.pi * radii
    normalizer = joint.sum(axis=1) * (radii[1] - radii[0])
    radius = np.linalg.norm(z, axis=1)
    return log_joint(radius, context[:, 0]) - np.log(normalizer)


PROBLEMS = {
    "linear": (simulate_linear, linear_posterior, [[1.5, 0.5], [-1.0, 0.5]]),
    "ring": (simulate_ring, ring_posterior, [[0.7], [1.8]]),
}


def train(name, quick):
    z, context = PROBLEMS[name][0](20_000, seed=0)
    flow = flows.SplineMAF(2, 3, (48, 48), context_size=context.shape[1])
    epochs = 4 if quick else 20
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * 80)
    flow.compile(keras.optimizers.Adam(schedule))
    flow.fit((z, context), batch_size=250, epochs=epochs, verbose=2)
    return flow


def draw_panel(axis, flow, posterior, context):
    edges = np.linspace(-3, 3, 161)
    grid = np.stack(np.meshgrid(edges, edges), -1).reshape(-1, 2)
    tiled = np.tile(np.array([context]), (len(grid), 1))
    shape = (len(edges), len(edges))
    learned = np.exp(np.asarray(flow.log_prob(grid, tiled, verbose=0)))
    exact = np.exp(posterior(grid, tiled)).reshape(shape)
    axis.pcolormesh(edges, edges, learned.reshape(shape), cmap="Blues")
    levels = exact.max() * np.array([0.05, 0.3, 0.8])
    axis.contour(edges, edges, exact, levels=levels, colors="crimson", linewidths=1)
    samples = np.asarray(flow.sample(150, np.array(context, "float32"), seed=0))
    axis.scatter(*samples.T, s=4, color="black", alpha=0.5, linewidths=0)
    axis.set(title=f"context {context}", xticks=[], yticks=[], aspect="equal")
    axis.set(xlim=(-3, 3), ylim=(-3, 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--out", default="out/conditional_flow.png")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
    for index, (name, (simulate, posterior, shown)) in enumerate(PROBLEMS.items()):
        flow = train(name, arguments.quick)
        z, context = simulate(5000, seed=1)
        learned = np.asarray(flow.log_prob(z, context, verbose=0)).mean()
        exact = posterior(z, context).mean()
        print(f"{name}: mean log p(z | c) {learned:.3f} nats, exact {exact:.3f}")
        for column, value in enumerate(shown):
            draw_panel(axes[2 * index + column], flow, posterior, value)
    figure.suptitle("flow (blue, dots) and exact posterior (red contours)")
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=120)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
