"""Docstrings of this package, which are nearly Markdown, for Sphinx.

Names in `ticks`, ours and other projects', become links to their page, or code; what is
indented after a line that ends with a colon is a formula; tables and signatures are put
as Sphinx has them.
"""

import inspect
import re

from sphinx.util.inspect import signature as read_signature
from sphinx.util.inspect import stringify_signature

import keras_made
from keras_made import flows, layers, tables

SECTION = re.compile(
    r"^(Args|Attributes|Call arguments|Example|Examples|Input shape|Output shape|"
    r"Raises|Reference|Returns|Yields):$"
)


def public_objects():
    """Where each short name has its page, `MADE` as `keras_made.MADE`."""
    found = {}
    for module in (layers, tables, flows, keras_made):
        for name in module.__all__:
            found[name] = f"{module.__name__}.{name}"
    for name in ("DensityEstimator", "DensityImputer", "OutlierDetector"):
        found[name] = f"keras_made.estimators.{name}"
    for name in ("Bounded", "Encoder"):
        found[name] = f"keras_made.entries.{name}"
    found.pop("flows")
    return found


OBJECTS = public_objects()
# Names of other projects, for intersphinx; where it knows none they stay code.
OTHERS = re.compile(r"^(keras|tfp|tfd|tfb|numpy|pandas|sklearn)(\.\w+)+$")


def link(match):
    text = match.group(1)
    name, _, member = text.partition("(")[0].partition(".")
    if name in OBJECTS and "(" not in text and " " not in text:
        target = OBJECTS[name] + (f".{member}" if member else "")
        return f":py:obj:`{text} <{target}>`"
    if OTHERS.match(text):
        target = re.sub(r"^tfd\b", "tfp.distributions", text)
        target = re.sub(r"^tfb\b", "tfp.bijectors", target)
        return f":py:obj:`{text} <{target}>`"
    return f"``{text}``"


def to_rest(lines):
    """Lines of a docstring as reStructuredText; doctests and sections stay."""
    out, table, code_indent, in_section = [], [], None, False
    for line in [*lines, ""]:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if text.startswith("|") and text.endswith("|"):
            table.append(line)
            continue
        out += table_lines(table) if table else []
        table = []
        if code_indent is not None and text and indent < code_indent:
            code_indent = None
        in_section = (in_section and (indent > 0 or not text)) or is_section(line)
        if code_indent is not None or not text or is_section(line):
            out.append(line)
        elif text.startswith(">>>"):
            code_indent = indent
            out.append(line)
        elif indent and not in_section and out and not out[-1].strip():
            # A formula: what is set off and indented outside of the sections.
            code_indent = indent
            out += ["::", "", line]
        else:
            out.append(escape(re.sub(r"`([^`\n]+)`", link, line)))
    return out[:-1]


def is_section(line):
    return bool(SECTION.match(line))


def escape(text):
    """`a_(t+1)` and `|x|` outside of code are no links."""
    parts = re.split(r"(``.*?``|:py:obj:`.*?`|https?://\S+)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(\w)_(?!\w)", r"\1\\_", parts[i])
        parts[i] = re.sub(r"\|(?=\S)", r"\\|", parts[i])
        parts[i] = re.sub(r"(?<![\w*])\*(?=\w)", r"\\*", parts[i])
    return "".join(parts)


def table_lines(table):
    pad = " " * (len(table[0]) - len(table[0].lstrip()))
    rows = [row.strip().strip("|").split("|") for row in table]
    out = [f"{pad}.. list-table::", f"{pad}   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        for place, cell in enumerate(row):
            text = re.sub(r"`([^`\n]+)`", link, cell.strip())
            out.append(f"{pad}   {'* -' if place == 0 else '  -'} {text}")
    return [*out, ""]


def process(app, what, name, obj, options, lines):
    if is_ours(obj):
        # Names of several arguments are one item, on one line.
        text = re.sub(
            r"(?m)^( +(?:\w+, )*\w+,)\n +((?:\w+, )*\w+:)", r"\1 \2", "\n".join(lines)
        )
        lines[:] = to_rest(text.split("\n"))


def is_ours(obj):
    return getattr(obj, "__module__", "keras_made").startswith("keras_made")


def sign(app, what, name, obj, options, signature, return_annotation):
    """A class is called as its constructor says, whatever Keras puts around it."""
    if what != "class" or not inspect.isclass(obj) or obj.__init__ is object.__init__:
        return None
    found = read_signature(obj.__init__, bound_method=True)
    return stringify_signature(found, show_annotation=False), None


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", sign)
    return {"parallel_read_safe": True}
