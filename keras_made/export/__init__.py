"""A trained density for other runtimes."""
