"""Options of the networks crossed: what holds of each holds of them together."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import reload, set_random_weights, to_numpy

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
    PixelCNN,
    PixelRNN,
    Recurrent,
    WaveNet,
)
from keras_made.densities.drawing import generate_rows, noise_shape

pytestmark = pytest.mark.neutral

# Networks for three classes: each takes the keyword arguments of `Autoregressive`.
NETWORKS = {
    "made": lambda **kw: MADE([6, 6], 3, companion=True, residual=True, **kw),
    "nade": lambda **kw: NADE(6, 3, **kw),
    "deep nade": lambda **kw: NADE(6, 3, num_blocks=1, dropout=0.2, **kw),
    "lstm": lambda **kw: Recurrent((4,), 6, "lstm", 3, **kw),
    "gru, end": lambda **kw: Recurrent((4,), 6, "gru", 3, end=1, num_layers=2, **kw),
    "wavenet": lambda **kw: WaveNet((4,), 6, 3, num_layers=1, **kw),
    "pixelcnn": lambda **kw: PixelCNN((2, 2), 6, 3, num_layers=1, **kw),
    "pixelrnn": lambda **kw: PixelRNN((2, 2), 6, 3, num_layers=1, **kw),
    "attention": lambda **kw: Attention((4,), 6, 2, 3, 3, **kw),
    "average": lambda **kw: NetworkAverage(
        [MADE([6], 3, **kw), Recurrent((4,), 6, "gru", 3, **kw)],
        **{name: value for name, value in kw.items() if name == "dtype"},
    ),
}


def make(name, context_size=0, **arguments):
    """The network for classes, built, with random weights."""
    network = NETWORKS[name](encoder=Categorical(3), **arguments)
    shape = network.event_shape or (4,)
    network.build((None, *shape), (None, context_size) if context_size else None)
    set_random_weights(network, scale=0.5)
    return network


def draw_data(network, batch, context_size=0, seed=0):
    rng = np.random.RandomState(seed)
    x = rng.randint(3, size=(*batch, *network.event_shape)).astype("float32")
    context = rng.normal(size=(*batch, context_size)).astype("float32")
    return x, context if context_size else None


def run_blocks(network, x, context=None, structure=0, order=None):
    """As `laws.run_steps`, block by block as the generation loop does it: (n, D, p)."""
    state = network.start(len(x), context, structure, order)
    order = network.orders()[structure][None] if order is None else order
    order, flat = (
        np.broadcast_to(order, (len(x), network.event_size)),
        x.reshape(len(x), -1),
    )
    last, width = np.zeros((len(x), network.step_size), "float32"), network.step_size
    out = np.zeros((*flat.shape, network.params_per_entry))
    for t in range(network.num_ranks):
        now, entry = order[:, t * width : (t + 1) * width], ops.convert_to_tensor(last)
        step = ops.convert_to_tensor(t, "int32")
        if t % network.block_length == 0:
            state = network.open(state, entry, step)
        params, state = network.step(state, entry, step)
        np.put_along_axis(out, now[..., None], to_numpy(params), axis=1)
        last = np.take_along_axis(flat, now, axis=1)
    return out


# An order for each example ------------------------------------------------------------

SIZE = 5
OPTIONS = {
    "plain": {},
    "residual": {"residual": True},
    "not direct": {"direct": False, "hidden_degrees": "random"},
    "visible": {"hidden_units": []},
    "partly direct": {"direct_params": 1},
    "reversed": {"ordering": "reversed", "num_masks": 1},
}


def all_at_once(network, x, context, structure, order):
    """The network's own whole pass, its entries' ranks being those of each order."""
    out = []
    for i, own in enumerate(np.broadcast_to(order, x.shape)):
        ranks = np.argsort(own).astype("int32")
        size = network.event_size
        for layer in network.masked_layers:
            # The ranks stand in the degrees of inputs and outputs, and nowhere else.
            if layer in (*network.hidden_layers[:1], network.direct_layer):
                heard = np.repeat(ranks, network.num_features)
                layer.source_degrees[structure, : size * network.num_features] = heard
            if layer in (network.output_layer, network.direct_layer):
                each = layer.units // size
                layer.degrees[structure] = np.repeat(ranks, each)
        context_i = None if context is None else context[i : i + 1]
        whole = to_numpy(network(x[i : i + 1], context_i, structure=structure))
        out.append(whole.reshape(size, -1))
    return np.stack(out)


@pytest.mark.parametrize("companion", [False, True], ids=["", "companion"])
@pytest.mark.parametrize("options", OPTIONS)
def test_steps_in_any_order_are_the_whole_pass(options, companion):
    """Shared or an order for each example, with classes and context or without."""
    for encoder, context_size in [(Categorical(3), 2), (None, 0)][: 1 + companion]:
        arguments = {"hidden_units": [6, 6], "ordering": "random", "num_masks": 2}
        arguments |= OPTIONS[options]
        network = MADE(num_params=2, companion=companion, encoder=encoder, **arguments)
        context_shape = (None, context_size) if context_size else None
        network.build((None, SIZE), context_shape)
        set_random_weights(network, scale=0.6)
        rng = np.random.RandomState(1)
        x = rng.randint(3, size=(3, SIZE)).astype("float32")
        context = rng.normal(size=(3, context_size)).astype("float32")
        context = context if context_size else None
        structure = network.num_masks - 1
        orders = np.stack([rng.permutation(SIZE) for _ in x]).astype("int32")
        for order in (orders[:1], orders):
            steps = run_blocks(network, x, context, structure, order)
            expected = all_at_once(network, x, context, structure, order)
            np.testing.assert_allclose(steps, expected, rtol=1e-4, atol=1e-4)


# Precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_is_finite_and_consistent(name, policy):
    """Parameters, log p and draws; step by step as all at once."""
    network, exact = make(name, 2, dtype=policy), make(name, 2)
    x, context = draw_data(network, (6,), 2)
    shape = (6, network.event_size, 3)
    whole = network(x, context)
    assert keras.backend.standardize_dtype(whole.dtype) == policy[6:]
    inputs = [keras.Input(a.shape[1:]) for a in (x, context)]
    assert network(*inputs).dtype == policy[6:]
    whole = np.maximum(to_numpy(ops.cast(whole, "float32")), -50).reshape(shape)
    steps = np.maximum(run_blocks(network, x, context), -50)
    expected = np.maximum(to_numpy(exact(x, context)), -50).reshape(shape)
    close = {"rtol": 0.05, "atol": 0.02 if policy == "mixed_float16" else 0.15}
    np.testing.assert_allclose(steps, whole, **close)
    np.testing.assert_allclose(whole, expected, **close)
    model = AutoregressiveDensity(network, Categorical(3))
    log_prob = to_numpy(model((x, context)))
    assert np.isfinite(log_prob).all()
    noise = np.random.RandomState(0).uniform(0.01, 0.99, size=(40, *noise_shape(model)))
    rows = generate_rows(
        model, 0, ops.convert_to_tensor(noise, "float32"), ops.ones((40, 2))
    )
    draws = to_numpy(rows)[:, :-1]
    assert np.isin(draws, [0, 1, 2]).all()
    if name == "gru, end":
        ended = np.cumsum(draws == 1, axis=1) > 0
        assert 0 < ended.mean() < 1 and (draws[ended] == 1).all()


@pytest.mark.parametrize("own", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_an_average_computes_in_its_own_precision(own):
    """Whatever that of its networks: symbolic, eager, and step by step."""
    kinds = [("float32", NADE), ("mixed_bfloat16", lambda *a, **k: MADE([6], 3, **k))]
    networks = [
        make_network(6, 3, dtype=dtype, encoder=Categorical(3))
        for dtype, make_network in kinds
    ]
    average = NetworkAverage(networks, dtype=own)
    inputs = [keras.Input((4,)), keras.Input((2,))]
    symbolic = average(*inputs)
    set_random_weights(average, scale=0.5)
    x, context = draw_data(average, (6,), 2)
    eager = average(x, context)
    dtypes = [keras.backend.standardize_dtype(t.dtype) for t in (symbolic, eager)]
    assert dtypes == [average.compute_dtype] * 2
    steps = run_blocks(average, x, context)
    each = [to_numpy(ops.cast(n(x, context), "float32")) for n in networks]
    eager = to_numpy(ops.cast(eager, "float32"))
    np.testing.assert_allclose(eager, sum(each) / 2, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(steps, eager, rtol=0.03, atol=0.05)


# The form in which entries are heard --------------------------------------------------

FORMS = {
    "plain": MixtureOfNormals(3),
    "plain columns": Columns([MixtureOfNormals(3)] * 3 + [Bernoulli()]),
    "scaled": MixtureOfLogistics(3, 5),
    "one-hot": Categorical(9),
}
OWNERS = {
    "density": lambda network, form: AutoregressiveDensity(network, FORMS[form]),
    "average": lambda network, form: AutoregressiveDensity(
        NetworkAverage([network, NADE(3, 9)]), FORMS[form]
    ),
}


def use_before(network, state):
    """What was done with a network before the owner in question."""
    if state == "built":
        network.build((None, 4))
    elif state == "called":
        network(np.zeros((2, 4), "float32"))
    elif state != "fresh":
        AutoregressiveDensity(network, FORMS[state])(np.zeros((2, 4), "float32"))
    return network


def fits(state, form):
    """Does a network of this past hear what the conditional would have it hear?"""
    heard = {"built": "plain", "called": "plain", "plain columns": "plain"}
    return state == "fresh" or heard.get(state, state) == heard.get(form, form)


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("state", ["fresh", "built", "called", *FORMS])
def test_a_network_hears_in_one_form_or_is_refused(state, form, owner):
    network = use_before(MADE([5], 9), state)
    x = np.random.RandomState(0).randint(2, size=(3, 4)).astype("float32")
    before = to_numpy(network(x)) if state != "fresh" else None
    if not fits(state, form):
        with pytest.raises(ValueError, match=r"hears .*Give each a network of its own"):
            OWNERS[owner](network, form)
    else:
        model = OWNERS[owner](network, form)
        encoder = None if form.startswith("plain") else FORMS[form]
        model(x)
        assert network.encoder == encoder
        if owner == "average":
            steps, whole = run_blocks(model.network, x), to_numpy(model.network(x))
            np.testing.assert_allclose(steps, whole, rtol=1e-4, atol=1e-5)
    if state != "fresh":
        np.testing.assert_array_equal(to_numpy(network(x)), before)


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_that_was_passed_stays(form, tmp_path):
    network = MADE([5], 9, encoder=Categorical(9))
    x = np.random.RandomState(0).randint(2, size=(3, 4)).astype("float32")
    network(x)
    for model in (OWNERS["density"](network, form), OWNERS["average"](network, form)):
        before = to_numpy(model(x))
        assert network.encoder == Categorical(9)
        np.testing.assert_array_equal(
            to_numpy(reload(model, tmp_path / "m.keras")(x)), before
        )
        clone = type(model).from_config(model.get_config())
        assert clone.get_config() == model.get_config()


def test_a_refused_owner_leaves_the_network_as_it_was():
    network = MADE([5], 9)
    with pytest.raises(ValueError, match="structures"):
        AutoregressiveDensity(network, Categorical(9), structures=[])
    fixed, other = MADE([5], 9), MADE([5], 9)
    average = NetworkAverage([other, fixed])
    fixed.build((None, 4))
    with pytest.raises(ValueError, match="plain numbers"):
        AutoregressiveDensity(average, Categorical(9))
    for free in (network, other):
        assert AutoregressiveDensity(free, FORMS["scaled"]).network.encoder


# Quantization -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize(
    ("name", "context_size"),
    [
        ("made", 2),
        ("nade", 2),
        ("wavenet", 0),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *[(n, 2) for n in NETWORKS if n not in ("made", "nade")],
                ("pixelcnn", 0),
                ("pixelrnn", 0),
            )
        ],
    ],
)
def test_a_quantized_network_works_and_comes_back(name, context_size, tmp_path):
    network = make(name, context_size)
    model = AutoregressiveDensity(network, Categorical(3))
    x, context = draw_data(network, (4,), context_size)
    inputs = x if context is None else (x, context)
    exact = to_numpy(model(inputs))
    model.quantize("int8")
    quantized = to_numpy(model(inputs))
    np.testing.assert_allclose(quantized, exact, rtol=0.1, atol=0.2)
    layers = network._flatten_layers()
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    assert all(layer.built and layer.quantization_mode == "int8" for layer in dense)
    if context_size:
        again = reload(model, tmp_path / "m.keras")
        np.testing.assert_allclose(to_numpy(again(inputs)), quantized, rtol=1e-5)
        assert [w.dtype for w in again.weights] == [w.dtype for w in model.weights]


# Leading axes -------------------------------------------------------------------------

AXES = [((), (3,)), ((3,), ()), ((2, 1), (3,)), ((1,), (3,)), ((3,), (2, 1))]


@pytest.mark.parametrize("name", NETWORKS)
def test_leading_axes_are_broadcast_both_ways(name):
    network = make(name, 2)
    for x_axes, context_axes in AXES:
        x, _ = draw_data(network, x_axes)
        context = draw_data(network, context_axes, 2)[1]
        axes = np.broadcast_shapes(x_axes, context_axes)
        whole_x = np.broadcast_to(x, (*axes, *network.event_shape))
        whole_context = np.broadcast_to(context, (*axes, 2))
        expected = network(
            whole_x.reshape(-1, *network.event_shape), whole_context.reshape(-1, 2)
        )
        params = network(x, context)
        assert tuple(params.shape) == (*axes, *network.event_shape, 3)
        np.testing.assert_allclose(
            to_numpy(params).reshape(expected.shape),
            to_numpy(expected),
            rtol=1e-4,
            atol=1e-5,
        )
        # Axes of unknown length.
        inputs = [
            keras.Input(batch_shape=(*[None] * len(own), *trailing))
            for own, trailing in ((x_axes, network.event_shape), (context_axes, (2,)))
        ]
        symbolic = network(*inputs)
        assert symbolic.shape == ((None,) * len(axes) + (*network.event_shape, 3))
    with pytest.raises(ValueError, match="leading axes"):
        network(draw_data(network, (2,))[0], np.zeros((3, 2), "float32"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_knows_the_width_of_its_events(name):
    network = make(name)
    unknown = (None,) * len(network.event_shape)
    output = network(keras.Input(unknown))
    assert output.shape == (None, *network.event_shape, 3)
    x, _ = draw_data(network, (2,))
    model = keras.Sequential([keras.Input(unknown), network])
    np.testing.assert_array_equal(to_numpy(model(x)), to_numpy(network(x)))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        spec = tf.TensorSpec((None, *unknown), "float32")
        graph = tf.function(network, input_signature=[spec])
        params = graph.get_concrete_function().output_shapes
        assert params.as_list() == [None, *network.event_shape, 3]
        np.testing.assert_allclose(graph(x), network(x), rtol=1e-4, atol=1e-5)


def test_a_network_without_a_width_asks_for_one():
    with pytest.raises(ValueError, match="known width"):
        MADE([4])(keras.Input((None,)))
    assert MADE([4], event_shape=(5,))(keras.Input((None,))).shape == (None, 5)
    with pytest.raises(ValueError, match="`context` must have a known width"):
        MADE([4])(keras.Input((5,)), keras.Input((None,)))
