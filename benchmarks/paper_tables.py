"""The binary tables of the MADE paper, run again, with the paper's recipe and ours.

    python benchmarks/paper_tables.py dna --recipe paper --data FOLDER
    python benchmarks/paper_tables.py --table
    python benchmarks/paper_tables.py --curves curves.png
    python benchmarks/paper_tables.py binarized_mnist --recipe pixelcnn --samples x.png

A run trains on `train`, chooses the round on `valid`, scores `test` once and writes one
JSON file into `benchmarks/results/`. It says beforehand about how long it takes; when
it is killed and started again, it goes on. `--no-test` leaves the test set alone: this
is how recipes are compared. The table and the curves are made from the JSON files and
nothing else; of several recipes of ours, the table shows the one with the best
validation figure.

KERAS_BACKEND=jax trains about twice as fast as TensorFlow on two CPU cores.
"""

import argparse
import itertools
import json
from pathlib import Path

from paper_recipes import CAVEATS, PUBLISHED, RECIPES

RESULTS = Path(__file__).parent / "results"
ROWS = ("MADE", "MADE, masks", "best row")


def read_results(folder: Path = RESULTS) -> list[dict]:
    paths = sorted(Path(folder).glob("*.json"))
    results = [json.loads(path.read_text()) for path in paths]
    return [result for result in results if result.get("recipe") in RECIPES]


def kind_of(recipe: str) -> str:
    for kind in ("paper_masks", "paper"):
        if recipe.startswith(kind):
            return kind
    return "ours"


def chosen(results: list[dict], dataset: str, kind: str) -> dict | None:
    """The run with the best validation figure.

    Args:
        results: of `read_results`.
        dataset: name of the data set.
        kind: `"paper"`, `"paper_masks"` or `"ours"`: the recipes to choose from.
    """
    candidates = [
        result
        for result in results
        if result["dataset"] == dataset and kind_of(result["recipe"]) == kind
    ]
    return min(candidates, key=lambda result: result["valid"]["nll"], default=None)


def table(results: list[dict]) -> str:
    """The README's table, in Markdown: test negative log-likelihood in nats."""
    lines = [
        "| | MADE | its recipe | MADE, masks | its recipe | best published | ours | "
        "recipe | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for dataset, published in PUBLISHED.items():
        ours = chosen(results, dataset, "ours")
        figures = [f"{published[n]:.2f}" if n in published else "" for n in ROWS]
        cells = [
            dataset + ("*" if dataset in CAVEATS else ""),
            figures[0],
            _figure(chosen(results, dataset, "paper")) if figures[0] else "",
            figures[1],
            _figure(chosen(results, dataset, "paper_masks")) if figures[1] else "",
            figures[2],
            _figure(ours),
            ours["recipe"] if ours else "",
            f"{ours['cpu_seconds'] / 120:.1f}" if ours else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"\\* {dataset}: {text}." for dataset, text in CAVEATS.items()]
    return "\n".join([*lines, "", *notes])


def _figure(result):
    if result is None or "test" not in result:
        return "not run"
    test = result["test"]
    return f"{test['nll']:.2f} ± {test['standard_error']:.2f}"


def attempts(results: list[dict]) -> str:
    """Every run with its validation figure, best first, in Markdown."""
    lines = [
        "| | recipe | valid | test | steps | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for dataset in PUBLISHED:
        runs = [result for result in results if result["dataset"] == dataset]
        for run in sorted(runs, key=lambda run: run["valid"]["nll"]):
            cells = [
                dataset,
                run["recipe"],
                f"{run['valid']['nll']:.2f}",
                _figure(run),
                str(sum(history["step"][-1] for history in run["histories"])),
                f"{run['cpu_seconds'] / 120:.1f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_curves(results: list[dict], path: Path) -> None:
    """Validation figures over the updates, one panel per data set."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    # What a recipe puts together has curves of its own.
    results = [r for r in results if not RECIPES[r["recipe"]].parts]
    names = [d for d in PUBLISHED if any(r["dataset"] == d for r in results)]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.8 * rows), squeeze=False
    )
    recipes = [name for name in RECIPES if any(r["recipe"] == name for r in results)]
    palette = plt.get_cmap("tab20").colors
    colors = dict(zip(recipes, itertools.cycle(palette), strict=False))
    for axis, dataset in zip(axes.flat, names, strict=False):
        runs = [result for result in results if result["dataset"] == dataset]
        for run in runs:
            color = colors[run["recipe"]]
            for history in run["histories"]:
                axis.plot(history["step"], history["valid_nll"], color=color, lw=1.2)
        lowest = [min(h["valid_nll"]) for run in runs for h in run["histories"]]
        best, worst = min(lowest), max(lowest)
        margin = max(0.02 * best, worst - best)
        axis.set_ylim(best - 0.15 * margin, worst + 1.5 * margin)
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(dataset, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_axis_off()
    handles = [plt.Line2D([], [], color=colors[name], label=name) for name in recipes]
    figure.legend(handles=handles, loc="lower center", ncols=6, frameon=False)
    figure.supxlabel("updates", fontsize=9, y=0.12)
    figure.supylabel("validation NLL (nats)", fontsize=9)
    figure.tight_layout(rect=(0.01, 0.12, 1, 1))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_samples(samples, path: Path) -> None:
    """A square of images."""
    from keras_made.plots import plot_samples

    side = round(samples[0].size ** 0.5)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    plot_samples(samples.reshape(-1, side, side)).savefig(path, dpi=80)


def train(args) -> None:
    from paper_runs import Run, expected_seconds, load

    recipe, data = RECIPES[args.recipe], load(args.dataset, args.data)
    run = Run(
        args.dataset, args.recipe, recipe, data, args.work, args.results, args.seed
    )
    minutes = expected_seconds(recipe, data) / 60
    print(
        f"{run.key}: {recipe.about}. At most about {minutes:.1f} minutes on two cores; "
        "it can be killed and started again.",
        flush=True,
    )
    run.train(lambda line: print(line, flush=True))
    result = run.finish(test=not args.no_test)
    for part in ("valid", "test"):
        if part in result:
            score = result[part]
            print(
                f"{part}: {score['nll']:.3f} ± {score['standard_error']:.3f} nats, "
                f"{score['rows']} rows, {score['networks']} networks, a mixture of "
                f"{score['mixed']} x {score['structures']}"
            )
    print(f"written to {run.result_path}")
    if args.samples:
        draw_samples(run.sample(64), args.samples)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", choices=PUBLISHED)
    parser.add_argument("--recipe", choices=RECIPES, default="orderings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder of the .npz files (or KERAS_MADE_DATA)")
    parser.add_argument("--work", default="out/paper_tables", help="to go on from")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of JSON files")
    parser.add_argument("--no-test", action="store_true", help="validation alone")
    parser.add_argument("--table", action="store_true", help="print the table")
    parser.add_argument("--attempts", action="store_true", help="print every run")
    parser.add_argument("--curves", type=Path, metavar="PNG", help="draw the histories")
    parser.add_argument("--samples", type=Path, metavar="PNG", help="of an image set")
    args = parser.parse_args()
    if args.table:
        print(table(read_results(args.results)))
    if args.attempts:
        print(attempts(read_results(args.results)))
    if args.curves:
        draw_curves(read_results(args.results), args.curves)
    if args.dataset:
        train(args)
    elif not (args.table or args.attempts or args.curves):
        parser.error("name a data set, or pass --table, --attempts or --curves PNG")


if __name__ == "__main__":
    main()
