"""Measures of how far predicted hands are from true ones."""
