"""The script of the paper's tables: it goes on after a kill, and does not peek."""

import dataclasses
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import paper_runs
import paper_tables
from paper_recipes import CAVEATS, PUBLISHED, RECIPES, Recipe

TINY = {
    "hidden_units": (8, 8),
    "steps": 12,
    "batch_size": 10,
    "round_rows": 30,
    "valid_members": 2,
    "test_members": 3,
}


def tiny(name):
    return dataclasses.replace(RECIPES[name], **TINY)


def data(num_rows=30, size=6):
    rng = np.random.RandomState(0)
    parts = ("train", "valid", "test")
    return {
        part: (rng.uniform(size=(num_rows, size)) < 0.4).astype("float32")
        for part in parts
    }


def make_run(folder, name="orderings", rows=None, **changes):
    recipe = dataclasses.replace(tiny(name), dropout=0.3, **changes)
    return paper_runs.Run(
        "dna", name, recipe, rows or data(), folder / "work", folder / "results"
    )


def quiet(line):
    pass


class Killed(BaseException):
    pass


class KillAfter:
    """A report that kills the run after some rounds."""

    def __init__(self, rounds):
        self.rounds = rounds

    def __call__(self, line):
        self.rounds -= 1
        if self.rounds == 0:
            raise Killed


def figures(result):
    return result["valid"], result["test"], result["histories"][0]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_figures_of_an_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_runs, "SECONDS_BETWEEN_SAVES", -1.0)
    whole = make_run(tmp_path / "whole")
    whole.train(quiet)
    with pytest.raises(Killed):
        make_run(tmp_path / "broken").train(KillAfter(2))
    resumed = make_run(tmp_path / "broken")
    lines = []
    resumed.train(lines.append)
    assert 0 < len(lines) < whole.trainings[0].rounds
    expected, found = figures(whole.finish()), figures(resumed.finish())
    for one, other in zip(expected, found, strict=True):
        for key in one:
            np.testing.assert_allclose(other[key], one[key], rtol=1e-5)


class Guarded(dict):
    """Data whose test set must not be looked at, not even read, before the end."""

    allowed = False

    def __getitem__(self, part):
        if part == "test" and not self.allowed:
            pytest.fail("The test set was read before everything was chosen.")
        return super().__getitem__(part)


def test_the_test_set_is_read_once_all_is_chosen_and_without_more_training(tmp_path):
    rows = Guarded(data())
    first = make_run(tmp_path, rows=rows)
    first.train(quiet)
    before = first.finish(test=False)
    assert "test" not in before
    rows.allowed = True
    again = make_run(tmp_path, rows=rows)
    again.train(lambda line: pytest.fail("It trained."))
    after = again.finish()
    np.testing.assert_allclose(after["valid"]["nll"], before["valid"]["nll"], rtol=1e-6)
    assert after["seconds"] == before["seconds"]
    assert after["test"]["structures"] == TINY["test_members"]


def test_settings_that_changed_are_not_mixed_with_an_older_run(tmp_path):
    make_run(tmp_path).train(quiet)
    with pytest.raises(ValueError, match="other settings"):
        make_run(tmp_path, learning_rate=0.5).train(quiet)


def test_the_round_is_chosen_on_validation_and_patience_ends_a_run(tmp_path):
    wild = {"learning_rate": 0.2, "patience": 3, "steps": 3000, "networks": 1}
    run = make_run(tmp_path, "natural", **wild)
    run.train(quiet)
    (training,) = run.trainings
    assert training.rounds == training.best_round + 1 + run.recipe.patience
    assert training.rounds < paper_runs.max_rounds(run.recipe, 30)
    best = min(training.log["history"]["valid_nll"])
    result = run.finish(test=False)
    np.testing.assert_allclose(result["valid"]["nll"], best, rtol=1e-5)


