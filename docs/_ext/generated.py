"""Pages that are made of other files of the repository whenever the site is built.

The gallery is `examples/`: each script's own docstring and code. Tables of results come
from `benchmarks/results/` and nothing else.
"""

import ast
import json
import sys
from collections import defaultdict
from pathlib import Path

# Gallery ------------------------------------------------------------------------------

# What a card says, and in which group it stands; every script has to be in one.
GROUPS = {
    "Images": {
        "digits": "A deep MADE of handwritten digits",
        "impute": "Half of a digit, filled in",
        "any_order": "A transformer that knows every order",
        "nade_family": "NADE, EoNADE, FVSBN and MADE",
        "pixelcnn": "PixelCNN, told the class",
        "denoise": "Denoising with a density as prior",
        "classify": "Classification by Bayes' rule",
        "pixel_defend": "PixelDefend: attacked digits",
    },
    "Tables": {
        "any_data": "One call for any rows",
        "table": "A table with holes",
        "survey": "A survey, multiply imputed",
        "graph": "A causal graph",
    },
    "Flows": {
        "rnade": "Densities in the plane",
        "maf_two_moons": "MAF learns two moons",
        "conditional_flow": "Conditional flows",
        "posterior": "Simulation-based inference",
        "iaf_variational": "IAF and a VAE",
        "tfp_interop": "Inside TensorFlow Probability",
    },
    "Sequences": {
        "char_rnn": "Text, letter by letter",
        "wavenet": "WaveNet: sound",
    },
    "Deployment": {
        "export_and_serve": "Behind HTTP",
        "distributed": "Several devices and machines",
    },
}


def write_gallery(root: Path, folder: Path) -> None:
    """One page for each script, and the index with their cards."""
    scripts = {path.stem for path in (root / "examples").glob("*.py")}
    listed = {name for group in GROUPS.values() for name in group}
    if scripts != listed:
        raise ValueError(f"GROUPS and examples/ differ: {sorted(scripts ^ listed)}.")
    for group in GROUPS.values():
        for name, title in group.items():
            write(folder / f"{name}.md", example_page(root, folder, name, title))
    write(folder / "index.md", gallery_index(folder))


def example_page(root, folder, name, title):
    source = (root / "examples" / f"{name}.py").read_text(encoding="utf-8")
    about = ast.get_docstring(ast.parse(source))
    about = about.replace(f"    python examples/{name}.py", "").strip()
    picture = ""
    if (folder / "images" / f"{name}.png").exists():
        alt = about.split("\n\n")[0].replace("\n", " ")
        alt = json.dumps(f"Picture made by the example: {alt}")
        picture = f"```{{image}} images/{name}.png\n:alt: {alt}\n```\n"
    return f"""# {title}

{formulas(about)}

```bash
python examples/{name}.py
```

{picture}
`examples/{name}.py`:

```{{literalinclude}} ../../examples/{name}.py
:language: python
```
"""


def formulas(text):
    """Indented lines of a docstring as code."""
    out = []
    for part in text.split("\n\n"):
        out.append(f"```text\n{part}\n```" if part.startswith("    ") else part)
    return "\n\n".join(out)


