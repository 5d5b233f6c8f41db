"""Image -> boxes. Every detector subclasses `detector.Detector`, which has the training step.

Input: `Boxed` batches, images (B, C, H, W) float32 normalised, for each image boxes (N, 4) xyxy in pixels and labels
(N,) int64 in 0..K-1; N may be 0. `training_step` returns `{"loss": (), ...}` with every part of the loss, the
evaluation steps besides `"detections"`, for each image `{"boxes": (M, 4), "scores": (M,), "labels": (M,)}`, as
`detect(image)` does. Metrics: `train/loss`, `val/map_50`, `test/map_50`.
"""
