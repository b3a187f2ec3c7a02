"""What every test starts from."""

import keras
import pytest
from eager import uncompiled


@pytest.fixture(autouse=True)
def fixed_seed():
    """Initial weights, shuffles and unseeded draws are the same in every run."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def compiled_where_it_is_the_point(request):
    """On TensorFlow functions run as they are, but for tests marked `compiled`.

    What most tests ask is about numbers, and XLA takes longer to compile a small model
    than all its numbers take.
    """
    if request.node.get_closest_marker("compiled"):
        yield
        return
    with uncompiled():
        yield
