"""Sphinx's settings: `sphinx-build -W docs docs/_build` builds the site."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_ext")]
# What the pages and their notebooks print is for readers: no start-up lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("PYTHONPATH", str(ROOT))

import generated  # noqa: E402
import inventories  # noqa: E402

from keras_made import __version__  # noqa: E402

# The pages made of `examples/` and of `benchmarks/results/`.
generated.write_gallery(ROOT, DOCS / "gallery")
generated.write_results(ROOT, DOCS / "results")

project = "keras_made"
author = "The keras_made developers"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
]
exclude_patterns = [
    "_build",
    "results/_generated",
    "_inventories",
    "_notebook_cache",
    "_ext",
    "jupyter_execute",
]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Pages and notebooks. A notebook is executed when its code is not in the cache, which
# is kept with the sources.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_notebook_cache")
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
nb_merge_streams = True

# Docstrings.
autodoc_member_order = "bysource"
autodoc_default_options = {"inherited-members": False}
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [
    ("Call arguments", "params_style"),
    "Input shape",
    "Output shape",
    "Reference",
]

# Other projects' objects. What Keras and TFP have is read from the installed packages;
# the others' inventories are fetched where there is a network, on the machine that
# publishes the site.
intersphinx_mapping = inventories.write_inventories(DOCS / "_inventories")
if os.environ.get("READTHEDOCS") or os.environ.get("KERAS_MADE_INTERSPHINX"):
    intersphinx_mapping |= {
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
    }

html_theme = "furo"
html_title = f"keras_made {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