@pytest.mark.compiled
def test_networks_are_mixed_as_densities(tmp_path):
    run = make_run(tmp_path, "natural")
    run.train(quiet)
    members = [average.score("valid") for average in run.averages]
    assert np.abs(members[0] - members[1]).max() > 0.01
    expected = -np.log(np.mean(np.exp(members), axis=0)).mean()
    np.testing.assert_allclose(run.finish()["valid"]["nll"], expected, rtol=1e-6)


@pytest.mark.slow
def test_networks_of_one_ordering_are_averaged(tmp_path):
    run = make_run(tmp_path, "own_orders", networks=2, averaged=2)
    run.train(quiet)
    ranks = [training.model.network.ranks().tolist() for training in run.trainings]
    assert ranks[0] == ranks[1] != ranks[2] == ranks[3]
    x = run.data["valid"]
    logits = [keras.ops.convert_to_numpy(t.model.network(x)) for t in run.trainings]
    log_probs = [log_bernoulli(np.mean(logits[i : i + 2], 0), x) for i in (0, 2)]
    expected = -np.log(np.mean(np.exp(log_probs), axis=0)).mean()
    result = run.finish()
    np.testing.assert_allclose(result["valid"]["nll"], expected, rtol=1e-5)
    assert (result["valid"]["networks"], result["valid"]["mixed"]) == (4, 2)


def log_bernoulli(logits, x):
    return (x * logits - np.logaddexp(0, logits)).sum(axis=1)


@pytest.mark.slow
def test_turned_images_are_averaged_and_mixed_with_the_others(tmp_path, monkeypatch):
    rows, names = data(size=9), ("pixelcnn", "wide")
    for name in names:
        recipe = tiny(name)
        if recipe.pixelcnn:
            recipe = dataclasses.replace(recipe, pixelcnn=(2, 1, 3))
        turned = dataclasses.replace(recipe, turned=True)
        monkeypatch.setitem(paper_runs.RECIPES, name, recipe)
        monkeypatch.setitem(paper_runs.RECIPES, f"{name}_turned", turned)
    for average in (names, tuple(f"{name}_turned" for name in names)):
        recipe = Recipe(about="", average=average)
        monkeypatch.setitem(paper_runs.RECIPES, average[0] + "_both", recipe)
    mixture = ("pixelcnn_both", "pixelcnn_turned_both")
    run = make_run(tmp_path, "images", rows=rows, mixture=mixture)
    run.train(quiet)
    assert len(run.averages) == 2 and len(run.trainings) == 4
    turned = run.averages[1]
    x = rows["valid"][:, ::-1].reshape(-1, 3, 3)
    expected = keras.ops.convert_to_numpy(turned.model().log_prob(x))
    np.testing.assert_allclose(turned.score("valid"), expected, rtol=1e-6)
    members = [average.score("valid") for average in run.averages]
    expected = -np.log(np.mean(np.exp(members), axis=0)).mean()
    np.testing.assert_allclose(run.finish()["valid"]["nll"], expected, rtol=1e-6)
    assert run.sample(2).shape == (2, 3, 3)


