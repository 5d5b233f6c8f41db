"""Callbacks that measure a training: its curves, activations, learning rates and floating-point operations."""
