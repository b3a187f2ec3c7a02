"""Small models drawn at random from the whole space of options, and their laws.

Options are tested elsewhere one by one; here they meet each other. Run it by itself for
more models than the slow test draws:

    PYTHONPATH=tests python tests/densities/soak.py 0 2000

Every model is a number: the same number draws the same options on every back end.
"""

import itertools
import os
import sys
import tempfile
import traceback
import warnings
from typing import NamedTuple

import keras
import numpy as np
from laws import chi_square_p, reload, run_steps, set_random_weights, to_numpy

from keras_made import (
    MADE,
    NADE,
    Attention,
    AutoregressiveDensity,
    Bernoulli,
    Categorical,
    Columns,
    MixtureOfLogistics,
    MixtureOfNormals,
    NetworkAverage,
    Normal,
    PixelCNN,
    PixelRNN,
    Recurrent,
    WaveNet,
)
from keras_made.densities.drawing import observed_first

NUM_DRAWS = 3000
# Along the real entry, or along each of two; what lies beyond the grid's ends holds
# less than the tolerance.
GRID_POINTS = {0: 0, 1: 4000, 2: 600}
IMAGES = [(2, 2), (1, 3), (2, 1, 2), (3, 1)]
HALVES = ("mixed_float16", "mixed_bfloat16")
FIRST_CALLS = ("fit", "fit a stream", "evaluate a stream", "score", "draw", "build")


class Case(NamedTuple):
    """One model of the soak and what is needed to ask it questions."""

    number: int
    model: AutoregressiveDensity
    twin: object  # A function of positions: the network in that one ordering, or None.
    context_size: int
    first_call: str
    described: str


class _Choice:
    """Options drawn one after the other, and remembered in words."""

    def __init__(self, number):
        self.rng = np.random.RandomState(number)
        self.words = []

    def __call__(self, name, options):
        value = options[self.rng.randint(len(options))]
        self.words.append(f"{name}={value!r}")
        return value

    def often(self, name, probability):
        value = bool(self.rng.rand() < probability)
        self.words.append(f"{name}={value}")
        return value


def draw_case(number: int) -> Case:
    choose = _Choice(number)
    keras.utils.set_random_seed(number)
    kind = choose(
        "network",
        ["made"] * 5 + ["nade", "nade", "average", "average", "recurrent"]
        + ["wavenet", "attention", "pixelcnn", "pixelrnn", "graph", "ties"],
    )  # fmt: skip
    dtype = choose("dtype", ["float32"] * 3 + [*HALVES, *_doubles()])
    shape = _draw_shape(choose, kind)
    conditional = _draw_conditional(choose, kind, shape)
    context_size = choose("context", [0, 0, 1, 2])
    network, twin = _draw_network(choose, kind, shape, conditional, dtype)
    model = AutoregressiveDensity(
        network,
        conditional,
        normalization=_draw_normalization(choose, conditional, shape, dtype),
        structures=_draw_structures(choose, network),
        support=_draw_support(choose, conditional, shape),
        dtype=dtype,
    )
    first_call = choose("first", FIRST_CALLS)
    return Case(number, model, twin, context_size, first_call, ", ".join(choose.words))


def _doubles():
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return ["float64"] if jax.config.jax_enable_x64 else []
    return ["float64"]


def _draw_shape(choose, kind):
    if kind in ("pixelcnn", "pixelrnn"):
        return choose("shape", IMAGES)
    return (choose("size", [1, 2, 3, 4, 5]),)


def _draw_conditional(choose, kind, shape):
    options = [Bernoulli(), Bernoulli(), Categorical(3), MixtureOfLogistics(2, 3)]
    size = int(np.prod(shape))
    if size <= 2:
        options += [Normal(), MixtureOfNormals(2)] * 2
    if len(shape) == 1:
        parts = [Bernoulli(), Categorical(3), MixtureOfLogistics(1, 2)]
        columns = [parts[choose.rng.randint(3)] for _ in range(size)]
        options.append(Columns(columns))
        real = [Normal(), MixtureOfNormals(2)][choose.rng.randint(2)]
        columns[choose.rng.randint(size)] = real
        options.append(Columns(columns))
        if kind == "recurrent":
            options += [Categorical(3)] * 3
    return choose("conditional", options)


