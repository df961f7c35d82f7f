"""The whole matrix, every model on every backend: measured, recorded and explained."""
