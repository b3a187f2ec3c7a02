"""One run of `paper_tables.py`: train, choose on validation, score the test set once.

A run can be killed at any time. It keeps all that it needs in one file and goes on
from there: weights, the optimizer, the cycle of structures, dropout's noise, and the
best weights so far. Rows are shuffled by the seed and the number of the round, so a
run that was interrupted ends with the numbers of one that was not.
"""

import itertools
import json
import math
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
from paper_recipes import RECIPES, Recipe
from timing import load_data

import keras_made
from keras_made import (
    MADE,
    AutoregressiveDensity,
    Categorical,
    NetworkAverage,
    PixelCNN,
)

# Multiply-adds that two cores finish in a second, all told; measured, and rounded.
PRODUCTS_PER_SECOND = 2.5e10
SECONDS_BETWEEN_SAVES = 20.0
OF_MADE = [
    "hidden_units",
    "activation",
    "ordering",
    "hidden_degrees",
    "num_masks",
    "direct",
    "residual",
    "companion",
    "dropout",
    "kernel_initializer",
]


def load(dataset: str, folder: str | None) -> dict[str, np.ndarray]:
    """The parts `train`, `valid` and `test` of a data set, float32 `(n, D)`."""
    with load_data(dataset, folder) as arrays:
        parts = ("train", "valid", "test")
        return {part: arrays[part].astype("float32") for part in parts}


def passes_per_round(recipe: Recipe, num_rows: int) -> int:
    passes = max(1, round(recipe.round_rows / num_rows))
    return min(passes, recipe.round_passes)


def steps_per_round(recipe: Recipe, num_rows: int) -> int:
    return math.ceil(passes_per_round(recipe, num_rows) * num_rows / recipe.batch_size)


def max_steps(recipe: Recipe, num_rows: int) -> int:
    return min(recipe.steps, math.ceil(recipe.passes * num_rows / recipe.batch_size))


def max_rounds(recipe: Recipe, num_rows: int) -> int:
    return math.ceil(max_steps(recipe, num_rows) / steps_per_round(recipe, num_rows))


def members(recipe: Recipe, wanted: int) -> range:
    """The structures whose mixture is scored."""
    return range(min(recipe.num_masks, wanted))


