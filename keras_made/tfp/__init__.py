"""Faces for TensorFlow Probability; this room needs Keras on TensorFlow."""
