"""What is watched and shown while systems train.

Callbacks read the batch and what steps return (`outputs["logits"]`). They work with any logger and with none, draw on
rank zero only, write PNG files into the run folder, and leave mode, gradients, random state and hooks as they found
them. Rooms: `figures` (pure drawing), `galleries` (items of an evaluation), `monitors` (measurements over time),
`training` (what changes a training) and `runtime` (the process: signals, memory, progress, W&B).
"""
