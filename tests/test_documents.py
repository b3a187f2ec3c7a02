"""What the documents say is true: their code runs, and what they name is there."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import keras_made

pytestmark = pytest.mark.neutral

ROOT = Path(__file__).parent.parent
# Pages that are made when the site is built are made of documents that are here.
MADE_FOLDERS = {"gallery", "_build", "_generated", "jupyter_execute"}
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for folder in (".", "benchmarks", "docs", "docs/*")
    for path in sorted(ROOT.glob(f"{folder}/*.md"))
    if not MADE_FOLDERS & {*path.relative_to(ROOT).parts}
]


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", read(document), re.S)


def title(block):
    """What tells a block from others: the class that it adds."""
    found = re.search(r"class (\w+)", block)
    return found.group(1) if found else block.split("\n")[0]


@pytest.mark.parametrize("block", blocks("CONTRIBUTING.md"), ids=title)
def test_the_code_for_contributors_runs(block):
    """Each block by itself; what it asserts are the laws that it speaks of."""
    exec(compile(block, "CONTRIBUTING.md", "exec"), {"__name__": "block"})


def test_contributors_are_shown_a_network_a_conditional_and_a_transform():
    assert {title(b) for b in blocks("CONTRIBUTING.md")} == {
        "Fading",
        "Laplace",
        "SinhArcsinh",
    }


# The first block is run by `test_package.py`, the blocks of the site's pages by
# `test_docs_site.py`.
@pytest.mark.parametrize("block", blocks("README.md")[1:], ids=title)
def test_the_snippets_of_the_readme_run(block, tmp_path, monkeypatch):
    """For an epoch, on data such as the README speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_made.recipes.mixed.STEPS", 1)
    monkeypatch.setattr("keras_made.recipes.mixed.PATIENT_EPOCHS", 2)
    monkeypatch.setattr("keras_made.recipes.starts.STEPS", 25)
    monkeypatch.setattr("keras_made.tables.table_density.POINT_DRAWS", 5)
    rng = np.random.RandomState(0)
    namespace = {"keras_made": keras_made, "theta": rng.uniform(-1, 1, (20, 2))}
    namespace["observed"] = rng.normal(size=(20, 2))
    if "frame" in block:
        namespace["frame"] = a_frame()
    exec(
        compile(block.replace("epochs=30", "epochs=1"), "README.md", "exec"), namespace
    )


def a_frame():
    """A DataFrame with the columns that the README speaks of, and holes."""
    pd = pytest.importorskip("pandas")
    rng = np.random.RandomState(0)
    frame = pd.DataFrame({"sex": rng.choice(["F", "M"], 60)})
    frame["age"] = rng.randint(20, 80, 60)
    frame["income"] = rng.lognormal(10, 1, 60)
    frame.loc[::4, "income"] = np.nan
    return frame


# What documents name ------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document):
    links = re.findall(r"\]\(([^)#]+)\)", read(document))
    links = [link for link in links if "gallery/" not in link]  # test_docs_site.py
    here = (ROOT / document).parent
    missing = [
        link
        for link in links
        if "://" not in link and not (here / link).resolve().exists()
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_their_functions_are_there(document):
    """`room/file.py`, from the root, from the package or from the document itself.

    A file alone may be in any room.
    """
    package = ROOT / "keras_made"
    places = [ROOT, package, (ROOT / document).parent]
    wrong = []
    for path, name in re.findall(r"([\w/]+\.py)\b(?::([\w.]+))?", read(document)):
        found = [place / path for place in places if (place / path).exists()]
        found = found if "/" in path else [*found, *package.rglob(path)]
        if not found or (name and name not in names_in(found[0])):
            wrong.append(f"{path}:{name}")
    assert wrong == []


def names_in(path):
    """Functions, and methods as `Class.method`, that a file defines."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names.add(getattr(node, "name", None))
        for own in getattr(node, "body", []):
            names.add(f"{getattr(node, 'name', '')}.{getattr(own, 'name', '')}")
    return names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_dotted_names_are_there(document):
    """`keras_made.a.b`, of modules and of what is in them."""
    wrong = []
    for name in set(re.findall(r"\bkeras_made(?:\.[A-Za-z_]\w*)+", read(document))):
        if not is_there(name.split(".")):
            wrong.append(name)
    assert wrong == []


def is_there(parts):
    value = keras_made
    for index, part in enumerate(parts[1:], start=2):
        # TFP's faces are there to be looked at on TensorFlow alone.
        if part == "MaskedAutoregressiveFlow":
            return True
        if not hasattr(value, part):
            try:
                importlib.import_module(".".join(parts[:index]))
            except ImportError:
                return False
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("document", DOCUMENTS)
def test_calls_pass_arguments_that_are_there(document):
    """Calls of public classes, in blocks and within sentences."""
    code = [*blocks(document), *re.findall(r"`([^`]+)`", read(document))]
    wrong = []
    for tree in filter(None, map(parse, code)):
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            known = arguments_of(call.func)
            wrong += [
                ast.unparse(call)
                for keyword in call.keywords
                if known and keyword.arg and keyword.arg not in known
            ]
    assert wrong == []


def parse(code):
    try:
        return ast.parse(code.strip())
    except SyntaxError:
        return None


def arguments_of(function):
    """Names of the arguments of a public class or function; None for others."""
    name = function.attr if isinstance(function, ast.Attribute) else None
    name = function.id if isinstance(function, ast.Name) else name
    public = getattr(keras_made, name or "", None)
    public = public or vars(keras_made.flows).get(name)
    if inspect.isclass(public):
        makers = [cls.__init__ for cls in public.__mro__ if "__init__" in vars(cls)]
    elif inspect.isfunction(public):
        makers = [public]
    else:
        return None
    return {name for maker in makers for name in inspect.signature(maker).parameters}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_have_the_options_that_they_are_given(document):
    wrong = []
    for script, rest in re.findall(
        r"python\s+((?:benchmarks|examples)/\w+\.py)([^`\n;&)]*)", read(document)
    ):
        source = (ROOT / script).read_text(encoding="utf-8")
        options = re.findall(r"--[\w-]+", rest)
        wrong += [f"{script} {o}" for o in options if f'"{o}"' not in source]
    assert wrong == []


CHOOSING = [
    path
    for path in sorted(ROOT.glob("benchmarks/*.py"))
    if "choose_backend(" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("script", CHOOSING, ids=lambda path: path.stem)
def test_benchmarks_choose_their_back_end_before_keras_is_there(script):
    """`--backend jax` would time another one under that name."""
    tops = ast.parse(script.read_text(encoding="utf-8")).body
    imported = [ast.unparse(n) for n in tops if isinstance(n, ast.Import)]
    imported += [f"import {n.module}" for n in tops if isinstance(n, ast.ImportFrom)]
    assert [i for i in imported if re.match(r"import (keras|tensorflow|jax)", i)] == []
