"""Noise or image -> image.

Input: what the system needs, often `ContentStyle`, one or two images; images (B, C, H, W) float32 in 0..1. Steps return
`{"loss": (), ...}` with every term of the loss. `sample(n)` returns images (n, C, H, W) in 0..1, which the callback
`GeneratedImages` draws together with the images of `reference_images()`; where time is part of the system,
`rollout(frames)` yields images one by one, which `Animation` shows. Metrics: `train/loss` and its terms, the same for
val and test. Every system subclasses `base.GenerativeSystem`; those whose only parameter is the image itself subclass
`base.ImageOptimizer`.
"""
