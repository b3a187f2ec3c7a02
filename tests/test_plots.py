"""Pictures show what the network is, and are made with the same seed."""

import keras
import numpy as np
import pytest
from laws import to_numpy

from keras_made import MADE, NADE, AutoregressiveDensity, callbacks, plots

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.neutral


def test_the_figure_has_a_line_for_every_live_weight():
    network = MADE([5, 4], direct=False, ordering=[2, 0, 1])
    network.build((None, 3))
    figure = plots.plot_connectivity(network)
    lines, matrix = figure.axes[0].lines, figure.axes[1].images[0].get_array()
    expected = sum(to_numpy(layer.mask()).sum() for layer in network.masked_layers)
    assert len(lines) == expected
    assert np.array_equal(matrix, network.connectivity())
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers[:3] == numbers[-3:] == ["2", "0", "1"]


@pytest.mark.parametrize("hidden", [(), (5, 4)])
def test_the_figure_of_a_graph_has_them_too(hidden):
    graph = np.zeros((4, 4), bool)
    graph[[2, 2, 3], [0, 1, 2]] = True
    network = MADE(hidden, adjacency=graph)
    network.build((None, 4), (None, 2))
    lines = plots.plot_connectivity(network).axes[0].lines
    layers = [*network.hidden_layers[:1], network.direct_layer]
    live = sum(to_numpy(layer.mask()).sum() for layer in network.masked_layers)
    live -= sum(to_numpy(layer.mask())[4:].sum() for layer in layers)
    assert len(lines) == live + bool(hidden)  # One more for the legend.
    axes = plots.plot_graph(graph, "abcd").axes[0]
    names = {text.get_text(): text for text in axes.texts if text.get_text()}
    assert sorted(names) == list("abcd")
    assert [names[n].get_position()[1] for n in "abcd"] == [0, 0, -1, -2]
    assert sum(text.get_text() == "" for text in axes.texts) == graph.sum()


def test_networks_without_degrees_are_refused():
    with pytest.raises(ValueError, match="must be a MADE"):
        plots.plot_connectivity(NADE(4))


def test_a_grid_holds_every_sample_in_its_place():
    x = np.arange(20.0).reshape(5, 4)
    grid = plots.image_grid(x, (2, 2))
    assert grid.shape == (5, 8)
    np.testing.assert_allclose(grid[:2, 3:5], x[1].reshape(2, 2) / 19)
    np.testing.assert_allclose(grid[3:, :2], x[3].reshape(2, 2) / 19)
    with pytest.raises(ValueError, match="image_shape"):
        plots.image_grid(x)


def test_the_plane_integrates_to_one():
    model = AutoregressiveDensity(MADE([8], 2), "normal")
    model.build((None, 2))
    figure = plots.plot_density(model, (-6, 6), points=121)
    values = figure.axes[0].images[0].get_array()
    assert abs(values.sum() * 0.1**2 - 1) < 0.02
    with pytest.raises(ValueError, match="two variables"):
        plots.plot_density(AutoregressiveDensity(MADE([8])))


def test_images_are_written_with_one_seed(tmp_path):
    model = AutoregressiveDensity(MADE([8]))
    x = np.zeros((8, 4), "float32")
    model.compile(keras.optimizers.SGD(0.0))
    images = callbacks.SampleImages((2, 2), every=2, num_samples=9, png_dir=tmp_path)
    model.fit(x, epochs=4, verbose=0, callbacks=[images])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch_0001.png", "epoch_0002.png", "epoch_0004.png"]
    # The learning rate is 0: equal models give equal pictures.
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    with pytest.raises(ValueError, match="png_dir"):
        callbacks.SampleImages()


def test_what_is_missing_is_named():
    with pytest.raises(ImportError, match="pip install not_there"):
        plots.require("not_there.figure")


def test_tensorboard_gets_the_pictures(tmp_path):
    """The event file is read back: a PNG of the grid's size for each epoch."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    model = AutoregressiveDensity(MADE([8]))
    model.compile("adam")
    images = callbacks.SampleImages((2, 3), num_samples=4, log_dir=tmp_path)
    model.fit(np.zeros((8, 6), "float32"), epochs=2, verbose=0, callbacks=[images])
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    written = events.Tensors("samples")
    assert [event.step for event in written] == [1, 2]
    for event in written:
        width, height, png = event.tensor_proto.string_val[:3]
        assert (int(width), int(height)) == (7, 5)
        assert png.startswith(b"\x89PNG")
