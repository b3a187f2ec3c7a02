"""What is missing, given what is observed: completions and their probability."""

import math

import numpy as np
from keras import ops

from keras_made.checks import check_finite, check_pieces, to_array, warn
from keras_made.compiling import join_chunks, most_at_once, to_tensor
from keras_made.densities.drawing import (
    choose_members,
    draw_members,
    noise_shape,
)
from keras_made.densities.inputs import check_context, check_inputs
from keras_made.entries.arithmetic import log_mean_exp
from keras_made.generation import draw_uniforms


def impute(model, x, observed, context, particles, copies, noise, verbose):
    """As `AutoregressiveDensity.impute`, copies `(copies, n, *event_shape)`."""
    x, observed, context = check_missing(model, x, observed, context)
    job = [_repeat_rows(a, copies) for a in (x, observed, context)]
    if particles == 1 and not model.network.order_agnostic:
        _warn_of_late_entries(model, observed)
    if model.network.order_agnostic and particles == 1:
        result = impute_exactly(model, *job, noise, verbose)
    else:
        result = impute_by_particles(model, *job, particles, noise, verbose)
    return np.reshape(result, (copies, len(x), *model.event_shape))


def _warn_of_late_entries(model, observed):
    """One completion hears nothing of what is observed after it: say so."""
    seen = observed.reshape(len(observed), -1)
    for member in model.members:
        ranks = model.network.ranks(member).ravel()
        last = np.max(np.where(seen, ranks, -1), axis=1)
        first = np.min(np.where(seen, len(ranks), ranks), axis=1)
        late = np.flatnonzero(last > first)
        if len(late):
            warn(
                f"In {len(late)} of {len(seen)} rows, first in row {late[0]}, observed "
                "entries come after missing ones in the order of the network, and one "
                "particle ignores them: such a completion can be worse than the mean. "
                "Pass num_particles=100, or train a network with ordering='random' and "
                "num_masks > 1, which completes rows exactly."
            )
            return


def impute_exactly(model, x, observed, context, noise, verbose):
    members = np.full(len(x), model.members[0], "int32")
    completed, _ = draw_members(
        model,
        members,
        context,
        noise,
        "impute",
        turns=~observed,
        known=x,
        observed=observed,
        verbose=verbose,
    )
    return completed


def impute_by_particles(model, x, observed, context, particles, noise, verbose):
    choose, job = one_by_weight(noise), [x, observed, context]
    return run_particles(model, "impute", choose, job, particles, noise, verbose)


def one_by_weight(noise):
    """A function of groups of particles that keeps one for each row, by its weight."""

    def choose(groups):
        result, best = None, None
        for completed, weights in groups:
            chosen, score = choose_particles(completed, weights, noise)
            if result is None:
                result, best = chosen, score
            better = score > best
            result[better] = chosen[better]
            best = np.maximum(score, best)
        return result

    return choose


def choose_particles(completed, weights, noise):
    """The best of each row's particles, and the score by which it is."""
    uniforms = draw_uniforms(weights.shape, noise, weights.dtype)
    # The largest of log w - log(-log u) falls on each particle as w.
    scores = weights - np.log(-np.log(uniforms))
    first = np.arange(len(completed), step=weights.shape[1])
    chosen = completed[first + np.argmax(scores, axis=1)]
    return chosen, np.max(scores, axis=1)


