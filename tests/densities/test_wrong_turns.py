"""What users have got wrong is answered at the time, by a warning or a sentence."""

import sys
import warnings

import keras
import numpy as np
import pytest
from laws import set_random_weights, to_numpy

from keras_made import (
    MADE,
    NADE,
    AutoregressiveDensity,
    Categorical,
    Columns,
    Normal,
    PixelCNN,
    checks,
    flows,
)
from keras_made.densities import imputation
from keras_made.densities.drawing import observed_first

pytestmark = [pytest.mark.neutral, pytest.mark.compiled]


def real_density(**options):
    return AutoregressiveDensity(MADE([4], 2), "normal", **options)


def flow(**options):
    return flows.MAF(2, 1, (4,), **options)


REAL = {"density": real_density, "flow": flow}


def normal(*shape):
    return np.random.RandomState(0).normal(size=shape).astype("float32")


def adapted(x, **options):
    layer = keras.layers.Normalization(**options)
    layer.adapt(x)
    return layer


def only(caught):
    """The one warning of the package: back ends have their own."""
    (ours,) = [w for w in caught if w.category is UserWarning]
    assert ours.filename == __file__
    return str(ours.message)


@pytest.fixture
def silent():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = [w for w in caught if w.category is UserWarning]
    assert not ours, [str(w.message) for w in ours]


# Axes of an event ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda **o: MADE([4], **o), lambda **o: NADE(4, **o)])
def test_rows_of_a_picture_are_not_taken_for_events_in_silence(make):
    with pytest.warns(UserWarning, match="independent") as caught:
        keras.Sequential([keras.Input((3, 5)), make()])
    message = only(caught)
    for remedy in ("Flatten", "PixelCNN", "event_shape=(3, 5)", "event_shape=(5,)"):
        assert remedy in message


@pytest.mark.usefixtures("silent")
def test_axes_that_were_meant_are_silent():
    layers = [
        lambda: [keras.layers.Flatten(), MADE([4])],
        lambda: [MADE([4], event_shape=(3, 5))],
        lambda: [MADE([4], event_shape=(5,))],
        lambda: [PixelCNN((3, 5), 2)],
    ]
    for make in layers:
        keras.Sequential([keras.Input((3, 5)), *make()])
    # Sequences of unknown length are no events.
    keras.Sequential([keras.Input((None, 5)), NADE(4)])


def test_who_loads_a_network_has_been_told(tmp_path):
    with pytest.warns(UserWarning, match="Flatten"):
        model = keras.Sequential([keras.Input((3, 5)), MADE([4])])
    model.save(tmp_path / "rows.keras")
    # Warnings are errors here.
    again = keras.saving.load_model(tmp_path / "rows.keras")
    x = normal(2, 3, 5)
    assert np.array_equal(to_numpy(again(x)), to_numpy(model(x)))


def test_pictures_for_a_density_of_vectors_are_told_the_ways():
    model = AutoregressiveDensity(MADE([4]))
    with pytest.raises(ValueError, match=r"event_shape=\(3, 5\).*PixelCNN.*reshape"):
        model.log_prob(np.zeros((2, 3, 5)))


# Imputation ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def late():
    """Entries are generated in the order 3, 2, 1, 0."""
    model = AutoregressiveDensity(MADE([4], ordering="reversed"))
    model.build((None, 4))
    return model


def test_one_particle_that_ignores_what_is_observed_is_warned_of(late):
    x = np.array([[np.nan, 1, 0, 1], [1, 0, 1, np.nan]])
    with pytest.warns(UserWarning, match="1 of 2 rows, first in row 1") as caught:
        late.impute(x, verbose=0)
    message = only(caught)
    assert "num_particles=100" in message
    assert "ordering='random'" in message


@pytest.mark.usefixtures("silent")
def test_imputation_that_hears_all_is_silent(late):
    exact = [[np.nan, 1, 0, 1], [np.nan] * 4, [0, 1, 1, 0], [np.nan, np.nan, 1, 1]]
    late.impute(np.array(exact), verbose=0)
    holes = np.array([[1, 0, 1, np.nan]])
    late.impute(holes, num_particles=5, verbose=0)
    agnostic = AutoregressiveDensity(NADE(4, ordering="random", num_masks=2))
    agnostic.impute(holes, verbose=0)


