"""Files that this version wrote load in later ones, and give the same numbers.

`python tests/densities/test_saved_files.py` writes those that are not there yet; one
that is there is never written again.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from laws import set_random_weights, to_numpy
from test_kept_numbers import KEPT, MODELS, make

from keras_made import (
    MADE,
    AutoregressiveDensity,
    MixtureOfNormals,
    flows,
)

pytestmark = pytest.mark.neutral

FOLDER = Path(__file__).parents[1] / "data"
FLOWS = {
    "maf": (lambda: flows.MAF(3, 2, (6,), context_size=2), 2),
    "iaf": (lambda: flows.IAF(3, 2, (6,)), 0),
    "spline maf": (lambda: flows.SplineMAF(3, 1, (6,), num_bins=4), 0),
    "realnvp": (lambda: flows.RealNVP(3, 2, (6,), permutation="random"), 0),
    "spline coupling": (lambda: flows.SplineCoupling(3, 2, (6,), num_bins=4), 0),
    "nice": (lambda: flows.NICE(3, 2, (6,)), 0),
    "a density as base": (
        lambda: flows.MAF(
            3, 1, (6,), base=AutoregressiveDensity(MADE([6], 6), MixtureOfNormals(2))
        ),
        0,
    ),
}
FLOW_SCORES = {
    "maf": [-6.4358, -19.7508, -4.1972, -4.9626],
    "iaf": [-6.7972, -3.6297, -2.9469, -2.8648],
    "spline maf": [-12.6639, -11.5722, -6.4590, -2.8815],
    "realnvp": [-4.5720, -4.3601, -2.8055, -4.0336],
    "spline coupling": [-19.9688, -31.7569, -50.5296, -35.4677],
    "nice": [-15.4857, -9.4632, -3.5866, -2.7307],
    "a density as base": [-6.4256, -5.5640, -4.2620, -3.5176],
}


def make_flow(name):
    flow, context_size = FLOWS[name][0](), FLOWS[name][1]
    flow.require_built()
    set_random_weights(flow, seed=2, scale=0.3)
    return flow, *flow_data(context_size)


def flow_data(context_size):
    rng = np.random.RandomState(5)
    x = rng.normal(size=(4, 3)).astype("float32")
    context = rng.normal(size=(4, context_size)).astype("float32")
    return x, context if context_size else None


def path_of(name):
    return FOLDER / f"{name.replace(', ', '_').replace(' ', '_')}.keras"


@pytest.mark.parametrize("name", MODELS)
def test_a_density_of_a_file_scores_as_when_it_was_written(name):
    model = keras.saving.load_model(path_of(name))
    _, x, context = make(name)
    scores = to_numpy(model.log_prob(keras.ops.convert_to_tensor(x), context))
    np.testing.assert_allclose(scores, KEPT[name]["scores"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_of_a_file_scores_as_when_it_was_written(name):
    flow = keras.saving.load_model(path_of(name))
    x, context = flow_data(FLOWS[name][1])
    scores = to_numpy(flow.log_prob(keras.ops.convert_to_tensor(x), context))
    np.testing.assert_allclose(scores, FLOW_SCORES[name], rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in [*MODELS, *FLOWS]:
        model, x, context = make(name) if name in MODELS else make_flow(name)
        scores = to_numpy(model.log_prob(keras.ops.convert_to_tensor(x), context))
        print(f"{name!r}: {np.round(scores, 4).tolist()},")
        if not path_of(name).exists():
            model.save(path_of(name))
