"""What every test starts from."""

import keras
import pytest


@pytest.fixture(autouse=True)
def fixed_seed():
    """Initial weights, shuffles and unseeded draws are the same in every run."""
    keras.utils.set_random_seed(0)
