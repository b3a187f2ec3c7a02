"""Tables: a conditional of its own for each variable; and conditionals by name."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_made.entries.arithmetic import float_of
from keras_made.entries.conditional import Conditional, check_config, tfp_distributions
from keras_made.entries.discrete import Bernoulli
from keras_made.entries.intervals import ends
from keras_made.entries.real import Normal


@keras.saving.register_keras_serializable(package="keras_made")
class Columns(Conditional):
    """A conditional of its own for each variable: tables of mixed columns.

    The network gives every variable as many parameters as the most demanding column
    needs, and hears every variable in as many features; a column uses the first of
    them and the rest are zero.

    Args:
        conditionals: one conditional per variable, in order.

    Example:
        >>> from keras_made import Bernoulli, Categorical, Normal
        >>> table = Columns([Bernoulli(), Categorical(5), Normal()])
        >>> table.num_params
        5
    """

    def __init__(self, conditionals: Sequence[Conditional]):
        self.conditionals = [get(conditional) for conditional in conditionals]
        if not self.conditionals or any(
            isinstance(getattr(c, "conditional", c), Columns) for c in self.conditionals
        ):
            raise ValueError(
                "`conditionals` must hold one conditional per variable, none of them "
                f"Columns. Received: {self.conditionals!r}."
            )
        # Equal conditionals are computed together, however many columns have them.
        self.kinds = list(dict.fromkeys(self.conditionals))
        self.kind_of = np.array(
            [self.kinds.index(c) for c in self.conditionals], dtype="int32"
        )
        self.num_params = max(c.num_params for c in self.kinds)
        self.num_uniforms = max(c.num_uniforms for c in self.kinds)
        self.num_features = max(c.num_features for c in self.kinds)

    @property
    def continuous(self):
        return np.array([c.continuous for c in self.conditionals])

    @property
    def incomplete(self):
        return np.array([c.incomplete for c in self.conditionals])

    @property
    def encoder(self):
        return self if any(c.encoder for c in self.kinds) else None

    def at(self, entries):
        return _ColumnsAt(self, ops.take(self.kind_of, entries, axis=0))

    def _by_kind(self, compute):
        """Compute each kind on its own columns, and put the columns back in order."""
        columns = [np.flatnonzero(self.kind_of == k) for k in range(len(self.kinds))]
        parts = [compute(kind, c) for kind, c in zip(self.kinds, columns, strict=True)]
        return parts, np.argsort(np.concatenate(columns))

    def log_prob(self, params, x):
        parts, order = self._by_kind(
            lambda kind, c: kind.log_prob(
                ops.take(params, c, axis=-2)[..., : kind.num_params],
                ops.take(x, c, axis=-1),
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def draw(self, params, uniforms):
        parts, order = self._by_kind(
            lambda kind, c: kind.draw(
                ops.take(params, c, axis=-2)[..., : kind.num_params],
                ops.take(uniforms, c, axis=-2)[..., : kind.num_uniforms],
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def interval_log_prob(self, params, low, high):
        parts, order = self._by_kind(
            lambda kind, c: kind.interval_log_prob(
                ops.take(params, c, axis=-2)[..., : kind.num_params],
                *self._ends(low, high, c, params.dtype),
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def draw_within(self, params, uniforms, low, high):
        parts, order = self._by_kind(
            lambda kind, c: kind.draw_within(
                ops.take(params, c, axis=-2)[..., : kind.num_params],
                ops.take(uniforms, c, axis=-2)[..., : kind.num_uniforms],
                *self._ends(low, high, c, params.dtype),
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def _ends(self, low, high, columns, dtype):
        """Both ends in some columns; one for all is one for each."""
        found = []
        for end in ends(low, high, dtype):
            axes = tuple(end.shape[:-1])
            every = ops.broadcast_to(end, (*axes, len(self.conditionals)))
            found.append(ops.take(every, columns, axis=-1))
        return found

    def mean(self, params):
        parts, order = self._by_kind(
            lambda kind, c: kind.mean(
                ops.take(params, c, axis=-2)[..., : kind.num_params]
            )
        )
        return ops.take(ops.concatenate(parts, axis=-1), order, axis=-1)

    def encode(self, x):
        parts, order = self._by_kind(
            lambda kind, c: self._pad(kind, kind.encode(ops.take(x, c, axis=-1)))
        )
        return ops.take(ops.concatenate(parts, axis=-2), order, axis=-2)

    def _pad(self, kind, features):
        padding = self.num_features - kind.num_features
        pairs = [(0, 0)] * (len(features.shape) - 1) + [(0, padding)]
        return ops.pad(ops.cast(features, float_of(features)), pairs)

    def distribution(self, params):
        """A `tfd.Blockwise` over the columns: they are one event of shape (D,)."""
        columns = [
            conditional.distribution(params[..., i : i + 1, : conditional.num_params])
            for i, conditional in enumerate(self.conditionals)
        ]
        tfd = tfp_distributions()
        columns = [tfd.Independent(c, reinterpreted_batch_ndims=1) for c in columns]
        return tfd.Blockwise(columns)

    def check_shape(self, event_shape):
        if event_shape[-1] != len(self.conditionals):
            raise ValueError(
                f"Columns holds {len(self.conditionals)} conditionals, one per "
                f"variable. Received: events of shape {tuple(event_shape)}."
            )

    def check(self, x):
        self.check_shape(x.shape[1:])
        for column, conditional in enumerate(self.conditionals):
            try:
                conditional.check(x[..., column])
            except ValueError as error:
                raise ValueError(f"In column {column}: {error}") from error

    def get_config(self):
        return {
            "conditionals": [
                keras.saving.serialize_keras_object(c) for c in self.conditionals
            ]
        }

    def __repr__(self):
        return f"Columns({self.conditionals!r})"


class _ColumnsAt:
    """The conditionals of entries whose indices are known only when run."""

    def __init__(self, columns, kind_of):
        self.columns = columns
        self.kind_of = kind_of

    def _select(self, compute, trailing=0):
        result = None
        for k, kind in enumerate(self.columns.kinds):
            is_kind = ops.equal(self.kind_of, k)
            for _ in range(trailing):
                is_kind = is_kind[..., None]
            part = compute(kind)
            # Zero is in every support's neighbourhood and is finite everywhere.
            part = ops.where(is_kind, part, ops.zeros_like(part))
            result = part if result is None else result + part
        return result

    def log_prob(self, params, x):
        return self._select(
            lambda kind: kind.log_prob(params[..., : kind.num_params], x)
        )

    def draw(self, params, uniforms):
        return self._select(
            lambda kind: kind.draw(
                params[..., : kind.num_params], uniforms[..., : kind.num_uniforms]
            )
        )

    def interval_log_prob(self, params, low, high):
        return self._select(
            lambda kind: kind.interval_log_prob(
                params[..., : kind.num_params], low, high
            )
        )

    def draw_within(self, params, uniforms, low, high):
        return self._select(
            lambda kind: kind.draw_within(
                params[..., : kind.num_params],
                uniforms[..., : kind.num_uniforms],
                low,
                high,
            )
        )

    def encode(self, x):
        return self._select(
            lambda kind: self.columns._pad(kind, kind.encode(x)), trailing=1
        )


def get(identifier) -> Conditional:
    """A conditional from its name (`"bernoulli"`, `"normal"`), config or itself."""
    names = {"bernoulli": Bernoulli, "normal": Normal}
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, Conditional):
        check_config(identifier)
        return identifier
    if isinstance(identifier, str) and identifier.lower() in names:
        return names[identifier.lower()]()
    raise ValueError(
        f"`conditional` must be one of {sorted(names)} or a conditional such as "
        f"Categorical(10). Received: {identifier!r}."
    )
