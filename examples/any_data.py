"""One call for bits, numbers, images, and rows with holes: `fit_density`.

    python examples/any_data.py [--minutes 0.3] [--quick] [--out any_data.png]

Each data set is drawn from a process that is known, so that its entropy, where it can
be written down, says what no density can be better than. The picture shows the
validation nats of everything that was tried, what was taken, and the entropy.
"""

import argparse
from pathlib import Path

import numpy as np

import keras_made as km


def bits(rng, rows):
    """A chain of twelve bits, each of which mostly repeats the one before."""
    x = np.zeros((rows, 12), "float32")
    x[:, 0] = rng.uniform(size=rows) < 0.5
    for i in range(1, 12):
        repeats = rng.uniform(size=rows) < 0.9
        x[:, i] = np.where(repeats, x[:, i - 1], 1 - x[:, i - 1])
    entropy = np.log(2) - 11 * (0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    return x, entropy


def numbers(rng, rows):
    """A point on a ring, and what follows from it, with noise."""
    angle = rng.uniform(0, 2 * np.pi, rows)
    x = np.stack([angle, np.sin(angle), np.cos(2 * angle)], axis=1)
    x[:, 1:] += 0.1 * rng.normal(size=(rows, 2))
    entropy = np.log(2 * np.pi) + np.log(2 * np.pi * np.e * 0.01)
    return x.astype("float32"), entropy


def images(rng, rows):
    """A rectangle on eight by eight pixels, of which every hundredth is wrong."""
    corners = np.sort(rng.randint(9, size=(2, rows, 2)), axis=-1)
    low, high = corners[..., 0, None], corners[..., 1, None]
    inside = (np.arange(8) >= low) & (np.arange(8) < high)
    x = inside[0][:, :, None] & inside[1][:, None, :]
    return (x ^ (rng.uniform(size=x.shape) < 0.01)).astype("float32"), None


def holes(x, rng):
    return np.where(rng.uniform(size=x.shape) < 0.3, np.nan, x).astype("float32")


def draw(results, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4 * len(results), 3))
    for axis, (name, (choice, entropy)) in zip(axes, results.items(), strict=True):
        names = [f"{i + 1} {one['name']}" for i, one in enumerate(choice)]
        colors = ["tab:blue" if one["taken"] else "lightgrey" for one in choice]
        axis.barh(names, [one["valid"] for one in choice], color=colors)
        if entropy is not None:
            axis.axvline(entropy, color="black", linestyle=":", label="entropy")
            axis.legend()
        axis.invert_yaxis()
        axis.set_title(name)
        axis.set_xlabel("validation nats (blue: taken)")
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.3, help="of each fit")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--out", default="any_data.png")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.minutes, args.rows = 0.03, 500
    rng = np.random.RandomState(0)
    sets = {"bits": bits(rng, args.rows), "numbers": numbers(rng, args.rows)}
    sets["images"] = images(rng, args.rows)
    sets["bits with holes"] = (holes(sets["bits"][0], rng), None)
    results = {}
    for name, (x, entropy) in sets.items():
        print(f"\n{name}")
        model = km.fit_density(x, minutes=args.minutes)
        results[name] = (model.choice, entropy)
        if entropy is not None:
            print(f"entropy of the process: {entropy:.3f} nats")
    completed = model.impute(x[:5], seed=0, verbose=0)
    print("\nfive rows with holes, completed:")
    print(np.asarray(completed).astype(int))
    draw(results, args.out)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
