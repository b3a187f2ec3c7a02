"""Several models as one: the mixture of their densities."""

import numpy as np
import pytest
from keras import ops
from laws import reload, set_random_weights, to_numpy

from keras_made import MADE, AutoregressiveDensity, Ensemble, MixtureOfNormals, flows

pytestmark = pytest.mark.neutral
WEIGHTS = [0.2, 0.8]


def members(context_size=0, size=2):
    """A flow and a density with units and bounds of their own."""
    flow = flows.RealNVP(size, 2, (8,), context_size=context_size, support=(-3.0, None))
    density = AutoregressiveDensity(MADE([8], 6), MixtureOfNormals(2))
    density.build((None, size) if not context_size else ((None, size), (None, 2)))
    for seed, model in enumerate((flow, density)):
        model.require_built()
        set_random_weights(model, seed, 0.3)
        model.adapt(rows(size))
    return [flow, density]


def rows(size=2, n=64):
    return np.random.RandomState(0).gamma(2.0, size=(n, size)).astype("float32") - 2.0


def test_it_scores_as_the_mixture_of_its_members():
    x, parts = rows(), members(2)
    context = np.random.RandomState(1).normal(size=(64, 2)).astype("float32")
    model = Ensemble(parts, WEIGHTS)
    scores = [to_numpy(part.log_prob(x, context)) for part in parts]
    expected = np.log(sum(w * np.exp(s) for w, s in zip(WEIGHTS, scores, strict=True)))
    np.testing.assert_allclose(
        to_numpy(model.log_prob(x, context)), expected, atol=1e-5
    )
    tensor = ops.convert_to_tensor(x)
    np.testing.assert_allclose(
        to_numpy(model.log_prob(tensor, context)), expected, atol=1e-5
    )
    assert model.context_size == 2 and model.event_shape == (2,)


def test_it_draws_from_each_member_its_share():
    parts = members()
    parts[1].units.loc.assign([100.0, 100.0])
    draws = to_numpy(Ensemble(parts, WEIGHTS).sample(500, seed=0))
    far = draws[:, 0] > 50.0
    assert far.sum() == 400
    # In an order left to chance.
    assert 60 <= far[:100].sum() <= 98
    np.testing.assert_array_equal(
        draws, to_numpy(Ensemble(parts, WEIGHTS).sample(500, seed=0))
    )


def test_it_is_fitted_adapted_and_comes_back_from_a_file(tmp_path):
    x = 5.0 + rows()
    model = Ensemble(members())
    model.adapt(x)
    np.testing.assert_allclose(to_numpy(model.members[1].units.loc), x.mean(axis=0))
    model.compile("adam")
    before = model.evaluate(x, verbose=0)
    model.fit(x, epochs=5, verbose=0)
    assert model.evaluate(x, verbose=0) < before
    again = reload(model, tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(
        to_numpy(again.log_prob(x)), to_numpy(model.log_prob(x))
    )
    assert [type(m) for m in again.members] == [type(m) for m in model.members]
    with pytest.raises(ValueError, match=r"within `support`.*row 0, entry 0"):
        model.log_prob(np.full((1, 2), -4.0))


def test_every_member_adapts_to_a_stream_that_is_read_once():
    x, model = rows(), Ensemble(members())
    model.adapt((batch,) for batch in (x[:32], x[32:]))
    for member in model.members:
        y = member.units.unbound(x)
        np.testing.assert_allclose(
            to_numpy(member.units.loc), y.mean(axis=0), atol=1e-5
        )


def test_it_may_be_a_base_and_a_member():
    inner = Ensemble(members())
    flow = flows.NICE(2, 2, (4,), base=Ensemble([inner, flows.MAF(2, 1, (4,))]))
    scores = to_numpy(flow.log_prob(ops.convert_to_tensor(rows())))
    assert scores.shape == (64,)
    assert tuple(flow.sample(3).shape) == (3, 2)


WRONG = {
    "no members": (lambda: Ensemble([]), "`members` must be a sequence of models"),
    "no sequence": (lambda: Ensemble(flows.MAF(2)), "`members` must be a sequence of"),
    "words": (lambda: Ensemble([flows.MAF(2)], "equal"), "`weights` must be an array"),
    "a layer": (lambda: Ensemble([MADE([4])]), "`members` must be a sequence of"),
    "sizes": (
        lambda: Ensemble([flows.MAF(2), flows.MAF(3)]),
        r"one event_shape. Received: \[\(2,\), \(3,\)\]",
    ),
    "contexts": (
        lambda: Ensemble([flows.MAF(2), flows.MAF(2, context_size=1)]),
        r"one context_size. Received: \[0, 1\]",
    ),
    "weights": (lambda: Ensemble([flows.MAF(2)], [0.5]), "sum to one"),
    "more weights": (
        lambda: Ensemble([flows.MAF(2)], [0.5, 0.5]),
        "must be 1 positive",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_together_is_refused(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()