def test_entries_of_one_rank_do_not_hear_each_other():
    """And so none of them comes too late for another."""

    class Pairs(MADE):
        def ranks(self, structure=0):
            return np.array([0, 0, 1, 1])

    model = AutoregressiveDensity(Pairs([4]))
    model.build((None, 4))
    seen = np.array([[False, True, False, False], [True, True, False, True]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imputation._warn_of_late_entries(model, seen)
    with pytest.warns(UserWarning, match="row 0"):
        imputation._warn_of_late_entries(model, ~seen)


@pytest.mark.parametrize("ordering", ["reversed", "random", [2, 0, 3, 1]])
def test_arrays_and_tensors_are_put_in_one_order(ordering):
    """Observed entries first; otherwise as the network has them."""
    model = AutoregressiveDensity(MADE([4], ordering=ordering, event_shape=(2, 2)))
    model.build((None, 2, 2))
    seen = np.random.RandomState(0).rand(16, 2, 2) < 0.5
    order = model.network.orders()[0]
    expected = [
        [*(e for e in order if row[e]), *(e for e in order if not row[e])]
        for row in seen.reshape(16, 4)
    ]
    of_tensor = observed_first(model, keras.ops.convert_to_tensor(seen))
    assert observed_first(model, seen).tolist() == expected
    assert to_numpy(of_tensor).tolist() == expected


# The units of the data ----------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(
    ("scale", "center"), [(1.0, 1e3), (1e3, 0.0), (1e-3, 0.0), (0.0, 1e6)]
)
def test_data_far_from_unit_scale_are_warned_of_by_column(name, scale, center):
    x = normal(64, 2)
    x[:, 1] = x[:, 1] * scale + center
    model = REAL[name]()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    with pytest.warns(UserWarning, match=r"column 1 .*adapt") as caught:
        model.fit(x, verbose=0)
    only(caught)


def test_the_warning_of_a_table_has_its_names():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame({"near": normal(64), "far": normal(64) + 1e4})
    model = real_density()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    with pytest.warns(UserWarning, match="column 'far' "):
        model.fit(x, verbose=0)


@pytest.mark.usefixtures("silent")
def test_data_that_need_no_units_are_silent():
    x = normal(64, 2) * [1.0, 1e3] + [0.0, 5e3]
    counts = np.stack([np.full(64, 1000.0), normal(64)], axis=1)
    mixed = Columns([Categorical(1001), Normal()])
    table = AutoregressiveDensity(MADE([4], mixed.num_params), mixed)
    models = [(REAL[name](normalization=adapted(x)), x) for name in REAL]
    models += [(table, counts), (flow(), np.zeros((8, 2)))]
    for model, rows in models:
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        model.fit(rows, verbose=0)


@pytest.mark.parametrize("name", [*REAL, "discrete"])
@pytest.mark.parametrize("positional", [False, True])
def test_a_loss_that_is_not_finite_names_its_cause(name, positional):
    """Before any callback of the user has saved what is broken."""
    model = REAL.get(name, lambda: AutoregressiveDensity(MADE([4])))()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    seen = []
    own = keras.callbacks.LambdaCallback(on_epoch_end=lambda *a: seen.append(a))
    x = (normal(32, 2) > 0).astype("float32")
    model.build((None, 2))
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, np.nan))
    job = (8, 2, 0, own) if positional else ()
    options = (
        {} if positional else dict(batch_size=8, epochs=2, verbose=0, callbacks=[own])
    )
    with pytest.raises(ValueError, match=r"not finite .*learning rate") as error:
        model.fit(x, None, *job, **options)
    assert not seen
    assert ("adapt" in str(error.value)) == (name in REAL)


# A normalization that does not standardise --------------------------------------------


def nan_at_construction():
    x = normal(8, 2)
    x[3, 1] = np.nan
    return adapted(x)


