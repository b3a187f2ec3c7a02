"""Densities: a network and a conditional, as a Keras model."""
