"""Memory of training a large net: parameters, optimizer slots, peak.

    python benchmarks/training_memory.py [--hidden 8000 8000] [--json FILE]

MADE stored as it chooses (a staircase), with its kernels whole, and the unmasked dense
net of the same shape, none with direct connections; Adam, batch 100, D = 784, float32.
Each in a process of its own, on Linux; the peak is of anonymous memory beyond what the
process had before the net was made.
"""

import argparse
import json
import subprocess
import sys

import numpy as np
from memory import Peak
from timing import dense, print_table, save_json

SIZE, BATCH, STEPS = 784, 100, 3
MEGABYTE = 2**20


def make(name, hidden):
    import keras

    from keras_made import MADE

    if name == "dense":
        return dense(SIZE, hidden)
    form = "masked" if name == "MADE, whole kernels" else "auto"
    layer = MADE(hidden, direct=False, kernel_form=form)
    return keras.Sequential([keras.Input((SIZE,)), layer])


def run_job(name, hidden):
    """Train for a few steps in this process; a row of the table."""
    import keras

    x = np.zeros((BATCH * STEPS, SIZE), "float32")
    with Peak() as peak:
        model = make(name, hidden)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile("adam", loss=loss, jit_compile=True)
        model.fit(x, x, batch_size=BATCH, verbose=0)
    slots = sum(int(np.prod(v.shape)) for v in model.optimizer.variables)
    return {
        "net": name,
        "parameters": model.count_params(),
        "weights MB": 4 * model.count_params() / MEGABYTE,
        "optimizer MB": 4 * slots / MEGABYTE,
        "peak MB": peak.bytes / MEGABYTE,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", nargs="+", type=int, default=[8000, 8000])
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(run_job(arguments.job, arguments.hidden)))
        return
    rows = []
    for name in ("dense", "MADE, whole kernels", "MADE"):
        command = [sys.executable, __file__, "--job", name, "--hidden"]
        command += [str(units) for units in arguments.hidden]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print_table(f"Training memory, D = {SIZE}, hidden {arguments.hidden}", rows)
    save_json(arguments.json, rows)


if __name__ == "__main__":
    main()
