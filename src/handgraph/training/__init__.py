"""Training: `recipe.load_recipe`, the staged `loop.train`, `checkpoint`s that resume exactly.

Nothing is imported here: whoever only loads weights does not wait for the training engine.
"""
