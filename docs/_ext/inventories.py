"""Inventories, for intersphinx, of projects that publish none: Keras and TFP.

Their API pages have the address of the name, on tensorflow.org. What there is to link
to is read from the installed packages, so that no network is needed.
"""

import importlib
import inspect
import zlib
from pathlib import Path

# The modules whose names are links.
KERAS = "", "callbacks", "layers", "ops", "optimizers", "random", "saving", "utils"
TFP = "", "bijectors", "distributions", "mcmc", "vi"
ADDRESSES = {
    "keras": "https://www.tensorflow.org/api_docs/python/tf/",
    "tfp": "https://www.tensorflow.org/probability/api_docs/python/",
}


def write_inventories(folder: Path) -> dict:
    """Write both into a folder; what `intersphinx_mapping` says of them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "keras": read_names("keras", "keras", KERAS),
        "tfp": read_names("tensorflow_probability", "tfp", TFP),
    }
    mapping = {}
    for project, address in ADDRESSES.items():
        path = folder / f"{project}.inv"
        path.write_bytes(inventory(project, names[project]))
        mapping[project] = (address, str(path))
    return mapping


def read_names(package, prefix, modules):
    """`(name, role, address)` of modules, their classes, functions and methods."""
    found = []
    for module in modules:
        # Some are there only when they are asked for.
        whole = importlib.import_module(package)
        whole = getattr(whole, module) if module else whole
        name = ".".join(filter(None, [prefix, module]))
        found.append((name, "module", name.replace(".", "/")))
        for key in dir(whole):
            value = getattr(whole, key)
            own = f"{name}.{key}"
            address = own.replace(".", "/")
            if key.startswith("_") or inspect.ismodule(value):
                continue
            if inspect.isclass(value):
                found.append((own, "class", address))
                found += [
                    (f"{own}.{method}", "method", f"{address}#{method}")
                    for method in dir(value)
                    if not method.startswith("_")
                ]
            elif callable(value):
                found.append((own, "function", address))
    return found


def inventory(project, names):
    """Sphinx's format, version 2."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = [f"{name} py:{role} 1 {address} -" for name, role, address in names]
    return head.encode() + zlib.compress("\n".join([*lines, ""]).encode())
