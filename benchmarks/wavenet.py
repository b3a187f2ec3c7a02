"""WaveNet: time per generated sample with cached activations, and recomputing all.

    python benchmarks/wavenet.py [--json FILE]

The receptive field is 1024 samples (10 layers, kernels of 2). `cached` is one step of
the network, which keeps in rings what its kernels will hear again; `recomputed` is the
step of a network that has no `step` of its own. Both compiled, batch of 1.
"""

import argparse
import functools

import numpy as np
from timing import interleaved_medians, print_table, save_json

from keras_made import Autoregressive, AutoregressiveDensity, Categorical, WaveNet
from keras_made.compiling import compiled
from keras_made.densities.drawing import generate_rows, noise_shape


def measure(length, units, repeats, num_classes=256):
    network = WaveNet((length,), units, num_classes, num_layers=10)
    model = AutoregressiveDensity(network, Categorical(num_classes))
    model.build((None, length))
    x_last = np.zeros((1, 1), "float32")
    noise = np.random.RandomState(0).uniform(size=(1, *noise_shape(model)))
    draw = compiled(model, functools.partial(generate_rows, model))
    state = Autoregressive.start(network, 1)

    def recompute(t):
        return Autoregressive.step(network, state, x_last, t)[0]

    recompute = compiled(model, recompute)
    times = interleaved_medians(
        {
            "cached": lambda: draw(np.int32(0), noise.astype("float32")),
            "recomputed": lambda: recompute(np.int32(length // 2)),
        },
        repeats,
    )
    cached, recomputed = times["cached"] / length, times["recomputed"]
    return {
        "length": length,
        "units": units,
        "receptive field": network.receptive_field,
        "cached us": 1e6 * cached,
        "recomputed us": 1e6 * recomputed,
        "recomputed / cached": recomputed / cached,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = [
        measure(length, units, options.repeats)
        for length, units in [(1024, 32), (4096, 32), (4096, 64)]
    ]
    print_table("Time per generated sample", rows)
    save_json(options.json, rows)


if __name__ == "__main__":
    main()
