"""The families of flows: what each step is."""

import keras
import numpy as np
from keras.initializers import VarianceScaling

from keras_made.entries.encoder import Bounded
from keras_made.flows.dense_network import DenseNetwork
from keras_made.flows.flow import Flow
from keras_made.flows.steps import (
    AutoregressiveStep,
    CouplingStep,
    Elementwise,
    Inverse,
)
from keras_made.flows.transforms import Affine, Scale, Shift, Spline, Transform
from keras_made.graph_masks import as_list
from keras_made.networks.made import MADE

# The spread of output kernels at the start, as a part of what Glorot's rule gives.
OUTPUT_SCALE = 0.01


@keras.saving.register_keras_serializable(package="keras_made")
class MAF(Flow):
    """Masked autoregressive flow: scores in one pass, draws incrementally.

    Each step is affine over a `MADE`; a flow of one step is a normal for each entry
    given those before it.

    Args:
        event_size: as in `Flow`, like all arguments that follow but one.
        *args: `num_steps`, `hidden_units`.
        direct: masked linear connections from the inputs of a step's network to its
            outputs, zero at the start.
        adjacency: as in `MADE`: the graph of every step, in place of an ordering and
            its permutations. A flow of one step is a density over that graph exactly;
            in n steps a variable hears its ancestors of up to n generations, which are
            its parents where the graph holds an edge for every path. Drawing takes n
            times as many steps as the graph is deep.
        context_adjacency: as in `MADE`, in every step: through its parents a variable
            then hears their columns of the context too.
        **kwargs: as in `Flow`.

    Example:
        >>> flow = MAF(2, num_steps=2, hidden_units=[16])
        >>> flow.compile("adam")
        >>> history = flow.fit(np.zeros((32, 2)), epochs=1, verbose=0)
        >>> tuple(flow.sample(3).shape)
        (3, 2)

    Reference:
        Papamakarios, Pavlakou, Murray 2017, https://arxiv.org/abs/1705.07057;
        Wehenkel, Louppe 2021, "Graphical Normalizing Flows",
        https://arxiv.org/abs/2006.02548
    """

    def __init__(
        self,
        event_size: int,
        *args,
        direct: bool = True,
        adjacency=None,
        context_adjacency=None,
        **kwargs,
    ):
        # The base makes the steps, which need to know these.
        self.direct = direct
        # Arrays, for Keras would wrap lists of lists row by row.
        self.adjacency, self.context_adjacency = (
            None if relation is None else np.asarray(relation)
            for relation in (adjacency, context_adjacency)
        )
        self._check_permutation(kwargs.get("permutation", "reverse"))
        super().__init__(event_size, *args, **kwargs)

    def _check_permutation(self, permutation):
        if self.adjacency is not None and permutation != "reverse":
            raise ValueError(
                "With `adjacency` all steps take the variables in the order of the "
                f"graph. Received: permutation={permutation!r}. Leave it out."
            )
        if self.context_adjacency is not None and permutation == "lu":
            raise ValueError(
                "permutation='lu' mixes the variables, and each would hear all of the "
                "context: `context_adjacency` would say nothing. Leave one of them out."
            )

    def make_transform(self) -> Transform:
        """What the parameters of an entry do to it."""
        return Affine(self.min_scale)

    def make_step(self, index):
        transform = self.make_transform()
        network = MADE(
            self.hidden_units,
            transform.num_params,
            ordering="natural" if self.adjacency is not None else self.ordering(index),
            adjacency=self.adjacency,
            context_adjacency=self.context_adjacency,
            activation=self.activation,
            direct=self.direct,
            direct_params=transform.direct_params,
            dropout=self.dropout,
            kernel_initializer=self.initializer(index),
            kernel_regularizer=self.kernel_regularizer,
            encoder=Bounded(),
            output_scale=OUTPUT_SCALE,
            seed=self.stream(index),
            dtype=self.dtype_policy,
            name=f"network_{index}",
        )
        return AutoregressiveStep(
            network, transform, dtype=self.dtype_policy, name=f"step_{index}"
        )

    def get_config(self):
        return {
            **super().get_config(),
            "direct": self.direct,
            "adjacency": as_list(self.adjacency),
            "context_adjacency": as_list(self.context_adjacency),
        }


@keras.saving.register_keras_serializable(package="keras_made")
class IAF(MAF):
    """Inverse autoregressive flow: draws in one pass, scores incrementally.

    The steps are those of `MAF`, inverted: u = loc(x) + scale(x) x. Drawing, and
    scoring its own draws, is one pass: the family for variational inference. The
    gradient of scoring other rows costs up to D backward passes.

    Arguments are those of `MAF`.

    Reference:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, "Improving
        Variational Inference with Inverse Autoregressive Flow",
        https://arxiv.org/abs/1606.04934
    """

    def make_step(self, index):
        step = super().make_step(index)
        return Inverse(step, dtype=self.dtype_policy, name=f"inverse_{index}")


