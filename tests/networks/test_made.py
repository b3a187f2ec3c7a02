"""MADE keeps the laws, whatever its options, alone and together."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import (
    dependence,
    past,
    reload,
    run_steps,
    set_random_weights,
    to_numpy,
)

from keras_made import MADE, AutoregressiveDensity, Categorical
from keras_made.masks import make_hidden_degrees
from keras_made.networks.incremental import block_length, make_windows

pytestmark = pytest.mark.neutral

D = 6
# name: (constructor, size of the context)
NETWORKS = {
    "one layer": (lambda: MADE([16]), 0),
    "fvsbn": (lambda: MADE(()), 0),
    "fvsbn, context": (lambda: MADE((), ordering="reversed"), 2),
    "three layers": (lambda: MADE([12, 7, 20], direct=False, activation="elu"), 0),
    "narrow": (lambda: MADE([2], num_params=2), 0),
    "partly direct": (lambda: MADE([6], 3, direct_params=2, companion=True), 2),
    "narrow, no direct": (lambda: MADE([3, 2], direct=False), 0),
    "one unit, context": (lambda: MADE([1], direct=False), 2),
    "no direct, context": (lambda: MADE([14], direct=False), 3),
    "two parameters": (lambda: MADE([16, 16], num_params=2), 0),
    "reversed": (lambda: MADE([16], ordering="reversed", activation="tanh"), 0),
    "own ordering": (lambda: MADE([9], ordering=[3, 0, 5, 1, 4, 2]), 0),
    "companion": (lambda: MADE([16, 9], companion=True), 2),
    "residual": (lambda: MADE([16, 16, 16], residual=True, direct=False), 2),
    "residual in part": (lambda: MADE([16, 16, 9], residual=True), 0),
    "random degrees": (lambda: MADE([40, 40], hidden_degrees="random", seed=3), 0),
    "orderings": (lambda: MADE([16, 12], ordering="random", num_masks=4), 0),
    "degrees": (lambda: MADE([60], hidden_degrees="random", num_masks=3), 2),
    "everything": (
        lambda: MADE(
            [40, 40],
            num_params=3,
            ordering="random",
            hidden_degrees="random",
            num_masks=3,
            residual=True,
            companion=True,
            activation="gelu",
            dropout=0.3,
            kernel_regularizer="l2",
            seed=5,
        ),
        2,
    ),
    "classes": (lambda: MADE([30], num_params=3, encoder=Categorical(3)), 0),
}
MISSES_SOME = {"narrow, no direct", "one unit, context"}


def make(name, size=D):
    """The network, built, with random weights."""
    build, context_size = NETWORKS[name]
    network = build()
    context = (None, context_size) if context_size else None
    network.build((None, size), context)
    set_random_weights(network)
    return network, context_size


def make_data(name, context_size, num_rows=5, size=D, seed=0):
    rng = np.random.RandomState(seed)
    x = rng.normal(size=(num_rows, size)).astype("float32")
    if name == "classes":
        x = rng.randint(3, size=(num_rows, size)).astype("float32")
    context = rng.normal(size=(num_rows, context_size)).astype("float32")
    return x, context if context_size else None


def make_classes(rng, num_points):
    return rng.randint(3, size=(num_points, D))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_parameter_hears_exactly_the_past(name):
    network, context_size = make(name)
    for row in range(network.num_masks):
        make_x = make_classes if name == "classes" else None
        heard = dependence(network, context_size, row, make_x=make_x)
        np.testing.assert_array_equal(heard, network.connectivity(row))
        if name in MISSES_SOME:
            assert not (heard & ~past(network, row)).any()
        else:
            np.testing.assert_array_equal(heard, past(network, row))


@pytest.mark.parametrize("name", ["three layers", "everything", "orderings"])
def test_a_training_step_opens_nothing(name):
    build, context_size = NETWORKS[name]
    model = keras.Sequential([keras.Input((D,)), build()])
    x, _ = make_data(name, 0, 32)
    if context_size:
        inputs = keras.Input((D,)), keras.Input((context_size,))
        model = keras.Model(inputs, build()(*inputs))
        x = make_data(name, context_size, 32)
    network = model.layers[-1]
    set_random_weights(network)
    before = network.get_weights()
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    target = np.zeros((32, *model.output_shape[1:]), "float32")
    model.fit(x, target, epochs=3, verbose=0)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(before, network.get_weights(), strict=True)
    )
    for row in range(network.num_masks):
        heard = dependence(network, context_size, row)
        np.testing.assert_array_equal(heard, past(network, row))


@pytest.mark.parametrize("name", [n for n in NETWORKS if NETWORKS[n][1]])
def test_every_output_hears_context_and_non_linearly(name):
    network, size = make(name)
    x, _ = make_data(name, 0, 1)
    rng = np.random.RandomState(2)
    points = rng.normal(size=(64, size)).astype("float32")
    for row in range(network.num_masks):

        def params(context, structure=row):
            rows = np.repeat(x, len(context), axis=0)
            out = to_numpy(
                network(rows, context.astype("float32"), structure=structure)
            )
            return out.reshape(len(context), D, -1)

        for j in range(size):
            step = np.zeros(size)
            step[j] = 2.0
            low, mid, high = (
                params(points - step),
                params(points),
                params(points + step),
            )
            assert (np.abs(high - low).max(axis=(0, 2)) > 0).all()
            curvature = np.abs(high - 2 * mid + low).max(axis=(0, 2))
            if network.hidden_units:
                assert (curvature > 1e-3).all()


WAYS = {"windows": (64, 0), "accumulating": (0, 2**60), "blocks": (0, 0)}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way of taking steps, whatever a batch's size would choose."""
    most_windows, work = WAYS[request.param]
    monkeypatch.setattr("keras_made.networks.made.MOST_WINDOWS", most_windows)
    monkeypatch.setattr("keras_made.networks.made.SMALL_WORK", work)
    return request.param


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_that_recompute_the_network_are_all_at_once(name):
    check_steps(name, slow=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_step_by_step_is_all_at_once(name, way):
    check_steps(name, slow=False)


def check_steps(name, slow):
    network, context_size = make(name)
    x, context = make_data(name, context_size)
    for row in range(network.num_masks):
        whole = to_numpy(network(x, context, structure=row)).reshape(len(x), D, -1)
        steps = run_steps(network, x, context, row, slow=slow)
        np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 13])