def _draw_network(choose, kind, shape, conditional, dtype):
    """The network, and the function that makes its twin in one given ordering."""
    params = conditional.num_params
    if params == 1 and choose.often("no axis of parameters", 0.5):
        params = None
    common = {"num_params": params, "dtype": dtype}
    if kind in ("made", "nade"):
        make = _draw_dense(choose, kind, shape[0], common)
        return make(), make
    if kind in ("graph", "ties"):
        return _draw_structured(choose, kind, shape[0], common), None
    if kind == "average":
        makes = _draw_average(choose, shape[0], common)
        return NetworkAverage([make() for make in makes], dtype=dtype), None
    if kind == "recurrent":
        is_classes = isinstance(conditional, Categorical)
        end = 1 if is_classes and choose.often("end", 0.7) else None
        cell = choose("cell", ["lstm", "gru"])
        layers = choose("layers", [1, 2])
        network = Recurrent(shape, 4, cell, num_layers=layers, end=end, **common)
        return network, None
    if kind == "attention":
        return _draw_attention(choose, shape, common), None
    if kind == "wavenet":
        layers, kernel_size = choose("layers", [1, 3]), choose("kernel", [1, 2, 3])
        stacks = choose("stacks", [1, 2])
        network = WaveNet(
            shape,
            4,
            num_layers=layers,
            num_stacks=stacks,
            kernel_size=kernel_size,
            **common,
        )
        return network, None
    layers, kernel_size = choose("layers", [1, 2]), choose("kernel", [3, 5])
    kind = {"pixelcnn": PixelCNN, "pixelrnn": PixelRNN}[kind]
    return kind(shape, 6, num_layers=layers, kernel_size=kernel_size, **common), None


def _draw_dense(choose, kind, size, common):
    """A function that makes a `MADE` or a `NADE`, in its own or a given ordering."""
    ordering = choose("ordering", ["natural", "reversed", "random", "random", "own"])
    if ordering == "own":
        ordering = choose.rng.permutation(size).tolist()
    options = dict(common, seed=choose("seed", [0, 1, 2]))
    if kind == "made":
        degrees = choose("degrees", ["even", "even", "random"])
        hidden = choose("hidden", [(), (5,), (6, 6), (5, 7)])
        options |= {
            "hidden_degrees": degrees,
            "companion": choose.often("companion", 0.4),
            "residual": choose.often("residual", 0.3),
            "direct": choose.often("direct", 0.6) or not hidden,
            "dropout": choose("dropout", [0.0, 0.0, 0.3]),
            "activation": choose("activation", ["relu", "tanh"]),
        }
        varied = ordering == "random" or degrees == "random"
    else:
        blocks = {
            "num_blocks": choose("blocks", [0, 0, 1, 2]),
            "dropout": choose("dropout", [0.0, 0.0, 0.3]),
        }
        varied = ordering == "random"
    masks = choose("masks", [1, 2, 3]) if varied else 1

    def make(positions=None):
        one = {"ordering": ordering, "num_masks": masks}
        if positions is not None:
            one = {"ordering": positions}
        if kind == "made":
            return MADE(hidden, **options, **one)
        return NADE(5, **options, **one, **blocks)

    return make


def _draw_structured(choose, kind, size, common):
    """A `MADE` over a graph, or over ranks that hold several variables each."""
    rng, hidden = choose.rng, choose("hidden", [(), (5,), (6, 6), (9, 7)])
    options = dict(
        common,
        companion=choose.often("companion", 0.3),
        residual=choose.often("residual", 0.3),
        direct=choose.often("direct", 0.6) or not hidden,
        activation=choose("activation", ["relu", "tanh"]),
    )
    if kind == "graph":
        order, density = rng.permutation(size), choose("density", [0.2, 0.5, 1.0])
        below = np.tril(rng.rand(size, size) < density, -1)
        graph = below[np.ix_(order, order)]
        choose.words.append(f"graph={np.argwhere(graph).tolist()}")
        return MADE(hidden, adjacency=graph, **options)
    groups = choose("groups", range(1, size + 1))
    ranks = np.append(np.arange(groups), rng.randint(groups, size=size - groups))
    ranks = rng.permutation(ranks).tolist()
    choose.words.append(f"ranks={ranks}")
    degrees = choose("degrees", ["even", "random"])
    masks = choose("masks", [1, 2]) if degrees == "random" else 1
    one = {"ordering": ranks, "hidden_degrees": degrees, "num_masks": masks}
    return MADE(hidden, **options, **one)


