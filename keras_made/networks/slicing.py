"""Parts of kernels and of events that are known by number only when a step runs."""

from keras import ops

from keras_made.generation import FIRST


def take_columns(array, start, width):
    """`array[..., start : start + width]` for a `start` known only when run."""
    rank, shape = len(array.shape), ops.shape(array)
    return ops.slice(array, (FIRST,) * (rank - 1) + (start,), (*shape[:-1], width))


def take_rows(array, start, width):
    """`array[..., start : start + width, :]`, likewise."""
    rank, shape = len(array.shape), ops.shape(array)
    starts = (FIRST,) * (rank - 2) + (start, FIRST)
    return ops.slice(array, starts, (*shape[:-2], width, shape[-1]))


def places_of(entries, width):
    """Where the `width` numbers of each entry stand: `(..., k)` to `(..., k width)`."""
    places = entries[..., None] * width + ops.arange(width, dtype="int32")
    return ops.reshape(places, (*ops.shape(entries)[:-1], -1))


def is_shared(entries) -> bool:
    """Whether entries, `(1, ...)` or `(batch, ...)`, are the same for all examples."""
    return entries.shape[0] == 1
