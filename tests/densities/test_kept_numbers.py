"""Scores and draws that no rearrangement of the code may change.

Weights, data and noise come from NumPy: scores and draws are the same on every back
end. `python tests/densities/test_kept_numbers.py` prints the table as it is today.
"""

import numpy as np
import pytest
from laws import set_random_weights, to_numpy

from keras_made import (
    MADE,
    NADE,
    Attention,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    MixtureOfLogistics,
    MixtureOfNormals,
    NetworkAverage,
    Normal,
    PiecewiseLinear,
    PixelCNN,
    PixelRNN,
    Recurrent,
    WaveNet,
)

pytestmark = pytest.mark.neutral

TABLE = Columns([Bernoulli(), Categorical(3), MixtureOfLogistics(2, 5), Normal()])
# name: (network, conditional, shape of an event, levels of an entry or None, context)
MODELS = {
    "made": (lambda: MADE([8]), Bernoulli(), (6,), 2, 0),
    "fvsbn": (lambda: MADE([]), Bernoulli(), (6,), 2, 2),
    "made, deep": (
        lambda: MADE([8, 8], 6, residual=True, ordering="reversed"),
        MixtureOfNormals(2),
        (4,),
        None,
        2,
    ),
    "made, orderings": (
        lambda: MADE([7], ordering="random", num_masks=3),
        Bernoulli(),
        (6,),
        2,
        0,
    ),
    "made, connectivities": (
        lambda: MADE([9, 7], 3, hidden_degrees="random", num_masks=3, companion=True),
        Categorical(3),
        (5,),
        3,
        0,
    ),
    "made, table": (lambda: MADE([8], 6), TABLE, (4,), 2, 1),
    "nade": (lambda: NADE(8, 2), Normal(), (5,), None, 0),
    "eonade": (
        lambda: NADE(8, ordering="random", num_masks=3),
        Bernoulli(),
        (5,),
        2,
        2,
    ),
    "deep nade": (
        lambda: NADE(8, 3, ordering="random", num_masks=3, num_blocks=2),
        PiecewiseLinear(Categorical(3), [0.0, 0.5, 2.0]),
        (5,),
        3,
        2,
    ),
    "attention": (
        lambda: Attention((5,), 8, num_params=3, num_layers=2),
        Categorical(3),
        (5,),
        3,
        2,
    ),
    "attention, orderings": (
        lambda: Attention((5,), 8, num_layers=1, ordering="random", num_masks=3),
        Bernoulli(),
        (5,),
        2,
        0,
    ),
    "recurrent": (lambda: Recurrent((5,), 6, "gru", 3), Categorical(3), (5,), 3, 2),
    "recurrent, end": (
        lambda: Recurrent((5,), 6, num_params=3, num_layers=2, end=1),
        Categorical(3),
        (5,),
        3,
        0,
    ),
    "wavenet": (
        lambda: WaveNet((6,), 6, 6, num_layers=2),
        MixtureOfLogistics(2, 4),
        (6,),
        4,
        0,
    ),
    "pixelcnn": (
        lambda: PixelCNN((3, 3), 6, num_layers=2),
        Bernoulli(),
        (3, 3),
        2,
        2,
    ),
    "pixelrnn": (
        lambda: PixelRNN((2, 2, 2), 6, 3, num_layers=1),
        Categorical(3),
        (2, 2, 2),
        3,
        0,
    ),
    "average": (lambda: NetworkAverage([MADE([8]), NADE(8)]), Bernoulli(), (6,), 2, 0),
}

