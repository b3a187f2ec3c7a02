"""A killed run resumes exactly, and a broken file is never loaded."""

import os
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_made import MADE, AutoregressiveDensity

pytestmark = pytest.mark.neutral

EPOCHS, STEPS = 6, 8

# The order of the data depends on the seed and the epoch alone: the recipe. Without
# shuffle=False, Keras would shuffle the batches of a PyDataset once more, unseeded.
RUN = """
import os, signal, sys
import keras, numpy as np
from keras_made import MADE, AutoregressiveDensity

folder, kill_at = sys.argv[1], int(sys.argv[2])
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

model = AutoregressiveDensity(
    MADE([16], ordering="random", num_masks=5, dropout=0.2, seed=1)
)
model.build((None, 5))
model.compile("adam")
backup = os.path.join(folder, "backup")
if os.path.exists(os.path.join(backup, "training_metadata.json")):
    import json
    with open(os.path.join(backup, "training_metadata.json")) as file:
        first = json.load(file)["epoch"]
else:
    first = 0
model.fit(
    Shuffled(first), epochs=EPOCHS, verbose=0, shuffle=False,
    callbacks=[keras.callbacks.BackupAndRestore(backup), Kill()],
)
np.savez(os.path.join(folder, "end.npz"), *[np.asarray(v) for v in model.variables],
         *[np.asarray(v) for v in model.optimizer.variables])
"""


def run(folder, kill_at=0):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", RUN, folder, str(kill_at)]
    return subprocess.run(command, timeout=300).returncode


def end(folder):
    with np.load(folder / "end.npz") as file:
        return [file[name] for name in file.files]


@pytest.mark.parametrize(
    "kills", [2, pytest.param(10, marks=pytest.mark.slow)], ids=["twice", "ten times"]
)
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(kills, tmp_path):
    assert run(tmp_path / "whole") == 0
    rng = np.random.RandomState(kills)
    for i in range(kills):
        folder = tmp_path / f"killed {i}"
        assert run(folder, rng.randint(STEPS + 2, EPOCHS * STEPS)) == -signal.SIGKILL
        assert not (folder / "end.npz").exists()
        assert run(folder) == 0
        expected = end(tmp_path / "whole")
        for a, b in zip(expected, end(folder), strict=True):
            np.testing.assert_array_equal(a, b)


def make():
    model = AutoregressiveDensity(MADE([8], ordering="random", num_masks=3))
    model.build((None, 5))
    model.compile("adam")
    return model


def corrupted(data):
    """Name and bytes of fifty broken forms of a file."""
    rng = np.random.RandomState(0)
    for i in range(20):
        yield f"cut {i}", data[: len(data) * i // 20]
    for _ in range(28):
        place, broken = rng.randint(len(data)), bytearray(data)
        broken[place] ^= 1 << rng.randint(8)
        yield f"flipped at {place}", bytes(broken)


def test_broken_files_are_refused_or_harmless(tmp_path):
    """Every load is an exception, or gives the very weights that were saved."""
    model, path = make(), tmp_path / "model.keras"
    model.save(path)
    data, refused = path.read_bytes(), 0
    variants = list(corrupted(data))
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    variants.append(("foreign zip", (tmp_path / "foreign.zip").read_bytes()))
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(ValueError):
        model.load_weights(path)
    for name, broken in variants:
        path.write_bytes(broken)
        try:
            loaded = keras.saving.load_model(path)
        except Exception as error:
            assert str(error), name
            refused += 1
            continue
        assert loaded.get_config() == model.get_config(), name
        for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert refused >= 40


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
