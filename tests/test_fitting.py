"""From rows to a density with no decisions: what is tried, taken and refused."""

import keras
import numpy as np
import pytest
from laws import to_numpy
from people import people

from keras_made import (
    MADE,
    AutoregressiveDensity,
    Bernoulli,
    Ensemble,
    Incomplete,
    NetworkAverage,
    TableDensity,
    fit_density,
    fitting,
    flows,
)
from keras_made.recipes import candidates as recipes
from keras_made.recipes.budget import Budget
from keras_made.recipes.candidates import Candidate
from keras_made.recipes.images import image_shape


def bits(num_rows=200, size=4, seed=0):
    return (np.random.RandomState(seed).rand(num_rows, size) < 0.3).astype("float32")


def small(name, rate, units=6):
    def make(seed):
        model = AutoregressiveDensity(MADE([units], seed=seed))
        model.build((None, 4))
        return model

    return Candidate(name, "to be quick", make, rate=rate, steps=16, batch_size=50)


@pytest.fixture
def quick(monkeypatch):
    """Two small candidates, of which the first cannot learn."""
    monkeypatch.setattr(
        fitting, "candidates", lambda *a: [small("idle", 0.0), small("keen", 0.05)]
    )
    monkeypatch.setattr(fitting, "MOST_MORE", 1)
    monkeypatch.setattr(fitting, "STEPS_OF_A_ROUND", 20)


@pytest.mark.neutral
def test_the_better_candidate_is_trained_again_and_mixed(quick, capsys):
    x = bits(400)
    x[:, 1] = x[:, 0]
    model = fit_density(x, minutes=5)
    assert [one["name"] for one in model.choice] == ["idle", "keen", "keen"]
    assert not model.choice[0]["taken"]
    taken = [one for one in model.choice if one["taken"]]
    assert taken and min(one["valid"] for one in model.choice) == min(
        one["valid"] for one in taken
    )
    if len(taken) > 1:
        assert isinstance(model, Ensemble) and len(model.members) == len(taken)
    shown = capsys.readouterr().out
    assert "keen" in shown and "taken" in shown
    # What it says of itself is what it is.
    held = np.sort(np.random.default_rng(0).permutation(400)[:40])
    valid = -to_numpy(model.log_prob(x[held], verbose=0)).mean()
    assert valid <= min(one["valid"] for one in model.choice) + 1e-4


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        # Name, nats, seconds, whether the time ended it; ten seconds are left.
        ([("a", 10.0, 1, False), ("b", 10.5, 1, True)], "b"),
        ([("a", 10.0, 1, False), ("b", 15.0, 1, True)], "a"),
        ([("a", 10.0, 1, False), ("b", 10.5, 50, True)], "a"),
        ([("a", 10.0, 1, False), ("b", 10.5, 1, True), ("b", 10.5, 1, True)], "a"),
        ([("a", 10.0, 1, False), ("b", 10.0, 1, False), ("a", 10.0, 1, False)], "b"),
        ([("a", 10.0, 10, False)], None),
    ],
)
def test_the_time_that_is_left_goes_where_it_helps(trained, expected, monkeypatch):
    candidates = {name: small(name, 0.0) for name in "ab"}
    rows = (bits(20), None)
    search = fitting._Search(rows, rows, Bernoulli(), 10.0, 0)
    monkeypatch.setattr(search, "passed", lambda: 0.0)
    for place, (name, nats, seconds, cut) in enumerate(trained):
        # Each is better on a row of its own, so that equals gain by being mixed.
        scores = np.full(20, -nats)
        scores[place] += 1.0
        one = fitting._Trained(candidates[name], None, scores, seconds, cut)
        search.trained.append(one)
    found = search.next_one()
    assert (found and found.name) == expected


def mixture_of(*scores):
    rows = (bits(20), None)
    search = fitting._Search(rows, rows, Bernoulli(), 10.0, 0)
    for one in scores:
        search.trained.append(fitting._Trained(small("a", 0.0), None, one, 1, False))
    taken, total = search.best_mixture()
    parts = np.stack([scores[place] for place in taken])
    np.testing.assert_allclose(total, np.log(np.exp(parts).mean(axis=0)))
    return taken


