"""Peak memory of long jobs: scoring, sampling, completing, fitting from a stream.

    python benchmarks/memory.py [--json FILE]

Each figure is of a process of its own, on Linux: the peak of its anonymous memory (what
is not a file mapped into it) beyond what it had when the job began, with its rows in
memory or in a file. The last column is what a further row adds, in sizes of a row (400
bytes): 0 for work in bounded memory, 1 for `sample`, which holds what it returns, and a
quarter more for `impute`, which holds a boolean for each entry besides.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

SIZE, BATCH = 100, 1000
BYTES = SIZE * 4


def write_rows(path, num_rows):
    """Binary rows in a file, made piece by piece."""
    rng, pieces = np.random.RandomState(0), range(0, num_rows, 10000)
    shape = (num_rows, SIZE)
    file = np.lib.format.open_memmap(path, mode="w+", dtype="float32", shape=shape)
    for start in pieces:
        piece = file[start : start + 10000]
        piece[:] = rng.uniform(size=piece.shape) < 0.5
    file.flush()


class Peak:
    """The largest anonymous memory while it is open, sampled every few ms."""

    def __enter__(self):
        self.before = self.highest = self.now()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.005):
            self.highest = max(self.highest, self.now())

    def now(self):
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"RssAnon:\s*(\d+) kB", status)[1]) * 1024

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.bytes = self.highest - self.before


def run_job(name, path, num_rows):
    """One job in this process: bytes at its peak."""
    import keras

    from keras_made import MADE, AutoregressiveDensity

    keras.utils.set_random_seed(0)
    masks = {"ordering": "random", "num_masks": 2} if name == "impute" else {}
    model = AutoregressiveDensity(MADE([100], **masks))
    model.build((None, SIZE))
    model.compile("adam")
    mapped = np.load(path, mmap_mode="r")
    # What the job is given lies in memory before it starts, unless it is a file.
    x = np.array(mapped) if name in ("log_prob", "impute") else mapped
    if name == "impute":
        x[np.random.RandomState(1).uniform(size=num_rows) < 0.5, ::2] = np.nan
    with Peak() as peak:
        JOBS[name](model, x)
    return peak.bytes


def log_prob(model, x):
    model.log_prob(x, verbose=0)


def sample(model, x):
    model.sample(len(x), seed=0, verbose=0)


def impute(model, x):
    model.impute(x, seed=0, verbose=0)


def fit(model, data, **options):
    model.fit(data, epochs=1, verbose=0, **options)


def fit_py_dataset(model, x):
    import keras

    class Pieces(keras.utils.PyDataset):
        def __len__(self):
            return len(x) // BATCH

        def __getitem__(self, i):
            return (x[i * BATCH : (i + 1) * BATCH],)

    fit(model, Pieces(), shuffle=False)


def fit_generator(model, x):
    rows = (x[i : i + BATCH] for i in range(0, len(x), BATCH))
    fit(model, ((piece,) for piece in rows))


def fit_tf_data(model, x):
    import tensorflow as tf

    def pieces():
        for i in range(0, len(x), BATCH):
            yield (x[i : i + BATCH],)

    spec = (tf.TensorSpec((None, SIZE), "float32"),)
    fit(model, tf.data.Dataset.from_generator(pieces, output_signature=spec))


JOBS = {
    "log_prob": log_prob,
    "log_prob of a memmap": log_prob,
    "sample": sample,
    "impute": impute,
    "fit on the memmap itself": lambda model, x: fit(model, x, batch_size=BATCH),
    "fit on a PyDataset": fit_py_dataset,
    "fit on a generator": fit_generator,
    "fit on tf.data": fit_tf_data,
}


def measure(name, num_rows, folder):
    path = Path(folder) / f"{num_rows}.npy"
    if not path.exists():
        write_rows(path, num_rows)
    command = [sys.executable, __file__, "--job", name, "--path", path]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1]) / 1e6


def compare(name, numbers, folder):
    """Megabytes for each number of rows, and what a further row adds."""
    peaks = {n: measure(name, n, folder) for n in numbers}
    *_, few, many = numbers
    slope = (peaks[many] - peaks[few]) * 1e6 / (many - few)
    columns = {f"{n} rows, MB": peak for n, peak in peaks.items()}
    return {"job": name, **columns, "further row, in rows": slope / BYTES}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        num_rows = len(np.load(args.path, mmap_mode="r"))
        print(json.dumps(run_job(args.job, args.path, num_rows)))
        return
    from timing import print_table, save_json

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.jobs:
            rows.append(compare(name, args.rows, folder))
            print(rows[-1], flush=True)
    print_table(f"Peak memory, D = {SIZE}, MADE([100])", rows)
    save_json(args.json, rows)


if __name__ == "__main__":
    main()
