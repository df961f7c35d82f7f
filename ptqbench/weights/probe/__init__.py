"""Probe weights: a seeded random network with a head that is solved for, for every model.

No classifier is trained. Convolutions, linear layers and embeddings are drawn at random, layers
are scaled and BatchNorm statistics are set to what fixture images bring, and a linear head on top
of these random features is solved for in closed form. The network then really classifies, so that
gates have something to hold int8 against; it says nothing about trained weights.
"""
