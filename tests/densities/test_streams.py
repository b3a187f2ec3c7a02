"""Data in every form, as the first thing a model sees: the form makes no difference."""

import os

import keras
import numpy as np
import pytest
from keras import ops
from laws import to_numpy

from keras_made import MADE, AutoregressiveDensity, LikelihoodModel, compiling

pytestmark = pytest.mark.neutral

BACKEND = keras.backend.backend()
ROWS, SIZE, BATCH = 8, 4, 4
X = np.random.RandomState(0).randint(2, size=(ROWS, SIZE)).astype("float32")
C = np.random.RandomState(1).normal(size=(ROWS, 3)).astype("float32")
W = np.array([4.0] * 2 + [1.0] * 3 + [0.0] * 3, "float32")


def density(context=False):
    return AutoregressiveDensity(MADE([8]))


def flow(context=False):
    from keras_made.flows import MAF

    return MAF(SIZE, 1, [8], context_size=3 if context else 0)


MAKE = {"density": density, "flow": flow}


class Batches(keras.utils.PyDataset):
    """Batches of the leaves of a nest of arrays."""

    def __init__(self, nest, **kwargs):
        super().__init__(**kwargs)
        self.nest = nest

    def __len__(self):
        return ROWS // BATCH

    def __getitem__(self, i):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        return keras.tree.map_structure(
            lambda a: None if a is None else a[rows], self.nest
        )


def generator(nest, batches=ROWS // BATCH):
    data = Batches(nest)
    return (data[i % len(data)] for i in range(batches))


def tf_data(nest):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(nest).batch(BATCH)


def data_loader(nest):
    import torch

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return ROWS

        def __getitem__(self, i):
            return keras.tree.map_structure(lambda a: torch.as_tensor(a[i]), nest)

    return torch.utils.data.DataLoader(Rows(), batch_size=BATCH)


STREAMS = {"PyDataset": Batches, "generator": generator}
if BACKEND == "tensorflow":
    STREAMS["tf.data"] = tf_data
if BACKEND == "torch":
    STREAMS["DataLoader"] = data_loader


def pair(x, context, form=lambda a: a):
    return (form(x), form(context)) if context is not None else form(x)


IN_MEMORY = {
    "NumPy": lambda x, c: pair(x, c),
    "list": lambda x, c: pair(x, c, lambda a: a.tolist()),
    "tensor": lambda x, c: pair(x, c, ops.convert_to_tensor),
}
FORMS = IN_MEMORY | {
    name: lambda x, c, stream=stream: stream((pair(x, c),))
    for name, stream in STREAMS.items()
}


def steps(data, name="steps"):
    """How long a generator is, which Keras would read to its end with a warning."""
    return {name: ROWS // BATCH} if hasattr(data, "send") else {}


def fit(model, data):
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    history = model.fit(data, **options, **steps(data, "steps_per_epoch")).history
    assert np.isfinite(history["nll"]).all()
    return history["nll"][0]


def log_prob(model, data):
    x, context = data if isinstance(data, tuple) else (data, None)
    return to_numpy(model.log_prob(x, context))


def evaluate(model, data):
    return model.evaluate(data, batch_size=BATCH, verbose=0, **steps(data))


def predict(model, data):
    return model.predict(data, batch_size=BATCH, verbose=0, **steps(data))


OF_STREAMS = {"fit": fit, "evaluate": evaluate, "predict": predict}
OF_ARRAYS = OF_STREAMS | {
    "train_on_batch": lambda model, data: model.train_on_batch(data),
    "test_on_batch": lambda model, data: model.test_on_batch(data),
    "predict_on_batch": lambda model, data: model.predict_on_batch(data),
    "log_prob": log_prob,
}


def first_call(kind, call, data, context):
    keras.utils.set_random_seed(0)
    model = MAKE[kind](context)
    # Without compiling: what is asked is who builds the model, and from what.
    model.compile("sgd", run_eagerly=True)
    return OF_ARRAYS[call](model, data), model


FIRST_CALLS = [("density", call, True) for call in OF_ARRAYS]
FIRST_CALLS += [("density", call, False) for call in ("fit", "test_on_batch")]
if BACKEND == "tensorflow":
    FIRST_CALLS += [("flow", "fit", True)]


@pytest.mark.parametrize("kind, call, context", FIRST_CALLS)
def test_the_first_call_takes_data_in_every_form(kind, call, context):
    """All forms give the numbers of arrays, and the weights that those give."""
    c = C if context else None
    expected, by_arrays = first_call(kind, call, FORMS["NumPy"](X, c), context)
    for name in FORMS if call in OF_STREAMS else IN_MEMORY:
        found, model = first_call(kind, call, FORMS[name](X, c), context)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)
        assert model.context_size == (3 if context else 0), name
        for a, b in zip(model.get_weights(), by_arrays.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_compiled_fit_of_a_stream_is_that_of_the_arrays():
    """And validation by a stream is validation by arrays."""
    ends = []
    for data in (X, C), Batches(((X, C),)):
        keras.utils.set_random_seed(0)
        model = density()
        model.compile("sgd")
        history = model.fit(
            data, batch_size=BATCH, epochs=2, shuffle=False, verbose=0,
            validation_data=data,
        ).history  # fmt: skip
        ends.append([*history["val_nll"], *history["nll"]])
    np.testing.assert_allclose(*ends, rtol=1e-5)


CHOOSING = {name: OF_ARRAYS[name] for name in ("fit", "evaluate")}
ON_BATCH = {name: OF_ARRAYS[name] for name in ("train_on_batch", "test_on_batch")}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Elsewhere Keras decides.")
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("context", [False, True], ids=["alone", "with context"])
def test_xla_is_chosen_by_size_whatever_is_seen_first(kind, context, monkeypatch):
    """A model knows its weights before the step is made, which is left out here."""
    monkeypatch.setattr(compiling, "XLA_WEIGHTS", 10)
    monkeypatch.setattr(LikelihoodModel, "_make_function", lambda *_: None)
    for name, form in FORMS.items():
        for call in CHOOSING | (ON_BATCH if name in IN_MEMORY else {}):
            model = MAKE[kind](context)
            model.compile("adam")
            with pytest.raises(TypeError, match="'NoneType' object is not callable"):
                OF_ARRAYS[call](model, form(X, C if context else None))
            assert model.jit_compile, (name, call)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_target_in_a_stream_is_refused(stream, call, built):
    """`(x, context)` is `(x, y)` to Keras, which would leave the context out."""
    model = density()
    if built:
        model.build(((None, SIZE), (None, 3)))
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=r"no target.*\(\(x, context\),\)"):
        OF_STREAMS[call](model, STREAMS[stream]((X, C)))
    # The same model then takes the stream as it should be.
    fit(model, STREAMS[stream](((X, C),)))
    assert model.context_size == 3


def test_a_target_is_refused_in_a_compiled_step():
    model = density()
    model.build((None, SIZE))
    model.compile("sgd")
    with pytest.raises(ValueError, match="no target"):
        model.fit(Batches((X, C)), verbose=0)


def weighted(form):
    """What is given to `fit`, with weights: `(x, options)`."""
    x = X, C
    if form in IN_MEMORY:
        weights = {"NumPy": W, "list": W.tolist(), "tensor": ops.convert_to_tensor(W)}
        return IN_MEMORY[form](X, C), {"sample_weight": weights[form]}
    if form == "tf.data":
        return tf_data((x, W)).map(lambda x, w: (x, None, w)), {}
    none = None if form == "generator" else np.zeros((ROWS, 0))
    data = STREAMS[form]((x, none, W))
    return data, steps(data, "steps_per_epoch")


def test_weights_count_in_every_form():
    """As they do beside an array."""
    x = X, C
    plain = weights_after(x, {"batch_size": BATCH})
    expected = weights_after(x, {"batch_size": BATCH, "sample_weight": W})
    assert np.abs(plain - expected).max() > 1e-2
    for form in [*IN_MEMORY, *STREAMS]:
        data, options = weighted(form)
        if form in IN_MEMORY:
            options["batch_size"] = BATCH
        found = weights_after(data, options)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=form)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Others take None.")
