"""What a model answers to data of every type and shape: numbers, or a sentence."""

import os

import keras
import numpy as np
import pytest
from keras import ops
from laws import to_numpy

from keras_made import MADE, AutoregressiveDensity, Normal, Recurrent
from keras_made.densities.drawing import generate_rows

pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")

pytestmark = pytest.mark.neutral

SIZE = 4
X = np.random.RandomState(0).randint(2, size=(6, SIZE)).astype("float32")
C = np.random.RandomState(1).normal(size=(6, 3)).astype("float32")
HOLE = np.zeros(X.shape, bool)
HOLE[1, 2] = True


@pytest.fixture(scope="module")
def model():
    return built(None)


@pytest.fixture(scope="module")
def conditional():
    return built(3)


def built(context_size):
    model = AutoregressiveDensity(MADE([4]))
    shape = (None, SIZE)
    model.build((shape, (None, context_size)) if context_size else shape)
    # Eagerly: what is asked is what reaches the model, and not how fast.
    model.compile("sgd", run_eagerly=True)
    return model


def call(model, verb, x, context=None):
    """The numbers that a verb gives, or the error that it raises."""
    if verb in ("log_prob", "impute"):
        arguments = (x,) if context is None else (x, None, context)
        if verb == "log_prob":
            arguments = (x, context)
        # Uncompiled: the compiled pass is the subject of other tests.
        model._functions["log_prob"] = lambda *inputs, verbose: model.call(inputs)
        model._functions["impute"] = lambda *inputs, verbose: generate_rows(
            model, *inputs
        )
        options = {} if verb == "log_prob" else {"seed": 0}
        return to_numpy(getattr(model, verb)(*arguments, verbose=0, **options))
    data = x if context is None else (x, context)
    if verb.endswith("on_batch"):
        return getattr(model, verb)(data)
    result = getattr(model, verb)(data, verbose=0)
    return result.history["nll"] if verb == "fit" else result


SCORES = ["evaluate", "predict", "log_prob", "test_on_batch", "predict_on_batch"]
VERBS = ["fit", "train_on_batch", *SCORES, "impute"]


def extension(frame=X):
    return pd.DataFrame(frame.astype("int64")).astype("Int64")


def mixed(missing=False):
    """A table with a column of each kind that pandas has for numbers."""
    columns = {
        "int": pd.array(X[:, 0].astype("int64"), dtype="Int64"),
        "bool": pd.array(X[:, 1].astype(bool), dtype="boolean"),
        "category": pd.Categorical(X[:, 2].astype("int64")),
        "float": X[:, 3],
    }
    frame = pd.DataFrame(columns)
    if missing:
        frame.loc[1, "category"] = np.nan
    return frame


def with_na(frame):
    frame.iloc[1, 2] = pd.NA
    return frame


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


SAME = {
    "float64": X.astype("float64"),
    "float16": X.astype("float16"),
    "longdouble": X.astype("longdouble"),
    "big-endian": X.astype(">f4"),
    "int64": X.astype("int64"),
    "uint8": X.astype("uint8"),
    "uint64": X.astype("uint64"),
    "bool": X.astype(bool),
    "objects": X.astype(object),
    "lists": X.tolist(),
    "list of arrays": list(X),
    "backwards": np.ascontiguousarray(X[::-1])[::-1],
    "Fortran order": np.asfortranarray(X),
    "read-only": read_only(X),
    "masked nowhere": np.ma.masked_array(X),
    "frame": pd.DataFrame(X),
    "frame of Int64": extension(),
    "frame of several kinds": mixed(),
    "NumPy kinds": pd.DataFrame({"a": X[:, 0] > 0}).join(pd.DataFrame(X[:, 1:])),
    "twice the same name": pd.DataFrame(X, columns=list("aabb")),
    "tensor": ops.convert_to_tensor(X),
    "variable": keras.Variable(X),
}


# One of each way in; the others are one of these with other batches.
WAYS_IN = ["fit", "predict", "log_prob", "impute"]


@pytest.fixture(scope="module")
def answers(model):
    # At a rate of zero training is a score.
    model.optimizer.learning_rate = 0.0
    return {verb: call(model, verb, X) for verb in WAYS_IN}


@pytest.mark.parametrize("name", SAME)
def test_the_same_numbers_give_the_same_answer(name, model, answers):
    for verb, expected in answers.items():
        found = call(model, verb, SAME[name])
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=verb)


