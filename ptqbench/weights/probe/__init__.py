"""Probe weights: a seeded random network with a head solved in closed form, for every model.

No classifier is trained. Convolutions, linear layers and embeddings are drawn at random, layers are
scaled and BatchNorm statistics are set on fixture images, and a linear head on top of these random
features is solved in closed form. The network then really classifies, so that gates can compare
int8 with float32; it says nothing about trained weights.
"""
