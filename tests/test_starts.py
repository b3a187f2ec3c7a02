"""Where training starts: at each entry's own shares; at a copula of few rows."""

import types

import keras
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
from keras_made.recipes import starts
from keras_made.recipes.copula import GaussianCopula
from keras_made.recipes.starts import start_at_copula, start_at_marginals

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


# A Gaussian copula of few rows --------------------------------------------------------


def chain(num_rows, seed=0):
    """Three normal columns, each half of the one before; what is missing, by chance."""
    rng = np.random.RandomState(seed)
    noise = rng.normal(size=(num_rows, 3)) * np.sqrt([1.0, 0.75, 0.75])
    x = np.zeros((num_rows, 3))
    for i in range(3):
        x[:, i] = noise[:, i] + (0.5 * x[:, i - 1] if i else 0.0)
    holes = rng.uniform(size=x.shape) < 0.3
    return x, np.where(holes, np.nan, x)


def test_correlations_are_found_under_curves_and_holes():
    _, x = chain(4000)
    x[:, 1] = np.exp(2 * x[:, 1])
    found = GaussianCopula(x, True).correlation
    truth = [[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]]
    np.testing.assert_allclose(found, truth, atol=0.05)


def test_few_rows_are_not_believed_whole():
    x = np.repeat(np.arange(6.0)[:, None], 4, axis=1)
    found = GaussianCopula(x, True).correlation
    assert (found[np.triu_indices(4, 1)] < 0.95).all()


def test_draws_are_of_the_values_that_columns_take():
    x = rows(holes=True).astype("float64")
    drawn = GaussianCopula(x, True).sample(20_000, np.random.RandomState(1))
    assert drawn.shape == (20_000, 4)
    for entry in range(3):
        seen = x[~np.isnan(x[:, entry]), entry]
        assert set(drawn[:, entry]) == set(seen)
        for value in set(seen):
            share = (seen == value).mean()
            assert abs((drawn[:, entry] == value).mean() - share) < 0.02
    real = x[:, 3]
    assert np.nanmin(real) <= drawn[:, 3].min() and drawn[:, 3].max() <= np.nanmax(real)
    assert len(set(drawn[:, 3])) > 10_000
    assert abs(drawn[:, 3].std() - np.nanstd(real)) < 0.05


def test_draws_go_together_as_the_rows_do():
    _, x = chain(2000)
    drawn = GaussianCopula(x, True).sample(20_000, np.random.RandomState(1))
    truth = [[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]]
    np.testing.assert_allclose(np.corrcoef(drawn.T), truth, atol=0.06)


def test_only_real_entries_are_drawn_between_their_values():
    # Each whole number comes once or twice, as in a short table of ages.
    x = np.random.RandomState(0).randint(0, 500, size=(80, 2)).astype("float64")
    drawn = GaussianCopula(x, [False, True]).sample(500, np.random.RandomState(0))
    assert set(drawn[:, 0]) <= set(x[:, 0])
    assert len(set(drawn[:, 1])) > 400


def test_a_column_never_seen_is_drawn_as_missing():
    x = np.stack([np.arange(9.0), np.full(9, np.nan)], axis=1)
    drawn = GaussianCopula(x, True).sample(5, np.random.RandomState(0))
    assert np.isnan(drawn[:, 1]).all() and not np.isnan(drawn[:, 0]).any()


@pytest.mark.compiled
def test_a_network_knows_the_regressions_before_it_sees_a_row(monkeypatch):
    monkeypatch.setattr(starts, "STEPS", 400)
    _, x = chain(150)
    model = AutoregressiveDensity(MADE([], 2, seed=0), Normal())
    model.build((None, 3))
    model.compile(keras.optimizers.Adam(0.05))
    start_at_copula(
        model, model.fit, x.astype("float32"), continuous=True, batch_size=32
    )
    assert abs(float(model.optimizer.learning_rate) - 0.025) < 1e-6
    complete, _ = chain(2000, seed=1)
    found = -to_numpy(model.log_prob(complete.astype("float32"), verbose=0)).mean()
    truth = 1.5 * np.log(2 * np.pi) + np.log(0.75) + 1.5
    alone = 1.5 * np.log(2 * np.pi) + 1.5
    assert truth - 0.1 < found < truth + 0.1 < alone


@pytest.mark.parametrize("shape", [(101, 2), (50, 129)])
def test_many_rows_or_columns_speak_for_themselves(shape):
    def fit(*args, **kwargs):
        raise AssertionError("It was trained.")

    model = types.SimpleNamespace()
    start_at_copula(
        model, fit, np.zeros(shape, "float32"), continuous=True, batch_size=32
    )


def test_context_is_drawn_with_its_rows():
    seen = []
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build([])
    model = types.SimpleNamespace(optimizer=optimizer)
    x, _ = chain(150)
    x = x.astype("float32")
    options = {"continuous": True, "batch_size": 4}
    start_at_copula(model, lambda d, **_: seen.append(d), x[:, :1], x[:, 1:], **options)
    assert len(seen) == starts.PIECES
    drawn, context = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    assert drawn.shape == (4 * starts.STEPS, 1) and context.shape[1] == 2
    assert abs(np.corrcoef(drawn[:, 0], context[:, 0])[0, 1] - 0.5) < 0.15


def test_time_ends_it():
    seen = []
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build([])
    model = types.SimpleNamespace(optimizer=optimizer)
    x = chain(50)[0].astype("float32")
    start_at_copula(
        model,
        lambda d, **_: seen.append(d),
        x,
        continuous=True,
        batch_size=4,
        seconds=0,
    )
    assert len(seen) == 1
