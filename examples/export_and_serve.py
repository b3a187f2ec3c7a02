"""From training to an HTTP service: a SavedModel behind the requests of TF Serving.

A MADE of handwritten digits is trained, exported and served by a process of its own
that imports TensorFlow and FastAPI, and neither Keras nor this package. Its answers are
compared with the live model's, its latency is measured, and what it draws is shown.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

NAME = "digits"


# The service: TensorFlow and FastAPI, nothing else ------------------------------------


def serve(folder, port):
    """Answer `POST /v1/models/digits:predict` as TensorFlow Serving does."""
    import tensorflow as tf
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request

    version = max(Path(folder).iterdir(), key=lambda path: int(path.name))
    loaded, app = tf.saved_model.load(str(version)), FastAPI()

    @app.get(f"/v1/models/{NAME}")
    def status():
        state = {"version": version.name, "state": "AVAILABLE"}
        return {"model_version_status": [state]}

    @app.post(f"/v1/models/{NAME}:predict")
    async def predict(request: Request):
        body = await request.json()
        name = body.get("signature_name", "serving_default")
        if name not in loaded.signatures:
            raise HTTPException(404, f"There is no signature {name!r}.")
        endpoint = loaded.signatures[name]
        specs = endpoint.structured_input_signature[1]
        columns = body.get("inputs")
        try:
            if columns is None:
                columns = by_columns(body["instances"], specs)
            inputs = {
                key: tf.constant(columns[key], specs[key].dtype, name=key)
                for key in specs
            }
            found = {key: a.numpy().tolist() for key, a in endpoint(**inputs).items()}
        except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
            raise HTTPException(400, f"{type(error).__name__}: {error}") from error
        found = next(iter(found.values())) if len(found) == 1 else found
        return {"predictions" if "instances" in body else "outputs": found}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def by_columns(instances, specs):
    """One value or one dict for each row, as a column for each input."""
    if len(specs) == 1 and not isinstance(instances[0], dict):
        return {next(iter(specs)): instances}
    return {key: [row[key] for row in instances] for key in specs}


# Training, and asking the service -----------------------------------------------------


def train(epochs):
    import keras
    from sklearn.datasets import load_digits

    from keras_made import MADE, AutoregressiveDensity

    keras.utils.set_random_seed(0)
    x = np.random.RandomState(0).permutation((load_digits().data > 7).astype("float32"))
    model = AutoregressiveDensity(MADE([200]))
    model.compile(keras.optimizers.Adam(2e-3))
    model.fit(x[200:], validation_data=x[:200], batch_size=100, epochs=epochs)
    return model, x[:200]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Client:
    """Requests to one model of a service."""

    def __init__(self, port):
        self.address = f"http://127.0.0.1:{port}/v1/models/{NAME}"

    def wait(self, service, seconds=180):
        for _ in range(seconds * 5):
            if service.poll() is not None:
                raise SystemExit(f"The service ended with {service.returncode}.")
            try:
                with urllib.request.urlopen(self.address) as answer:
                    return json.load(answer)["model_version_status"][0]
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"No service at {self.address} after {seconds} s.")

    def predict(self, **body):
        request = urllib.request.Request(
            f"{self.address}:predict",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return next(iter(json.load(answer).values()))


def milliseconds(function, repeats=30):
    """Median and 95th percentile of a request, the first ones left out."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return np.percentile(times[3:], [50, 95])


def draw_picture(x, observed, completed, samples, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seen = np.where(observed, 1 - x, 0.8)
    rows = {"digits": 1 - x, "sent": seen, "completed": 1 - completed}
    rows["drawn by the service"] = 1 - samples
    figure, axes = plt.subplots(len(rows), len(x), figsize=(9, 4.3))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_title(name, loc="left", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def ask(client, model, test, path):
    """Every endpoint once, with the live model beside it."""
    found = np.array(client.predict(instances=test.tolist()))
    difference = np.abs(found - np.asarray(model.log_prob(test, verbose=0))).max()
    print(f"log p of {len(test)} digits: {found.mean():.2f} nats on average")
    print(f"  largest difference from the live model: {difference:.1e}")
    if difference > 1e-3:
        raise SystemExit("The service gives other numbers than the model.")

    x, observed = test[:10], np.ones((10, 64), bool)
    observed[:, 32:] = False
    job = {"x": x.tolist(), "observed": observed.tolist(), "seed": 3}
    completed = np.array(client.predict(signature_name="impute", inputs=job))
    if (completed[observed] != x[observed]).any():
        raise SystemExit("The service changed observed pixels.")
    job = {"num_samples": 10, "seed": 7}
    samples = np.array(client.predict(signature_name="sample", inputs=job))
    draw_picture(x, observed, completed, samples, path)

    one, many = test[:1].tolist(), test.tolist()
    jobs = {
        "log_prob of 1 digit": lambda: client.predict(instances=one),
        f"log_prob of {len(test)}": lambda: client.predict(instances=many),
        "10 samples": lambda: client.predict(signature_name="sample", inputs=job),
    }
    print("milliseconds of a request   median    95%")
    for name, function in jobs.items():
        median, high = milliseconds(function)
        print(f"  {name:25s} {median:7.1f} {high:6.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("--out", type=Path, default=Path("out/export_and_serve.png"))
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], int(args.serve[1]))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    model, test = train(5 if args.quick else 60)

    import keras_made

    with tempfile.TemporaryDirectory() as folder:
        # The layout of TensorFlow Serving: a folder for the model, one per version.
        # The upper half of a digit comes first in the ordering: ten particles are many.
        path = Path(folder) / NAME / "1"
        keras_made.export_saved_model(model, path, num_particles=10)
        port = free_port()
        command = [sys.executable, __file__, "--serve"]
        service = subprocess.Popen([*command, str(Path(folder) / NAME), str(port)])
        try:
            client = Client(port)
            print("served:", client.wait(service))
            ask(client, model, test, args.out)
        finally:
            service.terminate()
            service.wait()
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
