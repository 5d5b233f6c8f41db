"""Optimizers and learning-rate schedules, written out."""
