"""Measurements of flax_transformer; README.md names the command of each figure."""
