"""Numbers that take few values, and reals of any shape."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import reload, set_random_weights, to_numpy
from test_conditionals import make_params, tensors

from keras_made import (
    MADE,
    Atoms,
    AutoregressiveDensity,
    Columns,
    Normal,
    Transformed,
    flows,
)

pytestmark = pytest.mark.neutral

PRICES = [100.0, 0.1, -2.0, 7.5, 0.3]
TABLE = Columns([Atoms(PRICES), Normal(), Transformed(flows.Spline(4)), Atoms([0, 1])])


def test_atoms_are_classes_of_their_values_in_order():
    atoms, order = Atoms(PRICES), np.sort(PRICES)
    params = make_params(atoms, 6)
    log_p = np.log(np.exp(params) / np.exp(params).sum(axis=1, keepdims=True))
    for kind in ("float32", "float64"):
        if kind == "float64" and keras.backend.backend() == "jax":
            continue
        for k, value in enumerate(order):
            x = np.full(6, value, kind)
            found = to_numpy(atoms.log_prob(*tensors(params, x)))
            np.testing.assert_allclose(found, log_p[:, k], atol=1e-5)
            atoms.check(x)
    mean = to_numpy(atoms.mean(*tensors(params)))
    np.testing.assert_allclose(mean, np.exp(log_p) @ order, rtol=1e-5)
    assert Atoms(order) == atoms and hash(Atoms(order)) == hash(atoms)
    assert Atoms([1, 2]) != Atoms([1, 3])


def test_atoms_are_heard_as_number_and_rank():
    atoms, order = Atoms(PRICES), np.sort(PRICES)
    heard = to_numpy(atoms.encode(*tensors(order.astype("float32"))))
    assert heard.shape == (5, 2) == (5, atoms.num_features)
    np.testing.assert_allclose(heard[:, 1], np.linspace(-1, 1, 5), atol=1e-6)
    expected = (order - order.mean()) / order.std()
    np.testing.assert_allclose(heard[:, 0], expected, atol=1e-5)


def test_what_is_no_atom_is_refused_and_has_probability_zero():
    atoms = Atoms(PRICES)
    x = np.array([0.3, 0.31, -1e9, np.inf, np.nan], "float32")
    log_p = to_numpy(atoms.log_prob(*tensors(make_params(atoms, 5), x)))
    assert np.isfinite(log_p[0]) and (log_p[1:4] == -np.inf).all()
    assert np.isnan(log_p[4])
    with pytest.raises(ValueError, match=r"values -2, 0.1, 0.3, 7.5, 100. .* 0.31"):
        atoms.check(x[:2])
    with pytest.raises(ValueError, match=r"and 12 more"):
        Atoms(np.arange(20)).check(np.array([20.0]))


REFUSED = {
    "one": ([1.0], "at least two"),
    "twice": ([1.0, 2.0, 1.0], "1 twice"),
    "alike": ([1.0, 1.0 + 1e-12], "float32.*1 twice"),
    "nan": ([1.0, np.nan], "finite.*nan"),
    "too large": ([1.0, 1e300], "finite"),
    "two axes": ([[1.0, 2.0]], r"shape \(1, 2\)"),
    "text": (["a", "b"], "`values` must be an array of numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_are_none_are_refused(name):
    values, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        Atoms(values)


def test_a_transform_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"flows.Spline\(8\).*Received: 'spline'"):
        Transformed("spline")


@pytest.mark.parametrize("transform", [flows.Spline(5), flows.Affine(), flows.Shift()])
def test_transformed_is_a_density_and_draws_from_it(transform):
    conditional = Transformed(transform)
    params = make_params(conditional, 4, 0.7)
    grid = np.linspace(-40, 40, 40_001).astype("float32")
    many = np.repeat(params[:, None], len(grid), axis=1)
    x = np.broadcast_to(grid, many.shape[:2])
    density = np.exp(to_numpy(conditional.log_prob(*tensors(many, x))))
    np.testing.assert_allclose(np.trapezoid(density, grid), 1, atol=2e-3)
    mean = np.trapezoid(density * grid, grid)
    np.testing.assert_allclose(
        to_numpy(conditional.mean(*tensors(params))), mean, atol=2e-2
    )
    drawn = conditional.sample(*tensors(np.repeat(params, 5000, axis=0)), seed=0)
    found = to_numpy(drawn).reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(found, mean, atol=0.15)


def rows(n=40):
    rng = np.random.RandomState(0)
    columns = [
        rng.choice(PRICES, n),
        rng.normal(size=n),
        np.exp(rng.normal(size=n)),
        rng.randint(2, size=n),
    ]
    return np.stack(columns, axis=1)


def test_tables_of_them_train_draw_and_come_back_from_files(tmp_path):
    """One column bounded, the others not; prices as they are written, in float64."""
    network = MADE([9], TABLE.num_params, ordering="random", num_masks=2)
    support = ([-np.inf, -np.inf, 0.0, -np.inf], np.inf)
    model = AutoregressiveDensity(network, TABLE, support=support)
    x = rows()
    model.adapt(x)
    model.compile("adam")
    history = model.fit(x, epochs=2, verbose=0).history
    assert np.isfinite(history["nll"]).all()
    set_random_weights(network, scale=0.3)
    drawn = to_numpy(model.sample(50, seed=0))
    model.check_support(drawn)
    assert (drawn[:, 2] > 0).all()
    with pytest.raises(ValueError, match=r"In column 0.*one of the values.*0.2 "):
        model.log_prob(np.where(np.arange(4) == 0, 0.2, x))
    again = reload(model, tmp_path / "model.keras")
    assert again.conditional == TABLE
    np.testing.assert_allclose(
        to_numpy(again.log_prob(x)), to_numpy(model.log_prob(x)), rtol=1e-5
    )
    np.testing.assert_array_equal(to_numpy(again.sample(50, seed=0)), drawn)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TFP's")
def test_atoms_of_tfp_have_the_same_probabilities():
    atoms = Atoms(PRICES)
    params = make_params(atoms, 5)
    x = np.sort(PRICES).astype("float32")
    found = atoms.distribution(ops.convert_to_tensor(params)).log_prob(x)
    expected = atoms.log_prob(*tensors(params, x))
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-5)