def _draw_attention(choose, shape, common):
    ordering = choose("ordering", ["natural", "reversed", "random"])
    masks = choose("masks", [1, 3]) if ordering == "random" else 1
    layers, heads = choose("layers", [1, 2]), choose("heads", [1, 2])
    options = {"ordering": ordering, "num_masks": masks, "seed": 3, **common}
    return Attention(shape, 4, layers, heads, **options)


def _draw_average(choose, size, common):
    """Makers of two networks that share their ordering."""
    ordering = choose("ordering", ["natural", "reversed", "random"])
    masks = choose("masks", [1, 2, 3]) if ordering == "random" else 1
    shared = {**common, "ordering": ordering, "num_masks": masks, "seed": 3}
    companion = choose.often("companion", 0.4)
    makers = {
        "made": lambda: MADE((5,), companion=companion, **shared),
        "deep made": lambda: MADE((4, 4), direct=False, **shared),
        "nade": lambda: NADE(4, **shared),
    }
    if ordering == "natural":
        makers["gru"] = lambda: Recurrent((size,), 3, "gru", **common)
        makers["wavenet"] = lambda: WaveNet((size,), 3, num_layers=2, **common)
    names = choose("parts", list(itertools.combinations(makers, 2)))
    return [makers[name] for name in names]


def _draw_normalization(choose, conditional, shape, dtype):
    if not np.any(conditional.continuous) or not choose.often("normalization", 0.6):
        return None
    scale = choose("scale", [1e-3, 1.0, 1e3])
    # Keras's own layer overflows while it adapts in half precision.
    layer = keras.layers.Normalization(dtype="float64" if dtype == "float64" else None)
    layer.adapt(scale * (1.0 + choose.rng.normal(size=(64, *shape))))
    return layer


def _draw_structures(choose, network):
    if network.num_masks == 1 or not choose.often("some structures", 0.3):
        return None
    return [network.num_masks - 1, 0][: choose("number", [1, 2])]


def _draw_support(choose, conditional, shape):
    if not np.any(conditional.continuous):
        return None
    kind = choose("support", [None, None, (-1.0, 2.0), (0.0, np.inf), (-np.inf, 3.0)])
    if "scale=1000.0" in choose.words:
        # All of the mass would lie nearer to the bounds than numbers do.
        kind = None
    real = np.broadcast_to(conditional.continuous, shape)
    bounded = real & (choose.rng.rand(*shape) < 0.7)
    if kind is None:
        return None
    return np.where(bounded, kind[0], -np.inf), np.where(bounded, kind[1], np.inf)


# What the model is asked --------------------------------------------------------------


def check_case(case: Case) -> None:
    """Every law for one model; an AssertionError or any other error is a finding."""
    model, rng = case.model, np.random.RandomState(case.number)
    x = _some_rows(case, rng, 24)
    context = None
    if case.context_size:
        context = rng.normal(size=(24, case.context_size)).astype("float32")
    real_units = case.model.units.real.any() and case.model.normalization is None
    adapts = real_units and rng.rand() < 0.5
    if adapts and case.number % 2:
        case.model.adapt(x)
    make_first_call(case, x, context)
    if adapts:
        case.model.adapt(x)
    real = any(values is None for values in _supports(case))
    set_random_weights(model.network, seed=case.number, scale=0.4 if real else 0.7)
    one = None if context is None else context[0]
    _check_total_and_draws(case, one)
    _check_steps(case, x, context)
    _check_scores(case, x, context)
    _check_conditioning(case, x, one)
    _check_file(case, x, context)