@pytest.mark.parametrize("name", ["one layer", "fvsbn", "companion", "residual"])
def test_step_by_step_at_other_sizes(name, size, way):
    network, context_size = make(name, size)
    x, context = make_data(name, context_size, size=size)
    whole = to_numpy(network(x, context)).reshape(len(x), size, -1)
    steps = run_steps(network, x, context)
    np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["orderings", "companion", "everything", "classes"])
@pytest.mark.parametrize("way", ["accumulating", "blocks"], indirect=True)
def test_each_example_may_have_its_own_order(name, way):
    """Every row gives what it gives when its order is that of the whole batch."""
    network, context_size = make(name)
    x, context = make_data(name, context_size)
    order = np.stack([np.random.RandomState(i).permutation(D) for i in range(5)])
    order = order.astype("int32")
    together = run_steps(network, x, context, order=order)
    for i in range(5):
        one = slice(i, i + 1)
        alone = run_steps(
            network, x[one], None if context is None else context[one], order=order[one]
        )
        np.testing.assert_allclose(together[one], alone, rtol=1e-4, atol=2e-4)


def test_work_decides_how_steps_are_taken():
    network, _ = make("two parameters")
    assert network._steps_of(network.start(2**20)) is network.windowed
    network, _ = make("two parameters", 65)
    assert network._steps_of(network.start(2**20)) is network.incremental
    network, _ = make("orderings")
    small, large = (network.start(batch) for batch in (4, 2**20))
    assert network._steps_of(small) is network.accumulating
    assert network._steps_of(large) is network.incremental


@pytest.mark.parametrize("way", ["accumulating", "blocks"], indirect=True)
def test_an_order_of_each_row_is_an_ordering_of_the_network(way):
    """The order of structure r, given to every example, is structure r."""
    network, _ = make("orderings")
    x, _ = make_data("orderings", 0)
    for row in range(network.num_masks):
        order = np.tile(network.orders()[row], (len(x), 1))
        steps = run_steps(network, x, order=order)
        whole = to_numpy(network(x, structure=row))[..., None]
        np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=2e-4)


