"""Densities from autoregressive networks: log p, samples, imputation."""

import keras
from keras import ops

from keras_made import entries
from keras_made.autoregressive import Autoregressive
from keras_made.checks import check_positive
from keras_made.compiling import is_traced, to_tensor
from keras_made.densities import (
    drawing,
    graphs,
    imputation,
    inputs,
    intervention,
    queries,
)
from keras_made.densities.likelihood import LikelihoodModel
from keras_made.densities.support import Units
from keras_made.entries.arithmetic import log_mean_exp
from keras_made.generation import noise_generator


@keras.saving.register_keras_serializable(package="keras_made")
class AutoregressiveDensity(queries.Queried, LikelihoodModel):
    """p(x) = product of p(x_i | the entries before x_i), as a Keras model.

        log p(x) = sum_i log p(x_i; network(x)_i)

    A network with K structures is the mixture of its K densities (log-mean-exp of K
    scores, K passes), which is a density; an average of their parameters would not be.

    Args:
        network: an `Autoregressive` layer, such as `MADE`.
        conditional: what one entry is like: `"bernoulli"`, `"normal"`, or an object
            such as `Categorical(10)` with as many `num_params` as the network gives.
        support: `(low, high)` of real variables, each a number or one for each entry,
            infinite where there is no bound: sigmoid, exp or the identity (see
            `densities.bounds`). The network sees the unbounded scale, log p and draws
            are those of the data, and draws are always inside.
        normalization: a `keras.layers.Normalization` of real variables behind the
            bounds: the network sees standardised values, log p stays in the data's own
            units, and it is saved with the model. None: `adapt` learns one. Discrete
            columns pass it unchanged.
        structures: those to score and sample with, a sequence of ints. None: all K.
            The mixture of some is a density too, and costs as many passes.

    Input shape:
        `(n, *event_shape)`, or a tuple with a context `(n, C)`.

    Output shape:
        `(n,)`: log p of each row in nats.

    Raises:
        ValueError: if the network's `num_params` are not those of the conditional, or
            `support` is no support and `normalization` none that standardises.

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
        support=None,
        normalization=None,
        structures=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(network, Autoregressive):
            raise ValueError(
                "`network` must be an Autoregressive layer such as MADE. Received: "
                f"{network!r}."
            )
        self.network = network
        self.conditional = entries.get(conditional)
        if network.params_per_entry != self.conditional.num_params:
            raise ValueError(
                f"{self.conditional!r} has {self.conditional.num_params} parameters "
                f"per entry. Received: network with {network.params_per_entry}. Make "
                f"it with num_params={self.conditional.num_params}."
            )
        self.units = Units(
            support,
            normalization,
            self.conditional.continuous,
            dtype=self.density_dtype,
        )
        self.structures = None if structures is None else [int(k) for k in structures]
        if self.structures == []:
            raise ValueError(
                "`structures` must name at least one structure, or be None."
            )
        for structure in self.structures or []:
            network.check_structure(structure)
        # Last: a density that was refused has left the network as it was.
        network.hear_through(self.conditional.encoder)

    @property
    def event_shape(self):
        return self.network.event_shape

    @property
    def context_size(self) -> int:
        return self.network.context_size

    def floats_per_row(self) -> int:
        return self.network.floats_per_event

    @property
    def members(self) -> list[int]:
        """The structures whose densities are mixed."""
        return self.structures or list(range(self.network.num_masks))

    def build(self, input_shape):
        x_shape, context_shape = inputs.split_shapes(input_shape)
        x_shape = inputs.any_batch(x_shape, self.event_shape)
        context_shape = context_shape and (None, *context_shape[-1:])
        self.conditional.check_shape(x_shape[1:])
        if not self.network.built:
            self.network.build(x_shape, context_shape)
        self.units.build_for(self.event_shape)
        self.built = True

    def check_support(self, x):
        self.units.bounds.check(x)
        self.conditional.check(x)

    def may_be_missing(self):
        return self.conditional.incomplete

    def typical_event(self):
        # In half precision, which `floatx` may be, levels above 2048 are not exact.
        conditional, shape, dtype = (
            self.conditional,
            self.event_shape,
            self.density_dtype,
        )
        params = ops.zeros((*shape, conditional.num_params), dtype)
        uniforms = ops.full((*shape, conditional.num_uniforms), 0.5, dtype)
        x, _ = self.units.restore(conditional.draw(params, uniforms)[None])
        return ops.convert_to_numpy(x)[0]

    # log p ----------------------------------------------------------------------------

    def compute_log_prob(self, x, context, training):
        z, log_slope = self.units.standardize(x)
        log_det = self._sum(log_slope)
        if training or len(self.members) == 1:
            structure = None if training else self.members[0]
            return self._member_log_prob(z, context, structure, training) + log_det
        members = ops.map(
            lambda structure: self._member_log_prob(z, context, structure, False),
            ops.convert_to_tensor(self.members, "int32"),
        )
        return log_mean_exp(members) + log_det

    def _member_log_prob(self, z, context, structure, training):
        network = self.network
        params = network(z, context, structure=structure, training=training)
        params = ops.cast(network.with_params_axis(params), self.density_dtype)
        return self._sum(self.conditional.log_prob(params, z))

    def _sum(self, values):
        """The sum over the entries of each row."""
        return ops.sum(values, axis=tuple(range(-len(self.event_shape), 0)))

    # Generation -----------------------------------------------------------------------

    def sample(
        self,
        num_samples,
        context=None,
        seed=None,
        verbose="auto",
        *,
        low=None,
        high=None,
        num_particles=100,
    ):
        """Exact draws, for about one forward pass of arithmetic with `MADE`.

        With K structures the draws are stratified: each gives the same number, up to
        one.

        With `low` or `high` draws are from p(x | low <= x <= high), and never outside.
        Each is chosen among `num_particles` events that were drawn entry by entry
        within their intervals, by what these hold: an approximation that becomes exact
        as the particles grow. It is exact with any number of them, one for each
        structure, where no mass depends on what was drawn: at most one interval, which
        comes first or after observed entries alone (`low == high`). An order-agnostic
        network takes observed entries first, then intervals, then all others.

        Args:
            num_samples: number of draws, at least 1.
            context: `(C,)` for all draws or `(num_samples, C)`.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: 0, 1, or `"auto"` for a progress bar when there are many chunks.
            low: lower ends, as for `interval_log_prob`: of one box for all draws, or
                of one for each.
            high: upper ends, likewise.
            num_particles: events to choose each draw from, with `low` or `high`.

        Returns:
            A float tensor `(num_samples, *event_shape)`.

        Raises:
            ValueError: for ends as in `interval_log_prob`.
        """
        check_positive("num_samples", num_samples)
        check_positive("num_particles", num_particles)
        self._require_values("sample")
        if low is not None or high is not None:
            boxes = (num_samples, low, high, context, num_particles)
            noise = noise_generator(seed)
            return to_tensor(queries.sample_within(self, *boxes, noise, verbose))
        self.require_built()
        self.units.check()
        if context is not None:
            context = inputs.check_context(self, context, num_samples)
        elif self.context_size:
            raise ValueError(
                f"The model has a context of size {self.context_size}. Pass "
                f"`context`, ({self.context_size},) for all draws."
            )
        noise = noise_generator(seed)
        members = drawing.choose_members(self, num_samples, noise)
        x, _ = drawing.draw_members(
            self, members, context, noise, "sample", verbose=verbose
        )
        return to_tensor(x)

    def _require_values(self, verb):
        if is_traced():
            raise ValueError(
                f"`{verb}` plans its work by numbers, and where it is called now there "
                "are none yet: inside `tf.function`, `Dataset.map` or `jax.jit`. Call "
                "it outside. On TensorFlow `model.distribution(context).sample(n, "
                "seed=seed)` draws, and `model.log_prob` scores, inside a graph."
            )

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
        and with one particle ignores observed entries that come later, of which it
        warns. Particles are rounded up to a multiple of the structures, so that each
        has as many.

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
        copies = 1 if num_copies is None else num_copies
        check_positive("num_copies", copies)
        self._require_values("impute")
        result = imputation.impute(
            self,
            x,
            observed,
            context,
            num_particles,
            copies,
            noise_generator(seed),
            verbose,
        )
        return to_tensor(result[0] if num_copies is None else result)

    def intervene(self, x, values, context=None, seed=None, verbose="auto"):
        """Draws under do(x_j = v): some entries are set, and their effects follow.

        Entries that are set are cut off from their own causes: they count nothing, and
        nothing before them is drawn anew or weighed for them, as it would be by
        `impute`. Their descendants, which hear them along a path of the network's
        connections, are drawn from their conditionals. What is no descendant of a set
        entry is not changed by it, and keeps its value in `x`; so draws are those of a
        population, given what is known of each row that the intervention leaves alone.

        NaN in `x` is drawn too, given what it hears: from do(x_j = v) itself for rows
        of NaN. Where an observed entry that keeps its value hears a missing one, that
        is not weighed either: `impute` such rows first.

        The network's connections are taken for causes. An ordering makes them so for
        any distribution, and only a graph that is that of the causes (`adjacency` of
        `MADE`) makes the answer true.

        Args:
            x: rows `(n, *event_shape)`, NaN where to be drawn; or a number of rows, of
                which nothing is known.
            values: what is set: a dict of the place of an entry, among the
                `event_size`, to a number or to one for each row; or an array that fits
                `(n, *event_shape)`, NaN where nothing is set.
            context: `(n, C)` or `(C,)`.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: as in `impute`.

        Returns:
            A float tensor `(n, *event_shape)`.

        Raises:
            ValueError: for a network of several structures, which differ in what is
                before what; for values that are none of the entries.

        Reference:
            Pearl 2009, "Causality", chapter 3 (the truncated factorization); Chen et
            al. 2023, https://arxiv.org/abs/2311.02221
        """
        self._require_values("intervene")
        result = intervention.intervene(
            self, x, values, context, noise_generator(seed), verbose
        )
        return to_tensor(result)

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
        return imputation.conditional_log_prob(
            self, x, observed, context, num_particles, noise_generator(seed), verbose
        )

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
        from keras_made.tfp.distributions import AutoregressiveDistribution

        self.require_built()
        return AutoregressiveDistribution(self, graphs.draw_rows, context)

    def endpoints(self, num_particles: int) -> dict:
        make = graphs.impute_exactly_endpoint(self)
        if not self.network.order_agnostic:
            make = graphs.impute_by_particles_endpoint(self, num_particles)
        return {**super().endpoints(num_particles), "impute": make}

    def get_config(self):
        return {
            **keras.Model.get_config(self),
            "network": keras.saving.serialize_keras_object(self.network),
            "conditional": keras.saving.serialize_keras_object(self.conditional),
            **self.get_units_config(),
            "structures": self.structures,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("network", "conditional", "normalization"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects
            )
        return cls(**config)