def _event_shape(case):
    network = case.model.network
    if network.event_shape is not None:
        return network.event_shape
    return (int(case.described.split("size=")[1].split(",")[0]),)


def _supports(case):
    """The values of every entry, `None` for a real one."""
    conditional = case.model.conditional
    shape = _event_shape(case)
    size = int(np.prod(shape))
    parts = getattr(conditional, "conditionals", [conditional] * size)
    return [
        None if c.continuous else np.arange(getattr(c, "num_classes", 0)
                                            or getattr(c, "num_levels", 2))
        for c in parts
    ]  # fmt: skip


def _units(case):
    """Location and scale of every entry's data, on the unbounded scale."""
    size, layer = int(np.prod(_event_shape(case))), case.model.normalization
    if layer is None:
        return np.zeros(size), np.ones(size)
    mean = np.ravel(to_numpy(layer.adapt_mean)).astype("float64")
    variance = np.ravel(to_numpy(layer.adapt_variance)).astype("float64")
    return np.broadcast_to(mean, size), np.sqrt(np.broadcast_to(variance, size))


def _some_rows(case, rng, count):
    loc, scale = _units(case)
    columns = [
        loc[i] + scale[i] * rng.normal(size=count) if values is None
        else rng.choice(values, size=count)
        for i, values in enumerate(_supports(case))
    ]  # fmt: skip
    x = np.stack(columns, axis=1).reshape(count, *_event_shape(case))
    if case.model.support is not None:
        x = to_numpy(case.model.units.bounds.bound(keras.ops.convert_to_tensor(x))[0])
    end = getattr(case.model.network, "end", None)
    if end is not None:
        ended = np.cumsum(x == end, axis=1) > 0
        x = np.where(ended, end, x)
    return x.astype("float64" if "float64" in case.described else "float32")


def make_first_call(case, x, context):
    model, inputs = case.model, x if context is None else (x, context)
    model.compile("adam")
    pieces = [
        (x[i : i + 8],) if context is None else ((x[i : i + 8], context[i : i + 8]),)
        for i in (0, 8, 16)
    ]
    if case.first_call == "fit":
        model.fit(inputs, batch_size=8, epochs=1, verbose=0)
    elif case.first_call == "fit a stream":
        model.fit(_Stream(pieces), epochs=1, verbose=0)
    elif case.first_call == "evaluate a stream":
        model.evaluate(_Stream(pieces), verbose=0)
    elif case.first_call == "score":
        assert np.isfinite(to_numpy(model.log_prob(x, context, verbose=0))).all()
    shapes = (None, *x.shape[1:])
    if context is not None:
        shapes = (shapes, (None, context.shape[1]))
    if case.first_call in ("draw", "build"):
        model.build(shapes)
    if case.first_call == "draw":
        model.sample(2, None if context is None else context[0], seed=0)


class _Stream(keras.utils.PyDataset):
    def __init__(self, pieces):
        super().__init__()
        self.pieces = pieces

    def __len__(self):
        return len(self.pieces)

    def __getitem__(self, index):
        return self.pieces[index]


def _grid(case):
    """Every event, or a fine grid of real ones, with the volume that each stands for.

    Returns:
        `(events, log_volumes, cells)`: floats `(n, size)`, `(n,)`, and for each event
        the number of the coarse cell that it lies in.
    """
    axes, supports = [], _supports(case)
    points = GRID_POINTS[sum(values is None for values in supports)]
    for values in supports:
        if values is None:
            # Even in asinh: fine in the middle, and far out in the tails.
            edges = np.sinh(np.linspace(-6.0, 6.0, points + 1))
            middles = np.sinh(0.5 * (np.arcsinh(edges[1:]) + np.arcsinh(edges[:-1])))
            axes.append((middles, np.log(np.diff(edges))))
        else:
            axes.append((values.astype("float64"), np.zeros(len(values))))
    events = np.array(list(itertools.product(*(a[0] for a in axes))))
    volumes = np.array(list(itertools.product(*(a[1] for a in axes)))).sum(axis=1)
    events, log_slopes = _with_units(case, case.model.units.restore, events)
    return events, volumes + log_slopes.sum(axis=1), _cells(case, events)


