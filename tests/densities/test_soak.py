"""Two hundred models drawn from the whole space of options keep the laws.

`python tests/densities/soak.py FIRST COUNT` checks any others, without pytest.
"""

import os

import pytest
from soak import check_case, draw_case

pytestmark = [pytest.mark.neutral, pytest.mark.slow]
COUNT = int(os.environ.get("KERAS_MADE_SOAK", "200"))


# A quarter are compiled on TensorFlow: XLA takes ten times as long as their numbers.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=pytest.mark.compiled) if number % 4 == 0 else number
        for number in range(COUNT)
    ],
)
def test_a_model_of_any_options_keeps_the_laws(number):
    case = draw_case(number)
    print(case.described)
    check_case(case)
