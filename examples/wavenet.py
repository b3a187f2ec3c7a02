"""A WaveNet of synthesised chords: waveforms drawn one sample at a time, and a WAV.

Training windows are short; the network is then copied into one of the same weights for
a much longer sequence, which its cached steps generate at a cost per sample that does
not depend on the length. The picture shows each chord's waveform and the spectrum,
with the notes that were asked for.

    python examples/wavenet.py
"""

import argparse
import time
import wave
from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from keras_made import AutoregressiveDensity, Categorical, WaveNet

RATE = 4000
LEVELS = 64
CHORDS = {
    "C major": (261.63, 329.63, 392.00),
    "A minor": (220.00, 261.63, 329.63),
    "G major": (196.00, 246.94, 293.66),
}


def mu_law(x, levels=LEVELS):
    """Amplitudes in [-1, 1] as classes 0 to levels-1, finer near silence."""
    mu = levels - 1
    y = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    return np.clip(np.floor((y + 1) / 2 * levels), 0, mu).astype("float32")


def mu_law_inverse(classes, levels=LEVELS):
    """The amplitude in the middle of each class."""
    mu = levels - 1
    y = (np.asarray(classes) + 0.5) / levels * 2 - 1
    return np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu


def synthesise(num_windows, length, seed):
    """Windows of chords with random phases and loudness, and their classes."""
    rng = np.random.RandomState(seed)
    chosen = rng.randint(len(CHORDS), size=num_windows)
    notes = np.array(list(CHORDS.values()))[chosen]
    phases = rng.uniform(0, 2 * np.pi, notes.shape)
    loudness = rng.uniform(0.15, 0.3, notes.shape)
    angle = 2 * np.pi * notes[..., None] * np.arange(length) / RATE
    x = np.sum(loudness[..., None] * np.sin(angle + phases[..., None]), axis=1)
    return mu_law(x), np.eye(len(CHORDS), dtype="float32")[chosen]


def make_model(length):
    network = WaveNet((length,), units=32, num_params=LEVELS, num_layers=7)
    return AutoregressiveDensity(network, Categorical(LEVELS))


def fit(length, epochs, num_windows):
    keras.utils.set_random_seed(0)
    model = make_model(length)
    steps = epochs * -(-num_windows // 8)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps))
    )
    model.fit(
        synthesise(num_windows, length, 0),
        validation_data=synthesise(64, length, 1),
        batch_size=8,
        epochs=epochs,
        verbose=2,
    )
    return model


def lengthen(model, length):
    """The same weights for a sequence of another length."""
    longer = make_model(length)
    longer.build(((None, length), (None, len(CHORDS))))
    longer.set_weights(model.get_weights())
    return longer


def spectrum(x):
    power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
    return np.fft.rfftfreq(len(x), 1 / RATE), power / power.sum()


def energy_on_notes(x, notes, width=8.0):
    """Share of the energy within `width` Hz of one of the notes."""
    frequencies, power = spectrum(x)
    near = np.abs(frequencies[:, None] - np.array(notes)).min(axis=1) < width
    return power[near].sum()


def write_wav(x, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(x, -1, 1) * 32767).astype("<i2").tobytes())


def draw_picture(waves, path):
    figure, axes = plt.subplots(len(CHORDS), 2, figsize=(10, 6))
    for (name, notes), x, (left, right) in zip(
        CHORDS.items(), waves, axes, strict=True
    ):
        left.plot(np.arange(400) / RATE * 1e3, x[-400:], linewidth=0.9)
        left.set_ylabel(name)
        frequencies, power = spectrum(x)
        right.plot(frequencies, power, linewidth=0.9)
        for note in notes:
            right.axvline(note, color="tab:red", linestyle=":", linewidth=1)
        right.set_xlim(150, 450)
        right.set_yticks([])
    axes[0, 0].set_title("generated waveform")
    axes[0, 1].set_title("its spectrum, and the notes of the chord")
    axes[-1, 0].set_xlabel("ms")
    axes[-1, 1].set_xlabel("Hz")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps only")
    parser.add_argument("--out", type=Path, default=Path("out/wavenet.png"))
    options = parser.parse_args()
    epochs, num_windows = (1, 64) if options.quick else (8, 480)
    model = fit(512, epochs, num_windows)
    print(f"Receptive field: {model.network.receptive_field} samples")
    length = RATE // 4 if options.quick else 2 * RATE
    longer = lengthen(model, length)
    start = time.perf_counter()
    classes = longer.sample(len(CHORDS), np.eye(len(CHORDS)), seed=0, verbose=0)
    seconds = time.perf_counter() - start
    print(f"{length} samples of {len(CHORDS)} chords in {seconds:.1f} s, compiling")
    waves = mu_law_inverse(classes)
    for (name, notes), x in zip(CHORDS.items(), waves, strict=True):
        others = [energy_on_notes(x, n) for c, n in CHORDS.items() if c != name]
        print(
            f"{name}: {energy_on_notes(x, notes):.0%} of the energy on its notes, "
            f"at most {max(others):.0%} on those of another chord"
        )
    draw_picture(waves, options.out)
    write_wav(waves.ravel(), options.out.with_suffix(".wav"))
    print(f"Picture and sound: {options.out}, {options.out.with_suffix('.wav')}")


if __name__ == "__main__":
    main()
