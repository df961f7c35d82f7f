"""One recipe per architecture: how it is quantized and what its int8 model must achieve."""

from __future__ import annotations

from ptqbench.recipes import efficientnet, mobilenet, resnet, shufflenet, squeezenet
from ptqbench.recipes.recipe import RECIPES, CompletedRecipe, Recipe
from ptqbench.recipes.traced import traced_recipes

__all__ = ["RECIPES", "CompletedRecipe", "Recipe"]

# The order of registration is that of reports: models with shipped weights come first.
for _recipe in (
    resnet.RESNET18,
    mobilenet.MOBILENET_V2,
    mobilenet.MOBILENET_V3_LARGE,
    shufflenet.SHUFFLENET_V2_X1_0,
    squeezenet.SQUEEZENET1_1,
    efficientnet.EFFICIENTNET_B0,
    *traced_recipes(),
):
    RECIPES.add(_recipe.model, _recipe)
