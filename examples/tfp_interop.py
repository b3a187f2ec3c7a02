"""One MADE in plain TensorFlow Probability code.

1. A Keras MADE inside a `tfd.TransformedDistribution`, trained by a hand-written loop
   over `distribution.trainable_variables`; the same flow trained by `model.fit`.
2. The trained flow as a piece of a `tfd.JointDistributionSequential`.
3. Hamiltonian Monte Carlo on a curved target, in its own coordinates and through a flow
   that straightens it.
"""

import argparse
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from keras_made import MADE, flows

tfb, tfd = tfp.bijectors, tfp.distributions


def make_data(num_rows):
    rng = np.random.RandomState(0)
    first = rng.normal(size=num_rows)
    second = 0.5 * first**2 - 1 + 0.3 * rng.normal(size=num_rows)
    return np.stack([first, second], axis=1).astype("float32")


def loop_of_tfp(x, epochs, batch_size=200):
    """No model of ours: a network, a bijector, a distribution and a loop."""
    made = MADE([32], num_params=2, encoder=flows.Bounded())
    made.build((None, 2))
    distribution = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), 2), flows.MaskedAutoregressiveFlow(made)
    )
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(made.trainable_variables)

    @tf.function(jit_compile=True)
    def step(rows):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(distribution.log_prob(rows))
        gradients = tape.gradient(loss, distribution.trainable_variables)
        optimizer.apply(gradients, made.trainable_variables)

    initial = made.get_weights()
    rows = tf.data.Dataset.from_tensor_slices(x).batch(batch_size)
    for _ in range(epochs):
        for batch in rows:
            step(batch)
    return distribution, initial


def fit_of_keras(x, epochs, initial, batch_size=200):
    flow = flows.MAF(2, num_steps=1, hidden_units=[32])
    flow.compile(keras.optimizers.Adam(1e-2))
    flow.build((None, 2))
    flow.networks[0].set_weights(initial)
    flow.fit(x, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return flow


def joint(distribution):
    """A latent event of the flow and a measurement of its sum."""
    return tfd.JointDistributionSequential(
        [distribution, lambda z: tfd.Normal(tf.reduce_sum(z, axis=-1), 0.1)]
    )


def banana(z):
    """A narrow curved log-density."""
    bent = z[..., 1] - z[..., 0] ** 2
    return -0.5 * (z[..., 0] ** 2 + (bent / 0.2) ** 2)


def fit_to_target(quick):
    """Reverse KL: the flow learns the target from its log-density alone."""
    flow = flows.IAF(2, num_steps=3, hidden_units=(32, 32))
    flow.build((None, 2))
    num_steps = 600 if quick else 3000
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, num_steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=5.0)
    optimizer.build(flow.trainable_variables)

    @tf.function(jit_compile=True)
    def step(seed):
        with tf.GradientTape() as tape:
            q = flow.distribution()
            z, log_q = q.experimental_sample_and_log_prob(256, seed=seed)
            loss = tf.reduce_mean(log_q - banana(z))
        weights = [v.value for v in flow.trainable_variables]
        optimizer.apply(tape.gradient(loss, weights), flow.trainable_variables)

    for index in range(num_steps):
        step(tf.constant([0, index]))
    return flow


def run_chain(bijector, num_results):
    """Samples of HMC, with its step size adapted, and effective samples in total."""
    kernel = tfp.mcmc.HamiltonianMonteCarlo(banana, step_size=0.2, num_leapfrog_steps=4)
    if bijector is not None:
        kernel = tfp.mcmc.TransformedTransitionKernel(kernel, bijector)
    burn_in = num_results // 2
    kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(kernel, int(0.8 * burn_in))

    @tf.function(jit_compile=True)
    def run():
        return tfp.mcmc.sample_chain(
            num_results,
            tf.constant([[0.5, 0.5], [-0.5, 0.5], [0.0, 0.0], [1.0, 2.0]]),
            kernel=kernel,
            num_burnin_steps=burn_in,
            trace_fn=None,
            seed=[1, 2],
        )

    samples = run()
    effective = tfp.mcmc.effective_sample_size(samples, cross_chain_dims=1)
    return samples.numpy(), float(tf.reduce_min(effective))


def draw(chains, out):
    figure, axes = plt.subplots(2, 2, figsize=(9, 5), layout="constrained")
    for row, (title, samples, effective) in enumerate(chains):
        axes[row, 0].plot(samples[:, 0, 0], lw=0.6, color="#3b6ea5")
        axes[row, 0].set(title=f"{title}: one chain of z1", ylim=(-4, 4))
        flat = samples.reshape(-1, 2)
        axes[row, 1].scatter(*flat.T, s=2, alpha=0.3, color="black", linewidths=0)
        axes[row, 1].set(xlim=(-4, 4), ylim=(-2, 12))
        axes[row, 1].set(title=f"{len(flat)} draws, worth {effective:.0f}")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--out", default="out/tfp_interop.png")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    x = make_data(4000)
    epochs = 5 if arguments.quick else 30

    distribution, initial = loop_of_tfp(x, epochs)
    flow = fit_of_keras(x, epochs, initial)
    by_loop = -distribution.log_prob(x).numpy().mean()
    by_fit = flow.evaluate(x, verbose=0)
    print(f"negative log-likelihood by hand {by_loop:.4f}, by fit {by_fit:.4f} nats")

    z, total = joint(distribution).sample(3, seed=[0, 1])
    print(f"joint: z {z.shape}, log p {joint(distribution).log_prob([z, total])}")

    num_results = 300 if arguments.quick else 2000
    plain = run_chain(None, num_results)
    learned = fit_to_target(arguments.quick)
    flown = run_chain(learned.bijector(), num_results)
    print(f"effective draws: {plain[1]:.0f} plain, {flown[1]:.0f} through the flow")
    draw([("plain", *plain), ("through the flow", *flown)], arguments.out)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
