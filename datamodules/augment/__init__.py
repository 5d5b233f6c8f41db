"""Batched augmentation on the device: of images, of images with their boxes, and the mixing of samples.

An augmentation is called with a batch and a `torch.Generator`, draws separately for every sample, and returns a new
batch of the same type. Names in a recipe's `augment` list are dotted paths into this package, or into the user's own.
"""