def test_a_pixelcnn_takes_the_rows_as_square_images(tmp_path):
    rows = data(size=9)
    run = make_run(tmp_path, "pixelcnn", rows=rows, pixelcnn=(2, 1, 3), steps=3)
    run.train(quiet)
    assert run.trainings[0].model.event_shape == (3, 3)
    result = run.finish()
    assert result["test"]["rows"] == len(rows["test"])
    assert result["parameters"] < 200
    picture = tmp_path / "made" / "samples.png"
    paper_tables.draw_samples(run.sample(4), picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_mixture_of_recipes_trains_their_networks(tmp_path, monkeypatch):
    rows = data(size=9)
    parts = {"one": tiny("pixelcnn"), "other": tiny("reversed")}
    parts["other"] = dataclasses.replace(parts["other"], networks=1)
    parts["one"] = dataclasses.replace(parts["one"], pixelcnn=(2, 1, 3))
    for name, recipe in parts.items():
        monkeypatch.setitem(paper_runs.RECIPES, name, recipe)
    run = make_run(tmp_path, "images", rows=rows, mixture=tuple(parts))
    run.train(quiet)
    pixelcnn, made = (training.model.network for training in run.trainings)
    assert pixelcnn.event_shape == (3, 3)
    np.testing.assert_array_equal(made.ranks(), np.arange(9)[::-1])
    members = [average.score("valid") for average in run.averages]
    expected = -np.log(np.mean(np.exp(members), axis=0)).mean()
    np.testing.assert_allclose(run.finish()["valid"]["nll"], expected, rtol=1e-6)
    assert paper_runs.expected_seconds(run.recipe, rows) > 0


def test_more_work_is_expected_to_take_longer():
    rows, recipe = data(), tiny("orderings")
    longer = dataclasses.replace(recipe, steps=10 * recipe.steps)
    expected = paper_runs.expected_seconds
    assert 0 < expected(recipe, rows) < expected(longer, rows)


def result(dataset, recipe, valid, test=None):
    scores = {"valid": {"nll": valid}}
    if test is not None:
        scores["test"] = {"nll": test, "standard_error": 0.125}
    return {
        "dataset": dataset,
        "recipe": recipe,
        "settings": dataclasses.asdict(Recipe(about="")),
        "histories": [{"step": [10, 20], "valid_nll": [valid + 1, valid]}],
        "cpu_seconds": 240.0,
        **scores,
    }


RESULTS = [
    result("dna", "orderings", valid=80.0, test=79.0),
    result("dna", "natural", valid=85.0, test=78.0),
    result("dna", "paper", valid=84.0, test=83.5),
    result("dna", "paper_adagrad", valid=83.0, test=83.25),
    result("dna", "paper_masks", valid=82.0, test=81.5),
    result("web", "natural", valid=28.0),
]


def row_of(text, dataset):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {dataset}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_comes_from_the_files_alone(tmp_path, monkeypatch, capsys):
    for i, content in enumerate(RESULTS):
        (tmp_path / f"{i}.json").write_text(json.dumps(content))
    (tmp_path / "of_another_script.json").write_text(json.dumps({"seconds": 1}))
    monkeypatch.delenv("KERAS_MADE_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["", "--table", "--results", str(tmp_path)])
    paper_tables.main()
    text = capsys.readouterr().out
    assert all(f"| {dataset}" in text for dataset in PUBLISHED)
    assert all(caveat in text for caveat in CAVEATS.values())
    dna = row_of(text, "dna")
    assert f"{PUBLISHED['dna']['MADE, masks']:.2f}" in dna
    assert [cell[:5] for cell in dna[2:6:2]] == ["83.25", "81.50"]
    assert dna[-2:] == ["orderings", "2.0"]


def test_recipes_are_chosen_on_validation_whatever_the_test_says():
    chosen = {
        kind: paper_tables.chosen(RESULTS, "dna", kind)["recipe"]
        for kind in ("paper", "paper_masks", "ours")
    }
    assert chosen == {
        "paper": "paper_adagrad",
        "paper_masks": "paper_masks",
        "ours": "orderings",
    }
    assert paper_tables.chosen(RESULTS, "adult", "ours") is None


def test_a_run_without_test_figures_leaves_its_cell_empty():
    web = row_of(paper_tables.table(RESULTS), "web")
    assert "natural" in web
    assert not any("28.0" in cell for cell in web)


def test_attempts_are_listed_best_first():
    lines = paper_tables.attempts(RESULTS).splitlines()[2:]
    names = [line.split("|")[2].strip() for line in lines if "| dna" in line]
    assert names == ["orderings", "paper_masks", "paper_adagrad", "paper", "natural"]


def test_curves_are_drawn(tmp_path):
    paper_tables.draw_curves(RESULTS, tmp_path / "made" / "curves.png")
    assert (tmp_path / "made" / "curves.png").read_bytes()[:4] == b"\x89PNG"
