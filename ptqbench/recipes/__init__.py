"""One recipe per architecture: how it is quantized and what must come of it."""

from __future__ import annotations

from ptqbench.recipes import (  # isort: skip  (the order of registration is that of reports)
    resnet,
    mobilenet,
    shufflenet,
    squeezenet,
    efficientnet,
)
from ptqbench.recipes import (
    alexnet,
    convnext,
    densenet,
    googlenet,
    inception,
    maxvit,
    mnasnet,
    regnet,
    swin,
    vgg,
    vit,
)
from ptqbench.recipes.recipe import RECIPES, Recipe, Thresholds, register

__all__ = ["RECIPES", "Recipe", "Thresholds"]

# After the models with shipped weights, which register themselves.
for _members in (
    *(alexnet.MEMBERS, vgg.MEMBERS, resnet.MEMBERS, squeezenet.MEMBERS, densenet.MEMBERS),
    *(googlenet.MEMBERS, inception.MEMBERS, shufflenet.MEMBERS, mobilenet.MEMBERS),
    *(mnasnet.MEMBERS, efficientnet.MEMBERS, regnet.MEMBERS, convnext.MEMBERS),
    *(vit.MEMBERS, swin.MEMBERS, maxvit.MEMBERS),
):
    for _recipe in _members:
        register(_recipe)
