"""What the package promises as a whole: its names, its imports, its README."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_made

ROOT = Path(__file__).parent.parent

LIGHT = """
import sys, keras
before = set(sys.modules)
import keras_made
added = set(sys.modules) - before
assert all(m.startswith("keras_made") for m in added), sorted(added)
"""


def test_importing_it_loads_nothing_but_itself():
    """No TFP, no plotting: the import costs its own modules and no more."""
    subprocess.run([sys.executable, "-c", LIGHT], check=True, timeout=300)


def test_public_names_are_there_and_documented():
    for name in keras_made.__all__:
        assert getattr(keras_made, name).__doc__, name


def test_version_and_type_marker():
    assert re.fullmatch(r"\d+\.\d+\.\d+", keras_made.__version__)
    assert (Path(keras_made.__file__).parent / "py.typed").exists()


def readme_blocks(language):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_the_first_lines_of_the_readme_run(tmp_path, monkeypatch):
    """The fifteen lines train and sample, and print what they say."""
    block = next(b for b in readme_blocks("python") if "model.fit" in b)
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 15
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(block.replace("epochs=50", "epochs=1"), namespace)
    assert np.asarray(namespace["samples"]).shape == (10, 64)


def test_the_readme_has_both_commands():
    blocks = readme_blocks("bash")
    assert sum("examples/digits.py" in block for block in blocks) >= 1
    assert sum("pytest" in block for block in blocks) == 1


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's SavedModel"
)
def test_keras_export_of_the_layer_and_of_the_density(tmp_path):
    """Keras's own `model.export`: numbers equal, any batch size."""
    import tensorflow as tf

    x = (np.random.RandomState(0).uniform(size=(5, 6)) < 0.5).astype("float32")
    layer = keras.Sequential([keras.Input((6,)), keras_made.MADE([8], num_masks=1)])
    density = keras_made.AutoregressiveDensity(
        keras_made.MADE([8], ordering="random", num_masks=3)
    )
    density.build((None, 6))
    for name, model in (("layer", layer), ("density", density)):
        expected = np.asarray(model(x))
        model.export(tmp_path / name, verbose=False)
        served = tf.saved_model.load(tmp_path / name)
        for rows in (5, 2):
            np.testing.assert_allclose(
                np.asarray(served.serve(x[:rows])), expected[:rows], atol=1e-5
            )
