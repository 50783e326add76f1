"""Training: recipes, the staged loop, checkpoints that resume exactly."""

from handgraph.training.checkpoint import load_system, save_weights
from handgraph.training.loop import train
from handgraph.training.recipe import Recipe, load_recipe, shipped_recipes

__all__ = ["Recipe", "load_recipe", "load_system", "save_weights", "shipped_recipes", "train"]