def make_model(
    recipe: Recipe, train: np.ndarray, seed: int, order_seed: int
) -> AutoregressiveDensity:
    """A compiled density for the data; it is scored with few members while it trains.

    The biases of MADE's outputs start at the logits of the training set's means.
    """
    keras.utils.set_random_seed(seed)
    structures = members(recipe, recipe.valid_members)
    network = make_network(recipe, train.shape[1:], order_seed)
    model = AutoregressiveDensity(network, "bernoulli", structures=structures)
    model.build(train.shape)
    if recipe.pixelcnn is None:
        # Without hidden layers, the direct connections have the biases.
        last = network.output_layer or network.direct_layer
        last.bias.assign(_logits_of_means(train))
    # XLA's convolutions are slow on CPUs; JAX has no other.
    jit_compile = recipe.pixelcnn is None or keras.backend.backend() == "jax"
    model.compile(make_optimizer(recipe, len(train)), jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


def make_network(recipe: Recipe, event_shape: tuple, seed: int):
    if recipe.pixelcnn is not None:
        units, num_layers, kernel_size = recipe.pixelcnn
        return PixelCNN(
            event_shape, units, num_layers=num_layers, kernel_size=kernel_size
        )
    settings = {name: getattr(recipe, name) for name in OF_MADE}
    if recipe.ordering == "both ways":
        settings["ordering"] = ("natural", "reversed")[seed % 2]
    encoder = Categorical(2) if recipe.one_hot else None
    if recipe.l1:
        settings["kernel_regularizer"] = keras.regularizers.L1(recipe.l1)
    # Recipes were chosen with output kernels that start as large as the others.
    return MADE(**settings, output_scale=1.0, encoder=encoder, seed=seed)


def as_events(recipe: Recipe, rows: np.ndarray) -> np.ndarray:
    """Rows as the recipe's network takes them: vectors, or square images."""
    if recipe.turned:
        rows = rows[:, ::-1]
    if recipe.pixelcnn is None:
        return rows
    side = math.isqrt(rows.shape[1])
    return rows.reshape(-1, side, side)


def _logits_of_means(train):
    means = (train.sum(axis=0) + 0.5) / (len(train) + 1.0)
    return np.log(means) - np.log1p(-means)


def make_optimizer(recipe: Recipe, num_rows: int) -> keras.optimizers.Optimizer:
    if recipe.optimizer == "adadelta":
        rate, epsilon = recipe.learning_rate, recipe.epsilon
        return keras.optimizers.Adadelta(rate, rho=0.95, epsilon=epsilon)
    if recipe.optimizer == "adagrad":
        return keras.optimizers.Adagrad(recipe.learning_rate)
    steps = max_rounds(recipe, num_rows) * steps_per_round(recipe, num_rows)
    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def expected_seconds(recipe: Recipe, data: dict) -> float:
    """About how long a run takes on two cores, when it uses all its steps."""
    if recipe.parts:
        return sum(expected_seconds(RECIPES[name], data) for name in recipe.parts)
    num_rows, size = data["train"].shape
    products = products_of_a_pass(recipe, size)
    scored = len(data["valid"]) * len(members(recipe, recipe.valid_members))
    rows = 3 * max_steps(recipe, num_rows) * recipe.batch_size
    rows += max_rounds(recipe, num_rows) * scored
    last = len(members(recipe, recipe.test_members))
    rows += last * (len(data["valid"]) + len(data["test"]))
    rows *= recipe.networks * recipe.averaged
    return rows * products / PRODUCTS_PER_SECOND


def products_of_a_pass(recipe: Recipe, size: int) -> int:
    """Multiply-adds for one row."""
    if recipe.pixelcnn is not None:
        units, layers, kernel_size = recipe.pixelcnn
        half = kernel_size // 2 + 1
        convolved = 2 * units**2 * kernel_size * (half + 1)
        return size * layers * (convolved + 5 * units**2)
    widths = [size, *recipe.hidden_units, size]
    weights = sum(a * b for a, b in itertools.pairwise(widths))
    return weights + recipe.direct * size**2 + recipe.one_hot * size * widths[1]


class Training:
    """One network, trained to its best round on validation.

    Args:
        recipe: its settings.
        data: arrays `train` and `valid`.
        state_path: the file from which an interrupted training goes on.
        seed: of everything random but the structure.
        order_seed: of orderings and degrees. None: `seed`.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: dict,
        state_path: Path,
        seed: int,
        order_seed: int | None = None,
    ):
        self.recipe, self.data, self.seed = recipe, data, seed
        self.order_seed = seed if order_seed is None else order_seed
        self.state_path = state_path

    def train(self, report) -> None:
        """Train to the end, from wherever an earlier call was interrupted.

        Args:
            report: called with one line per round.
        """
        self.model = make_model(
            self.recipe, self.events("train"), self.seed, self.order_seed
        )
        self.log = {
            "seed": self.seed,
            "settings": settings_of(self.recipe),
            "history": {"step": [], "train_nll": [], "valid_nll": []},
            "seconds": 0.0,
            "cpu_seconds": 0.0,
        }
        self.best = self.model.get_weights()
        self._restore()
        saved = time.monotonic()
        while not self.finished:
            self._round()
            report(self._line())
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES or self.finished:
                self._save()
                saved = time.monotonic()
        self.model.set_weights(self.best)

    @property
    def rounds(self) -> int:
        return len(self.log["history"]["step"])

    @property
    def best_round(self) -> int:
        return int(np.argmin(self.log["history"]["valid_nll"]))

    @property
    def finished(self) -> bool:
        if self.rounds == 0:
            return False
        waited = self.rounds - 1 - self.best_round
        last = max_rounds(self.recipe, len(self.data["train"]))
        return self.rounds >= last or waited >= self.recipe.patience

    def events(self, part: str) -> np.ndarray:
        return as_events(self.recipe, self.data[part])

    def _round(self):
        clock, cpu = time.perf_counter(), time.process_time()
        train, history = self.events("train"), self.log["history"]
        rng = np.random.default_rng([self.seed, self.rounds])
        passes = passes_per_round(self.recipe, len(train))
        rows = np.concatenate([rng.permutation(len(train)) for _ in range(passes)])
        batch_size = self.recipe.batch_size
        fitted = self.model.fit(
            train[rows], batch_size=batch_size, shuffle=False, verbose=0
        )
        steps = steps_per_round(self.recipe, len(train))
        valid_nll = -float(np.mean(scores(self.model, self.events("valid"))))
        history["step"].append((self.rounds + 1) * steps)
        history["train_nll"].append(float(fitted.history["nll"][-1]))
        history["valid_nll"].append(valid_nll)
        if self.best_round == self.rounds - 1:
            self.best = self.model.get_weights()
        self.log["seconds"] += time.perf_counter() - clock
        self.log["cpu_seconds"] += time.process_time() - cpu

    def _line(self):
        history = {key: values[-1] for key, values in self.log["history"].items()}
        return (
            f"{self.state_path.stem}: step {history['step']}, "
            f"train {history['train_nll']:.3f}, valid {history['valid_nll']:.3f}, "
            f"best {min(self.log['history']['valid_nll']):.3f}, "
            f"{self.log['seconds']:.0f} s"
        )

    def _variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def _save(self):
        arrays = {f"v{i}": np.asarray(v) for i, v in enumerate(self._variables())}
        arrays |= {f"best{i}": w for i, w in enumerate(self.best)}
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.state_path.with_suffix(".tmp.npz")
        np.savez(unfinished, log=json.dumps(self.log), **arrays)
        os.replace(unfinished, self.state_path)

    def _restore(self):
        if not self.state_path.exists():
            return
        with np.load(self.state_path) as state:
            log = json.loads(str(state["log"]))
            # A setting that came later had its default.
            settings = settings_of(Recipe(about="")) | log["settings"]
            if settings != self.log["settings"]:
                raise ValueError(
                    f"{self.state_path} is of a run with other settings. Remove it to "
                    "train anew."
                )
            self.log = log
            for i, variable in enumerate(self._variables()):
                variable.assign(state[f"v{i}"])
            self.best = [state[f"best{i}"] for i in range(len(self.best))]


class Average:
    """Trained networks of one ordering, as one: the average of one is itself.

    Args:
        trainings: of these networks.
    """

    def __init__(self, trainings: list[Training]):
        self.trainings = trainings

    @property
    def structures(self) -> range:
        """Those that are mixed."""
        recipe = self.trainings[0].recipe
        return members(recipe, recipe.test_members)

    def model(self) -> AutoregressiveDensity:
        networks = [training.model.network for training in self.trainings]
        network = networks[0] if len(networks) == 1 else NetworkAverage(networks)
        return AutoregressiveDensity(network, "bernoulli", structures=self.structures)

    def score(self, part: str) -> np.ndarray:
        """log p of each row of a part under the mixture of all that are scored."""
        # The events of a PixelCNN are images, which a MADE beside it takes as vectors.
        events = [training.events(part) for training in self.trainings]
        return scores(self.model(), max(events, key=np.ndim))


class Run:
    """A data set, a recipe and a seed.

    Args:
        dataset: name of the data set.
        name: name of the recipe.
        recipe: its settings.
        data: arrays `train`, `valid`, `test`.
        work: folder of the files from which an interrupted run goes on.
        results: folder of the JSON file.
        seed: of everything random, in the first network.
    """

    def __init__(self, dataset, name, recipe, data, work, results, seed=0):
        self.dataset, self.name, self.recipe, self.seed = dataset, name, recipe, seed
        self.data = data
        self.key = key_of(dataset, name, seed)
        self.result_path = Path(results) / f"{self.key}.json"
        self.work = Path(work)
        self.averages = self._averages(name, recipe)

    def _averages(self, name, recipe):
        """What is mixed."""
        if recipe.parts:
            averages = [self._averages(part, RECIPES[part]) for part in recipe.parts]
            averages = list(itertools.chain(*averages))
            if recipe.mixture:
                return averages
            return [Average([t for each in averages for t in each.trainings])]
        return [
            Average(
                [self._training(name, recipe, i, j) for j in range(recipe.averaged)]
            )
            for i in range(recipe.networks)
        ]

    def _training(self, name, recipe, i, j):
        index = i * recipe.averaged + j
        path = self.work / f"{key_of(self.dataset, name, self.seed)}-{index}.npz"
        return Training(recipe, self.data, path, self.seed + index, self.seed + i)

    @property
    def trainings(self) -> list[Training]:
        return [training for average in self.averages for training in average.trainings]

    def train(self, report=print) -> None:
        """Train the networks one after the other; an interrupted run goes on."""
        for training in self.trainings:
            training.train(report)

    def finish(self, test: bool = True) -> dict:
        """Score the mixture of all networks and structures; write the JSON file.

        Args:
            test: whether to score the test set: once, when nothing is left to choose.
        """
        result = self.describe() | {"valid": self._score("valid")}
        if test:
            result["test"] = self._score("test")
        self.result_path.parent.mkdir(parents=True, exist_ok=True)
        self.result_path.write_text(json.dumps(result, indent=1) + "\n")
        return result

    def sample(self, num_samples: int) -> np.ndarray:
        """Draws of the first network, or average."""
        model = self.averages[0].model()
        return keras.ops.convert_to_numpy(model.sample(num_samples, seed=self.seed))

    def _score(self, part):
        log_probs = np.stack([average.score(part) for average in self.averages])
        log_prob = np.logaddexp.reduce(log_probs) - math.log(len(log_probs))
        return {
            "nll": -float(log_prob.mean()),
            "standard_error": float(log_prob.std(ddof=1) / math.sqrt(len(log_prob))),
            "rows": len(log_prob),
            "networks": len(self.trainings),
            "mixed": len(log_probs),
            "structures": len(self.averages[0].structures),
            "nll_of_mixed": [-float(each.mean()) for each in log_probs],
        }

    def describe(self) -> dict:
        """All of the run but its figures."""
        backend = keras.backend.backend()
        logs = [training.log for training in self.trainings]
        return {
            "dataset": self.dataset,
            "recipe": self.name,
            "seed": self.seed,
            "settings": settings_of(self.recipe),
            "tuned_on_validation": self.recipe.tuned,
            "parameters": sum(
                training.model.network.count_params() for training in self.trainings
            ),
            "seconds": sum(log["seconds"] for log in logs),
            "cpu_seconds": sum(log["cpu_seconds"] for log in logs),
            "best_rounds": [training.best_round for training in self.trainings],
            "histories": [log["history"] for log in logs],
            "versions": {
                "python": platform.python_version(),
                "keras_made": keras_made.__version__,
                "keras": keras.__version__,
                "backend": backend,
                backend: __import__(backend).__version__,
                "numpy": np.__version__,
            },
        }


def key_of(dataset: str, name: str, seed: int) -> str:
    return f"{dataset}-{name}" + (f"-seed{seed}" if seed else "")


def settings_of(recipe: Recipe) -> dict:
    """The settings as JSON gives them back; what only a reader needs is left out."""
    texts = ("about", "tuned")
    settings = json.loads(json.dumps(asdict(recipe)))
    return {key: value for key, value in settings.items() if key not in texts}


def scores(model: AutoregressiveDensity, x: np.ndarray) -> np.ndarray:
    """log p of each row, float64."""
    log_prob = model.log_prob(x, verbose=0)
    return keras.ops.convert_to_numpy(log_prob).astype("float64")
