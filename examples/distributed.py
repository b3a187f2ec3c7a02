"""The same training on one device, on two, in two processes, and on two of JAX.

Every run is a process of its own, on this machine: `tf.distribute.MirroredStrategy`,
`MultiWorkerMirroredStrategy` and `keras.distribution.DataParallel`. All see the same
batches and end with the same weights within rounding; the cycle of masks advances once
for each global step.
"""

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCH = 128


def load():
    from sklearn.datasets import load_digits

    x = np.random.RandomState(0).permutation((load_digits().data > 7).astype("float32"))
    return x[: len(x) // BATCH * BATCH]


def make_model():
    import keras

    from keras_made import MADE, AutoregressiveDensity

    keras.utils.set_random_seed(0)
    model = AutoregressiveDensity(MADE([100], ordering="random", num_masks=8))
    model.build((None, 64))
    # Of NumPy, the same on every back end: Keras draws other ones on JAX.
    rng = np.random.RandomState(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(scale=0.05, size=variable.shape).astype("float32"))
    model.compile(keras.optimizers.Adam(2e-3))
    return model


def batches(x):
    """Each worker reads all rows, and keeps its part of every batch."""
    import tensorflow as tf

    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return tf.data.Dataset.from_tensor_slices((x,)).batch(BATCH).with_options(options)


def fit(model, data, epochs, verbose=0, **options):
    history = model.fit(data, epochs=epochs, shuffle=False, verbose=verbose, **options)
    return history.history["nll"]


def run_one(x, epochs):
    model = make_model()
    return model, fit(model, batches(x), epochs, verbose=1)


def run_mirrored(x, epochs):
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = make_model()
    return model, fit(model, batches(x), epochs)


def task_index():
    return json.loads(os.environ["TF_CONFIG"])["task"]["index"]


def run_worker(x, epochs):
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = make_model()
        model.optimizer.build(model.trainable_variables)
    try:
        fit(model, batches(x), 1)
        raise SystemExit("Keras can `fit` under MultiWorkerMirroredStrategy by now.")
    except ValueError as error:
        reason = str(error)
        if "PerReplica" not in reason:
            raise
        if task_index() == 0:
            print(f"  Keras's `fit` cannot on two workers: {reason[:33]}...")

    # The step of `fit` runs in a loop of one's own.
    @tf.function
    def step(batch):
        strategy.run(model.train_step, (batch,))

    data, losses = strategy.experimental_distribute_dataset(batches(x)), []
    for _ in range(epochs):
        model.reset_metrics()
        for batch in data:
            step(batch)
        losses.append(float(model.get_metrics_result()["nll"]))
    return model, losses


def run_jax(x, epochs):
    import keras

    devices = keras.distribution.list_devices("cpu")
    parallel = keras.distribution.DataParallel(devices=devices)
    keras.distribution.set_distribution(parallel)
    model = make_model()
    return model, fit(model, x, epochs, batch_size=BATCH)


RUNS = {
    "one": run_one,
    "mirrored": run_mirrored,
    "worker": run_worker,
    "jax": run_jax,
}


def start(kind, path, epochs, **environment):
    command = [sys.executable, __file__, "--run", kind, str(path), str(epochs)]
    return subprocess.Popen(command, env={**os.environ, **environment})


def two_free_ports():
    probes = [socket.socket(), socket.socket()]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def start_all(folder, epochs):
    """Name, processes and file of each run, one run at a time."""
    tensorflow = {"KERAS_BACKEND": "tensorflow"}
    for name, kind in (("one device", "one"), ("two devices", "mirrored")):
        path = folder / f"{kind}.npz"
        yield name, [start(kind, path, epochs, **tensorflow)], path
    workers = [f"127.0.0.1:{port}" for port in two_free_ports()]
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": workers}, "task": task})
        path = folder / f"worker {index}.npz"
        processes.append(start("worker", path, epochs, TF_CONFIG=config, **tensorflow))
    yield "two workers", processes, path
    if importlib.util.find_spec("jax"):
        flags = "--xla_force_host_platform_device_count=2"
        environment = {"KERAS_BACKEND": "jax", "XLA_FLAGS": flags}
        path = folder / "jax.npz"
        run = start("jax", path, epochs, JAX_PLATFORMS="cpu", **environment)
        yield "two devices, JAX", [run], path


def all_done(processes):
    """Wait for all; when one fails, the others would wait for it forever."""
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                return False
            time.sleep(0.1)
        return not any(process.returncode for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def draw_picture(losses, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4))
    for i, (name, nll) in enumerate(losses.items()):
        epochs = np.arange(1, len(nll) + 1)
        axes.plot(epochs, nll, "o-", ms=10 - 2 * i, mfc="none", label=name)
    axes.set(xlabel="epoch", ylabel="training NLL, nats")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/distributed.png"))
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        kind, path, epochs = args.run
        model, losses = RUNS[kind](load(), int(epochs))
        np.savez(path, np.array(losses), *model.get_weights())
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    epochs, first, losses = 3 if args.quick else 20, None, {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for name, processes, path in start_all(Path(folder), epochs):
            if not all_done(processes):
                raise SystemExit(f"The run on {name} failed.")
            seconds, began = time.perf_counter() - began, time.perf_counter()
            with np.load(path) as file:
                nll, *weights = (file[key] for key in file.files)
            if first is None:
                first = weights
                print("run                     NLL  position  weights apart  seconds")
            apart = max(
                np.abs(a - b).max() for a, b in zip(first, weights, strict=True)
            )
            position = next(w for w in weights if w.dtype.kind == "i")
            line = f"{name:18s} {nll[-1]:8.4f} {position:9d}"
            print(f"{line} {apart:14.1e} {seconds:8.1f}")
            if apart > 1e-3:
                raise SystemExit("The weights are not those of one device.")
            losses[name] = nll
    draw_picture(losses, args.out)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
