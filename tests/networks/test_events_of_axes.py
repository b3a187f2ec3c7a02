"""Networks of vectors over events of several axes, generated entry by entry.

They are the same network, of the same weights, over the flat event: every law of it is
kept, whatever the shape.
"""

import numpy as np
import pytest
from eager import uncompiled
from laws import all_states, dependence, past, reload, run_steps, to_numpy
from laws import set_random_weights as randomize

from keras_made import (
    MADE,
    NADE,
    Attention,
    AutoregressiveDensity,
    Categorical,
    NetworkAverage,
    PixelCNN,
)

pytestmark = pytest.mark.neutral

SHAPE, SIZE, WIDTH = (2, 2), 4, 2
RANDOM = {"ordering": "random", "num_masks": 2}
MAKE = {
    "made": lambda **o: MADE([8], 3, **o),
    "made, given order": lambda **o: MADE([8], 3, ordering=[2, 0, 3, 1], **o),
    "made, all options": lambda **o: MADE(
        [8, 8], 3, companion=True, residual=True, hidden_degrees="random", **RANDOM, **o
    ),
    "nade": lambda **o: NADE(5, 3, **o),
    "nade, orders": lambda **o: NADE(5, 3, **RANDOM, **o),
    "attention": lambda event_shape=(SIZE,), **o: Attention(
        event_shape, 8, 1, 2, 3, **o
    ),
    "attention, orders": lambda event_shape=(SIZE,), **o: Attention(
        event_shape, 8, 1, 2, 3, **RANDOM, **o
    ),
    "average": lambda **o: NetworkAverage(
        [MADE([8], 3, **RANDOM, **o), NADE(5, 3, **RANDOM)]
    ),
    "average of axes": lambda **o: NetworkAverage(
        [
            NADE(5, 3),
            MADE([8], 3, **o),
            *([PixelCNN(SHAPE, 4, num_params=3)] if o else []),
        ]
    ),
}


def classes(rng, rows):
    return rng.randint(3, size=(rows, SIZE)).astype("float32")


X = classes(np.random.RandomState(0), 12).reshape(12, *SHAPE)
CONTEXT = np.random.RandomState(1).normal(size=(12, WIDTH)).astype("float32")


@pytest.fixture(scope="module", params=MAKE)
def model(request):
    """A density of classes with a context, and weights that no initializer gives."""
    model = AutoregressiveDensity(
        MAKE[request.param](event_shape=SHAPE), Categorical(3)
    )
    model.name_in_zoo = request.param
    model.build((X.shape, CONTEXT.shape))
    randomize(model.network)
    return model


def test_every_entry_hears_what_comes_before_it_and_all_of_it(model):
    network = model.network
    for structure in range(network.num_masks):
        found = dependence(network, WIDTH, structure, make_x=classes)
        assert np.array_equal(found, past(network, structure))


def test_step_by_step_is_all_at_once(model):
    network = model.network
    for structure in range(network.num_masks):
        params = to_numpy(network(X, CONTEXT, structure=structure))
        for slow in (False, True):
            steps = run_steps(network, X, CONTEXT, structure, slow=slow)
            assert steps == pytest.approx(params.reshape(12, SIZE, 3), abs=1e-4)


def test_each_row_may_have_its_own_order(model):
    network = model.network
    if not (network.orderings_only or network.order_agnostic):
        pytest.skip("It generates in the orderings that it was made with.")
    rng = np.random.RandomState(0)
    orders = np.stack([rng.permutation(SIZE) for _ in X]).astype("int32")
    together = run_steps(network, X, CONTEXT, order=orders)
    for row in range(len(X)):
        one = slice(row, row + 1)
        alone = run_steps(network, X[one], CONTEXT[one], order=orders[one])
        assert together[one] == pytest.approx(alone, abs=1e-4)


def test_it_is_the_network_of_the_flat_event(model):
    """Scores, draws and completions are those of vectors, in another shape."""
    flat = AutoregressiveDensity(MAKE[model.name_in_zoo](), Categorical(3))
    if model.name_in_zoo == "average of axes":
        pytest.skip("One of its networks is for pictures alone.")
    flat.build(((None, SIZE), (None, WIDTH)))
    flat.set_weights(model.get_weights())
    vectors, seen = X.reshape(12, SIZE), X == 1
    options = {"num_particles": 1 if model.network.order_agnostic else 6, "seed": 0}
    with uncompiled():
        verbs = [
            lambda m, x, _: m.log_prob(x, CONTEXT),
            lambda m, x, _: m.sample(12, CONTEXT, seed=0),
            lambda m, x, seen: m.impute(x, seen, CONTEXT, **options),
            lambda m, x, seen: m.conditional_log_prob(x, seen, CONTEXT, seed=0),
        ]
        for verb in verbs:
            found = to_numpy(verb(model, X, seen))
            expected = to_numpy(verb(flat, vectors, seen.reshape(12, SIZE)))
            assert found.shape[1:] == SHAPE[: 2 * (expected.ndim - 1)]
            assert found.reshape(expected.shape) == pytest.approx(expected, abs=1e-4)


def test_it_sums_to_one_is_fitted_and_comes_back_from_a_file(model, tmp_path):
    states = all_states(SIZE, 3).reshape(-1, *SHAPE)
    with uncompiled():
        total = np.exp(to_numpy(model.log_prob(states, CONTEXT[0]))).sum()
        assert total == pytest.approx(1.0, abs=1e-4)
        before = to_numpy(model.log_prob(X, CONTEXT)).mean()
        model.compile("adam", run_eagerly=True)
        model.fit((X, CONTEXT), epochs=3, verbose=0)
        scores = to_numpy(model.log_prob(X, CONTEXT))
        assert scores.mean() > before
        again = reload(model, tmp_path / "model.keras")
        assert again.event_shape == SHAPE
        assert np.array_equal(to_numpy(again.log_prob(X, CONTEXT)), scores)
        drawn = again.sample(5, CONTEXT[0], seed=1)
    assert drawn.shape == (5, *SHAPE)
