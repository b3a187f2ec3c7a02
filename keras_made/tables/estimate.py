"""Numbers that were estimated."""


class Estimate(float):
    """A number that was estimated, with its standard error in `standard_error`."""

    def __new__(cls, value, standard_error):
        estimate = super().__new__(cls, value)
        estimate.standard_error = float(standard_error)
        return estimate

    def __repr__(self):
        return f"{float(self):.4g} +- {self.standard_error:.2g}"
