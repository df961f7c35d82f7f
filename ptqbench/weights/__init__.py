"""Weights: sources, files, downloads and the models built from them."""