def test_few_rows_leave_out_only_what_is_clearly_worse():
    rng = np.random.RandomState(0)
    best, noise = rng.normal(size=20), rng.normal(size=20)
    assert mixture_of(best - 0.1 + noise - noise.mean(), best) == [1, 0]
    assert mixture_of(best - 5.0 + noise, best) == [1]
    # Many rows tell that it is worse.
    best, noise = np.tile(best, 50), np.tile(noise, 50)
    assert mixture_of(best - 1.0, best) == [1]
    assert mixture_of(best - 0.1 + noise - noise.mean(), best) == [1, 0]


@pytest.mark.neutral
def test_networks_of_images_are_averaged_where_that_gains(monkeypatch):
    """Fair coins, and two networks that are wrong about them in opposite ways."""
    x = (np.random.RandomState(0).rand(400, 2, 3) < 0.5).astype("float32")

    def candidate(name, bias):
        def make(seed):
            network = MADE([4], event_shape=(2, 3))
            model = AutoregressiveDensity(network)
            model.build((None, 2, 3))
            network.output_bias.assign(np.full(6, bias))
            return model

        return Candidate(name, "", make, rate=0.0, steps=1, averaged=True)

    found = [candidate("high", 1.0), candidate("low", -1.0)]
    monkeypatch.setattr(fitting, "candidates", lambda *a: found)
    monkeypatch.setattr(fitting, "MOST_MORE", 0)
    monkeypatch.setattr(fitting, "STEPS_OF_A_ROUND", 1)
    model = fit_density(x, validation_data=x, minutes=5, verbose=0)
    assert [one["name"] for one in model.choice] == ["high", "low", "average"]
    assert [one["taken"] for one in model.choice] == [False, False, True]
    nats = -to_numpy(model.log_prob(x[:10], verbose=0))
    np.testing.assert_allclose(nats, 6 * np.log(2), rtol=1e-2)


def averages_of(monkeypatch, *nats):
    """What is averaged of networks whose own nats, and their averages', are given.

    Each of `nats` is a number, or the pair of one network and of its average with
    those before it.
    """
    rows = (np.zeros((20, 2, 2)), None)
    search = fitting._Search(rows, rows, Bernoulli(), 10.0, 0)
    candidate = small("a", 0.0)._replace(averaged=True)
    for place, pair in enumerate(nats):
        own, joint = pair if isinstance(pair, tuple) else (pair, None)
        model = AutoregressiveDensity(MADE([3], event_shape=(2, 2), seed=place))
        one = fitting._Trained(candidate, model, np.full(20, -own), 1, False)
        monkeypatch.setattr(search, "score", lambda _, joint=joint: np.full(20, -joint))
        search.add(one)
        search.average(one)
    names = [one["name"] for one in search.choice]
    assert names.count("average") <= 1
    assert [one.candidate.name for one in search.trained] == names
    return len(search.averaged), names, [one["valid"] for one in search.choice]


def test_an_average_grows_while_it_gains(monkeypatch):
    assert averages_of(monkeypatch, 5.0, (6.0, 5.5)) == (1, ["a", "a"], [5.0, 6.0])
    assert averages_of(monkeypatch, 5.0, (6.0, 4.5)) == (
        2,
        ["a", "a", "average"],
        [5.0, 6.0, 4.5],
    )
    assert averages_of(monkeypatch, 5.0, (6.0, 4.5), (5.0, 4.75)) == (
        2,
        ["a", "a", "average", "a"],
        [5.0, 6.0, 4.5, 5.0],
    )
    assert averages_of(monkeypatch, 5.0, (6.0, 4.5), (5.0, 4.25)) == (
        3,
        ["a", "a", "average", "a"],
        [5.0, 6.0, 4.25, 5.0],
    )

    # Alone far better than the average: those to come are averaged with it.
    assert averages_of(monkeypatch, 5.0, (3.0, 4.0), (3.5, 2.5)) == (
        2,
        ["a", "a", "a", "average"],
        [5.0, 3.0, 3.5, 2.5],
    )


def test_little_time_still_gives_a_model(quick):
    model = fit_density(bits(), minutes=1e-6, verbose=0)
    assert len(model.choice) == 1 and model.choice[0]["taken"]
    assert np.isfinite(to_numpy(model.log_prob(bits(5)))).all()


