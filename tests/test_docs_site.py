"""The site: every public name has its place, and what its pages show runs."""

import importlib
import inspect
import os
import re
import textwrap
from pathlib import Path

import keras
import pytest

import keras_made

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    path.relative_to(DOCS).as_posix()
    for path in sorted(DOCS.rglob("*.md"))
    if not re.search(r"(^|/)(_\w+|jupyter_execute)/", path.relative_to(DOCS).as_posix())
    and path.parent.name != "gallery"
]


def read(page):
    return (DOCS / page).read_text(encoding="utf-8")


# API pages ----------------------------------------------------------------------------


def public_names():
    """Room and name of everything that is public."""
    rooms = {"keras_made": keras_made.__all__, "keras_made.export": []}
    for room in ("entries", "flows", "layers", "plots", "tables"):
        rooms[f"keras_made.{room}"] = importlib.import_module(
            f"keras_made.{room}"
        ).__all__
    rooms["keras_made.callbacks"] = ["SampleImages"]
    rooms["keras_made.estimators"] = [
        "DensityEstimator",
        "DensityImputer",
        "OutlierDetector",
    ]
    rooms["keras_made.masks"] = [
        "connect",
        "make_orderings",
        "make_hidden_degrees",
        "reachability",
    ]
    return [(room, name) for room, names in rooms.items() for name in names]


def documented():
    """Full names of what the API pages document, as their modules say."""
    found = set()
    for page in (DOCS / "api").glob("*.rst"):
        module = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            match = re.match(
                r"\.\. (currentmodule|autoclass|autofunction):: (\S+)", line
            )
            if match and match.group(1) == "currentmodule":
                module = match.group(2)
            elif match:
                found.add(f"{module}.{match.group(2)}")
    return found


def test_every_public_name_is_on_an_api_page():
    """A name that two rooms offer is on the page of one."""
    pages = {}
    for full in documented():
        module, _, name = full.rpartition(".")
        pages[name] = getattr(importlib.import_module(module), name)
    missing = []
    for room, name in public_names():
        if name == "flows":
            continue
        if pages.get(name) is not getattr(importlib.import_module(room), name):
            missing.append(f"{room}.{name}")
    assert missing == []


def test_members_on_api_pages_are_there():
    wrong = []
    for page in (DOCS / "api").glob("*.rst"):
        module, owner = "", None
        for line in page.read_text(encoding="utf-8").splitlines():
            if match := re.match(r"\.\. currentmodule:: (\S+)", line):
                module = match.group(1)
            elif match := re.match(r"\.\. autoclass:: (\S+)", line):
                owner = getattr(importlib.import_module(module), match.group(1))
            elif match := re.match(r" +:members: (.+)", line):
                wrong += [
                    f"{owner.__name__}.{name}"
                    for name in match.group(1).split(", ")
                    if inspect.getattr_static(owner, name, None) is None
                ]
    assert wrong == []


def api_examples():
    """The examples that stand on API pages; those of docstrings are doctests."""
    found = []
    for page in sorted((DOCS / "api").glob("*.rst")):
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(
            r"\.\. auto\w+:: (\w+)\n(?:   :.*\n)*\n   \.\. rubric:: Example\n\n"
            r"   \.\. code-block:: python\n\n((?:      .*\n|\n)+)",
            text,
        ):
            code = textwrap.dedent(match.group(2))
            found.append(pytest.param(page.name, code, id=match.group(1)))
    return found


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="some pages speak of TensorFlow"
)
@pytest.mark.parametrize(("page", "code"), api_examples())
def test_the_examples_of_api_pages_run(page, code, tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "page"})


def test_every_public_name_has_an_example():
    """In its docstring, or after it on its API page."""
    on_pages = {param.id for param in api_examples()}
    missing = []
    for full in sorted(documented()):
        module, _, name = full.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        if ">>>" not in (value.__doc__ or "") and name not in on_pages:
            missing.append(full)
    assert missing == []


# Code ---------------------------------------------------------------------------------


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", read(page), re.S | re.M)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="some pages speak of TensorFlow"
)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """From the first block to the last, in one session, for an epoch each."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    for name, least in (("STEPS", 1), ("PATIENT_EPOCHS", 1)):
        monkeypatch.setattr(f"keras_made.recipes.mixed.{name}", least)
    monkeypatch.setattr("keras_made.recipes.starts.STEPS", 25)
    monkeypatch.setattr("keras_made.tables.table_density.POINT_DRAWS", 5)
    namespace = {"__name__": "page"}
    for block in blocks(page):
        short = re.sub(r"epochs=\d+", "epochs=1", block)
        exec(compile(short, page, "exec"), namespace)


# Pages --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages(page):
    """A page that is made when the site is built stands for its source."""
    here = (DOCS / page).parent
    wrong = []
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read(page)):
        path = Path(os.path.normpath(here / link))
        made = ROOT / "examples" / f"{path.stem}.py"
        is_made = path.parent.name == "gallery" and (
            made.exists() or path.stem == "index"
        )
        if "://" not in link and not path.exists() and not is_made:
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_pictures_have_words(page):
    assert re.findall(r"!\[\]\(|^:alt:\s*$", read(page), re.M) == []


def test_notebooks_say_what_their_pictures_show():
    """A cell that leaves a figure behind has an alternative text."""
    wrong = []
    for page in PAGES:
        cells = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", read(page), re.S | re.M)
        for cell in cells:
            draws = re.search(r"^(figure\b.*=|plots\.)", cell, re.M)
            if draws and "alt:" not in cell:
                wrong.append(f"{page}: {draws.group()}")
    assert wrong == []


def test_notebooks_are_kept_executed():
    """The site is built of what is in the cache, and executes nothing anew."""
    nbformat = pytest.importorskip("nbformat")
    kept = set()
    for path in DOCS.glob("_notebook_cache/executed/*/base.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        code = [c.source for c in notebook.cells if c.cell_type == "code"]
        kept.add("\n".join(code))
    missing = []
    for page in PAGES:
        text = read(page)
        cells = re.findall(
            r"^```\{code-cell\}.*?\n(?:---\n.*?^---\n)?(.*?)\n```", text, re.S | re.M
        )
        if cells and "\n".join(cells) not in kept:
            missing.append(page)
    assert missing == [], "Build the site, and keep docs/_notebook_cache."
