"""MAF beside TensorFlow Probability's own masked autoregressive flow.

    python benchmarks/flows.py [--sizes 6 21 64] [--scored 10000] [--json PATH]

Both are five steps with reversals between, the same hidden layers, float32, compiled by
XLA. Ours: `keras_made.flows.MAF`. Theirs: `tfb.MaskedAutoregressiveFlow` over
`tfb.AutoregressiveNetwork` (tf_keras). Times are medians of interleaved repeats in one
process; the ratios are what counts.
"""

import argparse
import functools

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from timing import interleaved_medians, save_json

from keras_made import flows

tfb, tfd = tfp.bijectors, tfp.distributions
NUM_STEPS, BATCH, DRAWN = 5, 256, 1000


def make_theirs(size, hidden):
    bijectors, networks = [], []
    for index in range(NUM_STEPS):
        network = tfb.AutoregressiveNetwork(
            params=2, hidden_units=list(hidden), activation="relu", event_shape=[size]
        )
        networks.append(network)
        bijectors.append(tfb.MaskedAutoregressiveFlow(network))
        if index + 1 < NUM_STEPS:
            bijectors.append(tfb.Permute(list(reversed(range(size)))))
    base = tfd.Sample(tfd.Normal(0.0, 1.0), size)
    distribution = tfd.TransformedDistribution(base, tfb.Chain(bijectors))
    distribution.log_prob(tf.zeros((2, size)))  # The networks make their weights.
    return distribution, [v for n in networks for v in n.trainable_variables]


def functions(distribution, variables, update):
    """The three things that are timed, compiled."""

    def train(x):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(distribution().log_prob(x))
        update(tape.gradient(loss, variables))
        return loss

    return {
        "train": tf.function(train, jit_compile=True),
        "score": tf.function(lambda x: distribution().log_prob(x), jit_compile=True),
        "draw": tf.function(
            lambda u: distribution().bijector.forward(u), jit_compile=True
        ),
    }


def ours(size, hidden):
    flow = flows.MAF(size, NUM_STEPS, hidden)
    flow.build((None, size))
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(flow.trainable_variables)

    def update(gradients):
        optimizer.apply(gradients, flow.trainable_variables)

    variables = [v.value for v in flow.trainable_variables]
    return functions(flow.distribution, variables, update)


def theirs(size, hidden):
    distribution, variables = make_theirs(size, hidden)
    optimizer = tf_keras.optimizers.Adam(1e-4, jit_compile=False)
    optimizer.build(variables)

    def update(gradients):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    return functions(lambda: distribution, variables, update)


def measure(size, hidden, scored, repeats):
    rng = np.random.RandomState(0)
    mine, tfps = ours(size, hidden), theirs(size, hidden)
    rows = {"train": BATCH, "score": scored, "draw": DRAWN}
    results = {}
    for task, num_rows in rows.items():
        x = tf.constant(rng.normal(size=(num_rows, size)).astype("float32"))
        pair = {"ours": mine[task], "tfp": tfps[task]}
        pair = {n: functools.partial(run, x) for n, run in pair.items()}
        results[task] = interleaved_medians(pair, repeats)
        seconds = results[task]
        print(
            f"D={size:3d} hidden={hidden!s:12s}{task:6s} ours "
            f"{1e3 * seconds['ours']:9.1f} ms, tfp {1e3 * seconds['tfp']:9.1f} ms, "
            f"ours / tfp {seconds['ours'] / seconds['tfp']:.3f}",
            flush=True,
        )
    per_row = results["score"]["ours"] * DRAWN / scored
    print(f"   a draw costs {results['draw']['ours'] / per_row:.1f} x scoring the rows")
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[6, 21, 64])
    parser.add_argument("--hidden", nargs="+", type=int, default=[100, 512])
    parser.add_argument("--scored", type=int, default=10_000, help="rows")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="write the numbers here")
    arguments = parser.parse_args()
    results = {}
    for width in arguments.hidden:
        for size in arguments.sizes:
            hidden = (width, width)
            results[f"D={size} hidden={hidden}"] = measure(
                size, hidden, arguments.scored, arguments.repeats
            )
    save_json(arguments.json, results)


if __name__ == "__main__":
    main()