WRONG_LAYERS = {
    "NaN": (nan_at_construction, r"mean\[1\] = nan"),
    "infinity": (
        lambda: keras.layers.Normalization(mean=[0.0, np.inf], variance=[1.0, 1.0]),
        r"mean\[1\] = inf",
    ),
    "inverted": (lambda: adapted(normal(8, 2), invert=True), "invert=True"),
    "another layer": (keras.layers.LayerNormalization, "LayerNormalization"),
    "a class": (lambda: keras.layers.Normalization, "must be a `keras.layers.Norm"),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("case", WRONG_LAYERS)
def test_a_normalization_that_cannot_be_used_is_refused(name, case):
    make, match = WRONG_LAYERS[case]
    with pytest.raises(ValueError, match=match):
        REAL[name](normalization=make())


USES = {
    "fit": lambda m, x: m.fit(x, verbose=0),
    "fit a stream": lambda m, x: m.fit(iter_batches(x), verbose=0),
    "evaluate": lambda m, x: m.evaluate(x, verbose=0),
    "log_prob": lambda m, x: m.log_prob(x),
    "log_prob of a tensor": lambda m, x: m.log_prob(keras.ops.convert_to_tensor(x)),
    "sample": lambda m, x: m.sample(2),
}


def iter_batches(x):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return (x,)

    return Batches()


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("use", USES)
def test_a_normalization_that_is_not_finite_is_refused_at_any_use(name, use):
    layer, x = keras.layers.Normalization(), normal(8, 2) + 3
    model = REAL[name](normalization=layer)
    model.compile("adam", run_eagerly=True)
    model.build((None, 2))
    spoilt = x.copy()
    spoilt[0, 0] = np.nan
    layer.adapt(spoilt)
    with pytest.raises(ValueError, match="finite numbers"):
        USES[use](model, x)
    layer.adapt(x)
    assert np.all(np.isfinite(to_numpy(model(keras.ops.convert_to_tensor(x)))))


@pytest.mark.parametrize("name", REAL)
def test_an_adapted_normalization_comes_back_from_a_file(name, tmp_path):
    x = normal(8, 2) + 3
    model = REAL[name](normalization=adapted(x))
    scores = to_numpy(model.log_prob(x))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(to_numpy(again.log_prob(x)), scores)


# Columns that are no numbers ----------------------------------------------------------

TEXT = {
    "objects": np.array([[1, 2.5], [3, "red"]], "O"),
    "nested lists": [[1, 2.5], [3, "red"]],
    "dates": np.array([[1, 2.5], [3, np.datetime64("2020-01-01")]], "O"),
}


@pytest.mark.parametrize("case", TEXT)
def test_what_is_no_number_is_named_with_its_place(case):
    match = "2020-01-01" if case == "dates" else "'red', a str"
    with pytest.raises(ValueError, match=rf"{match}.*row 1, column 1"):
        real_density().log_prob(TEXT[case])


def test_text_and_records_are_told_what_to_pass():
    with pytest.raises(ValueError, match=r"'a'.*row 0, column 0.*np\.unique"):
        checks.to_array("x", np.array([["a", "b"], ["1", "2"]]))
    with pytest.raises(ValueError, match="row 2"):
        checks.to_array("sample_weight", [1.0, None, "x"])
    with pytest.raises(ValueError, match=r"fields \['a', 'b'\]"):
        checks.to_array("x", np.zeros(3, [("a", "f4"), ("b", "f4")]))
    holes = checks.to_array("x", np.array([[1, None], [True, 2.5]], "O"))
    assert np.array_equal(holes, [[1, np.nan], [1, 2.5]], equal_nan=True)


def test_a_text_column_of_a_table_is_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": [1.0, 2.0], "colour": ["red", "blue"]})
    for dtype in ("object", "string", "category"):
        with pytest.raises(ValueError, match=r"column 'colour'.*'red'"):
            checks.to_array("x", frame.astype({"colour": dtype}))


# What is not installed ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tf2onnx", r"keras_made\[export\]"),
        ("onnxruntime", r"keras_made\[export\]"),
        ("ai_edge_litert.interpreter", r"keras_made\[export\]"),
        ("matplotlib.figure", r"keras_made\[examples\]"),
        ("not_there.figure", "not_there"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(monkeypatch, module, source):
    # None is how Python marks a module that is known not to be there.
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"not installed: pip install {source}"):
        checks.require(module)


@pytest.mark.parametrize(
    ("format", "module"), [("onnx", "onnxruntime"), ("litert", "ai_edge_litert")]
)
def test_export_asks_for_its_runtime_first(monkeypatch, tmp_path, format, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    model = AutoregressiveDensity(MADE([4]))
    model.build((None, 2))
    with pytest.raises(ImportError, match=r"keras_made\[export\]"):
        model.export(tmp_path / "model", format)
    assert not list(tmp_path.iterdir())


# Summaries ----------------------------------------------------------------------------


def shown(model):
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=120)
    return "\n".join(lines)


SHOWN = {
    "density": (real_density, (8, 2), "(None, 2, 2)"),
    "picture": (
        lambda: AutoregressiveDensity(PixelCNN((2, 2), 2)),
        (8, 2, 2),
        "(None, 2, 2)",
    ),
    "flow": (flow, (8, 2), "(None, 2)"),
    "coupling": (lambda: flows.RealNVP(2, 1, (4,)), (8, 2), "(None, 2)"),
    "inverse": (lambda: flows.IAF(2, 1, (4,)), (8, 2), "(None, 2)"),
    "scale": (lambda: flows.NICE(2, 1, (4,)), (8, 2), "(None, 2)"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_summary_shows_rows_of_any_number(name):
    make, shape, expected = SHOWN[name]
    model = make()
    assert shown(model)
    model.log_prob(keras.ops.zeros(shape))
    set_random_weights(model, scale=0.1)
    text = shown(model)
    assert expected in text
    assert "(8, " not in text
    assert "?" not in text
