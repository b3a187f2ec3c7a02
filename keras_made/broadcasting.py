"""Rows and contexts with the same leading axes."""

from keras import ops


def broadcast_batches(x, context, event_rank: int):
    """Both with the leading axes that they have together.

    Args:
        x: `(..., *event)`.
        context: `(..., C)`, or None, which is handed back.
        event_rank: number of axes of an event.

    Raises:
        ValueError: for axes that do not fit.
    """
    if context is None:
        return x, None
    batch, own = tuple(x.shape[:-event_rank]), tuple(context.shape[:-1])
    broadcast_axes(batch, own)
    if batch == own and None not in batch:
        return x, context
    # Products broadcast axes of unknown length too, and are exact for ones.
    first = ops.ones_like(x[(..., *[0] * event_rank)])
    ones = first * ops.ones_like(context[..., 0])
    return x * ones[(..., *[None] * event_rank)], context * ones[..., None]


def broadcast_axes(axes, others):
    """The axes of two shapes together, None being of unknown length."""
    rank, result = max(len(axes), len(others)), []
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (axes, others)]
    for m, n in zip(*padded, strict=True):
        if m != n and 1 not in (m, n) and None not in (m, n):
            raise ValueError(
                "The leading axes of `x` and `context` must be equal, or such that one "
                f"can be repeated to fit the other. Received: {axes} and {others}."
            )
        result.append(n if m == 1 or (m is None and n != 1) else m)
    return tuple(result)
