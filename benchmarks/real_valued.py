"""Real columns and grey levels: red wine in nats, Frey faces in bits per dimension.

    python benchmarks/real_valued.py wine --data FOLDER
    python benchmarks/real_valued.py faces --data FOLDER

Wine: MADE with mixtures of normals, order-agnostic, on the ten folds of the RNADE
papers. Each fold is standardised by its training rows; a tenth of them, drawn at
random, says when to stop; the test rows are scored once. Beside it a single Gaussian
with full covariance, fitted to the same training rows. The table's columns are rounded
measurements (57 to 395 values each), so narrow components could score without bound by
sitting on the values: `min_scale` is a hundredth of a standard deviation at least.

Faces: MADE with mixtures of discretised logistics, 256 grey levels, the first 1565
frames to train, the next 200 to stop, the last 200 to test. Beside it a Gaussian with
shrunk covariance over the grey levels (its density at an integer is close to the mass
of a bin of width one).
"""

import argparse
import time

import keras
import numpy as np
from timing import load_data, save_json

import keras_made as km

PUBLISHED = {"RNADE family, as published": -8.76}


def train(model, learning_rate, x, valid, epochs, patience):
    model.compile(keras.optimizers.AdamW(learning_rate, weight_decay=1e-3))
    callbacks = [
        keras.callbacks.EarlyStopping(
            "val_nll", mode="min", patience=patience, restore_best_weights=True
        ),
        keras.callbacks.ReduceLROnPlateau(
            "val_nll", mode="min", factor=0.3, patience=max(2, patience // 3)
        ),
    ]
    history = model.fit(
        x,
        epochs=epochs,
        batch_size=100,
        validation_data=valid,
        callbacks=callbacks,
        verbose=0,
    ).history
    return len(history["nll"]), min(history["val_nll"])


# Red wine -----------------------------------------------------------------------------


def wine_folds(data):
    tests = [data[f"fold{i}_test"].astype("float64") for i in range(1, 11)]
    for fold, test in enumerate(tests):
        rest = np.concatenate([t for i, t in enumerate(tests) if i != fold])
        order = np.random.RandomState(fold).permutation(len(rest))
        cut = len(rest) // 10
        valid, x = rest[order[:cut]], rest[order[cut:]]
        mean, std = x.mean(axis=0), x.std(axis=0)
        yield [((part - mean) / std).astype("float32") for part in (x, valid, test)]


def make_wine_model(args, seed):
    keras.utils.set_random_seed(seed)
    network = km.MADE(
        [args.units, args.units],
        3 * args.components,
        ordering="random",
        num_masks=args.masks,
        residual=True,
        dropout=args.dropout,
        seed=seed,
    )
    return km.AutoregressiveDensity(
        network, km.MixtureOfNormals(args.components, min_scale=args.min_scale)
    )


def gaussian_log_prob(x, test, covariance=None):
    """Mean log-density of `test` in nats under one Gaussian fitted to `x`."""
    x, test = x.astype("float64"), test.astype("float64")
    covariance = np.cov(x.T, bias=True) if covariance is None else covariance
    root = np.linalg.cholesky(covariance)
    z = np.linalg.solve(root, (test - x.mean(axis=0)).T)
    size = x.shape[1]
    log_det = np.log(np.diag(root)).sum() + size / 2 * np.log(2 * np.pi)
    return float(np.mean(-0.5 * np.sum(z**2, axis=0)) - log_det)


def run_wine(args):
    rows, start = [], time.time()
    for fold, (x, valid, test) in enumerate(
        wine_folds(load_data("red_wine", args.data))
    ):
        if fold >= args.folds:
            break
        model = make_wine_model(args, fold)
        rounds, best = train(model, args.rate, x, valid, args.epochs, 30)
        row = {"valid": -best, "epochs": rounds, "gaussian": gaussian_log_prob(x, test)}
        if not args.no_test:
            row["test"] = -model.evaluate(test, verbose=0)
        rows.append(row)
        print(f"fold {fold + 1}:", {k: round(v, 2) for k, v in row.items()}, flush=True)
    means = {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}
    if not args.no_test:
        error = np.std([row["test"] for row in rows], ddof=1) / np.sqrt(len(rows))
        means["standard_error"] = float(error)
    print("mean over folds:", {k: round(v, 2) for k, v in means.items()})
    print(PUBLISHED, f"{time.time() - start:.0f} s")
    return {"folds": rows, "mean": means, "seconds": time.time() - start}


# Frey faces ---------------------------------------------------------------------------


def gaussian_bits(x, test):
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(x.astype("float64"))
    nats = -gaussian_log_prob(x, test, covariance)
    return nats / x.shape[1] / np.log(2)


def run_faces(args):
    data, start = load_data("frey_faces", args.data), time.time()
    x, valid, test = (data[k].astype("float32") for k in ("train", "valid", "test"))
    keras.utils.set_random_seed(0)
    network = km.MADE([500], 9, activation="gelu", dropout=0.2)
    model = km.AutoregressiveDensity(network, km.MixtureOfLogistics(3, 256))
    rounds, best = train(model, 1e-3, x, valid, args.epochs, 8)
    bits = model.evaluate(test, verbose=0, return_dict=True)["bits_per_dim"]
    result = {
        "test_bits_per_dim": bits,
        "valid_bits_per_dim": best / 560 / np.log(2),
        "gaussian_bits_per_dim": gaussian_bits(x, test),
        "epochs": rounds,
        "seconds": time.time() - start,
    }
    print({k: round(v, 2) for k, v in result.items()})
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["wine", "faces"])
    parser.add_argument("--data", help="folder of the .npz files")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--no-test", action="store_true", help="compare recipes only")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--masks", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--min-scale", type=float, default=0.01)
    parser.add_argument("--rate", type=float, default=2e-3)
    args = parser.parse_args()
    result = run_wine(args) if args.task == "wine" else run_faces(args)
    result["arguments"] = {k: v for k, v in vars(args).items() if k != "data"}
    save_json(args.json, result)


if __name__ == "__main__":
    main()
