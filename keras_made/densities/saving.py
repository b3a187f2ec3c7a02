"""What of a density goes to files: all of it, and never half a file."""

import functools

import keras
import numpy as np
from keras import ops

from keras_made.densities.inputs import split_shapes
from keras_made.export.runtimes import write_and_compare
from keras_made.files import whole


class SavedModel(keras.Model):
    """A Keras model whose files are whole, and hold all that training goes on from.

    A subclass has `typical_event`, `context_size` and `require_built`.
    """

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """As `keras.Model.save`; a `.keras` file is replaced only by a whole one."""
        path = str(filepath)
        if path.endswith((".h5", ".hdf5")):
            raise ValueError(
                "The format of `.h5` files is too old for a density, which could not "
                f"be loaded. Received: filepath={path!r}. Save it to a `.keras` file, "
                "or its weights with `save_weights` to a `.weights.h5` file."
            )
        if not path.endswith(".keras") or "://" in path or not overwrite:
            super().save(filepath, overwrite, zipped, **kwargs)
            return
        with whole(path) as written:
            super().save(written, True, zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """As `keras.Model.save_weights`; a file is replaced only by a whole one."""
        path = str(filepath)
        if "://" in path or not overwrite or max_shard_size is not None:
            super().save_weights(filepath, overwrite, max_shard_size)
            return
        with whole(path) as written:
            super().save_weights(written)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """As `keras.Model.export`: log p of rows, for another runtime.

        What is written with `format="onnx"` or `"litert"` is run by ONNX Runtime or
        LiteRT (`pip install keras_made[export]`) and compared with the model first.
        Their converters need a fixed number of rows for some models: pass it as
        `input_signature=[keras.InputSpec(shape=(n, *event_shape), dtype="float32")]`.

        Raises:
            ImportError: when a converter or a runtime is not installed.
            RuntimeError: when the converter cannot write the model, or what it wrote
                cannot be run or gives other numbers. Nothing is written then.
        """
        self.require_built()
        x, context = self.typical_event()[None], np.zeros((1, self.context_size))
        # Keras exports only what has been called.
        self((x, context) if self.context_size else x)
        write = functools.partial(super().export, format=format, **kwargs)
        if format not in ("onnx", "litert"):
            write(filepath)
            return
        write_and_compare(self, write, filepath, format)

    def build_from_config(self, config):
        # A file keeps lists where the model is built with a tuple of shapes, and Keras
        # exports what it is told here.
        if config:
            x_shape, context_shape = split_shapes(config["input_shape"])
            self.build((x_shape, context_shape) if context_shape else x_shape)

    # Keras does not save the state of dropout's seeds, without which a run that is
    # taken up again would draw other units to drop.

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for index, state in enumerate(self._seed_states()):
            store[f"seed_{index}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        names = list(store.keys())
        own = {name: store[name] for name in names}
        for index, state in enumerate(self._seed_states()):
            # Files of other versions of the package may have none.
            if f"seed_{index}" in own:
                state.assign(own.pop(f"seed_{index}")[()])
        super().load_own_variables(own)

    def _seed_states(self):
        return [v for v in self.variables if v.name == "seed_generator_state"]
