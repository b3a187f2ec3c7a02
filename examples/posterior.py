"""Simulation-based inference from start to end, on two moons.

A simulator draws an observation given parameters, and its likelihood is not asked for:
a flow over the parameters, trained on simulated pairs, is the posterior at every
observation at once. Whether it can be believed is asked of simulations too: the rank of
the true parameter among draws of its posterior must be uniform. Two moons has a density
that can be written down, so the picture shows the exact posterior beside.
"""

import argparse
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_made import flows

LOW, HIGH = -1.0, 1.0  # The prior is uniform in a box.
RADIUS, SPREAD = 0.1, 0.01


def simulate(num_rows, seed):
    """Parameters from the prior, and an observation of each: a point on a crescent."""
    rng = np.random.RandomState(seed)
    theta = rng.uniform(LOW, HIGH, (num_rows, 2))
    angle = rng.uniform(-np.pi / 2, np.pi / 2, num_rows)
    radius = RADIUS + SPREAD * rng.normal(size=num_rows)
    crescent = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return theta.astype("float32"), (crescent + center(theta)).astype("float32")


def center(theta):
    """Where the crescent is. The sign of the sum is lost: there are two moons."""
    moved = [-np.abs(theta[:, 0] + theta[:, 1]), theta[:, 1] - theta[:, 0]]
    return np.stack(moved, axis=1) / np.sqrt(2) + [0.25, 0.0]


def exact_log_posterior(theta, x, cell):
    """log p(theta | x) in nats on a grid of the box with cells of area `cell`."""
    offset = x - center(theta)
    radius = np.linalg.norm(offset, axis=1)
    log_radius = -0.5 * ((radius - RADIUS) / SPREAD) ** 2
    # Half a circle: uniform in the angle, and nothing to the left.
    log_joint = np.where(offset[:, 0] > 0, log_radius - np.log(radius), -np.inf)
    return log_joint - np.log(np.sum(np.exp(log_joint)) * cell)


def train(theta, x, quick):
    flow = flows.SplineMAF(
        2,
        num_steps=2 if quick else 5,
        hidden_units=(50, 50),
        context_size=2,
        support=(LOW, HIGH),
    )
    flow.adapt(theta)
    # A small network waits for its input: on torch Keras takes one step at a time.
    several = 1 if keras.backend.backend() == "torch" else 20
    flow.compile(keras.optimizers.Adam(2e-3), steps_per_execution=several)
    num_valid = len(theta) // 10
    callbacks = [
        keras.callbacks.ReduceLROnPlateau("val_nll", factor=0.3, patience=3),
        keras.callbacks.EarlyStopping(
            "val_nll", patience=10, restore_best_weights=True
        ),
    ]
    flow.fit(
        (theta[num_valid:], x[num_valid:]),
        batch_size=200,
        epochs=4 if quick else 30,
        validation_data=(theta[:num_valid], x[:num_valid]),
        callbacks=callbacks,
    )
    return flow


def ranks(flow, theta, x, num_draws):
    """How many of its posterior's draws each parameter is above: ints of theta's shape.

    They are uniform on 0 to `num_draws` if the posterior is right. If it is too narrow,
    both ends come too often; if it is too wide, the middle does.
    """
    contexts = np.repeat(x, num_draws, axis=0)
    draws = np.asarray(flow.sample(len(contexts), context=contexts, seed=0))
    draws = draws.reshape(len(theta), num_draws, -1)
    return np.sum(draws < theta[:, None], axis=1)


def draw_density(axis, log_density, edges, title, draws=None):
    """Log density: the crescents are sharp, and so are errors beside them."""
    # Where it is impossible, the lowest colour.
    shown = np.maximum(log_density, -8.0)
    image = axis.pcolormesh(edges, edges, shown, cmap="magma", vmin=-8.0, vmax=8.0)
    if draws is not None:
        axis.scatter(*draws.T, s=2, color="#7fd4ff", alpha=0.5, linewidths=0)
    axis.set(title=title, aspect="equal", xlabel="parameter 1", ylabel="parameter 2")
    axis.set(xlim=(edges[0], edges[-1]), ylim=(edges[0], edges[-1]))
    return image


def draw_ranks(axis, counts, num_draws):
    """Histograms of the ranks, and the band of 99 in 100 bars of a right posterior."""
    num_bins = 10
    expected = len(counts) / num_bins
    spread = 2.58 * np.sqrt(expected * (1 - 1 / num_bins))
    axis.axhspan(expected - spread, expected + spread, color="0.88")
    edges = np.linspace(-0.5, num_draws + 0.5, num_bins + 1)
    for index, color in enumerate(["#3b6ea5", "#c8553d"]):
        axis.hist(
            counts[:, index],
            edges,
            histtype="step",
            color=color,
            label=f"parameter {index + 1}",
        )
    axis.set(title="ranks of true parameters", xlabel="rank", ylabel="simulations")
    axis.set(ylim=(0, 2 * expected))
    axis.legend(loc="lower center")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--out", default="out/posterior.png")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)

    theta, x = simulate(4000 if arguments.quick else 20_000, seed=0)
    # A flow hears a context as it is.
    loc, scale = x.mean(axis=0), x.std(axis=0)
    flow = train(theta, (x - loc) / scale, arguments.quick)

    observation = np.zeros(2, "float32")
    context = (observation - loc) / scale
    draws = np.asarray(flow.sample(2000, context=context, seed=0))

    edges = np.linspace(-0.6, 0.6, 241)
    grid = np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 2).astype("float32")
    cell = (edges[1] - edges[0]) ** 2
    exact = exact_log_posterior(grid, observation, cell)
    contexts = np.tile(context, (len(grid), 1))
    learned = np.asarray(flow.log_prob(grid, contexts, verbose=0))
    likely = np.isfinite(exact)
    gap = np.sum(np.exp(exact[likely]) * (exact - learned)[likely]) * cell
    print(f"divergence of the posterior at {observation}: {gap:.3f} nats")

    tested, seen = simulate(300 if arguments.quick else 1000, seed=1)
    num_draws = 99
    counts = ranks(flow, tested, (seen - loc) / scale, num_draws)
    # A credible interval from the 5th to the 95th draw in a hundred.
    inside = np.mean((counts >= 5) & (counts < num_draws - 4), axis=0)
    print(f"intervals of 90 % hold the true parameters in {100 * inside} %")

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    shape = (len(edges), len(edges))
    draw_density(
        axes[0], exact.reshape(shape), edges, "exact log posterior, and draws", draws
    )
    image = draw_density(
        axes[1], learned.reshape(shape), edges, "learned log posterior"
    )
    figure.colorbar(image, ax=axes[1], label="nats")
    draw_ranks(axes[2], counts, num_draws)
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=120)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
