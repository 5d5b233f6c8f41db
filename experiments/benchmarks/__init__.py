"""Measurements of speed and quality next to a reference, as ratios within one run."""
