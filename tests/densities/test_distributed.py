"""Several devices and machines end with the weights of one, cycle of masks included."""

import json
import os
import socket
import subprocess
import sys

import distributed_runs
import keras
import numpy as np
import pytest

pytestmark = [pytest.mark.neutral, pytest.mark.compiled]

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)


def start(kind, path, **environment):
    command = [sys.executable, distributed_runs.__file__, kind, path]
    return subprocess.Popen(command, env={**os.environ, **environment})


def check_equal(found, one):
    """Within rounding; the position in the cycle is an integer, and exact."""
    for a, b in zip(found, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def check_position(results):
    """The cycle advanced once per global step, on every device and worker."""
    steps = distributed_runs.EPOCHS * distributed_runs.STEPS
    assert [a for a in results if a.dtype.kind == "i"] == [steps % 4]


@on_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["made", "maf"])
def test_two_devices_end_with_the_weights_of_one(kind, tmp_path):
    assert start(kind, tmp_path / "two.npz").wait(300) == 0
    found = distributed_runs.load(tmp_path / "two.npz")
    check_equal(found, distributed_runs.on_one_device(kind))
    if kind == "made":
        check_position(found)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.slow
@on_tensorflow
def test_two_workers_end_with_the_weights_of_one(tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        workers.append(start("worker", tmp_path / f"{index}.npz", TF_CONFIG=config))
    assert [worker.wait(300) for worker in workers] == [0, 0]
    one = distributed_runs.on_one_device()
    for index in range(2):
        found = distributed_runs.load(tmp_path / f"{index}.npz")
        # Weights and losses; then come what only one process computes.
        check_equal(found, one[: len(found)])
        check_position(found)


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="keras.distribution runs on JAX"
)
def test_two_jax_devices_end_with_the_weights_of_one(tmp_path):
    flags = "--xla_force_host_platform_device_count=2"
    run = start("jax", tmp_path / "two.npz", XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    assert run.wait(300) == 0
    found = distributed_runs.load(tmp_path / "two.npz")
    check_equal(found, distributed_runs.on_one_device())
    check_position(found)