def test_none_in_a_dataset_is_refused_where_keras_cannot_pass_it():
    with pytest.raises(ValueError, match=r"np\.zeros\(\(len\(x\), 0\)\)"):
        weights_after(Batches((X, None, W)), {})


def weights_after(data, options):
    keras.utils.set_random_seed(0)
    model = density()
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    model.fit(data, shuffle=False, verbose=0, **options)
    return np.concatenate([w.ravel() for w in model.get_weights()])


def test_lists_of_two_are_pairs_where_a_model_is_called():
    model = density()
    x, c = ops.convert_to_tensor(X), ops.convert_to_tensor(C)
    np.testing.assert_array_equal(to_numpy(model([x, c])), to_numpy(model((x, c))))
    with pytest.raises(ValueError, match="tuple of 3"):
        model([x, c, c])


@pytest.mark.parametrize("monitor", ["val_nll", "val_bits_per_dim", "val_loss"])
def test_callbacks_know_that_less_is_better(monitor, tmp_path):
    """Validated on what it learns to exclude, the first epoch stays the best."""
    model = density()
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    stop = keras.callbacks.EarlyStopping(monitor, patience=2)
    slow = keras.callbacks.ReduceLROnPlateau(monitor, patience=1, factor=0.5)
    best = tmp_path / "best.weights.h5"
    save = keras.callbacks.ModelCheckpoint(
        best, monitor, save_best_only=True, save_weights_only=True
    )
    save.on_epoch_end = counted = Counting(save.on_epoch_end, best)
    history = model.fit(
        X * 0, epochs=6, verbose=0, validation_data=X * 0 + 1,
        callbacks=[stop, slow, save],
    ).history  # fmt: skip
    assert history[monitor][1] > history[monitor][0]
    assert len(history[monitor]) == 3 and stop.best == history[monitor][0]
    assert len(set(counted.times)) == 1
    assert float(to_numpy(model.optimizer.learning_rate)) < 1.0


class Counting:
    """Calls a function, and notes when a file was written last."""

    def __init__(self, function, path):
        self.function, self.path, self.times = function, path, []

    def __call__(self, *args, **kwargs):
        self.function(*args, **kwargs)
        self.times.append(os.stat(self.path).st_mtime_ns)


def test_a_generator_says_how_long_it_is():
    model = density()
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        model.fit(generator((X,)), verbose=0)
    with pytest.raises(ValueError, match="validation_steps"):
        model.fit(X, validation_data=generator((X,)), verbose=0)
    endless = generator((X,), 10**9)
    history = model.fit(
        endless, steps_per_epoch=2, epochs=2, verbose=0, shuffle=False
    ).history
    assert len(history["nll"]) == 2
    assert np.isfinite(model.evaluate(endless, steps=2, verbose=0))
    with pytest.raises(ValueError, match="at least one batch"):
        model.evaluate(generator((X,), 0), verbose=0)


@pytest.mark.filterwarnings("default:Your input ran out of data")
def test_a_generator_that_ends_early_is_warned_of():
    model = density()
    model.compile("sgd", run_eagerly=True)
    options = {"steps_per_epoch": 2, "epochs": 3, "verbose": 0, "shuffle": False}
    with pytest.warns(UserWarning, match="ran out of data"):
        history = model.fit(generator((X,), 3), **options).history
    assert np.isfinite(history["nll"][0])