class _Splined:
    """What flows whose transform is a spline share: two arguments, and a start.

    Their networks have many outputs, and learn rows by heart sooner. Hidden kernels of
    a third of Glorot's variance, PyTorch's start, do so later.
    """

    def __init__(
        self,
        event_size: int,
        *args,
        num_bins: int = 8,
        bound: float = 5.0,
        kernel_initializer=None,
        **kwargs,
    ):
        # The base makes the steps, which need to know these.
        self._transform = Spline(num_bins, bound, kwargs.get("min_scale", 1e-2))
        if kernel_initializer is None:
            kernel_initializer = VarianceScaling(1 / 3, "fan_in", "uniform")
        super().__init__(
            event_size, *args, kernel_initializer=kernel_initializer, **kwargs
        )
        self.num_bins, self.bound = num_bins, bound

    def make_transform(self):
        return self._transform

    def get_config(self):
        return {**super().get_config(), "num_bins": self.num_bins, "bound": self.bound}


@keras.saving.register_keras_serializable(package="keras_made")
class SplineMAF(_Splined, MAF):
    """`MAF` whose entries are moved by rational-quadratic splines and an affine map.

    Args:
        event_size: as in `Flow`, like all arguments that follow but three.
        *args: `num_steps`, `hidden_units`.
        num_bins: number of pieces of each spline.
        bound: splines act on [-bound, bound]; outside only the affine map does.
        kernel_initializer: None: uniform with variance 1 / (3 fan-in).
        **kwargs: as in `MAF`.

    Reference:
        Durkan, Bekasov, Murray, Papamakarios 2019, "Neural Spline Flows",
        https://arxiv.org/abs/1906.04032
    """


@keras.saving.register_keras_serializable(package="keras_made")
class RealNVP(Flow):
    """Affine coupling layers: both directions in one pass of plain dense networks.

    Each step moves one half of the variables given the other; halves alternate. One
    step alone leaves a half as it is. One variable is moved given the context alone.

    Arguments are those of `Flow`.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803
    """

    def make_transform(self) -> Transform:
        """What the parameters of an entry do to it."""
        return Affine(self.min_scale)

    def make_step(self, index):
        transform, heard = self.make_transform(), self.event_size // 2
        if not heard and not self.context_size:
            # One variable hears nothing: a network would have no inputs.
            return Elementwise(transform, dtype=self.dtype_policy, name=f"step_{index}")
        # Entries in the order of the step: the half that is heard comes first.
        order = np.argsort(self.ordering(index))
        network = DenseNetwork(
            self.hidden_units,
            (self.event_size - heard) * transform.num_params,
            activation=self.activation,
            dropout=self.dropout,
            output_scale=OUTPUT_SCALE,
            kernel_initializer=self.initializer(index),
            kernel_regularizer=self.kernel_regularizer,
            seed=self.stream(index),
            dtype=self.dtype_policy,
            name=f"network_{index}",
        )
        return CouplingStep(
            network,
            transform,
            order,
            heard,
            dtype=self.dtype_policy,
            name=f"step_{index}",
        )


@keras.saving.register_keras_serializable(package="keras_made")
class SplineCoupling(_Splined, RealNVP):
    """Coupling layers of rational-quadratic splines and an affine map, RQ-NSF (C).

    Both directions are one pass.

    Args:
        event_size: as in `Flow`, like all arguments that follow but three.
        *args: `num_steps`, `hidden_units`.
        num_bins: number of pieces of each spline.
        bound: splines act on [-bound, bound]; outside only the affine map does.
        kernel_initializer: None: uniform with variance 1 / (3 fan-in).
        **kwargs: as in `Flow`.

    Reference:
        Durkan, Bekasov, Murray, Papamakarios 2019, "Neural Spline Flows",
        https://arxiv.org/abs/1906.04032
    """


@keras.saving.register_keras_serializable(package="keras_made")
class NICE(RealNVP):
    """Additive coupling layers, volume preserving, and a scale for each variable.

    Arguments are those of `Flow`; the learned scales are e to a weight of each
    variable.

    Reference:
        Dinh, Krueger, Bengio 2014, "NICE: Non-linear Independent Components
        Estimation", https://arxiv.org/abs/1410.8516
    """

    def make_transform(self):
        return Shift()

    def make_steps(self):
        scale = Elementwise(Scale(), dtype=self.dtype_policy, name="scale")
        return [scale, *super().make_steps()]
