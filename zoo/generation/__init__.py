"""Noise or image -> image.

Input: what the system needs, often one or two pictures; images (B, C, H, W) float32 in 0..1.
`training_step` and its like return `{"loss": (), ...}` with every part of the loss; `sample(n)` gives images
(n, C, H, W) in 0..1, which `GeneratedImages` draws with the pictures that `reference_images()` gives, and `film(frames)`, where time
is part of the system, yields them one by one. Metrics: `train/loss` and its parts. Every system subclasses `GenerativeSystem`;
those whose only parameter is the image itself, `ImageOptimizer`.
"""
