"""Eight threads on one model get what they get one by one."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from laws import all_states, set_random_weights, to_numpy

from keras_made import MADE, AutoregressiveDensity

pytestmark = [pytest.mark.neutral, pytest.mark.compiled]

JOBS = {
    "log_prob": lambda model, i: model.log_prob(all_states(5)[i:]),
    "sample": lambda model, i: model.sample(9, seed=i),
    "predict": lambda model, i: model.predict(all_states(5)[i:], verbose=0),
}


@pytest.mark.parametrize("name", JOBS)
def test_threads_get_what_one_gets(name):
    if name == "predict" and keras.backend.backend() == "jax":
        pytest.skip("Keras on JAX takes the weights out of the model while it predicts")
    model = AutoregressiveDensity(MADE([8], hidden_degrees="random", num_masks=2))
    model.build((None, 5))
    set_random_weights(model.network)
    numbers = [i % 4 for i in range(16)]

    def run(i):
        return to_numpy(JOBS[name](model, i))

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, numbers))
    for i, found in zip(numbers, together, strict=True):
        np.testing.assert_allclose(found, run(i), rtol=1e-5, atol=1e-6)