HOLEY = {
    "NaN": np.where(HOLE, np.nan, X),
    "masked": np.ma.masked_array(np.where(HOLE, -999, X), HOLE),
    "masked integers": np.ma.masked_array(np.where(HOLE, -999, X).astype(int), HOLE),
    "list of masked rows": list(np.ma.masked_array(np.where(HOLE, 7, X), HOLE)),
    "None": np.where(HOLE, None, X.astype(object)),
    "list with None": np.where(HOLE, None, X.astype(object)).tolist(),
    "Int64": with_na(extension()),
    "category": mixed(missing=True),
    "objects": with_na(extension()).astype(object),
}


@pytest.mark.parametrize("name", HOLEY)
def test_what_is_missing_is_completed_and_not_learned_from(name, model):
    for verb in ["fit", "train_on_batch", *SCORES]:
        with pytest.raises(ValueError, match=r"finite.*row 1.*\(1, 2\).*impute"):
            call(model, verb, HOLEY[name])
    with pytest.warns(UserWarning, match="one particle"):
        completed = call(model, "impute", HOLEY[name])
    np.testing.assert_array_equal(completed[~HOLE], X[~HOLE])
    assert completed[HOLE] in (0, 1)


# Name: what is given, and what the answer says of it.
REFUSED = {
    "wrong width": (X[:, :3], r"shape \(4,\).*\(6, 3\)"),
    "one event": (X[0], r"\(n, 4\)"),
    "a number": (np.float32(1), r"shape \(\)"),
    "a Python number": (5, r"shape \(\)"),
    "three axes": (X[None], r"\(n, 4\)"),
    "no rows": (X[:0], "at least 1"),
    "empty list": ([], "at least 1"),
    "infinity": (X + np.inf, "finite.*row 0"),
    "grey values": (X / 2, "0 or 1.*Binarize"),
    "sentinel": (np.where(HOLE, -999, X), "-999.*row 1"),
    "text": (X.astype(str), "numbers.*'0.0', a str"),
    "a word": ("abc", "numbers.*'abc'"),
    "nothing": (None, "numbers.*None"),
    "complex": (X.astype(complex), "numbers.*complex128"),
    "dates": (X.astype(int).astype("M8[s]"), "numbers.*datetime64"),
    "records": (np.zeros(3, [("a", "f4")]), "numbers"),
    "ragged": ([[1, 0, 1, 1], [1]], "array of numbers"),
    "objects": (np.where(HOLE, "?", X.astype(object)), "numbers.*'\\?', a str"),
    "dict": ({"a": X[:, 0], "b": X[:, 1]}, r"dict with keys \['a', 'b'\].*np.stack"),
    "sparse matrix": (sparse.csr_matrix(X), r"sparse.*toarray\(\)"),
    "sparse array": (sparse.coo_array(X), r"sparse.*toarray\(\)"),
    "a column of text": (mixed().assign(float=list("uvwxyz")), "'float'.*'u', a str"),
    "digits in text": (mixed().assign(float=list("010101")), "'float'.*'0', a str"),
    "categories of text": (
        mixed().assign(bool=pd.Categorical(list("uvuvuv"))),
        "column 'bool'.*'u'",
    ),
    "a column of dates": (
        mixed().assign(int=pd.to_datetime(["2020-01-01"] * 6)),
        "column 'int'.*datetime64",
    ),
    "one column": (extension()[0], r"\(n, 4\)"),
    "a range": (range(4), "data type: x=range|Received: range|shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_in_a_sentence(name, model):
    x, message = REFUSED[name]
    for verb in VERBS:
        with pytest.raises(ValueError, match=f"(?s){message}"):
            call(model, verb, x)
    if name != "nothing":
        with pytest.raises(ValueError, match=f"(?s){message}"):
            model.fit(X, validation_data=x, verbose=0)


@pytest.mark.parametrize("verb", ["fit", "predict", "log_prob", "impute"])
def test_one_row_and_one_variable_are_data(verb):
    model = AutoregressiveDensity(MADE([4]))
    model.compile("sgd", run_eagerly=True)
    if verb == "impute":
        model.build((None, 1))
    assert np.shape(call(model, verb, [[1]])) in ((1,), (1, 1))


LABELS = np.arange(6) % 3


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_labels_are_no_context(verb, is_built, conditional):
    """One number for each row is neither a context for each nor one for all."""
    model = conditional
    if not is_built:
        model = AutoregressiveDensity(MADE([4]))
        model.compile("sgd", run_eagerly=True)
    for labels in LABELS, LABELS.tolist(), LABELS.astype("float32"):
        with pytest.raises(ValueError, match=r"\(n, C\)|size 3|does not know"):
            call(model, verb, X, labels)
    if verb not in ("log_prob", "impute"):
        with pytest.raises(ValueError, match=r"labels\[:, None\].*to_categorical"):
            call(model, verb, X, LABELS)
    assert model.built == is_built
    columns = keras.utils.to_categorical(LABELS)
    assert np.all(np.isfinite(call(model, verb, X, columns)))


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, ops.convert_to_tensor])
def test_one_context_for_all_rows_is_a_context_of_the_models_size(form, conditional):
    many = np.tile(C[0], (6, 1))
    for rows in X, ops.convert_to_tensor(X):
        np.testing.assert_allclose(
            to_numpy(conditional.log_prob(rows, form(C[0]))),
            to_numpy(conditional.log_prob(rows, many)),
            rtol=1e-5,
        )
        with pytest.raises(ValueError, match="size 3"):
            conditional.log_prob(rows, form(C[0, :2]))


