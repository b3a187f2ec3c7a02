"""From rows to a good density with no decisions: `fit_density`.

Everything here can be done by hand: `recipes.candidates` holds the networks and their
rates, `recipes.budget` how the rate falls, and this file trains, compares and mixes.
"""

import math
import time
from collections import Counter
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_made.checks import check_finite, to_array
from keras_made.densities.ensemble import Ensemble
from keras_made.entries import Bernoulli, get
from keras_made.networks.average import NetworkAverage
from keras_made.recipes import mixed
from keras_made.recipes.budget import Budget, check_minutes
from keras_made.recipes.candidates import (
    Candidate,
    build_density,
    candidates,
    default_conditional,
)
from keras_made.recipes.starts import has_few, start_at_copula
from keras_made.tables.table_density import TableDensity

# Updates between two looks at the validation rows, and those without a better one
# after which a training ends.
STEPS_OF_A_ROUND, PATIENT_STEPS, MOST_PASSES_OF_A_ROUND = 500, 2500, 10
# Shares of the time: for all candidates, and for the first if it takes so long. At most
# so many are trained after these; near the best is who has a tenth more nats.
FIRST, ALONE, MOST_MORE, NEAR = 0.6, 0.9, 5, 0.1
# Below so many validation rows also what makes a mixture no clearly worse is mixed.
FEW_VALID_ROWS = 100
VALID_SHARE, MOST_VALID_ROWS = 0.1, 5000


def fit_density(
    x,
    conditional=None,
    *,
    validation_data=None,
    context=None,
    minutes: float = 10,
    verbose="auto",
):
    """Train a good density of some rows within a number of minutes.

    What is tried depends on the rows: a network in one order, many orders, few weights
    for few rows of bits; a deep NADE and a flow for real numbers; a deep NADE for rows
    with holes; `TableDensity` for a DataFrame; for images a network in one order and a
    PixelCNN, and their average, entry by entry, where these are bits or classes. Rows
    of bits that are images, laid out row by row, are told by columns that are alike
    (`recipes.images`).

    Where rows are few and not bits alone, Gaussians are tried too
    (`recipes.gaussians`), and all others are first trained on draws of a Gaussian
    copula of the rows (`recipes.starts`). Each is trained until its validation no
    longer gains. In the time that is left those that were cut short are trained for
    longer, then more of the best, from other seeds and in other orders, and all that
    make the mixture better on the validation rows are mixed.

    Args:
        x: rows `(n, D)`, or images `(n, height, width)` or `(n, height, width,
            channels)`, NaN where missing; or a DataFrame of pandas.
        conditional: of the entries; None: bits where a column holds 0 and 1 alone, a
            mixture of normals heard in pieces elsewhere; in images whose values are
            integers from 0 to 255, a mixture of logistics.
        validation_data: rows to choose and to stop by; with `context`, a tuple
            `(rows, context)`. None: a tenth of `x`, at most 5,000.
        context: `(n, C)`, what the density is conditional on.
        minutes: about as many at most, compilations included.
        verbose: 0: nothing; else a line for each training, and what was chosen.

    Returns:
        A trained model: an `AutoregressiveDensity`, a flow, an `Ensemble` of these, or
        a `TableDensity`. `model.choice` is a list of dicts, one for each training:
        name, why, validation nats, seconds, and whether it was taken.

    Raises:
        ValueError: for rows or minutes that are none.

    Example:
        >>> import numpy as np
        >>> x = (np.random.RandomState(0).rand(300, 4) < 0.3).astype("float32")
        >>> model = fit_density(x, minutes=0.02, verbose=0)
        >>> tuple(model.sample(5, seed=0).shape)
        (5, 4)
    """
    check_minutes(minutes)
    if hasattr(x, "to_pandas") or (hasattr(x, "columns") and hasattr(x, "dtypes")):
        return _fit_frame(x, conditional, validation_data, context, minutes, verbose)
    x, context = _check_rows("x", x), _check_context(context, x)
    conditional = default_conditional(x) if conditional is None else get(conditional)
    train, valid = _split(x, context, validation_data)
    search = _Search(train, valid, conditional, 60.0 * minutes, verbose)
    return search.run()


def _fit_frame(frame, conditional, validation_data, context, minutes, verbose):
    if conditional is not None or context is not None:
        raise ValueError(
            "A DataFrame says itself what its columns are. Received: `conditional` or "
            "`context`. Override columns by `Schema.from_frame(frame, ...)` and "
            "`TableDensity(schema)`, or pass an array."
        )
    model = TableDensity(frame)
    started = time.perf_counter()
    history = model.fit(
        frame, validation_data=validation_data, minutes=minutes, verbose=verbose
    )
    model.choice = [
        {
            "name": "table",
            "why": "columns as `model.schema` says, any of which may be missing",
            "valid": float(min(history.history["val_nll"])),
            "seconds": time.perf_counter() - started,
            "taken": True,
        }
    ]
    return model