def _with_units(case, convert, events):
    """Rows `(n, size)` between the data and what networks see, with the log slopes."""
    shape = (-1, *_event_shape(case))
    values, slopes = convert(
        keras.ops.convert_to_tensor(events.reshape(shape), case.model.density_dtype)
    )
    return [
        to_numpy(a).astype("float64").reshape(events.shape) for a in (values, slopes)
    ]


def _cells(case, events):
    """Discrete entries as they are, real ones as their side of the location."""
    z, _ = _with_units(case, case.model.units.standardize, events)
    number = np.zeros(len(events), dtype=int)
    for i, values in enumerate(_supports(case)):
        digits = z[:, i] > 0 if values is None else events[:, i]
        number = number * (2 if values is None else len(values)) + digits.astype(int)
    return number


def _score(case, events, context):
    """Eager log p of rows `(n, size)`, in parts."""
    dtype = "float64" if "float64" in case.described else "float32"
    result = []
    for part in np.array_split(events, -(-len(events) // 20000)):
        x = keras.ops.convert_to_tensor(part.reshape(-1, *_event_shape(case)), dtype)
        inputs = x
        if context is not None:
            rows = np.tile(context, (len(part), 1)).astype(dtype)
            inputs = (x, keras.ops.convert_to_tensor(rows))
        result.append(to_numpy(case.model(inputs)).astype("float64"))
    return np.concatenate(result)


def _is_half(case):
    return any(half in case.described for half in HALVES)


def _check_total_and_draws(case, context):
    events, volumes, cells = _grid(case)
    mass = np.exp(_score(case, events, context) + volumes)
    assert np.isfinite(mass).all(), "log p is not finite"
    # Real scales may be smaller than the grid's: what it integrates is not exact.
    tolerance = 0.02 if any(v is None for v in _supports(case)) else 2e-4
    assert abs(mass.sum() - 1.0) < (0.05 if _is_half(case) else tolerance), mass.sum()
    p = np.bincount(cells, mass) / mass.sum()
    x = to_numpy(case.model.sample(NUM_DRAWS, context, seed=case.number, verbose=0))
    case.model.check_support(x)
    found = _cells(case, x.reshape(NUM_DRAWS, -1))
    counts = np.bincount(found, minlength=len(p))
    # Steps in the weights' precision and a pass in half precision differ a little.
    bound = 1e-30 if _is_half(case) else 1e-7
    chance = chi_square_p(counts, p)
    assert chance > bound, f"draws do not follow scores: p-value {chance:.1e}"
    few = to_numpy(case.model.sample(150, context, seed=case.number, verbose=0))
    few = np.bincount(_cells(case, few.reshape(150, -1)), minlength=len(p))
    chance = chi_square_p(few, p)
    assert chance > bound, f"few draws do not follow scores: p-value {chance:.1e}"


def _check_steps(case, x, context):
    network, tolerance = case.model.network, 0.15 if _is_half(case) else 2e-3
    z = to_numpy(case.model.units.standardize(keras.ops.convert_to_tensor(x))[0])
    for row in range(network.num_masks):
        whole = to_numpy(network(z, context, structure=row)).astype("float64")
        whole = whole.reshape(len(x), network.event_size, -1)
        steps = run_steps(network, z, context, row)
        # Log-odds against what cannot be are large numbers.
        near = np.abs(whole) < 1e3
        np.testing.assert_allclose(
            steps[near], whole[near], rtol=tolerance, atol=tolerance
        )


def _check_scores(case, x, context):
    """The compiled score of arrays is the eager one of tensors."""
    compiled = to_numpy(case.model.log_prob(x, context, verbose=0))
    inputs = x if context is None else (x, context)
    eager = to_numpy(case.model(inputs))
    tolerance = 0.3 if _is_half(case) else 2e-3
    np.testing.assert_allclose(compiled, eager, rtol=tolerance, atol=tolerance)
    nll = case.model.evaluate(inputs, verbose=0)
    assert abs(nll + eager.mean()) < tolerance * (1 + abs(nll))


def _check_conditioning(case, x, context):
    model, rng = case.model, np.random.RandomState(case.number + 1)
    size = model.network.event_size
    observed = rng.rand(len(x), size) < 0.5
    observed[0], observed[1] = True, False
    seen = observed.reshape(x.shape)
    holes = np.where(seen, x, np.nan)
    for particles in (1, 3):
        with warnings.catch_warnings():
            # That one particle ignores what comes later is known here.
            warnings.simplefilter("ignore")
            full = model.impute(holes, None, context, particles, seed=0, verbose=0)
        full = to_numpy(full)
        np.testing.assert_array_equal(full[seen], x[seen])
        model.check_support(full)
    found = to_numpy(
        model.conditional_log_prob(x, seen, context, 30, seed=0, verbose=0)
    )
    assert np.isfinite(found).all()
    # In half precision a pass and steps differ by a part of what they sum.
    scale = abs(float(to_numpy(model.log_prob(x[:1], context, verbose=0))[0]))
    tolerance = 0.3 + 0.1 * scale if _is_half(case) else 5e-3
    assert abs(found[0]) < tolerance, f"all observed: {found[0]}"
    if model.network.order_agnostic and case.twin is not None:
        _check_exact_conditioning(case, x[2:5], observed[2:5], context, found[2:5])


def _check_exact_conditioning(case, x, observed, context, found):
    """Against the network in the ordering of each row, by summing over the rest."""
    supports = _supports(case)
    model = case.model
    # The twin has the connectivity of the first structure.
    other = model.members[0] and "degrees='random'" in case.described
    if any(values is None for values in supports) or _is_half(case) or other:
        return
    orders = observed_first(model, observed.reshape(x.shape))
    weights = [w for w in model.network.get_weights() if w.dtype.kind not in "iu"]
    seen = list(zip(x.reshape(len(x), -1), observed, orders, found, strict=True))
    events = np.array(list(itertools.product(*supports)), dtype=x.dtype)
    for row, known, order, log_prob in seen:
        twin = case.twin(np.argsort(order).tolist())
        density = AutoregressiveDensity(twin, model.conditional, dtype=model.dtype)
        size = case.context_size
        density.build(((None, len(row)), (None, size)) if size else (None, len(row)))
        twin.set_weights(weights)
        scores = _score(case._replace(model=density), events, context)
        agrees = (events[:, known] == row[known]).all(axis=1)
        is_row = (events == row).all(axis=1)
        exact = scores[is_row][0] - np.logaddexp.reduce(scores[agrees])
        assert abs(log_prob - exact) < 5e-3, (log_prob, exact)


def _check_file(case, x, context):
    model, inputs = case.model, x if context is None else (x, context)
    before = to_numpy(model(inputs))
    with tempfile.TemporaryDirectory() as folder:
        again = reload(model, os.path.join(folder, "model.keras"))
    np.testing.assert_array_equal(to_numpy(again(inputs)), before)
    one = None if context is None else context[0]
    draws = [to_numpy(m.sample(5, one, seed=1, verbose=0)) for m in (model, again)]
    np.testing.assert_array_equal(*draws)
    losses = []
    for m in (model, again):
        keras.utils.set_random_seed(case.number)
        history = m.fit(inputs, batch_size=8, epochs=1, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def run(first: int, count: int) -> list[int]:
    """Check `count` models from number `first` on; the numbers of those that fail."""
    failed = []
    for number in range(first, first + count):
        described = "options that cannot be drawn"
        try:
            case = draw_case(number)
            described = case.described
            check_case(case)
        except Exception:
            failed.append(number)
            print(f"FAILED {number}: {described}\n{traceback.format_exc()}", flush=True)
        keras.backend.clear_session()
        if (number + 1 - first) % 50 == 0:
            print(f"{number + 1 - first} models, {len(failed)} failed", flush=True)
    print(f"{count - len(failed)} of {count} models pass; failed: {failed}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(bool(run(int(sys.argv[1]), int(sys.argv[2]))))
