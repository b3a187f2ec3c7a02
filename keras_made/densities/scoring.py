"""log p of rows: of arrays, checked and in chunks, and of tensors, with gradients."""

import keras
from keras import ops

from keras_made.checks import is_tensor, to_array
from keras_made.compiling import as_floats, is_traced, run_in_chunks, run_on_tensors
from keras_made.densities import inputs


def score_arrays(model, x, context, verbose):
    """log p of each row of an array, a tensor `(n,)`.

    Args:
        model: a `LikelihoodModel`.
        x: array-like `(n, *event_shape)`.
        context: `(n, C)`, `(C,)` or None.
        verbose: as in `log_prob`.
    """
    x, context = inputs.check_inputs(model, x, context)
    function = model.compiled_function("log_prob", lambda model, *x: model.score(*x))

    def run(*arrays):
        floats = [as_floats(a, model.density_dtype) for a in arrays]
        return function(*floats, verbose=verbose)

    return run_in_chunks(run, [x, context], model.floats_per_row(), verbose)


def score_tensor(model, x, context, verbose):
    """log p of each row of a tensor, which is taken as it is, with its gradient.

    Arguments are those of `score_arrays`.
    """
    if model.built:
        model.units.check()
    context = _context_of(model, x, context)
    if not _is_compiled_for(model, x):
        return model(x if context is None else (x, context))
    # Alike steps of a flow run in a loop where nothing is differentiated: not here.
    function = model.compiled_function(
        "log_prob of tensors", lambda model, x, context: model.call((x, context))
    )
    tensors = [
        None if t is None else ops.cast(t, model.density_dtype) for t in (x, context)
    ]
    return run_on_tensors(
        lambda *pieces: function(*pieces, verbose=verbose),
        tensors,
        model.floats_per_row(),
    )


def _context_of(model, x, context):
    """The context as a tensor `(n, C)`, or None."""
    if context is None:
        return None
    if not is_tensor(context):
        context = to_array("context", context)
    context = ops.convert_to_tensor(context)
    if len(context.shape) == 1:
        inputs.check_context_size(model, context.shape)
        context = ops.broadcast_to(context, (ops.shape(x)[0], context.shape[0]))
    return context


def _is_compiled_for(model, x) -> bool:
    """Whether a tensor is scored by a function that is compiled for its shape.

    What is itself being compiled takes the model as it is, and so does torch.
    """
    if keras.backend.backend() == "torch" or isinstance(x, keras.KerasTensor):
        return False
    if not model.built or is_traced():
        return False
    shape = tuple(x.shape)
    return shape[1:] == tuple(model.event_shape) and shape[0] > 0
