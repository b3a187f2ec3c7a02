"""What is exported answers as the model does, its columns by name."""

import keras
import numpy as np
import pytest
from people import people
from test_table_density import small

from keras_made import export_saved_model

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a SavedModel is TensorFlow's"
)


def as_inputs(frame):
    """A frame as the exported functions take it."""
    inputs = {}
    for name, column in frame.items():
        if column.dtype.kind == "M":
            seconds = column.astype("datetime64[s]").astype("int64").astype(float)
            inputs[name] = seconds.where(column.notna(), np.nan).to_numpy()
        elif name in ("school", "region"):
            inputs[name] = column.astype(object).where(column.notna(), "").to_numpy(str)
        else:
            inputs[name] = column.to_numpy("float64", na_value=np.nan)
    return inputs


@pytest.mark.compiled
def test_a_served_table_scores_completes_and_draws(tmp_path):
    import tensorflow as tf

    frame = people(40, 0)[1][["age", "school", "income", "region", "joined"]]
    model = small(frame)
    model.adapt(frame)
    export_saved_model(model, tmp_path / "table")
    loaded = tf.saved_model.load(str(tmp_path / "table"))
    inputs = {k: tf.constant(v) for k, v in as_inputs(frame).items()}
    scores = loaded.signatures["log_prob"](**inputs)["log_prob"]
    np.testing.assert_allclose(scores, model.log_prob(frame), rtol=1e-3, atol=1e-2)
    completed = loaded.signatures["impute"](**inputs, seed=tf.constant(1))
    for name, column in completed.items():
        missing = frame[name].isna().to_numpy()
        if column.dtype == tf.string:
            names = np.char.decode(column.numpy().astype("S"))
            assert (names[~missing] == as_inputs(frame)[name][~missing]).all()
            assert set(names) <= set(model.schema[name].categories)
        else:
            assert np.isfinite(column).all()
            np.testing.assert_array_equal(
                column[~missing], as_inputs(frame)[name][~missing]
            )
    drawn = loaded.signatures["sample"](num_samples=tf.constant(5), seed=tf.constant(0))
    assert set(drawn) == set(frame.columns)
    assert np.array_equal(drawn["age"], np.round(drawn["age"]))
    wrong = {**inputs, "region": tf.constant(["Q"] * len(frame))}
    with pytest.raises(tf.errors.InvalidArgumentError, match="none of the categories"):
        loaded.signatures["log_prob"](**wrong)
