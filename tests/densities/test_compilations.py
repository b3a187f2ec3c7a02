"""How often a model is compiled: a scripted day of use, in a process of its own.

Traces are counted where Python runs when a function is compiled. On TensorFlow XLA may
compile one trace several times, for values that it wants to be constants: its own log,
which must be asked for before TensorFlow is loaded, has a line for each.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_made import MADE, AutoregressiveDensity, compiling

pytestmark = pytest.mark.neutral
CLUSTER = "Instantly compiling for signature"
MOST = 4
VERBS = [
    "sample",
    "log_prob",
    "impute",
    "conditional_log_prob",
    "interval_log_prob",
    "sample within",
]


def count_traces():
    """Counts by verb, kept up to date: each function counts when Python runs it."""
    from keras_made.densities import likelihood

    counts, compiled = dict.fromkeys(VERBS, 0), compiling.compiled

    class Counted(compiling.Announced):
        def __init__(self, function, name):
            super().__init__(function, name)
            names.append(name)

    names = []

    def counting(layer, function):
        place = len(names)

        def traced(*args):
            counts[names[place]] += 1
            return function(*args)

        return compiled(layer, traced)

    likelihood.compiled, likelihood.Announced = counting, Counted
    return counts


def a_day():
    """Sizes, seeds, patterns, types, training: all that must not compile anew."""
    network = MADE([7], 2, ordering="random", num_masks=16)
    layer = keras.layers.Normalization()
    rng = np.random.RandomState(0)
    x, c = rng.normal(size=(3000, 3)).astype("float32"), rng.normal(size=(3000, 2))
    layer.adapt(x)
    model = AutoregressiveDensity(network, "normal", normalization=layer)
    model.compile("adam")
    model.build(((None, 3), (None, 2)))
    sizes = np.unique(np.geomspace(1, 3000, 10).astype(int)).tolist()
    for day in range(2):
        for seed, n in enumerate(sizes if day == 0 else sizes[::4]):
            seen = rng.uniform(size=(n, 3)) < 0.5
            kind = ["float32", "float64"][seed % 2]
            model.log_prob(x[:n].astype(kind), c[:n], verbose=0)
            model.sample(n, c[:n], seed=seed, verbose=0)
            model.impute(x[:n], seen, c[:n], seed=seed, verbose=0)
            model.impute(x[:n], seen[:1], c[:n], seed=seed, verbose=0)
            model.conditional_log_prob(x[:n], seen, c[:n], verbose=0)
            low, few = np.where(seen, x[:n], -np.inf), min(n, 100)
            boxes = {"context": c[:n], "num_particles": 16, "seed": seed, "verbose": 0}
            model.interval_log_prob(low, x[:n] + seed, **boxes)
            model.interval_log_prob(low[0], np.inf, c[0], 10 * few, verbose=0)
            boxes = {"context": c[:few], "num_particles": 20, "verbose": 0}
            model.sample(few, low=low[:few], **boxes)
            model.sample(few, high=np.zeros(3), **boxes)
        if day == 0:
            model.fit((x[:100], c[:100]), verbose=0)
            print("after training", file=sys.stderr)


@pytest.mark.compiled
@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="nothing is compiled on torch"
)
def test_a_day_compiles_each_verb_four_times_at_most():
    found = subprocess.run(
        [sys.executable, __file__],
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "0",
            "TF_CPP_VMODULE": "device_compiler=2",
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
            ),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert not found.returncode, found.stderr[-2000:]
    traces = json.loads(found.stdout.splitlines()[-1])
    assert all(1 <= traces[verb] <= MOST for verb in VERBS), traces
    if keras.backend.backend() == "tensorflow":
        # No trace is compiled for more than one value of what it is given.
        assert found.stderr.count(CLUSTER) == sum(traces.values())


@pytest.mark.compiled
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the warning is TensorFlow's"
)
def test_many_models_are_not_taken_for_one_that_is_traced_again(caplog):
    import tensorflow as tf

    tf.get_logger().addHandler(caplog.handler)
    try:
        for _ in range(8):
            function = compiling._tf_function(lambda x, y: x + 1.0)
            assert function(tf.zeros(2), None).shape == (2,)
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert "retracing" not in caplog.text


def test_long_compiling_is_told_once(monkeypatch, capfd):
    monkeypatch.setattr(compiling, "SILENCE", 0.0)
    monkeypatch.setattr(compiling.keras.backend, "backend", lambda: "jax")
    told = threading.Event()

    def function(x):
        # Until the clock has run out, as if this were compiled.
        told.wait(0.2)
        return x

    announced = compiling.Announced(function, "sample")
    for _ in range(2):
        announced(np.zeros((16, 2), "float32"), verbose="auto")
    announced(np.zeros((128, 2), "float32"), verbose=0)
    text = capfd.readouterr().err
    assert text == "compiling sample for 16 rows, once for this model\n"


if __name__ == "__main__":
    counts = count_traces()
    a_day()
    print(json.dumps(counts))
