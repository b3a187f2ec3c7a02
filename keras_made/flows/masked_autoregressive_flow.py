"""A step of a flow as a bijector for plain TensorFlow Probability code."""

from keras_made.autoregressive import Autoregressive
from keras_made.flows.steps import AutoregressiveStep
from keras_made.flows.transforms import Affine, Transform
from keras_made.tfp.bijectors import FlowBijector


class MaskedAutoregressiveFlow(FlowBijector):
    """x_i = loc_i + scale_i u_i, with loc and scale of entry i from the x before it.

        inverse:  u = (x - loc(x)) / scale(x)             one call of the network
        forward:  x_i = loc_i(x) + scale_i(x) u_i         entry by entry, incremental
        log scale = raw / (1 + |raw| / log(1 / min_scale))

    For plain TFP code around an `Autoregressive` network. With a `MADE` the forward
    direction costs a few passes of arithmetic, whatever D; its gradient is that of the
    implicit function.

    `trainable_variables` are those of the network, also through `tfb.Invert`,
    `tfb.Chain` and `tfd.TransformedDistribution`. Build the network first to see them
    before the first use. As with every TFP bijector, a result that is still held is
    looked up, not computed again.

    Args:
        network: an `Autoregressive` layer with the `num_params` of the transform.
        min_scale: floor of the scales, between 0 and 1.
        transform: a `keras_made.flows.Transform`. None: the affine map above.
        context: `(..., C)`, for calls that pass no `context` of their own.
        name: of the bijector; `tfb.Chain` routes `context` by it.

    Call arguments:
        x: `(..., *event_shape)`; in the dtype of the network's variables.
        context: keyword; its leading axes are broadcast with those of x.

    Raises:
        ValueError: for a network with other `num_params` or several structures.

    Example:
        >>> import numpy as np
        >>> from keras_made import MADE
        >>> made = MADE([16], num_params=2)
        >>> made.build((None, 3))
        >>> flow = MaskedAutoregressiveFlow(made)
        >>> len(flow.trainable_variables) == len(made.trainable_variables)
        True
        >>> tuple(flow.forward(np.zeros((4, 3), "float32")).shape)
        (4, 3)

    Reference:
        Papamakarios, Pavlakou, Murray 2017, "Masked Autoregressive Flow for Density
        Estimation", https://arxiv.org/abs/1705.07057
    """

    def __init__(
        self,
        network: Autoregressive,
        *,
        min_scale: float = 1e-2,
        transform: Transform | None = None,
        context=None,
        name: str = "masked_autoregressive_flow",
    ):
        step = AutoregressiveStep(network, transform or Affine(min_scale))
        super().__init__(step, context=context, name=name)
        self._remake_with(
            network=network,
            min_scale=min_scale,
            transform=transform,
            context=context,
            name=name,
        )
