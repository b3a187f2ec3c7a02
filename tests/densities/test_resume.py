"""A killed run resumes exactly, and a broken file is never loaded."""

import io
import os
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_made import MADE, AutoregressiveDensity

pytestmark = [pytest.mark.neutral, pytest.mark.compiled]

EPOCHS, STEPS = 6, 8

# The order of the data depends on the seed and the epoch alone: the recipe. Without
# shuffle=False, Keras would shuffle the batches of a PyDataset once more, unseeded.
RUN = """
import json, os, signal, sys
import keras, numpy as np
from keras_made import MADE, AutoregressiveDensity

kind, folder, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
EPOCHS, STEPS, BATCH = 6, 8, 16
keras.utils.set_random_seed(0)
x = (np.random.RandomState(0).uniform(size=(STEPS * BATCH, 5)) < 0.4).astype("float32")

class Shuffled(keras.utils.PyDataset):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch
        self.on_epoch_end()

    def on_epoch_end(self):
        rng = np.random.RandomState([7, self.epoch])
        self.order, self.epoch = rng.permutation(len(x)), self.epoch + 1

    def __len__(self):
        return STEPS

    def __getitem__(self, i):
        return (x[self.order[i * BATCH : (i + 1) * BATCH]],)

class Kill(keras.callbacks.Callback):
    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

if kind.startswith("flow"):
    from keras_made import flows  # Also what makes a saved flow known to Keras.

def make():
    if kind.startswith("flow"):
        model = flows.MAF(5, 2, (8,), dropout=0.2)
    else:
        model = AutoregressiveDensity(
            MADE([16], ordering="random", num_masks=5, dropout=0.2, seed=1)
        )
    model.build((None, 5))
    model.compile("adam")
    return model

first = 0
if kind.endswith("BackupAndRestore"):
    model, backup = make(), os.path.join(folder, "backup")
    callback = keras.callbacks.BackupAndRestore(backup)
    if os.path.exists(os.path.join(backup, "training_metadata.json")):
        with open(os.path.join(backup, "training_metadata.json")) as file:
            first = json.load(file)["epoch"]
else:
    # One file holds everything, and says how far it is: it cannot be half-restored.
    path = os.path.join(folder, "model.keras")
    callback = keras.callbacks.ModelCheckpoint(path)
    model = keras.saving.load_model(path) if os.path.exists(path) else make()
    first = int(model.optimizer.iterations) // STEPS
model.fit(
    Shuffled(first), initial_epoch=first, epochs=EPOCHS, verbose=0, shuffle=False,
    callbacks=[callback, Kill()],
)
np.savez(os.path.join(folder, "end.npz"), *[np.asarray(v) for v in model.variables],
         *[np.asarray(v) for v in model.optimizer.variables])
"""
KINDS = [
    "density, BackupAndRestore",
    "density, ModelCheckpoint",
    "flow, BackupAndRestore",
    "flow, ModelCheckpoint",
]


def run(kind, folder, kill_at=0):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", RUN, kind, folder, str(kill_at)]
    return subprocess.run(command, timeout=300).returncode


def end(folder):
    with np.load(folder / "end.npz") as file:
        return [file[name] for name in file.files]


@pytest.mark.parametrize(
    "kind, kills",
    [
        pytest.param(KINDS[0], 1, marks=pytest.mark.slow),
        pytest.param(KINDS[3], 1, marks=pytest.mark.slow),
        *[pytest.param(kind, 10, marks=pytest.mark.slow) for kind in KINDS],
    ],
)
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(kind, kills, tmp_path):
    """Weights, optimizer, position in the cycle, seeds: bit for bit."""
    if kind.startswith("flow") and keras.backend.backend() != "tensorflow":
        pytest.skip("flows run on TensorFlow")
    assert run(kind, tmp_path / "whole") == 0
    expected = end(tmp_path / "whole")
    rng = np.random.RandomState(KINDS.index(kind))
    for i in range(kills):
        folder = tmp_path / f"killed {i}"
        kill_at = rng.randint(1, EPOCHS * STEPS)
        assert run(kind, folder, kill_at) == -signal.SIGKILL
        assert not (folder / "end.npz").exists()
        assert run(kind, folder) == 0
        for a, b in zip(expected, end(folder), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"killed at {kill_at}")


def make():
    model = AutoregressiveDensity(MADE([8], ordering="random", num_masks=3))
    model.build((None, 5))
    model.compile("adam")
    return model


def corrupted(path, model):
    """Name and bytes of fifty broken forms of a file."""
    rng, data = np.random.RandomState(0), path.read_bytes()
    for i in range(20):
        yield f"cut {i}", data[: len(data) * i // 20]
    momentum = max(model.optimizer.variables, key=lambda v: len(v.shape))
    state = keras.ops.convert_to_numpy(momentum).tobytes()
    start = data.index(state)
    places = [
        *rng.randint(len(data), size=20),
        *rng.randint(start, start + len(state), size=8),
    ]
    for place in places:
        broken = bytearray(data)
        broken[place] ^= 1 << rng.randint(8)
        yield f"flipped at {place}", bytes(broken)
    yield "foreign zip", zipped({"hello.txt": b"hello"})
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["config.json"] = files["config.json"].replace(b"MADE", b"NADE")
    yield "wrong class", zipped(files)


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def state_of(model):
    return [*model.variables, *model.optimizer.variables]


def test_broken_files_are_refused_or_harmless(tmp_path):
    """Every load is an exception, or gives the very model that was saved."""
    model, path = make(), tmp_path / "model.keras"
    # So that the optimizer has a state to lose.
    model.fit(np.ones((4, 5), "float32"), verbose=0)
    model.save(path)
    variants, refused = list(corrupted(path, model)), []
    assert len(variants) == 50
    for name, broken in variants:
        path.write_bytes(broken)
        try:
            loaded = keras.saving.load_model(path)
        except Exception as error:
            assert str(error), name
            refused.append(name)
            continue
        assert loaded.get_config() == model.get_config(), name
        for a, b in zip(state_of(loaded), state_of(model), strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), name
            )
    assert len(refused) >= 40
    assert {"foreign zip", "wrong class"} <= set(refused)


def test_the_weights_of_another_model_are_refused(tmp_path):
    model, path = make(), tmp_path / "other.keras"
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(ValueError):
        model.load_weights(path)


def test_an_interrupted_save_leaves_the_last_good_file(tmp_path, monkeypatch):
    model, path = make(), tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="No space"):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.keras"]


def test_an_interrupted_backup_leaves_the_last_good_weights(tmp_path, monkeypatch):
    model, path = make(), tmp_path / "latest.weights.h5"
    model.save_weights(path)
    before = path.read_bytes()

    def fail(self, store):
        raise OSError("No space left on device")

    monkeypatch.setattr(MADE, "save_own_variables", fail)
    with pytest.raises(OSError, match="No space"):
        model.save_weights(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["latest.weights.h5"]
