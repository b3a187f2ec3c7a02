"""The house: imports run downwards only, files are short, and the wheel holds all."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import keras_made

PACKAGE = Path(keras_made.__file__).parent
# From the ground up: a file imports from its own room, and from those before it.
FLOORS = [
    (
        "checks",
        "configured",
        "files",
        "precision",
        "masks",
        "generation",
        "broadcasting",
        "quantized",
    ),
    ("compiling", "image_masks", "graph_masks"),
    ("entries",),
    ("autoregressive",),
    ("layers",),
    ("networks",),
    ("tfp",),
    ("export",),
    ("densities",),
    ("flows",),
    ("recipes",),
    ("tables",),
    ("estimators", "fitting", "plots"),
    ("callbacks",),
]
LONGEST = 460


def files():
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    parts = ("keras_made", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in files()}


def imports_of(path):
    """The modules of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "keras_made"}


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def test_every_import_is_of_a_module_that_is_there():
    for path in files():
        for module in imports_of(path):
            assert module in MODULES, (path, module)


def test_imports_run_downwards_only():
    floors = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    for module, path in MODULES.items():
        if module == "keras_made":
            continue
        for imported in imports_of(path):
            own, below = room_of(module), room_of(imported)
            same = own == below and (PACKAGE / own).is_dir()
            assert same or floors[below] < floors[own], f"{module} imports {imported}"


def test_no_imports_go_in_circles():
    below = {m: imports_of(p) for m, p in MODULES.items()}
    # A room's own page only names what its files hold.
    pages = {m for m, p in MODULES.items() if p.name == "__init__.py"}
    settled = set()
    while below.keys() - settled:
        free = {m for m in below.keys() - settled if below[m] - pages <= settled}
        assert free, sorted(below.keys() - settled)
        settled |= free


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_no_file_is_long(path):
    # An idea that does not fit is two ideas.
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.slow
def test_every_module_is_imported_from_the_wheel_alone(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path]
    subprocess.run([*command, PACKAGE.parent], check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    site = tmp_path / "site"
    script = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "modules = [importlib.import_module(name) for name in sys.argv[1:]]\n"
        "assert all(m.__file__.startswith(sys.path[0]) for m in modules)"
    )
    command = [sys.executable, "-c", script, *MODULES]
    subprocess.run(command, check=True, timeout=600, cwd=tmp_path)
