"""What is watched and shown.

Callbacks read what steps return (`outputs["logits"]`) and the batch; they work with any logger and with none, draw
on rank zero only, write PNG files into the run folder, and leave mode, gradients, random state and hooks as they
found them.
"""
