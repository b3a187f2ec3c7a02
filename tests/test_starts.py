"""Where training starts: discrete entries at their own shares, whatever is heard."""

import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from keras_made import (
    MADE,
    NADE,
    Atoms,
    Attention,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    Incomplete,
    Normal,
    WaveNet,
)
from keras_made.recipes.starts import start_at_marginals

pytestmark = pytest.mark.neutral

ONES = Columns([Bernoulli(), Categorical(3), Atoms([1.0, 2.5, 7.0]), Normal()])


def rows(holes):
    rng = np.random.RandomState(0)
    x = np.stack(
        [
            rng.uniform(size=400) < 0.02,
            rng.choice(3, 400, p=[0.7, 0.05, 0.25]),
            rng.choice([1.0, 2.5, 7.0], 400, p=[0.1, 0.1, 0.8]),
            rng.normal(size=400),
        ],
        axis=1,
    ).astype("float32")
    if holes:
        x[rng.uniform(size=x.shape) < 0.3] = np.nan
    return x


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: MADE([8], n, kernel_initializer="zeros"),
        lambda n: MADE([], n),
        lambda n: NADE(8, n, kernel_initializer="zeros"),
        lambda n: Attention((4,), 8, 1, 1, n),
    ],
    ids=["made", "direct", "nade", "attention"],
)
def test_every_entry_has_its_own_shares_before_training(make, holes):
    x = rows(holes)
    conditional = Incomplete(ONES) if holes else ONES
    model = AutoregressiveDensity(make(conditional.num_params), conditional)
    model.build((None, 4))
    start_at_marginals(model.network, conditional, x)
    bias = to_numpy(model.network.output_bias).reshape(4, -1)
    for entry, one in enumerate(ONES.conditionals[:3]):
        seen = x[~np.isnan(x[:, entry]), entry]
        values = to_numpy(one.values("float32"))
        params = ops.convert_to_tensor(bias[entry][None, : one.num_params])
        p = np.exp(to_numpy(one.log_probs(params)))[0]
        shares = np.array([(seen == value).mean() for value in values])
        np.testing.assert_allclose(p, shares, atol=0.003)
    np.testing.assert_array_equal(bias[3], 0.0)


def test_a_network_without_such_a_bias_is_left_as_it_is():
    model = AutoregressiveDensity(WaveNet((3,), 4, num_layers=1), "bernoulli")
    model.build((None, 3))
    before = [to_numpy(v) for v in model.trainable_variables]
    start_at_marginals(model.network, model.conditional, np.ones((10, 3), "float32"))
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable))


def test_what_was_trained_before_is_left_as_it_is():
    model = AutoregressiveDensity(MADE([4]), "bernoulli")
    model.build((None, 3))
    model.network.output_bias.assign([0.5, 0.0, -2.0])
    start_at_marginals(model.network, model.conditional, np.ones((10, 3), "float32"))
    np.testing.assert_array_equal(to_numpy(model.network.output_bias), [0.5, 0, -2])