def gallery_index(folder):
    lines = [
        "# Gallery",
        "",
        "Every script of `examples/`, each under two minutes on two cores, with a "
        'picture. They need `pip install -e ".[examples]"`; `--quick` makes a short '
        "run, `--out` says where the picture goes.",
        "",
    ]
    for group, scripts in GROUPS.items():
        lines += [f"## {group}", "", "::::{grid} 1 2 3 3", ":gutter: 3", ""]
        for name, title in scripts.items():
            lines += [f":::{{grid-item-card}} {title}", f":link: {name}"]
            lines += [":link-type: doc"]
            if (folder / "images" / f"{name}.png").exists():
                lines += [f":img-bottom: images/{name}.png"]
                lines += [f":img-alt: Picture of the example {name}"]
            lines += ["", f"`{name}.py`", ":::", ""]
        lines += ["::::", ""]
    names = [name for group in GROUPS.values() for name in group]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", *names, "```", ""])


# Where links between the repository's own documents lead on the site.
LINKS = {
    "README.md": "/index.md",
    "docs/code.md": "/code.md",
    "CHANGELOG.md": "/changelog.md",
    "benchmarks/README.md": "/results/benchmarks.md",
}

# Results ------------------------------------------------------------------------------


def write_results(root: Path, folder: Path) -> None:
    """Tables as fragments, which the pages of results include."""
    results = root / "benchmarks" / "results"

    def read(name):
        found = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        # Of what it was measured on, a table says nothing.
        return {key: value for key, value in found.items() if key != "on"}

    sys.path.insert(0, str(root / "benchmarks"))
    import default_recipe
    import paper_tables

    runs = paper_tables.read_results(results)
    tables = {
        "paper_table": paper_tables.table(runs),
        "default_recipe": default_recipe.table(results),
        "which_binary": which_binary(runs, paper_tables),
        "attempts": paper_tables.attempts(runs),
        "recipes": recipes(paper_tables.RECIPES),
        "training": training(read),
        "sampling": sampling(read),
        "flows_speed": flows_speed(read("flows")),
        "flows_planar": flows_planar(read("flows_planar")),
        "flows_wine": flows_wine(read("flows_wine")),
        "flows_side_by_side": side_by_side(read("flows_side_by_side")["rows"]),
        "posterior": posterior(read("posterior")["rows"]),
        "fit": rows_table(read("fit_tensorflow")["rows"]),
        "first_call": rows_table(read("first_call_tensorflow")["rows"]),
        "scoring": rows_table(read("scoring_tensorflow")["rows"]),
        "scaling": rows_table(read("scaling_tensorflow")["rows"]),
        "small": rows_table(read("small_tensorflow")["rows"]),
        "small_flows": rows_table(read("small_tensorflow")["flows"]),
        "training_memory": rows_table(read("training_memory")["rows"]),
        "nade": rows_table(read("nade")["cost"]),
        "pixelcnn": rows_table(read("pixelcnn")["likelihood"]),
        "pixelcnn_samples": rows_table(read("pixelcnn_samples")["samples"]),
        "incomplete": rows_table(read("incomplete")["rows"]),
        "imputation": imputation(read("imputation_tables")["rows"]),
        "range_queries": rows_table(read("range_queries")["rows"]),
        "flow_sizes": flow_sizes(read("flow_sizes")["rows"]),
        "made_starts": made_starts(read("made_starts")["rows"]),
    }
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"):
        text = (root / name).read_text(encoding="utf-8")
        for link, page in LINKS.items():
            text = text.replace(f"]({link})", f"]({page})")
        tables[name.replace("/", "_").lower().removesuffix(".md")] = text.rstrip()
    (folder / "_generated").mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        write(folder / "_generated" / f"{name}.md", text + "\n")


def write(path, text):
    """A file that has changed; what is the same keeps its date."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def number(value):
    """Three figures, and no exponent."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def rows_table(rows):
    header = list(rows[0])
    return markdown(header, [[number(row.get(n, "")) for n in header] for row in rows])


def mean(values):
    return sum(values) / len(values)


def recipes(found):
    rows = [[f"`{name}`", r.about, r.tuned] for name, r in found.items()]
    return markdown(["recipe", "what it is", "what was chosen on validation"], rows)


def which_binary(runs, tables):
    """What each set reached, by which recipe, in how many minutes."""
    lines = []
    for dataset, published in tables.PUBLISHED.items():
        run = tables.chosen(runs, dataset, "ours")
        test = f"{run['test']['nll']:.2f} ± {run['test']['standard_error']:.2f}"
        recipe = tables.RECIPES[run["recipe"]]
        cells = [dataset, test, f"{published['best row']:.2f}", f"`{run['recipe']}`"]
        cells += [recipe.about.removeprefix("ours: ")]
        lines.append([*cells, f"{run['cpu_seconds'] / 120:.1f}"])
    header = ["", "ours", "best published", "recipe", "what it is", "minutes"]
    return markdown(header, lines)


def training(read):
    """Ratios of times, one run a back end."""
    jax = {row["hidden"]: row for row in read("training_jax")["rows"]}
    rows = []
    for row in read("training_tensorflow")["rows"]:
        names = ("MADE / dense", "masked / dense", "32 structures / masked")
        cells = [row["hidden"], *(number(row[name]) for name in names)]
        cells.append(number(row["TFP / dense"]))
        other = jax.get(row["hidden"], {})
        rows.append([*cells, *(number(other.get(name, "")) for name in names)])
    header = ["Hidden units", "MADE / dense", "whole kernels / dense"]
    header += ["cycle of 32 / whole kernels", "TFP / dense"]
    jax_header = ["JAX: MADE / dense", "JAX: whole / dense", "JAX: cycle of 32 / whole"]
    return markdown(header + jax_header, rows)


def sampling(read):
    jax = {(r["D"], r["hidden"]): r for r in read("sampling_jax")["rows"]}
    rows = []
    for row in read("sampling_tensorflow")["rows"]:
        other = jax.get((row["D"], row["hidden"]), {})
        names = ("sample / forward", "D passes / sample")
        cells = [number(r.get(name, "")) for name in names for r in (row, other)]
        rows.append([f"{row['D']}, {row['hidden']}", *cells])
    header = ["D, hidden units", "TensorFlow", "JAX"]
    return markdown([*header, "D passes / ours, TensorFlow", "the same, JAX"], rows)


def flows_speed(found):
    rows = []
    for name, works in found.items():
        ratios = [
            works[w]["ours"] / works[w]["tfp"] for w in ("train", "score", "draw")
        ]
        rows.append([name, *(f"{ratio:.2f}" for ratio in ratios)])
    header = [
        "",
        "training step, 256 rows",
        "scoring 10,000 rows",
        "drawing 1,000 rows",
    ]
    return markdown(header, rows)


def flows_planar(found):
    names = [name for name in next(iter(found.values())) if name != "entropy"]
    rows = [[d, *(f"{row[n]:.3f}" for n in names)] for d, row in found.items()]
    return markdown(["", *names], rows)


def flows_wine(found):
    rows = []
    for name, folds in sorted(found.items(), key=lambda item: -mean(item[1])):
        rows.append([name, f"{mean(folds):.2f}", len(folds)])
    return markdown(["", "test log-likelihood, nats", "folds"], rows)


def grouped(rows, first, second, value):
    """Means, as table[first][second]."""
    found = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row[first]][row[second]].append(row[value])
    return {a: {b: mean(v) for b, v in group.items()} for a, group in found.items()}


def crossed(rows, first, second, value, form):
    found = grouped(rows, first, second, value)
    names = list(dict.fromkeys(row[second] for row in rows))
    lines = [
        [a, *(form.format(group[b]) if b in group else "" for b in names)]
        for a, group in found.items()
    ]
    return markdown(["", *names], lines)


def side_by_side(rows):
    return crossed(rows, "problem", "flow", "test", "{:.3f}")


def posterior(rows):
    lines = []
    for row in rows:
        cells = [row["task"], f"{row['simulations']:,}", row["flow"]]
        published = row.get("published")
        cells += [f"{row['c2st']:.3f}", "" if published is None else f"{published:.3f}"]
        lines.append([*cells, row["observations"]])
    header = ["task", "simulations", "flow", "C2ST", "NPE, published", "observations"]
    return markdown(header, lines)


def imputation(rows):
    """Means of each method over the tables that all have, and each table's AvgMAE."""
    names = ("avg_mae", "min_mae", "w_train")
    found = {name: grouped(rows, "method", "table", name) for name in names}
    tables = [set(own) for own in found["avg_mae"].values()]
    common = sorted(set.intersection(*tables))
    lines = []
    for method in found["avg_mae"]:
        means = [mean([found[n][method][table] for table in common]) for n in names]
        runs = sum(r["method"] == method and r["table"] in common for r in rows)
        lines.append([method, *(f"{value:.3f}" for value in means), runs])
    lines.sort(key=lambda cells: cells[1])
    header = [f"means of {len(common)} tables", "AvgMAE", "MinMAE", "W_train", "runs"]
    by_table = crossed(rows, "table", "method", "avg_mae", "{:.3f}")
    return f"{markdown(header, lines)}\n\nAvgMAE of each table:\n\n{by_table}"


def flow_sizes(rows):
    rows = [row for row in rows if row["flow"] == "SplineMAF"]
    return crossed(rows, "problem", "size", "valid", "{:.2f}")


def made_starts(rows):
    return crossed(rows, "set", "start", "valid", "{:.2f}")
