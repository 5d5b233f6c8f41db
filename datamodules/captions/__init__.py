"""Data sets of images with sentences (batches are `Paired`): drawn scenes, and the user's own list of images."""
