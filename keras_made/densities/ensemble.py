"""Several models as one density: the mixture of their densities."""

import keras
import numpy as np
from keras import ops

from keras_made.checks import check_positive, to_array
from keras_made.densities import inputs
from keras_made.densities.likelihood import LikelihoodModel
from keras_made.densities.support import Units
from keras_made.generation import draw_uniforms, noise_generator


@keras.saving.register_keras_serializable(package="keras_made")
class Ensemble(LikelihoodModel):
    """p(x) = sum_k w_k p_k(x): flows, or any models here, as one model.

    The members are trained one by one and then joined, or together by `fit`, as the
    mixture that they are. A mixture is never worse than the mean of its members' scores
    (Jensen's inequality), and one file holds them all.

    Args:
        members: models over events of one shape, with one size of context: flows,
            densities, ensembles. Each keeps its own support and units.
        weights: w, numbers that sum to one; None: equal ones.

    Input shape:
        `(n, *event_shape)`, or a tuple with a context `(n, C)`.

    Output shape:
        `(n,)`: log p of each row in nats.

    Raises:
        ValueError: for members that do not fit together, or weights that are none.

    Example:
        >>> from keras_made import flows
        >>> members = [flows.MAF(2, 1, [8], seed=seed) for seed in range(3)]
        >>> ensemble = Ensemble(members)
        >>> tuple(ensemble.sample(5, seed=0).shape)
        (5, 2)
    """

    def __init__(self, members, weights=None, **kwargs):
        super().__init__(**kwargs)
        self.members = list(members) if isinstance(members, list | tuple) else []
        if not self.members or not all(
            isinstance(member, LikelihoodModel) for member in self.members
        ):
            raise ValueError(
                "`members` must be a sequence of models of this package, such as "
                f"flows. Received: members={members!r}."
            )
        for name in ("event_shape", "context_size"):
            found = [getattr(member, name) for member in self.members]
            if any(value != found[0] for value in found):
                raise ValueError(
                    f"`members` must have one {name}. Received: {found}. A model that "
                    "learns its sizes from data must be built first."
                )
        count = len(self.members)
        weights = [1.0 / count] * count if weights is None else weights
        self.weights_of_members = to_array("weights", weights).astype("float64")
        if (
            self.weights_of_members.shape != (count,)
            or not np.all(self.weights_of_members > 0)
            or not np.isclose(self.weights_of_members.sum(), 1.0)
        ):
            raise ValueError(
                f"`weights` must be {count} positive numbers that sum to one. "
                f"Received: weights={weights!r}."
            )
        # The members have units; what passes between them and the data has none.
        self.units = Units(real=False, dtype=self.density_dtype)

    @property
    def event_shape(self):
        return self.members[0].event_shape

    @property
    def context_size(self) -> int:
        return self.members[0].context_size

    def build(self, input_shape):
        for member in self.members:
            if not member.built:
                member.build(input_shape)
        self.units.build_for(self.event_shape)
        self.built = True

    def adapt(self, x) -> None:
        """Every member learns location and scale of the data, as `adapt` of one."""
        # A stream may be one that is read once.
        batches = list(inputs.rows_of(self, x))
        for member in self.members:
            member.adapt((batch,) for batch in batches)

    def is_bounded(self):
        return any(member.is_bounded() for member in self.members)

    def check_support(self, x):
        for member in self.members:
            member.check_support(x)

    def may_be_missing(self):
        # A member that takes no holes gives a row that has some no density.
        return np.all(
            np.broadcast_arrays(*[m.may_be_missing() for m in self.members]), axis=0
        )

    def typical_event(self):
        return self.members[0].typical_event()

    def causes_of_no_density(self):
        return [c for member in self.members for c in member.causes_of_no_density()]

    def floats_per_row(self):
        return max(member.floats_per_row() for member in self.members)

    def compute_log_prob(self, x, context, training):
        data = x if context is None else (x, context)
        scores = [
            ops.cast(member(data, training=training), self.density_dtype)
            for member in self.members
        ]
        logs = ops.convert_to_tensor(
            np.log(self.weights_of_members), self.density_dtype
        )
        return ops.logsumexp(ops.stack(scores, axis=-1) + logs, axis=-1)

    def sample(self, num_samples, context=None, seed=None, verbose="auto"):
        """Exact draws; each member gives its share of them, up to one.

        Args:
            num_samples: number of draws, at least 1.
            context: `(C,)` for all draws or `(num_samples, C)`.
            seed: int, `keras.random.SeedGenerator` or None.
            verbose: 0, 1, or `"auto"` for a progress bar when there are many chunks.

        Returns:
            A float tensor `(num_samples, *event_shape)`.
        """
        check_positive("num_samples", num_samples)
        self.require_built()
        if context is not None:
            context = inputs.check_context(self, context, num_samples)
        noise = noise_generator(seed)
        chosen = self._choose_members(num_samples, noise)
        draws = []
        for k in np.unique(chosen):
            rows = np.flatnonzero(chosen == k)
            member = self.members[k]
            own = None if context is None else context[rows]
            draws.append(member.sample(len(rows), own, noise, verbose))
        draws = [ops.cast(d, self.density_dtype) for d in draws]
        places = np.argsort(np.argsort(chosen, kind="stable"), kind="stable")
        return ops.take(ops.concatenate(draws), places, axis=0)

    def _choose_members(self, num_samples, noise):
        """The member of each draw, evenly spread, in an order left to chance."""
        uniforms = draw_uniforms((num_samples + 1,), noise)
        even = (np.arange(num_samples) + uniforms[0]) / num_samples
        ends = np.cumsum(self.weights_of_members)[:-1]
        members = np.searchsorted(ends, even, side="right")
        return members[np.argsort(uniforms[1:])]

    def distribution(self, context=None):
        """This density as a `tfd.Mixture` of its members' (TensorFlow)."""
        import tensorflow_probability as tfp

        self.require_built()
        parts = [member.distribution(context) for member in self.members]
        logs = np.log(self.weights_of_members).astype(self.density_dtype)
        logs = ops.broadcast_to(logs, (*parts[0].batch_shape, len(logs)))
        return tfp.distributions.Mixture(
            tfp.distributions.Categorical(logits=logs), parts
        )

    def get_config(self):
        return {
            **keras.Model.get_config(self),
            "members": [keras.saving.serialize_keras_object(m) for m in self.members],
            "weights": self.weights_of_members.tolist(),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["members"] = [
            keras.saving.deserialize_keras_object(member, custom_objects)
            for member in config["members"]
        ]
        return cls(**config)
