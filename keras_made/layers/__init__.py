"""Layers: weights times structure, and nothing else."""