KEPT = {
    "made": {
        "scores": [-5.4798, -4.1505, -6.7175],
        "draws": [3.0, 4.0, 5.0, 3.0, 4.0, 4.0],
    },
    "fvsbn": {
        "scores": [-6.3616, -4.4482, -5.3957],
        "draws": [1.0, 3.0, 5.0, 2.0, 4.0, 1.0],
    },
    "made, deep": {
        "scores": [-84.0868, -12.1576, -16.3924],
        "draws": [7.1921, 0.3135, -2.7578, 4.5683, 0.3993, 5.5319],
    },
    "made, orderings": {
        "scores": [-4.2753, -3.242, -5.4591],
        "draws": [2.0, 4.0, 5.0, 4.0, 3.0, 2.0],
    },
    "made, connectivities": {
        "scores": [-6.6454, -4.923, -10.4291],
        "draws": [7.0, 6.0, 2.0, 6.0, 4.0, 2.0],
    },
    "made, table": {
        "scores": [-9.5293, -5.5491, -11.2129],
        "draws": [0.2293, -0.075, 1.2932, 1.3253, 1.2413, 2.7655],
    },
    "nade": {
        "scores": [-46.6095, -8.4247, -6.4444],
        "draws": [-2.007, -0.9987, -3.7928, -6.1068, -2.4274, 5.3042],
    },
    "eonade": {
        "scores": [-4.0793, -2.7804, -2.3932],
        "draws": [2.0, 3.0, 5.0, 2.0, 3.0, 2.0],
    },
    "deep nade": {
        "scores": [-6.2038, -9.3774, -3.8557],
        "draws": [6.0, 6.0, 2.0, 6.0, 5.0, 7.0],
    },
    "attention": {
        "scores": [-3.5747, -6.496, -6.8285],
        "draws": [6.0, 6.0, 4.0, 3.0, 7.0, 6.0],
    },
    "attention, orderings": {
        "scores": [-4.2984, -3.674, -2.9357],
        "draws": [5.0, 3.0, 5.0, 3.0, 3.0, 2.0],
    },
    "recurrent": {
        "scores": [-6.9079, -12.7312, -10.4427],
        "draws": [5.0, 6.0, 5.0, 5.0, 5.0, 6.0],
    },
    "recurrent, end": {
        "scores": [-0.8792, -5.8523, -2.0361],
        "draws": [5.0, 5.0, 4.0, 2.0, 4.0, 5.0],
    },
    "wavenet": {
        "scores": [-7.8999, -12.0261, -14.1833],
        "draws": [14.0, 12.0, 15.0, 14.0, 15.0, 13.0],
    },
    "pixelcnn": {
        "scores": [-6.856, -6.1758, -5.7082],
        "draws": [5.0, 9.0, 6.0, 4.0, 4.0, 6.0],
    },
    "pixelrnn": {
        "scores": [-12.3299, -14.173, -8.345],
        "draws": [9.0, 7.0, 8.0, 11.0, 9.0, 10.0],
    },
    "average": {
        "scores": [-5.0231, -3.9062, -6.5447],
        "draws": [3.0, 3.0, 5.0, 4.0, 3.0, 3.0],
    },
}


def make(name):
    network, conditional, shape, levels, context_size = MODELS[name]
    model = AutoregressiveDensity(network(), conditional)
    rng = np.random.RandomState(3)
    x = rng.normal(size=(3, *shape))
    if levels is not None:
        x = rng.randint(levels, size=(3, *shape))
    if name == "recurrent, end":
        x = np.where(np.cumsum(x == 1, axis=1) > 0, 1, x)
    context = rng.normal(size=(3, context_size)) if context_size else None
    model.build(x.shape if context is None else (x.shape, context.shape))
    set_random_weights(model.network, seed=1, scale=0.6)
    return model, x.astype("float32"), context


def scores_and_draws(name):
    """Log p of three rows, and the sums of the entries of six draws."""
    model, x, context = make(name)
    scores = to_numpy(model.log_prob(x, context))
    one = None if context is None else context[0]
    draws = to_numpy(model.sample(6, one, seed=5)).reshape(6, -1).sum(axis=1)
    return scores, draws


@pytest.mark.parametrize("name", MODELS)
def test_scores_and_draws_are_those_that_were_kept(name):
    kept, (scores, draws) = KEPT[name], scores_and_draws(name)
    np.testing.assert_allclose(scores, kept["scores"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(draws, kept["draws"], rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    for name in MODELS:
        scores, draws = (np.round(a, 4).tolist() for a in scores_and_draws(name))
        print((name, scores, draws))