def _check_rows(name, x):
    x = to_array(name, x)
    if x.ndim not in (2, 3, 4) or len(x) < 10 or not x.size:
        raise ValueError(
            f"`{name}` must be at least ten rows of D numbers, (n, D), or images "
            "(n, height, width) or (n, height, width, channels). Received: shape "
            f"{x.shape}."
        )
    x = x.astype("float32")
    check_finite(name, x, missing=True)
    if np.isnan(x).all():
        raise ValueError(f"`{name}` must hold numbers. Received: every entry is NaN.")
    return x


def _check_context(context, x):
    if context is None:
        return None
    context = to_array("context", context).astype("float32")
    if context.ndim != 2 or len(context) != len(x):
        raise ValueError(
            f"`context` must be ({len(x)}, C), a row for each event. Received: shape "
            f"{context.shape}."
        )
    return context


def _split(x, context, validation_data):
    """`(rows, context)` to train on and to choose by."""
    if validation_data is not None:
        pair = validation_data if context is not None else (validation_data, None)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(
                "`validation_data` must be a tuple (rows, context), since there is a "
                f"`context`. Received: {type(validation_data).__name__}."
            )
        valid = _check_rows("validation_data", pair[0])
        return (x, context), (valid, _check_context(pair[1], valid))
    held = min(MOST_VALID_ROWS, max(5, round(VALID_SHARE * len(x))))
    train, valid = [
        (x[part], None if context is None else context[part])
        for part in mixed.hold_out(len(x), held, 0)
    ]
    return train, valid


class _Trained(NamedTuple):
    candidate: Candidate
    model: keras.Model
    scores: np.ndarray  # log p of the validation rows
    seconds: float
    cut: bool  # by the time
    parts: tuple = ()  # names of what is averaged