def test_the_rows_to_choose_by_may_be_given(quick):
    x, context = bits(100), np.ones((100, 2), "float32")
    model = fit_density(x, validation_data=bits(30, seed=1), minutes=1, verbose=0)
    assert model.choice
    with pytest.raises(ValueError, match=r"tuple \(rows, context\)"):
        fit_density(x, context=context, validation_data=bits(30), verbose=0)


def names_of(x, conditional=None):
    conditional = conditional or recipes.default_conditional(x)
    return [one.name for one in recipes.candidates(x, conditional)]


def test_candidates_follow_the_rows():
    rng = np.random.RandomState(0)
    real = rng.normal(size=(100, 3)).astype("float32")
    mixed = real.copy()
    mixed[:, 0] = mixed[:, 0] > 0
    holes = mixed.copy()
    holes[0, 1] = np.nan
    assert names_of(bits()) == ["one order", "many orders", "sparse"]
    assert names_of(bits(recipes.FEW_ROWS)) == ["one order", "many orders"]
    gaussians = ["1 Gaussian", "2 Gaussians", "3 Gaussians", "5 Gaussians"]
    assert names_of(real) == [*gaussians, "one order", "any order", "flow"]
    assert names_of(real[:20]) == [*gaussians[:2], "one order", "any order", "flow"]
    many = np.concatenate([real, real])
    assert names_of(many) == ["one order", "any order", "flow"]
    assert names_of(mixed) == ["one order", "any order"]
    assert names_of(holes) == ["any order"]
    assert isinstance(recipes.default_conditional(holes), Incomplete)


def rectangles(rows, size=8):
    """Filled ones, from a corner of the image on."""
    corner = np.random.RandomState(0).randint(1, size, (rows, 2, 1))
    inside = np.arange(size) < corner
    return (inside[:, 0, :, None] & inside[:, 1, None, :]).astype("float32")


def test_rows_of_bits_that_are_images_are_told():
    images = rectangles(300)
    flat = images.reshape(-1, 64)
    assert image_shape(flat) == (8, 8)
    assert image_shape(images[:, :, :6].reshape(-1, 48)) == (8, 6)
    assert image_shape(rectangles(300, 5).reshape(-1, 25)) is None
    assert image_shape(bits(300, 64)) is None
    assert image_shape(np.ones((300, 64), "float32")) is None
    # A chain of bits, each like the one before, is none; nor are pixels in disorder.
    steps = np.random.RandomState(0).rand(300, 64) < 0.1
    assert image_shape(np.cumsum(steps, axis=1) % 2.0) is None
    assert image_shape(flat[:, np.random.RandomState(0).permutation(64)]) is None
    candidates = recipes.candidates(flat, Bernoulli())
    assert [c.name for c in candidates] == ["one order", "neighbours"]
    single, neighbours = (c.make(0) for c in candidates)
    assert "8 x 8" in candidates[-1].why
    # What it hears is what a PixelCNN of images does, and both may be averaged.
    assert neighbours.event_shape == (64,)
    inner = neighbours.network.networks[0]
    np.testing.assert_allclose(
        to_numpy(neighbours.network(flat[:5])),
        to_numpy(inner(images[:5])).reshape(5, 64),
        atol=1e-6,
    )
    average = AutoregressiveDensity(
        NetworkAverage([single.network, neighbours.network])
    )
    assert to_numpy(average.log_prob(flat[:5], verbose=0)).shape == (5,)
    assert candidates[0].make(3).network.ordering == "natural"


def test_candidates_follow_the_images():
    images = bits(40, 12).reshape(40, 4, 3)
    assert names_of(images) == ["one order", "neighbours"]
    # Averaged where they give logits, which centres of a mixture are not.
    for x, averaged in ((images, True), (7 * images, False)):
        conditional = recipes.default_conditional(x)
        found = {c.name: c for c in recipes.candidates(x, conditional)}
        assert found["one order"].averaged == found["neighbours"].averaged == averaged
        assert found["neighbours"].slow


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 1), "Bernoulli"),
        ((0, 1, np.nan), "Incomplete"),
        ((0, 3, 16), 17),
        ((0, 200), 256),
        ((0, 256), "MixtureOfNormals"),
        ((-1, 1), "MixtureOfNormals"),
        ((0.5, 1), "MixtureOfNormals"),
    ],
)
def test_pixels_are_bits_or_levels_or_numbers(values, expected):
    x = np.resize(np.array(values, "float32"), (10, 3, 3))
    found = recipes.default_conditional(x)
    name = type(found).__name__
    assert expected in (name, getattr(found, "num_levels", None))