def test_the_cycle_takes_each_structure_in_turn():
    network = MADE([16], ordering="random", num_masks=3)
    x = np.random.RandomState(0).normal(size=(4, D)).astype("float32")
    network(x)
    set_random_weights(network)
    rows = [to_numpy(network(x, structure=row)) for row in range(3)]
    for step in range(7):
        trained = to_numpy(network(x, training=True))
        np.testing.assert_array_equal(trained, rows[step % 3])
        np.testing.assert_array_equal(to_numpy(network(x)), rows[0])
    assert int(to_numpy(network.position)) == 7 % 3


def test_the_position_in_the_cycle_is_saved(tmp_path):
    network = MADE([8], ordering="random", num_masks=5)
    model = keras.Sequential([keras.Input((D,)), network])
    x = np.random.RandomState(0).normal(size=(4, D)).astype("float32")
    for _ in range(3):
        network(x, training=True)
    again = reload(model, tmp_path / "m.keras").layers[-1]
    assert int(to_numpy(again.position)) == 3
    np.testing.assert_array_equal(
        to_numpy(again(x, training=True)), to_numpy(network(x, training=True))
    )


def test_any_garbage_in_the_position_still_names_a_structure():
    network = MADE([8], ordering="random", num_masks=5)
    x = np.ones((2, D), "float32")
    network(x)
    network.position.assign(-7)
    expected = to_numpy(network(x, structure=-7 % 5))
    np.testing.assert_array_equal(to_numpy(network(x, training=True)), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_comes_back_from_a_file(name, tmp_path):
    build, context_size = NETWORKS[name]
    inputs = [keras.Input((D,))] + [keras.Input((context_size,))] * (context_size > 0)
    model = keras.Model(inputs, build()(*inputs))
    network = model.layers[-1]
    set_random_weights(network)
    again = reload(model, tmp_path / "m.keras").layers[-1]
    assert again.get_config() == network.get_config()
    x, context = make_data(name, context_size)
    for row in range(network.num_masks):
        np.testing.assert_array_equal(again.ranks(row), network.ranks(row))
        np.testing.assert_array_equal(
            to_numpy(again(x, context, structure=row)),
            to_numpy(network(x, context, structure=row)),
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_config_round_trip(name):
    network = NETWORKS[name][0]()
    config = network.get_config()
    assert MADE.from_config(config).get_config() == config


def test_every_argument_is_an_attribute():
    arguments = {
        "hidden_units": (5, 5),
        "num_params": 2,
        "ordering": "random",
        "hidden_degrees": "random",
        "num_masks": 3,
        "direct": False,
        "residual": True,
        "companion": True,
        "dropout": 0.25,
        "seed": 9,
        "name": "mine",
    }
    network = MADE(**arguments)
    for name, value in arguments.items():
        assert getattr(network, name) == value


@pytest.mark.parametrize("name", ["one layer", "everything", "orderings"])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (2, 1, 3)])
def test_any_number_of_batch_axes(name, batch):
    network, context_size = make(name)
    x, context = make_data(name, context_size, int(np.prod(batch, dtype=int)))
    flat = to_numpy(network(x, context))
    shaped = network(
        x.reshape(*batch, D),
        None if context is None else context.reshape(*batch, context_size),
    )
    assert tuple(shaped.shape) == (*batch, *flat.shape[1:])
    np.testing.assert_allclose(
        to_numpy(shaped).reshape(flat.shape), flat, rtol=1e-5, atol=1e-5
    )


def test_one_context_serves_all_rows():
    network, size = make("companion")
    x, _ = make_data("companion", 0)
    context = np.arange(size, dtype="float32")
    np.testing.assert_allclose(
        to_numpy(network(x, context)),
        to_numpy(network(x, np.tile(context, (len(x), 1)))),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float64])