def test_pairs_are_scored_as_rows_with_a_context(conditional):
    expected = call(conditional, "log_prob", X, C)
    np.testing.assert_array_equal(call(conditional, "log_prob", (X, C)), expected)


BAD_CONTEXTS = {
    "masked": (np.ma.masked_array(C, C > 0), "`context` must be finite"),
    "sparse": (sparse.csr_matrix(C), "context.toarray"),
    "text": (C.astype(str), "`context`.*numbers"),
    "three axes": (C[None], "context"),
    "few rows": (C[:2], r"\(6, C\)"),
}


@pytest.mark.parametrize("name", BAD_CONTEXTS)
def test_a_context_is_looked_at_like_rows(name, conditional):
    context, message = BAD_CONTEXTS[name]
    for verb in VERBS:
        with pytest.raises(ValueError, match=message):
            call(conditional, verb, X, context)


BAD_WEIGHTS = {
    "few": (np.ones(5), r"\(6,\).*\(5,\)"),
    "NaN": (np.full(6, np.nan), "finite"),
    "negative": (-np.ones(6), "not be negative"),
    "text": (list("uvwxyz"), "numbers"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_are_looked_at(name, model):
    weights, message = BAD_WEIGHTS[name]
    for verb in model.fit, model.evaluate, model.train_on_batch, model.test_on_batch:
        with pytest.raises(ValueError, match=message):
            verb(X, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        model.fit(X, validation_data=(X, None, weights), verbose=0)


def test_classes_have_no_weights(model):
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(X, class_weight={0: 1.0})


@pytest.mark.parametrize("verb", ["save", "save_weights"])
def test_a_link_is_written_through(verb, model, tmp_path):
    ending = {"save": ".keras", "save_weights": ".weights.h5"}[verb]
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / f"real{ending}", tmp_path / f"link{ending}"
    for before in b"old", None:
        real.unlink(missing_ok=True)
        if before:
            real.write_bytes(before)
        link.unlink(missing_ok=True)
        link.symlink_to(real)
        getattr(model, verb)(link)
        assert link.is_symlink() and real.stat().st_size > 1000
        assert os.listdir(tmp_path / "far") == [real.name]


@pytest.mark.parametrize("ending", [".h5", ".hdf5"])
def test_a_file_that_could_not_be_loaded_is_not_written(ending, model, tmp_path):
    with pytest.raises(ValueError, match=r"`\.keras` file.*save_weights"):
        model.save(tmp_path / f"model{ending}")
    assert os.listdir(tmp_path) == []


def test_seeds_are_integers_of_every_kind(model):
    call(model, "impute", X)
    draws = [
        to_numpy(model.sample(5, seed=seed, verbose=0))
        for seed in (3, np.int64(3), np.uint8(3), np.array(3))
    ]
    for other in draws[1:]:
        np.testing.assert_array_equal(other, draws[0])
    for seed in 3.0, "3", True, np.bool_(True), [3]:
        with pytest.raises(ValueError, match="`seed` must be an int"):
            model.sample(5, seed=seed)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("change", ["int8", "adapters"])
def test_layers_of_another_form_are_compiled_anew(change):
    model = AutoregressiveDensity(Recurrent(SIZE, 5, num_params=2), Normal())
    model.build((None, SIZE))
    kept = to_numpy(model.log_prob(X))
    if change == "int8":
        model.quantize("int8")
    else:
        layer = model.network.output_layer
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    compiled = to_numpy(model.log_prob(X))
    eager = to_numpy(model.log_prob(ops.convert_to_tensor(X)))
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)
    assert np.abs(compiled - kept).max() > 1e-4
