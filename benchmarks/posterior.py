"""Posteriors of simulators, told from reference draws by a classifier.

    python benchmarks/posterior.py two_moons --simulations 1000 10000 --data FOLDER

A conditional flow of five steps, hidden (50, 50), learns the parameters given the
observation from N simulations, a tenth of which only says when to stop. At each of ten
observations 10,000 draws of it stand beside 10,000 reference draws, and a classifier
tells them apart on folds that it was not trained on: its accuracy, C2ST, is 0.5 when
they are the same. Simulators, observations, reference draws and classifier are those of
Lueckmann, Boelts, Greenberg, Goncalves, Macke 2021, whose figures for neural posterior
estimation (NPE) are printed beside. The recipe is one for all tasks and sizes.

`FOLDER/posteriors/TASK.npz` holds `observation` (10, C) and `reference` (10, 10000, D).
"""

import argparse
import time

import numpy as np
from simulators import TASKS
from timing import (
    choose_backend,
    fit_until_worse,
    load_data,
    print_table,
    save_json,
    steps_together,
)

# NPE with MAF beside MAF, with neural spline flows (NSF) beside SplineMAF. C2ST, means
# of ten observations, at 1,000, 10,000 and 100,000 simulations.
PUBLISHED = {
    ("two_moons", "MAF"): {1000: 0.872, 10_000: 0.814, 100_000: 0.770},
    ("two_moons", "SplineMAF"): {1000: 0.725, 10_000: 0.606, 100_000: 0.542},
    ("gaussian_linear", "MAF"): {1000: 0.694, 10_000: 0.564, 100_000: 0.513},
    ("gaussian_linear", "SplineMAF"): {1000: 0.694, 10_000: 0.552, 100_000: 0.506},
}

# The recipe, chosen on validation nats of two_moons and gaussian_linear with SplineMAF.
# Batch, rate and patience are those of NPE as published. A flow soon knows a thousand
# simulations by heart: dropout, a penalty on kernels that weighs as much as DECAY
# simulations, and the mean of about the last sqrt(N) weights.
BATCH, RATE, PATIENCE, MAX_EPOCHS = 50, 5e-4, 20, 1000
DROPOUT, DECAY = 0.1, 10.0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--simulations", type=int, nargs="+", default=[1000])
    parser.add_argument("--flows", nargs="+", default=["SplineMAF", "MAF"])
    parser.add_argument("--data", help="folder that holds posteriors/TASK.npz")
    parser.add_argument("--observations", type=int, default=10, help="how many, to 10")
    parser.add_argument("--seed", type=int, default=0, help="of simulations and flow")
    parser.add_argument("--backend", default="jax", help="the fastest for small nets")
    parser.add_argument("--json", help="write the rows to this file")
    return parser.parse_args()


def split(rows, num_valid):
    """The rows to train on, and those that say when to stop."""
    theta, x = rows
    return (theta[num_valid:], x[num_valid:]), (theta[:num_valid], x[:num_valid])


def train(kind, task, train_rows, valid_rows, seed):
    """A flow over parameters given the observation in units of its simulations."""
    import keras

    from keras_made import flows

    keras.utils.set_random_seed(seed)
    num_rows = len(train_rows[0]) + len(valid_rows[0])
    flow = getattr(flows, kind)(
        task.size,
        num_steps=5,
        hidden_units=(50, 50),
        context_size=task.context_size,
        support=task.support,
        dropout=DROPOUT,
        kernel_regularizer=keras.regularizers.L2(DECAY / num_rows),
    )
    flow.adapt(train_rows[0])
    num_batches = -(-len(train_rows[0]) // BATCH)
    flow.compile(
        keras.optimizers.Adam(RATE, use_ema=True, ema_momentum=1 - num_rows**-0.5),
        steps_per_execution=steps_together(min(20, num_batches)),
    )
    # The mean of the weights is what is validated, kept, and drawn from.
    average = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    history = fit_until_worse(
        flow, train_rows, valid_rows, BATCH, MAX_EPOCHS, PATIENCE, [average]
    )
    return flow, history


def c2st(reference, draws, seed=1):
    """Mean accuracy over five folds of a classifier of two layers of 10 x D units."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    size = reference.shape[1]
    rows = np.concatenate([reference, draws])
    rows = (rows - reference.mean(axis=0)) / reference.std(axis=0, ddof=1)
    labels = np.repeat([0, 1], [len(reference), len(draws)])
    classifier = MLPClassifier((10 * size,) * 2, max_iter=1000, random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    return float(np.mean(cross_val_score(classifier, rows, labels, cv=folds)))


def measure(name, kind, num_simulations, targets, seed):
    task = TASKS[name]
    theta, x = task.simulate(num_simulations, seed)
    loc, scale = x.mean(axis=0), x.std(axis=0)
    start = time.perf_counter()
    rows = split((theta, (x - loc) / scale), num_simulations // 10)
    flow, history = train(kind, task, *rows, seed)
    seconds = time.perf_counter() - start
    accuracies = []
    for index, (observation, reference) in enumerate(targets):
        context = ((observation - loc) / scale).astype("float32")
        draws = flow.sample(len(reference), context=context, seed=index, verbose=0)
        accuracies.append(c2st(reference, np.asarray(draws, reference.dtype)))
        print(f"   observation {index + 1:2d}: {accuracies[-1]:.3f}", flush=True)
    return {
        "task": name,
        "simulations": num_simulations,
        "flow": kind,
        "c2st": float(np.mean(accuracies)),
        "published": PUBLISHED.get((name, kind), {}).get(num_simulations),
        "validation nats": min(history),
        "epochs": len(history),
        "training seconds": seconds,
        "seed": seed,
        "each observation": accuracies,
    }


def main():
    arguments = parse()
    choose_backend(arguments.backend)
    data = load_data(f"posteriors/{arguments.task}", arguments.data)
    targets = list(zip(data["observation"], data["reference"], strict=True))
    targets = targets[: arguments.observations]
    rows = []
    for num_simulations in arguments.simulations:
        for kind in arguments.flows:
            print(
                f"{arguments.task}, {num_simulations} simulations, {kind}", flush=True
            )
            rows.append(
                measure(arguments.task, kind, num_simulations, targets, arguments.seed)
            )
            # After every row: the long ones come last.
            save_json(arguments.json, rows)
    shown = [{k: v for k, v in row.items() if k != "each observation"} for row in rows]
    print_table("C2ST, mean of the observations; 0.5 is perfect", shown)


if __name__ == "__main__":
    main()
