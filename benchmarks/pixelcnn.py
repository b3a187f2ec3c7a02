"""PixelCNN and MADE on binarized MNIST, with one small budget; the time of a sample.

    python benchmarks/pixelcnn.py [--data FOLDER] [--images 20000] [--json FILE]
    python benchmarks/pixelcnn.py --samples

The second command compares a step that computes one row, given what was kept of the
rows above it, with the whole network at every step; both compiled, batch of 16.

Each network is trained on the same number of images, drawn from the training set and
passed once; a second MADE goes on for as long as the PixelCNN took, in processor time.
Test NLL in nats, on about `--test` images, evenly spread over the test set.
"""

import argparse
import functools
import time

import keras
import numpy as np
from timing import interleaved_medians, load_data, print_table, save_json

from keras_made import MADE, Autoregressive, AutoregressiveDensity, PixelCNN, PixelRNN
from keras_made.compiling import compiled
from keras_made.densities.drawing import generate_rows, noise_shape


class StopAfter(keras.callbacks.Callback):
    """Stops training after so many seconds of processor time."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def on_train_begin(self, logs=None):
        self.start = time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        if time.process_time() - self.start > self.seconds:
            self.model.stop_training = True


def train(network, x, rate, passes=1, seconds=float("inf")):
    """The density, the number of images that it saw and its processor time."""
    keras.utils.set_random_seed(0)
    model = AutoregressiveDensity(network, "bernoulli")
    model.compile(keras.optimizers.Adam(rate))
    start = time.process_time()
    model.fit(
        x,
        batch_size=50,
        epochs=passes,
        callbacks=[StopAfter(seconds)],
        verbose=0,
    )
    seen = int(model.optimizer.iterations) * 50
    return model, seen, time.process_time() - start


def time_of_samples(network, batch=16, repeats=5):
    """Seconds to draw a batch: row by row, and recomputing all at every step."""
    model = AutoregressiveDensity(network, "bernoulli")
    model.build((None, *network.event_shape))
    noise = np.random.RandomState(0).uniform(size=(batch, *noise_shape(model)))
    noise = noise.astype("float32")
    draw = compiled(model, functools.partial(generate_rows, model))
    state = Autoregressive.start(network, batch)
    x_last = np.zeros((batch, 1), "float32")
    step = compiled(model, lambda t: Autoregressive.step(network, state, x_last, t)[0])
    middle = np.int32(network.event_size // 2)
    times = interleaved_medians(
        {"rows": lambda: draw(np.int32(0), noise), "all": lambda: step(middle)}, repeats
    )
    recomputed = times["all"] * network.event_size
    return {
        "network": type(network).__name__,
        "event": str(network.event_shape),
        "row by row s": times["rows"],
        "recomputed s": recomputed,
        "recomputed / row by row": recomputed / times["rows"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", action="store_true", help="time samples only")
    parser.add_argument("--data", help="folder of binarized_mnist.npz")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--test", type=int, default=2000)
    options = parser.parse_args()
    if options.samples:
        networks = [
            PixelCNN((28, 28), units=16, num_layers=5, kernel_size=5),
            PixelCNN((28, 28), units=32, num_layers=8),
            PixelRNN((28, 28), units=16),
        ]
        rows = [time_of_samples(network) for network in networks]
        print_table("Samples of one batch", rows)
        save_json(options.json, {"samples": rows})
        return
    data = load_data("binarized_mnist", options.data)
    x = data["train"][: options.images].astype("float32")
    # The rows of the test set are sorted by digit: take some of each.
    test = data["test"][:: max(1, len(data["test"]) // options.test)].astype("float32")
    images = x.reshape(-1, 28, 28), test.reshape(-1, 28, 28)
    rows = []

    def report(name, trained, test):
        model, seen, seconds = trained
        rows.append(
            {
                "network": name,
                "weights": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
                "images seen": seen,
                "processor s": seconds,
                "test NLL": model.evaluate(test, batch_size=50, verbose=0),
            }
        )
        return seconds

    network = PixelCNN((28, 28), units=16, num_layers=5, kernel_size=5)
    seconds = report("PixelCNN", train(network, images[0], 5e-3), images[1])
    report("MADE, same images", train(MADE([500, 500]), x, 2e-3), test)
    everything = data["train"].astype("float32")
    longer = train(MADE([500, 500]), everything, 2e-3, 1000, seconds)
    report("MADE, same time, all images", longer, test)
    print_table(f"Binarized MNIST, {options.images} images to the PixelCNN", rows)
    save_json(options.json, {"likelihood": rows})


if __name__ == "__main__":
    main()
