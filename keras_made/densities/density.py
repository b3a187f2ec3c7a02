"""Densities from autoregressive networks: log p, samples, imputation."""

import math

import keras
import numpy as np
from keras import ops

from keras_made import conditionals
from keras_made.autoregressive import Autoregressive, check_positive
from keras_made.compiling import is_traced, most_at_once, run_in_chunks
from keras_made.generation import generate
from keras_made.densities.likelihood import (
    LikelihoodModel,
    seed_generator,
    split_shapes,
    to_array,
)
from keras_made.densities.support import loc_and_scale

ROWS_ORDERED_AT_ONCE = 2**16


@keras.saving.register_keras_serializable(package="keras_made")
class AutoregressiveDensity(LikelihoodModel):
    """p(x) = product of p(x_i | the entries before x_i), as a Keras model.

        log p(x) = sum_i log p(x_i; network(x)_i)

    A network with K structures is the mixture of its K densities (log-mean-exp of K
    scores, K passes), which is a density; an average of their parameters would not be.

    Args:
        network: an `Autoregressive` layer, such as `MADE`.
        conditional: what one entry is like: `"bernoulli"`, `"normal"`, or an object
            such as `Categorical(10)` with as many `num_params` as the network gives.
        normalization: a `keras.layers.Normalization` adapted to the data, for real
            variables: the network sees standardised values, log p stays in the data's
            own units (its log-determinant is counted), and it is saved with the model.
            Discrete columns pass it unchanged.
        rows: structures to score and sample with, a sequence of ints. None: all K.
            The mixture of some is a density too, and costs as many passes.

    Input shape:
        `(n, *event_shape)`, or a tuple with a context `(n, C)`.

    Output shape:
        `(n,)`: log p of each row in nats.

    Raises:
        ValueError: if the network's `num_params` are not those of the conditional.

    Example:
        >>> import numpy as np
        >>> from keras_made import MADE
        >>> x = (np.random.RandomState(0).rand(64, 6) < 0.3).astype("float32")
        >>> model = AutoregressiveDensity(MADE([16]), "bernoulli")
        >>> model.compile("adam")
        >>> history = model.fit(x, epochs=1, verbose=0)
        >>> tuple(model.log_prob(x).shape), tuple(model.sample(3).shape)
        ((64,), (3, 6))

    Reference:
        Germain et al. 2015, "MADE", https://arxiv.org/abs/1502.03509; Uria, Murray,
        Larochelle 2014, "A Deep and Tractable Density Estimator" (mixtures over
        orderings), https://arxiv.org/abs/1310.1757
    """

    def __init__(
        self,
        network: Autoregressive,
        conditional="bernoulli",
        *,
        normalization=None,
        rows=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(network, Autoregressive):
            raise ValueError(
                "`network` must be an Autoregressive layer such as MADE. Received: "
                f"{network!r}."
            )
        self.network = network
        self.conditional = conditionals.get(conditional)
        if network.params_per_entry != self.conditional.num_params:
            raise ValueError(
                f"{self.conditional!r} has {self.conditional.num_params} parameters "
                f"per entry. Received: network with {network.params_per_entry}. Make "
                f"it with num_params={self.conditional.num_params}."
            )
        self.normalization = normalization
        self._check_normalization()
        self.rows = None if rows is None else [int(row) for row in rows]
        for row in self.rows or []:
            network._check_row(row)
        if self.rows == []:
            raise ValueError("`rows` must name at least one structure, or be None.")
        # Last: a density that was refused has left the network as it was.
        self._attach_encoder()

    def _check_normalization(self):
        layer = self.normalization
        if layer is None:
            return
        if not isinstance(layer, keras.layers.Normalization) or layer.invert:
            raise ValueError(
                "`normalization` must be a `keras.layers.Normalization`, adapted to "
                f"the data and not inverted. Received: {layer!r}."
            )
        if not np.any(self.conditional.continuous):
            raise ValueError(
                "`normalization` is for real variables. Received: conditional="
                f"{self.conditional!r}, which is discrete. Leave it out."
            )

    def _attach_encoder(self):
        """Let the network hear entries in the form that the conditional gives them."""
        conditional, plain = self.conditional, conditionals.Conditional.encode
        # A table of plain numbers is one too.
        kinds = [conditional]
        if isinstance(conditional, conditionals.Columns):
            kinds = conditional.kinds
        encodes = any(type(kind).encode is not plain for kind in kinds)
        self.network.hear_through(conditional if encodes else None)

    @property
    def event_shape(self):
        return self.network.event_shape

    @property
    def context_size(self) -> int:
        return self.network.context_size

    def floats_per_row(self) -> int:
        return self.network.floats_per_event

    @property
    def _rows(self):
        return self.rows or list(range(self.network.num_masks))

    def build(self, input_shape):
        x_shape, context_shape = split_shapes(input_shape)
        if not self.network.built:
            self.network.build(x_shape, context_shape)
        if self.normalization is not None and not self.normalization.built:
            self.normalization.build(x_shape)
        self.built = True

    def check_support(self, x):
        self.conditional.check(x)

    def typical_event(self):
        # In half precision, which `floatx` may be, levels above 2048 are not exact.
        conditional, shape, dtype = (
            self.conditional,
            self.event_shape,
            self.density_dtype,
        )
        params = ops.zeros((*shape, conditional.num_params), dtype)
        uniforms = ops.full((*shape, conditional.num_uniforms), 0.5, dtype)
        return ops.convert_to_numpy(conditional.draw(params, uniforms))

    # log p ----------------------------------------------------------------------------

    def compute_log_prob(self, x, context, training):
        z, log_det = self._standardize(x)
        if training or len(self._rows) == 1:
            row = None if training else self._rows[0]
            return self._member_log_prob(z, context, row, training) + log_det
        rows = ops.convert_to_tensor(self._rows, "int32")
        members = ops.map(
            lambda row: self._member_log_prob(z, context, row, False), rows
        )
        return _log_mean_exp(members) + log_det

    def _member_log_prob(self, z, context, row, training):
        params = self.network(z, context, row=row, training=training)
        if self.network.num_params is None:
            params = params[..., None]
        entries = self.conditional.log_prob(ops.cast(params, self.density_dtype), z)
        axes = tuple(range(len(z.shape) - len(self.event_shape), len(z.shape)))
        return ops.sum(entries, axis=axes)

    def _standardize(self, x):
        """Standardised entries and the log-determinant of the map."""
        if self.normalization is None:
            return x, 0.0
        loc, scale = self._loc_and_scale()
        return (x - loc) / scale, -ops.sum(ops.log(scale))

    def _loc_and_scale(self):
        """Of every entry; discrete columns stay as they are."""
        shape, dtype = self.event_shape, self.density_dtype
        loc, scale = loc_and_scale(self.normalization, shape, dtype)
        real = np.broadcast_to(self.conditional.continuous, shape)
        return ops.where(real, loc, 0.0), ops.where(real, scale, 1.0)

    # Generation -----------------------------------------------------------------------

    def sample(self, num_samples, context=None, seed=None, verbose="auto"):
        """Exact draws, for about one forward pass of arithmetic with `MADE`.

        With K structures the draws are stratified: each gives the same number, up to
        one.

        Args:
            num_samples: number of draws, at least 1.
            context: `(C,)` for all draws or `(num_samples, C)`.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: 0, 1, or `"auto"` for a progress bar when there are many chunks.

        Returns:
            A float tensor `(num_samples, *event_shape)`.
        """
        check_positive("num_samples", num_samples)
        self._require_values("sample")
        self._require_built()
        if context is not None:
            context = self.check_context(context, num_samples)
        elif self.context_size:
            raise ValueError(
                f"The model has a context of size {self.context_size}. Pass "
                f"`context`, ({self.context_size},) for all draws."
            )
        seeds = seed_generator(seed)
        members = self._choose_members(num_samples, seeds)
        x, _ = self._generate(members, context, seeds, verbose=verbose)
        return x

    def _require_values(self, verb):
        if is_traced():
            raise ValueError(
                f"`{verb}` plans its work by numbers, and where it is called now there "
                "are none yet: inside `tf.function`, `Dataset.map` or `jax.jit`. Call "
                "it outside. On TensorFlow `model.distribution(context).sample(n, "
                "seed=seed)` draws, and `model.log_prob` scores, inside a graph."
            )

    def _choose_members(self, num_samples, seeds):
        """A structure for each draw, evenly; which comes first is left to chance."""
        rows = np.array(self._rows, "int32")
        if len(rows) > 1:
            noise = conditionals.draw_uniforms((len(rows),), seeds)
            rows = rows[np.argsort(ops.convert_to_numpy(noise))]
        return rows[np.arange(num_samples) % len(rows)]

    def impute(
        self,
        x,
        observed=None,
        context=None,
        num_particles=1,
        seed=None,
        num_copies=None,
        verbose="auto",
    ):
        """Fill in what is missing by a draw from p(missing | observed).

        With an order-agnostic network (random orderings, `num_masks` > 1) and one
        particle the draw is exact: each row is completed under an ordering that has
        its observed entries first. Any other network completes each row
        `num_particles` times in its own ordering, each missing entry given the entries
        before it, and keeps one with probability proportional to the likelihood of the
        observed entries: an approximation that becomes exact as the particles grow,
        and with one particle ignores observed entries that come later. Particles are
        rounded up to a multiple of the structures, so that each has as many.

        Args:
            x: `(n, *event_shape)`.
            observed: bools of the shape of `x`, or of one event. None: NaN marks what
                is missing.
            context: `(n, C)` or `(C,)`.
            num_particles: draws to choose from; 1 for the exact path.
            seed: int, `keras.random.SeedGenerator` or None.
            num_copies: number of completions of every row (multiple imputation). None:
                one, without an axis of its own.
            verbose: 0, 1, or `"auto"` for a progress bar when there are many chunks.

        Returns:
            A float tensor `(n, *event_shape)`, or `(num_copies, n, *event_shape)`, with
            the observed entries untouched.
        """
        check_positive("num_particles", num_particles)
        self._require_values("impute")
        copies = 1 if num_copies is None else num_copies
        check_positive("num_copies", copies)
        x, observed, context = self._check_missing(x, observed, context)
        job = [_repeat_rows(a, copies) for a in (x, observed, context)]
        seeds = seed_generator(seed)
        if self.network.order_agnostic and num_particles == 1:
            result = self._impute_exactly(*job, seeds, verbose)
        else:
            result = self._impute_by_particles(*job, num_particles, seeds, verbose)
        shape = (len(x), *self.event_shape)
        return ops.reshape(result, shape if num_copies is None else (copies, *shape))

    def _impute_exactly(self, x, observed, context, seeds, verbose):
        starts = range(0, len(x), ROWS_ORDERED_AT_ONCE)
        shown = verbose == 1 or (verbose == "auto" and len(starts) > 1)
        bar = keras.utils.Progbar(len(starts)) if shown and len(starts) > 1 else None
        pieces = []
        # Block by block: the orderings of all rows would be larger than the rows.
        for start in starts:
            block = slice(start, start + ROWS_ORDERED_AT_ONCE)
            known, seen = x[block], observed[block]
            piece, _ = self._generate(
                np.full(len(known), self._rows[0], "int32"),
                None if context is None else context[block],
                seeds,
                self.observed_first(seen),
                known,
                seen,
                verbose=0 if bar else verbose,
            )
            pieces.append(piece)
            if bar:
                bar.add(1)
        return pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)

    def _impute_by_particles(self, x, observed, context, particles, seeds, verbose):
        def choose(groups):
            result, best = None, None
            for completed, weights in groups:
                chosen, score = self._choose_particles(completed, weights, seeds)
                if result is None:
                    result, best = chosen, score
                better = ops.reshape(score > best, (-1, *[1] * len(self.event_shape)))
                result = ops.where(better, chosen, result)
                best = ops.maximum(score, best)
            return result

        job = [x, observed, context]
        return self._run_particles(choose, job, particles, seeds, verbose)

    def _choose_particles(self, completed, weights, seeds):
        """The best of each row's particles, and the score by which it is."""
        noise = conditionals.draw_uniforms(weights.shape, seeds, self.density_dtype)
        # The largest of log w - log(-log u) falls on each particle as w.
        scores = weights - ops.log(-ops.log(noise))
        chosen = ops.cast(ops.argmax(scores, axis=1), "int32")
        first = np.arange(len(completed), step=weights.shape[1], dtype="int32")
        chosen = ops.take(completed, ops.add(first, chosen), axis=0)
        return chosen, ops.max(scores, axis=1)

    def _run_particles(self, function, job, particles, seeds, verbose):
        """Rows in chunks, and the particles of each in groups that fit into a chunk.

        Args:
            function: of an iterator over the groups, each what `_complete` returns.
            job: `[x, observed, context]`.
            particles: number of particles, rounded up until every group holds as many
                of each structure.
            seeds: a `SeedGenerator`.
            verbose: as in `sample`.

        Returns:
            What `function` returns for all rows.
        """
        members = len(self._rows)
        floats = members * (self.floats_per_row() + math.prod(self.noise_shape))
        rounds = -(-particles // members)
        groups = -(-rounds // most_at_once(floats))
        rounds = -(-rounds // groups)

        def run(*job):
            return function(
                self._complete(*job, rounds * members, seeds) for _ in range(groups)
            )

        return run_in_chunks(run, job, rounds * floats, verbose, least_rows=1)

    def _complete(self, x, observed, context, particles, seeds):
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
        members = self._choose_members(size * particles, seeds)
        completed, weights = self._generate(
            members, context, seeds, None, x, observed, counted=observed, verbose=0
        )
        return completed, ops.reshape(weights, (size, particles))

    def conditional_log_prob(
        self, x, observed, context=None, num_particles=100, seed=None, verbose="auto"
    ):
        """log p(missing part | observed part) of complete rows, in nats.

        Exact for an order-agnostic network, under the ordering with the observed
        entries first that `impute` uses. For others log p(x) - log p(observed), the
        latter estimated with `num_particles` completions, rounded up to as many for
        each structure: an approximation, exact when the observed entries come first
        anyway.

        Args:
            x: complete rows `(n, *event_shape)`.
            observed: bools of the shape of `x`, or of one event.
            context: `(n, C)` or `(C,)`.
            num_particles: completions behind the estimate; not used when exact.
            seed: of the estimate.
            verbose: as in `impute`.

        Returns:
            A float tensor `(n,)`.
        """
        check_positive("num_particles", num_particles)
        self._require_values("conditional_log_prob")
        x, context = self.check_inputs(x, context)
        observed = _check_observed(observed, x)
        seeds = seed_generator(seed)
        if self.network.order_agnostic:
            _, total = self._generate(
                np.full(len(x), self._rows[0], "int32"),
                context,
                seeds,
                self.observed_first(observed),
                x,
                np.ones_like(observed),
                counted=~observed,
                verbose=verbose,
            )
            return total - self._log_scales(~observed)
        whole = self.log_prob(x, context, verbose)
        return whole - self._log_prob_observed(
            x, observed, context, num_particles, seeds, verbose
        )

    def _log_prob_observed(self, x, observed, context, particles, seeds, verbose):
        """log p(observed part), by importance sampling."""

        def estimate(groups):
            # Groups are of one size: the mean of all is the mean of their means.
            means = [_log_mean_exp(ops.transpose(weights)) for _, weights in groups]
            return _log_mean_exp(ops.stack(means))

        job = [x, observed, context]
        result = self._run_particles(estimate, job, particles, seeds, verbose)
        return result - self._log_scales(observed)

    def _log_scales(self, entries):
        """Sum of the log scales of the standardisation over some entries."""
        if self.normalization is None:
            return 0.0
        _, scale = self._loc_and_scale()
        logs = ops.where(entries, ops.log(scale), 0.0)
        return ops.sum(ops.reshape(logs, (len(entries), -1)), axis=1)

    def observed_first(self, observed: np.ndarray) -> np.ndarray:
        """The ordering in which each row is completed: observed entries first.

        Args:
            observed: bools `(n, *event_shape)`.

        Returns:
            Entries in order of generation, ints `(n, event_size)`.
        """
        order = self.network.orders()[self._rows[0]]
        missing = ~observed.reshape(len(observed), -1)[:, order]
        return order[np.argsort(missing, axis=1, kind="stable")].astype("int32")

    def _check_missing(self, x, observed, context):
        x = to_array("x", x)
        if observed is None:
            observed = ~np.isnan(x)
        observed = _check_observed(observed, x)
        absent = observed & np.isnan(x)
        if np.any(absent):
            raise ValueError(
                "`x` is NaN where `observed` is True, first in row "
                f"{int(np.argwhere(absent)[0][0])}. Make `observed` False there, or "
                "leave it out."
            )
        x, context = self.check_inputs(np.where(observed, x, np.nan), context, True)
        return x, observed, context

    def _generate(
        self,
        members,
        context,
        seeds,
        order=None,
        known=None,
        observed=None,
        counted=None,
        verbose="auto",
    ):
        """Rows generated member by member, or all at once when each has its order.

        Args:
            members: structure of each row, ints `(n,)`.
            context: `(n, C)` or None.
            seeds: a `SeedGenerator`.
            order: entries in the order each row wants them, `(n, event_size)`.
            known: values to keep where `observed`, `(n, *event_shape)`.
            observed: bools of that shape.
            counted: bools of that shape: the entries whose log-probability is summed.
            verbose: as in `sample`.

        Returns:
            `(x, total)`: tensors `(n, *event_shape)` and `(n,)`, or None when nothing
            is `counted`.
        """
        network, present = self.network, np.unique(members)
        flat = (len(members), network.event_size)
        known, observed, counted = (
            None if a is None else np.reshape(a, flat)
            for a in (known, observed, counted)
        )
        # Rows with an order of their own run together, but their weights are gathered
        # row by row; many rows to a structure run faster apart.
        together = network.orderings_only and len(members) < 64 * len(present)
        if order is None and len(present) > 1 and together:
            order = network.orders()[members]
            members, present = np.full_like(members, present[0]), present[:1]
        shared = None
        if order is not None and (order == order[0]).all():
            # One order for all rows: weights are gathered once, not for each row.
            shared, order = order[:1], None
        arrays = [members, context, order, known, observed, counted]
        pieces = []
        for member in present:
            rows = np.flatnonzero(members == member)
            piece = [None if a is None else a[rows] for a in arrays]
            pieces.append(self._generate_member(member, piece, shared, seeds, verbose))
        joined = pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)
        if len(pieces) > 1:
            places = np.argsort(np.argsort(members, kind="stable"), kind="stable")
            joined = ops.take(joined, places, axis=0)
        if counted is None:
            return ops.reshape(joined, (-1, *self.event_shape)), None
        x = ops.reshape(joined[:, :-1], (-1, *self.event_shape))
        return x, joined[:, -1]

    def _generate_member(self, member, arrays, shared_order, seeds, verbose):
        function = self._function("generate", self.generate_rows)
        row = ops.convert_to_tensor(member, "int32")
        shape = self.noise_shape

        def run(members, context, order, *rest):
            noise = conditionals.draw_uniforms(
                (len(members), *shape), seeds, self.density_dtype
            )
            order = shared_order if order is None else order
            rest = [
                None if a is None else ops.convert_to_tensor(a)
                for a in (context, order, *rest)
            ]
            rows = function(row, noise, *rest)
            # Without sums to keep, their column is left out before parts are joined.
            return rows[:, :-1] if rest[-1] is None else rows

        floats = self.floats_per_row() + math.prod(shape)
        if arrays[2] is not None:
            floats += self.network.floats_per_order
        return run_in_chunks(run, arrays, floats, verbose)

    @property
    def noise_shape(self):
        """Shape of the uniform noise behind one row."""
        network = self.network
        return network.num_steps, network.step_size, self.conditional.num_uniforms

    def generate_rows(
        self,
        row,
        noise,
        context=None,
        order=None,
        known=None,
        observed=None,
        counted=None,
    ):
        """Tensors in, tensors out: what `sample` and `impute` compile.

        Args:
            row: integer scalar, the structure.
            noise: uniforms `(n, *noise_shape)`.
            context: `(n, C)` or None.
            order: ints `(n, event_size)`, or `(1, event_size)` for all rows, or None
                for that of `row`.
            known: values to keep where `observed`, `(n, event_size)`, or None.
            observed: bools `(n, event_size)`, or None.
            counted: bools `(n, event_size)`, or None.

        Returns:
            `(n, event_size + 1)`, in the density's dtype: the entries, and in the last
            column the summed log-probability of those `counted`.
        """
        network, dtype = self.network, self.density_dtype
        batch, width = ops.shape(noise)[0], network.step_size
        noise = ops.transpose(ops.cast(noise, dtype), (1, 0, 2, 3))
        orders = order
        if order is None:
            orders = ops.take(network.orders(), row, axis=0)[None]
        if known is not None:
            raw = ops.cast(known, dtype)
            known, _ = self._standardize(ops.reshape(raw, (-1, *self.event_shape)))
            known = ops.reshape(known, (-1, network.event_size))
        if context is not None:
            context = ops.cast(context, dtype)

        def draw(params, t):
            start = (0, t * width)
            entries = ops.slice(orders, start, (ops.shape(orders)[0], width))
            conditional = self.conditional.at(entries)
            x = conditional.draw(params, ops.take(noise, t, axis=0))
            total = ops.zeros((batch,), dtype)
            if known is not None:
                x = ops.where(_pick(observed, entries), _pick(known, entries), x)
            if counted is not None:
                log_prob = conditional.log_prob(params, x)
                log_prob = ops.where(_pick(counted, entries), log_prob, 0.0)
                total = ops.sum(log_prob, axis=-1)
            return x, total

        values, total = generate(network, draw, batch, context, row, order, dtype)
        values = ops.reshape(ops.transpose(values, (1, 0, 2)), (batch, -1))
        x = _pick(values, ops.argsort(orders, axis=-1))
        if self.normalization is not None:
            loc, scale = self._loc_and_scale()
            x = x * ops.reshape(scale, (1, -1)) + ops.reshape(loc, (1, -1))
        if known is not None:
            x = ops.where(observed, raw, x)
        return ops.concatenate([x, total[:, None]], axis=-1)

    def distribution(self, context=None):
        """This density as a `tfd.Distribution` (TensorFlow).

        It reads the model's weights as they are at each call, and shows them in
        `trainable_variables`.

        Args:
            context: None, `(C,)`, or a batch `(..., C)`, which is its batch shape.
        """
        if keras.backend.backend() != "tensorflow":
            raise ImportError(
                "`distribution` needs Keras on TensorFlow. The backend is "
                f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow."
            )
        from keras_made.distributions import AutoregressiveDistribution

        self._require_built()
        return AutoregressiveDistribution(self, context)

    def get_config(self):
        return {
            **keras.Model.get_config(self),
            "network": keras.saving.serialize_keras_object(self.network),
            "conditional": keras.saving.serialize_keras_object(self.conditional),
            "normalization": keras.saving.serialize_keras_object(self.normalization),
            "rows": self.rows,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("network", "conditional", "normalization"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects
            )
        return cls(**config)


def _log_mean_exp(members):
    """Log of the mean probability over the first axis."""
    # Where all are -inf, so is the mean; `logsumexp` would have NaN for a gradient.
    impossible = ops.max(members, axis=0) == -np.inf
    members = ops.where(impossible, ops.zeros_like(members), members)
    result = ops.logsumexp(members, axis=0) - math.log(members.shape[0])
    return ops.where(impossible, -np.inf * ops.ones_like(result), result)


def _check_observed(observed, x):
    observed = np.asarray(observed)
    if observed.dtype != bool:
        raise ValueError(
            "`observed` must be booleans, True where the value is known. Received: "
            f"dtype {observed.dtype}."
        )
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


def _pick(values, entries):
    """Columns of `values (n, size)`; `entries` are shared `(1, k)` or `(n, k)`."""
    if entries.shape[0] == 1:
        return ops.take(values, entries[0], axis=1)
    return ops.take_along_axis(values, entries, axis=1)
