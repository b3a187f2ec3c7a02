"""What the processes of `test_distributed.py` run: one model, on devices or workers.

python tests/distributed_runs.py made|maf|worker|jax PATH
"""

import sys

import keras
import numpy as np

from keras_made import MADE, AutoregressiveDensity

EPOCHS, STEPS, BATCH = 2, 5, 16
RNG = np.random.RandomState(0)
X = (RNG.uniform(size=(STEPS * BATCH, 5)) < 0.4).astype("float32")
CONTEXT = RNG.normal(size=(len(X), 2)).astype("float32")


def make(kind):
    keras.utils.set_random_seed(0)
    if kind == "maf":
        from keras_made import flows

        model = flows.MAF(5, 2, (8,), context_size=2, kernel_regularizer="l2")
    else:
        model = AutoregressiveDensity(
            MADE([8], ordering="random", num_masks=4, kernel_regularizer="l2")
        )
    model.build(((None, 5), (None, 2)))
    model.compile("adam")
    return model


def batches():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(((X, CONTEXT),)).batch(BATCH)
    options = tf.data.Options()
    # Each worker reads all rows, and keeps its part of every batch.
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return data.with_options(options)


def fit(model, data, **batch_size):
    """Weights, losses, and what the trained model says of its data."""
    history = model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0, **batch_size)
    return [
        *results_of(model, history.history["nll"]),
        model.evaluate(data, verbose=0, **batch_size),
        model.predict(data, verbose=0, **batch_size),
        model.log_prob(X, CONTEXT, verbose=0),
        model.sample(4, CONTEXT[0], seed=1),
    ]


def results_of(model, losses):
    return [*model.get_weights(), np.array(losses)]


def on_one_device(kind="made"):
    if keras.backend.backend() == "tensorflow":
        return fit(make(kind), batches())
    return fit(make(kind), (X, CONTEXT), batch_size=BATCH)


def mirrored(kind, path):
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = make(kind)
    save(path, fit(model, batches()))


def worker(path):
    """Keras 3.15 cannot `fit` under this strategy; its step runs in our own loop."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = make("made")
        model.optimizer.build(model.trainable_variables)
    data, losses = strategy.experimental_distribute_dataset(batches()), []

    @tf.function
    def step(batch):
        strategy.run(model.train_step, (batch,))

    for _ in range(EPOCHS):
        model.reset_metrics()
        for batch in data:
            step(batch)
        losses.append(float(model.get_metrics_result()["nll"]))
    save(path, results_of(model, losses))


def jax(path):
    devices = keras.distribution.list_devices("cpu")
    if len(devices) != 2:
        raise SystemExit(f"Two devices are needed. Received: {devices}.")
    parallel = keras.distribution.DataParallel(devices=devices)
    keras.distribution.set_distribution(parallel)
    save(path, fit(make("made"), (X, CONTEXT), batch_size=BATCH))


def save(path, results):
    np.savez(path, *[keras.ops.convert_to_numpy(result) for result in results])


def load(path):
    with np.load(path) as file:
        return [file[name] for name in file.files]


if __name__ == "__main__":
    kind, path = sys.argv[1:]
    if kind in ("made", "maf"):
        mirrored(kind, path)
    else:
        {"worker": worker, "jax": jax}[kind](path)
