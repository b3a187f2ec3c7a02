"""Recipes: networks, rates and ends of training for those who do not choose them."""
