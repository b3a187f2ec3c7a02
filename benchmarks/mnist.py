"""Ten epochs of MADE([500]) on binarized MNIST, with and without direct connections.

    python benchmarks/mnist.py --data FOLDER [--epochs 10] [--json FILE]

Natural order, Adam 1e-3, batches of 100; the test set is scored after the last epoch.
Needs binarized_mnist.npz with uint8 arrays `train` and `test`. About three minutes on
two cores.
"""

import argparse
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the data; else $KERAS_MADE_DATA")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", help="write the rows to this file")
    arguments = parser.parse_args()

    import keras
    import numpy as np
    from timing import load_data, print_table, save_json

    from keras_made import MADE, AutoregressiveDensity

    data = load_data("binarized_mnist", arguments.data)
    rows = []
    for direct in (True, False):
        keras.utils.set_random_seed(0)
        model = AutoregressiveDensity(MADE([500], direct=direct))
        model.compile(keras.optimizers.Adam(1e-3))
        seconds = []
        for epoch in range(arguments.epochs):
            start = time.perf_counter()
            model.fit(data["train"], batch_size=100, verbose=0)
            seconds.append(time.perf_counter() - start)
            print(f"direct={direct}, epoch {epoch + 1}: {seconds[-1]:.1f} s")
        rows.append(
            {
                "direct": str(direct),
                "epochs": arguments.epochs,
                "test nll": model.evaluate(data["test"], batch_size=1000, verbose=0),
                "seconds per epoch": float(np.median(seconds)),
            }
        )
    print_table("MADE([500]) on binarized MNIST, nats", rows)
    save_json(arguments.json, rows)


if __name__ == "__main__":
    main()
