"""A masked autoregressive flow learns two moons.

Draws three pictures: the learned density, samples from it, and the test points carried
back to noise, which is standard normal when the flow is right.
"""

import argparse
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from keras_made import flows


def make_data(num_rows, seed):
    """Points in about unit scale, and the moon of each."""
    x, moon = make_moons(num_rows, noise=0.06, random_state=seed)
    return ((x - [0.5, 0.25]) / [0.87, 0.5]).astype("float32"), moon


def train(quick):
    flow = flows.SplineMAF(2, num_steps=2 if quick else 4, hidden_units=(64, 64))
    steps = 400 if quick else 3000
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    flow.compile(keras.optimizers.Adam(schedule))
    x, _ = make_data(20_000, seed=0)
    flow.fit(x, batch_size=250, epochs=steps // 80, verbose=2)
    return flow


def draw(flow, noise, moon, out):
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    edges = np.linspace(-2.6, 2.6, 241)
    grid = np.stack(np.meshgrid(edges, edges), -1).reshape(-1, 2)
    density = np.exp(np.asarray(flow.log_prob(grid.astype("float32"), verbose=0)))
    axes[0].pcolormesh(edges, edges, density.reshape(241, 241), cmap="magma")
    samples = np.asarray(flow.sample(5000, seed=0))
    axes[1].scatter(*samples.T, s=2, alpha=0.4, color="#3b6ea5", linewidths=0)
    axes[2].scatter(*noise.T, s=3, c=moon, cmap="coolwarm", alpha=0.6, linewidths=0)
    for radius in (1, 2, 3):
        axes[2].add_patch(plt.Circle((0, 0), radius, fill=False, lw=0.5, color="gray"))
    titles = ["density", "samples", "test points, as noise"]
    for axis, title, limit in zip(axes, titles, (2.6, 2.6, 4.0), strict=True):
        axis.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit))
        axis.set(xticks=[], yticks=[], aspect="equal")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--out", default="out/maf_two_moons.png")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    flow = train(arguments.quick)
    test, moon = make_data(5000, seed=1)
    print(f"test negative log-likelihood: {flow.evaluate(test, verbose=0):.3f} nats")
    noise = keras.ops.convert_to_numpy(flow.to_noise(test)[0])
    print(f"noise of the test points: mean {noise.mean(0)}, std {noise.std(0)}")
    draw(flow, noise, moon, arguments.out)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