class _Search:
    """Candidates trained one after the other, and the best of them mixed."""

    def __init__(self, train, valid, conditional, seconds, verbose):
        self.train, self.valid = train, valid
        self.seconds, self.verbose = seconds, verbose not in (0, "0", False)
        self.started = time.perf_counter()
        size = 0 if train[1] is None else train[1].shape[1]
        self.candidates = candidates(train[0], conditional, size)
        rows = train[0].ndim == 2 and not isinstance(conditional, Bernoulli)
        self.is_small = rows and has_few(*train[0].shape)
        self.trained, self.choice = [], []
        # What is averaged by now, and its place in both lists once that is several.
        self.averaged, self.place_of_average = [], None

    def run(self):
        first = next((one for one in self.candidates if one.steps), None)
        is_slow = any(one.slow for one in self.candidates)
        for place, candidate in enumerate(self.candidates):
            if place and self.passed() > FIRST * self.seconds:
                break
            left = sum(one.steps > 0 for one in self.candidates[place:])
            seconds = (FIRST * self.seconds - self.passed()) / max(1, left)
            # What is likeliest is not cut short for the others, where it needs long.
            alone = candidate is first and not (self.is_small or is_slow)
            most = ALONE * self.seconds if alone else None
            if candidate.slow:
                seconds = ALONE * self.seconds - self.passed()
            self.try_one(candidate, 0, seconds, most)
        for _ in range(MOST_MORE):
            candidate = self.next_one()
            if candidate is None:
                break
            seed = sum(one.candidate is candidate for one in self.trained)
            self.try_one(candidate, seed, self.seconds - self.passed())
        return self.mix()

    def next_one(self):
        """Of which to train one more in the time that is left; None: of none.

        Of those that were cut short, while they are near the best; else of those that
        are mixed by now, the one that was trained the fewest times.
        """
        left = self.seconds - self.passed()
        best = max(one.scores.mean() for one in self.trained)
        near = best - NEAR * abs(best)
        last = {one.candidate.name: one for one in self.trained}
        counts = Counter(one.candidate.name for one in self.trained)
        fit = [
            one
            for one in last.values()
            if one.candidate.steps and 1.1 * one.seconds <= left
        ]
        cut = [
            one
            for one in fit
            if one.cut and counts[one.candidate.name] == 1 and one.scores.mean() > near
        ]
        taken = [self.trained[place] for place in self.best_mixture()[0]]
        names = {name for one in taken for name in one.parts or [one.candidate.name]}
        mixed = [one for one in fit if one.candidate.name in names]
        mixed.sort(key=lambda one: counts[one.candidate.name])
        found = [*cut, *mixed]
        return found[0].candidate if found else None

    def passed(self):
        return time.perf_counter() - self.started

    def try_one(self, candidate, seed, seconds, most=None):
        started = time.perf_counter()
        keras.utils.set_random_seed(seed)
        model = candidate.make(seed)
        cut = fit_one(model, candidate, self.train, self.valid, seconds, most)
        if candidate.finish is not None:
            model = candidate.finish(model)
        scores = self.score(model)
        spent = time.perf_counter() - started
        one = _Trained(candidate, model, scores, spent, cut)
        self.add(one)
        if candidate.averaged:
            self.average(one)

    def score(self, model):
        scores = ops.convert_to_numpy(model.log_prob(*self.valid, verbose=0))
        return scores.astype("float64")

    def add(self, one, place=None):
        """Put what was trained, and what is said of it, last or in place of another."""
        nats = float(-one.scores.mean())
        line = {
            "name": one.candidate.name,
            "why": one.candidate.why,
            "valid": nats,
            "seconds": one.seconds,
            "taken": False,
        }
        if place is None:
            self.trained.append(one)
            self.choice.append(line)
        else:
            self.trained[place], self.choice[place] = one, line
        if self.verbose:
            print(
                f"{line['name']}: {nats:.3f} nats on {len(one.scores)} validation "
                f"rows, {one.seconds:.0f} s ({line['why']})"
            )

    def average(self, one):
        """Average its network with those before it, where that is the better for it.

        Else the best of all goes on: alone, if it is the new one.
        """
        together = [*self.averaged, one]
        if len(together) > 1:
            started = time.perf_counter()
            network = NetworkAverage([each.model.network for each in together])
            x, model = self.train[0], one.model
            model = build_density(network, model.conditional, x, model.context_size)
            scores, place = self.score(model), self.place_of_average
            before = together if place is None else [self.trained[place], one]
            best = max(before, key=lambda each: each.scores.mean())
            if scores.mean() <= best.scores.mean():
                if best is one:
                    self.averaged, self.place_of_average = [one], None
                return
            names = tuple(each.candidate.name for each in together)
            candidate = Candidate("average", " and ".join(names), None, steps=0)
            spent = time.perf_counter() - started
            average = _Trained(candidate, model, scores, spent, False, names)
            self.add(average, place)
            if place is None:
                self.place_of_average = len(self.trained) - 1
        self.averaged = together

    def best_mixture(self):
        """Places of all that make the mixture better, best first, and its scores.

        Weights are equal. Few rows tell too little to leave out what seems worse by
        less than a standard error: a mixture is the safer for it.
        """
        order = sorted(
            range(len(self.trained)), key=lambda i: -self.trained[i].scores.mean()
        )
        taken, total = order[:1], self.trained[order[0]].scores
        for place in order[1:]:
            share = math.log1p(1 / len(taken))
            joined = np.logaddexp(total, self.trained[place].scores)
            gains = joined - total - share
            few = len(gains) < FEW_VALID_ROWS
            error = gains.std() / math.sqrt(len(gains)) if few else 0.0
            if gains.mean() > -error:
                taken, total = [*taken, place], joined
        return taken, total - math.log(len(taken))

    def mix(self):
        taken, scores = self.best_mixture()
        for place in taken:
            self.choice[place]["taken"] = True
        models = [self.trained[place].model for place in taken]
        model = models[0] if len(models) == 1 else Ensemble(models)
        if not model.built:
            model.build((None, *self.train[0].shape[1:]))
        if self.verbose:
            names = ", ".join(self.choice[place]["name"] for place in taken)
            print(f"taken: {names}; {-scores.mean():.3f} nats on the validation rows")
        model.choice = self.choice
        return model


def fit_one(model, candidate, train, valid, seconds, most=None):
    """Fit a candidate's model: rounds of some 500 updates, the best weights kept.

    Returns whether the time ended it.
    """
    if not candidate.steps:
        return False
    x, context = train
    batch = min(candidate.batch_size, len(x))
    # Few rows make many short epochs, each with a validation: several are one.
    passes = round(STEPS_OF_A_ROUND * batch / len(x))
    passes = int(np.clip(passes, 1, MOST_PASSES_OF_A_ROUND))
    steps = -(-len(x) * passes // batch)
    epochs = -(-candidate.steps // steps)
    optimizer = keras.optimizers.AdamW(
        candidate.rate, weight_decay=candidate.decay, clipnorm=10.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    # Keras on torch runs one step at a time.
    together = 1 if keras.backend.backend() == "torch" else min(steps, 50)
    model.compile(optimizer, steps_per_execution=together)
    rows = np.concatenate([x] * passes)
    data = rows if context is None else (rows, np.concatenate([context] * passes))
    patience = max(3, PATIENT_STEPS // steps)
    if candidate.continuous is not None:
        spent = start_at_copula(
            model,
            model.fit,
            x,
            context,
            continuous=candidate.continuous,
            batch_size=batch,
            seconds=seconds / 4,
        )
        seconds -= spent
        most = None if most is None else most - spent
    budget = Budget(epochs, seconds, most)
    model.fit(
        data,
        batch_size=batch,
        epochs=epochs,
        verbose=0,
        validation_data=valid[0] if context is None else valid,
        callbacks=[
            budget,
            keras.callbacks.EarlyStopping(
                "val_nll", patience=patience, restore_best_weights=True
            ),
        ],
    )
    return budget.is_over
