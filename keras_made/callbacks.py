"""What to watch while a density is fitted."""

import os

import keras
import numpy as np

from keras_made.checks import check_positive, require
from keras_made.plots import image_grid


class SampleImages(keras.callbacks.Callback):
    """A grid of samples each few epochs, as PNG files, to TensorBoard, or both.

    The seed is the same throughout: a picture changes as the model does.

    Args:
        image_shape: `(H, W)` or `(H, W, channels)`. None: the event's own.
        every: epochs between two grids; one is made after the first epoch, too.
        num_samples: pictures in a grid.
        png_dir: folder for `epoch_0001.png`, ...; needs matplotlib.
        log_dir: folder of TensorBoard's events; needs TensorFlow.
        context: `(C,)` or `(num_samples, C)`, for a model that has one.
        seed: of the samples.

    Raises:
        ValueError: if there is neither `png_dir` nor `log_dir`.
        ImportError: if what a format needs is not installed.
    """

    def __init__(
        self,
        image_shape=None,
        every: int = 1,
        num_samples: int = 64,
        png_dir=None,
        log_dir=None,
        context=None,
        seed: int = 0,
    ):
        super().__init__()
        if png_dir is None and log_dir is None:
            raise ValueError("Pass `png_dir`, `log_dir` or both: where pictures go.")
        check_positive("every", every)
        check_positive("num_samples", num_samples)
        self.image_shape = image_shape
        self.every = every
        self.num_samples = num_samples
        self.png_dir = png_dir
        self.log_dir = log_dir
        self.context = context
        self.seed = seed
        self._matplotlib = png_dir and require("matplotlib.image")
        self._summary = log_dir and require("tensorflow").summary
        self._writer = log_dir and self._summary.create_file_writer(os.fspath(log_dir))

    def on_epoch_end(self, epoch, logs=None):
        if epoch and (epoch + 1) % self.every:
            return
        x = self.model.sample(self.num_samples, self.context, self.seed, verbose=0)
        grid = image_grid(keras.ops.convert_to_numpy(x), self.image_shape)
        if self.png_dir is not None:
            os.makedirs(self.png_dir, exist_ok=True)
            path = os.path.join(self.png_dir, f"epoch_{epoch + 1:04d}.png")
            self._matplotlib.imsave(path, grid, cmap="gray", vmin=0, vmax=1)
        if self._writer:
            picture = np.atleast_3d(grid)[None]
            with self._writer.as_default():
                self._summary.image("samples", picture, step=epoch + 1)
            self._writer.flush()
