"""Inverse autoregressive flows for variational inference.

1. Reverse KL: an IAF learns a target from its unnormalised log-density alone. The
   normalising constant is known, so the bound that is left can be read off. The seam in
   the ring has to be: no continuous map of the plane closes a disc to a ring.
2. A small variational autoencoder on 8x8 digits, its posterior q(z | x) a Gaussian, and
   the same Gaussian carried on by an IAF that hears x.
"""

import argparse
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import ops
from sklearn.datasets import load_digits

from keras_made import flows

tfd = tfp.distributions


def log_target(z):
    """A ring of radius 2, a little denser at its sides; unnormalised."""
    radius = tf.norm(z, axis=-1)
    lumps = tf.stack([tf.square((z[..., 0] - m) / 1.6) for m in (-2.0, 2.0)])
    return -0.5 * tf.square((radius - 2) / 0.4) + tf.reduce_logsumexp(-0.5 * lumps, 0)


def true_log_normalizer(edges):
    """log of the integral of the target, by a sum over a grid."""
    grid = np.stack(np.meshgrid(edges, edges), -1).astype("float32")
    density = np.exp(log_target(grid).numpy())
    return np.log(density.sum() * (edges[1] - edges[0]) ** 2), density


def minimize(loss_of_seed, variables, num_steps, learning_rate):
    """Adam with cosine decay on a stochastic loss; returns the mean of the last."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=5.0)
    optimizer.build(variables)

    @tf.function(jit_compile=True)
    def step(seed):
        with tf.GradientTape() as tape:
            loss = loss_of_seed(seed)
        gradients = tape.gradient(loss, [v.value for v in variables])
        optimizer.apply(gradients, variables)
        return loss

    losses = [step(tf.constant([0, i])) for i in range(num_steps)]
    return float(np.mean(losses[-num_steps // 10 :]))


def learn_target(quick):
    flow = flows.IAF(2, num_steps=4, hidden_units=(48, 48))
    flow.build((None, 2))

    def loss(seed):
        z, log_q = flow.distribution().experimental_sample_and_log_prob(256, seed=seed)
        return tf.reduce_mean(log_q - log_target(z))

    minimize(loss, flow.trainable_variables, 400 if quick else 4000, 3e-3)
    return flow


class Encoder(keras.layers.Layer):
    """Location and scale of a Gaussian over z, and a summary of x for the flow."""

    def __init__(self, latent_size):
        super().__init__()
        self.hidden = keras.layers.Dense(128, activation="tanh")
        self.out = keras.layers.Dense(3 * latent_size)

    def build(self, shape):
        self.hidden.build(shape)
        self.out.build((None, 128))

    def call(self, x):
        loc, raw, summary = ops.split(self.out(self.hidden(x)), 3, axis=-1)
        return loc, ops.softplus(raw) + 1e-3, summary


def make_decoder(latent_size):
    return keras.Sequential(
        [
            keras.Input((latent_size,)),
            keras.layers.Dense(128, activation="tanh"),
            keras.layers.Dense(64),
        ]
    )


def train_vae(x, with_flow, quick, latent_size=8):
    """A function of `(rows, seed)` that gives the ELBO of each row, trained."""
    encoder, decoder = Encoder(latent_size), make_decoder(latent_size)
    encoder.build((None, 64))
    parts = [encoder, decoder]
    if with_flow:
        flow = flows.IAF(latent_size, 2, (48,), context_size=latent_size)
        flow.build(((None, latent_size), (None, latent_size)))
        parts.append(flow)
    prior = tfd.MultivariateNormalDiag(tf.zeros(latent_size))

    def elbo(rows, seed):
        loc, scale, summary = encoder(rows)
        q = tfd.MultivariateNormalDiag(loc, scale)
        if with_flow:
            q = tfd.TransformedDistribution(q, flow.bijector(summary))
        z, log_q = q.experimental_sample_and_log_prob(seed=seed)
        reconstruction = tfd.Independent(tfd.Bernoulli(logits=decoder(z)), 1)
        return reconstruction.log_prob(rows) + prior.log_prob(z) - log_q

    def loss(seed):
        chosen = tf.random.stateless_uniform(
            (128,), seed, maxval=len(data), dtype=tf.int32
        )
        return -tf.reduce_mean(elbo(tf.gather(data, chosen), seed))

    data = tf.constant(x)
    variables = [v for part in parts for v in part.trainable_variables]
    minimize(loss, variables, 300 if quick else 6000, 3e-3)
    return tf.function(elbo), decoder, prior


def draw(flow, edges, exact, decoder, prior, out):
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    grid = np.stack(np.meshgrid(edges, edges), -1).reshape(-1, 2).astype("float32")
    learned = np.exp(flow.log_prob(grid, verbose=0).numpy()).reshape(exact.shape)
    for axis, values, title in zip(
        axes, (exact, learned), ("target", "IAF"), strict=False
    ):
        axis.pcolormesh(edges, edges, values, cmap="magma")
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
    means = tf.sigmoid(decoder(prior.sample(64, seed=[0, 7]))).numpy()
    tiles = np.pad(means.reshape(8, 8, 8, 8), [(0, 0), (0, 0), (1, 1), (1, 1)])
    tiles = tiles.transpose(0, 2, 1, 3).reshape(80, 80)
    axes[2].imshow(tiles, cmap="gray", vmin=0, vmax=1)
    axes[2].set(title="digits drawn from the VAE with IAF", xticks=[], yticks=[])
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--out", default="out/iaf_variational.png")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)

    edges = np.linspace(-4, 4, 161)
    log_z, exact = true_log_normalizer(edges)
    flow = learn_target(arguments.quick)
    z, log_q = flow.distribution().experimental_sample_and_log_prob(4000, seed=[1, 1])
    bound = float(tf.reduce_mean(log_target(z) - log_q))
    print(f"log normaliser {log_z:.3f}; the bound of the IAF {bound:.3f} nats")

    digits = (load_digits().data > 7.5).astype("float32")
    digits = digits[np.random.RandomState(0).permutation(len(digits))]
    train, test = digits[:1400], digits[1400:]
    for with_flow in (False, True):
        keras.utils.set_random_seed(0)
        elbo, decoder, prior = train_vae(train, with_flow, arguments.quick)
        draws = [float(np.mean(elbo(test, tf.constant([5, s])))) for s in range(20)]
        name = "Gaussian and IAF" if with_flow else "Gaussian"
        print(f"posterior {name}: test ELBO {np.mean(draws):.2f} nats")
    draw(flow, edges, exact, decoder, prior, arguments.out)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
