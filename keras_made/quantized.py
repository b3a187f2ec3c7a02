"""Layers that Keras has quantized inside a network, which its config does not know of.

They are named, by their place, in what the network is built from; when it is built
again, they are quantized again, and the file's weights fit.
"""

import keras


def add_layers(network, build_config):
    """The build config of a network, with the quantized layers inside it."""
    found = {}
    for index, layer in enumerate(network._flatten_layers(include_self=False)):
        if layer.quantization_mode is not None:
            own = keras.saving.serialize_keras_object(layer.quantization_config)
            found[str(index)] = [layer.quantization_mode, own]
    if not build_config or not found:
        return build_config
    return {**build_config, "quantized": found}


def split_layers(build_config):
    """The build config without the quantized layers, and these."""
    build_config = dict(build_config)
    return build_config, build_config.pop("quantized", {})


def quantize_layers(network, found) -> None:
    """Quantize the layers inside a network that is built."""
    layers = list(network._flatten_layers(include_self=False))
    for index, (mode, own) in found.items():
        own = keras.saving.deserialize_keras_object(own)
        layers[int(index)].quantize(mode, config=own)