@pytest.mark.neutral
@pytest.mark.parametrize(
    "kind", ["bits", "real", "mixed", "holes", "images", "colours with holes"]
)
def test_every_candidate_is_a_density_of_its_rows(kind):
    rng = np.random.RandomState(0)
    x = {
        "bits": bits(40, 3),
        "real": rng.normal(5, 2, size=(40, 3)),
        "images": bits(40, 6).reshape(40, 2, 3),
        "colours with holes": rng.randint(256, size=(40, 2, 2, 2)),
    }.get(kind)
    if x is None:
        x = np.stack([rng.rand(40) < 0.5, rng.normal(size=40)], axis=1)
    x = x.astype("float32")
    if "holes" in kind:
        x[rng.rand(*x.shape) < 0.3] = np.nan
    for candidate in recipes.candidates(x, recipes.default_conditional(x)):
        model = candidate.make(1)
        if candidate.finish is not None:
            model = candidate.finish(model)
        assert np.isfinite(to_numpy(model.log_prob(x[:8], verbose=0))).all()
        assert isinstance(model, AutoregressiveDensity | flows.Flow | Ensemble)


def test_a_frame_is_a_table(monkeypatch):
    monkeypatch.setattr("keras_made.recipes.starts.STEPS", 25)
    _, frame = people(60, 0)
    model = fit_density(frame, minutes=0.001, verbose=0)
    assert isinstance(model, TableDensity)
    assert model.choice[0]["taken"]
    with pytest.raises(ValueError, match="says itself"):
        fit_density(frame, "bernoulli")


@pytest.mark.neutral
def test_the_rate_falls_to_zero_and_time_ends_the_training():
    model = AutoregressiveDensity(MADE([4]))
    model.compile(keras.optimizers.Adam(0.1))
    rates = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: rates.append(
            float(model.optimizer.learning_rate)
        )
    )
    model.fit(bits(20), epochs=5, verbose=0, callbacks=[Budget(5), watch])
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(5) / 5))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    history = model.fit(bits(20), epochs=9, verbose=0, callbacks=[Budget(9, 1e-9)])
    assert len(history.epoch) == 1


@pytest.mark.parametrize(("most", "epochs"), [(None, 2), (30.0, 6), (1000.0, 10)])
def test_more_time_is_taken_where_all_epochs_ask_for_it(most, epochs, monkeypatch):
    """Five seconds an epoch, eight in all: what `most` says is the end."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    model = AutoregressiveDensity(MADE([4]))
    model.compile(keras.optimizers.Adam(0.1))
    model.stop_training = False
    budget = Budget(10, 8.0, most)
    budget.set_model(model)
    budget.on_train_begin()
    done = 0
    while done < 10 and not model.stop_training:
        budget.on_epoch_begin(done)
        clock[0] += 5.0
        budget.on_epoch_end(done)
        done += 1
    assert done == epochs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": bits(), "minutes": 0}, "minutes"),
        ({"x": bits(5)}, "ten rows"),
        ({"x": np.zeros(20)}, "ten rows"),
        ({"x": np.full((20, 2), np.inf)}, "finite"),
        ({"x": np.full((20, 2), np.nan)}, "every entry is NaN"),
        ({"x": np.zeros((20, 3, 3, 3, 3))}, "or images"),
        ({"x": np.zeros((20, 0, 3))}, "or images"),
        ({"x": bits(), "context": np.zeros((3, 1))}, "context"),
        ({"x": bits(), "conditional": "normals"}, "conditional"),
    ],
)
def test_wrong_turns(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_density(**arguments)


@pytest.mark.neutral
def test_no_time_left_ends_it_within_an_epoch():
    model = small("idle", 0.01).make(0)
    model.compile("adam")
    options = {"epochs": 9, "batch_size": 2, "verbose": 0}
    history = model.fit(bits(), **options, callbacks=[Budget(9, -1.0)])
    assert len(history.history["nll"]) == 1
    assert int(model.optimizer.iterations) < 10