def test_integers_and_booleans_are_cast(dtype):
    network, _ = make("one layer")
    x = np.array([[0, 1, 1, 0, 1, 0]])
    np.testing.assert_array_equal(
        to_numpy(network(x.astype(dtype))), to_numpy(network(x.astype("float32")))
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64", "bfloat16"])
def test_dtype_policies(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only behind a switch of the whole process.")
    network = MADE([16, 16], dtype=policy, ordering="random", num_masks=2)
    x = np.random.RandomState(0).normal(size=(4, D)).astype("float32")
    out = network(x)
    assert keras.backend.standardize_dtype(out.dtype) == network.compute_dtype
    reference = MADE([16, 16], ordering="random", num_masks=2)
    reference(x)
    reference.set_weights([w.astype("float32") for w in network.get_weights()])
    np.testing.assert_allclose(
        to_numpy(ops.cast(out, "float32")),
        to_numpy(reference(x)),
        atol=1e-5 if policy == "float64" else 0.05,
    )


def test_dropout_acts_in_training_only():
    network = MADE([64], dropout=0.5)
    x = np.ones((4, D), "float32")
    still = to_numpy(network(x))
    set_random_weights(network)
    still = to_numpy(network(x))
    np.testing.assert_array_equal(to_numpy(network(x)), still)
    assert not np.array_equal(to_numpy(network(x, training=True)), still)
    # The first output hears no unit, so dropout cannot move it.
    np.testing.assert_array_equal(
        to_numpy(network(x, training=True))[:, 0], still[:, 0]
    )


def test_regularizer_and_initializer_reach_the_kernels():
    network = MADE(
        [4, 4],
        kernel_initializer="ones",
        kernel_regularizer=keras.regularizers.L1(1.0),
        output_scale=1.0,
    )
    network(np.zeros((1, 3), "float32"))
    assert len(network.losses) == 4
    for layer in (*network.hidden_layers, network.output_layer):
        assert (layer.get_weights()[0] == 1).all()
        np.testing.assert_allclose(
            to_numpy(layer.losses[0]), to_numpy(layer.mask()).sum()
        )
    assert (network.direct_layer.get_weights()[0] == 0).all()


def test_direct_connections_go_to_the_first_parameters_of_each_variable():
    network, _ = make("partly direct")
    x, context = make_data("partly direct", 2)
    before = to_numpy(network(x, context))
    network.direct_layer._kernel.weight.assign_add(np.ones((D + 2, D * 2)))
    moved = (to_numpy(network(x, context)) != before).any(axis=0)
    assert moved[..., :2].all()
    assert not moved[..., 2].any()


def test_parameters_of_one_variable_are_adjacent():
    """Output [..., d, p] of a wide net is column d * P + p of its kernel."""
    network, _ = make("two parameters")
    x, _ = make_data("two parameters", 0)
    before = to_numpy(network(x))
    bias = np.zeros(D * 2)
    bias[3 * 2 + 1] = 10.0
    layer = network.output_layer
    layer.bias.assign(to_numpy(layer.bias) + bias)
    change = to_numpy(network(x)) - before
    np.testing.assert_allclose(change[:, 3, 1], 10.0, rtol=1e-4)
    assert np.count_nonzero(np.abs(change) > 1e-3) == len(x)


def test_ranks_and_connectivity_are_copies():
    network, _ = make("own ordering")
    assert network.ranks().tolist() == [3, 0, 5, 1, 4, 2]
    network.ranks()[:] = 0
    assert network.ranks().tolist() == [3, 0, 5, 1, 4, 2]


def test_in_sequential_with_a_keras_loss(tmp_path):
    model = keras.Sequential([keras.Input((D,)), MADE([20, 20])])
    assert model.output_shape == (None, D)
    model.summary(print_fn=lambda line: None)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("adam", loss=loss)
    x = (np.random.RandomState(0).uniform(size=(64, D)) < 0.1).astype("float32")
    history = model.fit(x, x, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    again = reload(model, tmp_path / "m.keras")
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))


def test_in_a_functional_and_a_subclassed_model():
    x, c = keras.Input((D,)), keras.Input((2,))
    functional = keras.Model([x, c], keras.layers.Dense(1)(MADE([8])(x, c)))
    assert functional.output_shape == (None, 1)

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.made = MADE([8], num_params=2)

        def call(self, x):
            return self.made(x)

    model = Subclassed()
    assert tuple(model(np.ones((3, D))).shape) == (3, D, 2)
    assert len(model.trainable_variables) == 5


@pytest.mark.parametrize(
    ("make_network", "message"),
    [
        (lambda: MADE([0]), "at least 1"),
        (lambda: MADE([4, -1]), "at least 1"),
        (lambda: MADE([2.5]), "at least 1"),
        (lambda: MADE(500), r"\[500\]"),
        (lambda: MADE([4], num_params=0), "num_params"),
        (lambda: MADE([4], num_masks=0), "num_masks"),
        (lambda: MADE([4], num_masks=2), "would be the same"),
        (lambda: MADE([4], ordering="sorted"), "ordering"),
        (lambda: MADE([4], ordering=[0, 2]), "ordering"),
        (lambda: MADE([4], ordering=[0.5, 1]), "ordering"),
        (lambda: MADE([4], ordering=5), "ordering"),
        (lambda: MADE([4], hidden_degrees="odd"), "hidden_degrees"),
        (lambda: MADE((), direct=False), "nothing connects"),
        (lambda: MADE([4], 2, direct_params=3), "parameters of a variable, 2"),
        (lambda: MADE([4], 2, direct_params=0), "direct_params"),
        (lambda: MADE((), 2, direct_params=1), "without hidden layers"),
        (lambda: MADE([4], dropout=1.0), "dropout"),
        (lambda: MADE([4], seed=None), "seed"),
        (lambda: MADE([4], seed=-1), "seed"),
        (lambda: MADE([4], activation="nope"), "nope"),
        (lambda: MADE([4], ordering=[1, 0])(np.zeros((2, 3))), "0..2"),
        (lambda: make("one layer")[0](np.zeros((2, 5))), r"\(6,\)"),
        (lambda: make("one layer")[0](np.zeros((2, 6)), np.zeros((2, 1))), "size 0"),
        (lambda: make("companion")[0](np.zeros((2, 6))), "context"),
        (lambda: make("companion")[0](np.zeros((2, 6)), np.zeros((2, 3))), "size 2"),
        (lambda: make("orderings")[0](np.zeros((2, 6)), structure=4), "from 0 to 3"),
        (lambda: make("orderings")[0].ranks(-1), "from 0 to 3"),
        (lambda: MADE([4]).ranks(), "build"),
        (lambda: MADE([4])(keras.Input((None,))), "known width"),
    ],
)
def test_bad_input_is_named_early(make_network, message):
    with pytest.raises(ValueError, match=message):
        make_network()


def test_fit_from_an_interrupted_cycle_is_the_uninterrupted_one(tmp_path):
    """Ten steps, a file, ten more = twenty, in one process (see test_density)."""
    x = (np.random.RandomState(0).uniform(size=(40, D)) < 0.4).astype("float32")

    def build():
        keras.utils.set_random_seed(1)
        model = AutoregressiveDensity(MADE([8], ordering="random", num_masks=7))
        model.compile("adam")
        return model

    whole, part = build(), build()
    whole.fit(x, batch_size=4, epochs=2, shuffle=False, verbose=0)
    part.fit(x, batch_size=4, epochs=1, shuffle=False, verbose=0)
    part = reload(part, tmp_path / "m.keras")
    part.fit(x, batch_size=4, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(whole.get_weights(), part.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1, 2, 7, 16, 30])
@pytest.mark.parametrize("units", [1, 3, 40])
@pytest.mark.parametrize("kind", ["even", "random"])
def test_windows_reach_every_unit_in_its_time(size, units, kind):
    """Each unit is computed at the step after its degree, within its own block."""
    (degrees,) = make_hidden_degrees(kind, [units], size, context=True, num_masks=3)
    windows, length = make_windows(degrees, size), block_length(size)
    for row in range(3):
        for place, unit in enumerate(windows.order[row]):
            step = degrees[row, unit] + 1
            start = windows.starts[step // length]
            offset = start + windows.offsets[step]
            assert start <= offset <= place < offset + windows.step_width
            assert offset + windows.step_width <= start + windows.width <= units