def run_particles(
    model, verb, function, job, particles, noise, verbose, make_particles=None
):
    """Rows in chunks, and the particles of each in groups that fit into a chunk.

    Args:
        model: an `AutoregressiveDensity`, built.
        verb: as for `draw_members`.
        function: of an iterator over the groups, each what `complete` returns.
        job: arrays of rows, or None: what `make_particles` takes.
        particles: number of particles, rounded up until every group holds as many
            of each structure.
        noise: a `numpy.random.Generator`.
        verbose: as in `sample`.
        make_particles: what makes a group, as `complete`, which it is for None.

    Returns:
        What `function` returns for all rows, an array.
    """
    make_particles = make_particles or complete
    members = len(model.members)
    floats = members * (model.floats_per_row() + math.prod(noise_shape(model)))
    rounds = -(-particles // members)
    groups = -(-rounds // most_at_once(floats))
    rounds = -(-rounds // groups)

    def run(*job):
        return function(
            make_particles(model, verb, *job, rounds * members, noise)
            for _ in range(groups)
        )

    # Chunks of any length: it is the particles in them that are padded.
    length = min(len(job[0]), most_at_once(rounds * floats))
    return join_chunks(run, job, rounds * floats, verbose, (length,), padded=False)


def complete(model, verb, x, observed, context, particles, noise):
    """Every row completed `particles` times by members in their own orderings.

    Returns:
        `(completed, weights)`: `(n * particles, *event_shape)`, those of a row
        adjacent, and the members' log-likelihoods of the observed entries,
        `(n, particles)`.
    """
    size = len(x)
    x, observed, context = (
        None if a is None else np.repeat(a, particles, axis=0)
        for a in (x, observed, context)
    )
    # Members go round row by row: each row's particles are spread over them.
    members = choose_members(model, size * particles, noise)
    completed, weights = draw_members(
        model,
        members,
        context,
        noise,
        verb,
        known=x,
        observed=observed,
        counted=observed,
        verbose=0,
    )
    return completed, np.reshape(weights, (size, particles))


def conditional_log_prob(model, x, observed, context, particles, noise, verbose):
    """As `AutoregressiveDensity.conditional_log_prob`."""
    x, context = check_inputs(model, x, context)
    # Rows are complete here, whatever the density may take elsewhere.
    check_finite("x", x)
    observed = _check_observed(observed, x)
    if model.network.order_agnostic:
        _, total = draw_members(
            model,
            np.full(len(x), model.members[0], "int32"),
            context,
            noise,
            "conditional_log_prob",
            turns=~observed,
            known=x,
            observed=np.ones_like(observed),
            counted=~observed,
            verbose=verbose,
        )
        return to_tensor(total) + log_slopes(model, x, ~observed)
    whole = model.log_prob(x, context, verbose)
    return whole - log_prob_observed(
        model, x, observed, context, particles, noise, verbose
    )


def log_prob_observed(model, x, observed, context, particles, noise, verbose):
    """log p(observed part), by importance sampling."""

    def estimate(groups):
        # Groups are of one size: the mean of all is the mean of their means.
        means = [log_mean_exp(ops.transpose(weights)) for _, weights in groups]
        return log_mean_exp(ops.stack(means))

    job, verb = [x, observed, context], "conditional_log_prob"
    result = run_particles(model, verb, estimate, job, particles, noise, verbose)
    return to_tensor(result) + log_slopes(model, x, observed)


def log_slopes(model, x, entries):
    """What the data's units add to the log-probability of some entries."""
    _, slopes = model.units.standardize(ops.convert_to_tensor(x, model.density_dtype))
    slopes = ops.where(entries, slopes, 0.0)
    return ops.sum(ops.reshape(slopes, (len(entries), -1)), axis=1)


def check_missing(model, x, observed, context):
    """Rows as they are, where they are observed, and the context; or a ValueError.

    They are checked in pieces, with NaN for what is missing: no copy of them is made.
    """
    x = to_array("x", x)
    if observed is None:
        observed = ~np.isnan(x)
    observed = _check_observed(observed, x)
    if not x.ndim or not x.size:
        check_inputs(model, x, context, True)
    if context is not None:
        context = check_context(model, context, len(x))

    def check(rows):
        known, seen = x[rows], observed[rows]
        absent = np.argwhere(seen & np.isnan(known))
        if len(absent):
            raise ValueError(
                "`x` is NaN where `observed` is True, first in row "
                f"{int(rows[absent[0][0]])}. Make `observed` False there, or leave it "
                "out."
            )
        own = None if context is None else context[rows]
        check_inputs(model, np.where(seen, known, np.nan), own, True)

    check_pieces(check, np.arange(len(x)))
    return x, observed, context


def _check_observed(observed, x):
    observed = np.asarray(observed)
    if observed.dtype != bool:
        raise ValueError(
            "`observed` must be booleans, True where the value is known. Received: "
            f"dtype {observed.dtype}."
        )
    if observed.shape == x.shape and observed.flags.writeable:
        return observed
    try:
        return np.array(np.broadcast_to(observed, x.shape))
    except ValueError:
        raise ValueError(
            f"`observed` must have the shape of `x`, {x.shape}, or of one event. "
            f"Received: shape {observed.shape}."
        ) from None


def _repeat_rows(array, times):
    if array is None or times == 1:
        return array
    return np.concatenate([array] * times)
