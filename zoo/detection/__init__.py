"""Image -> boxes. Every detector subclasses `base.Detector`.

Input: `Boxed` batches, images (B, C, H, W) float32 normalized, for each image boxes (N, 4) xyxy in pixels and labels
(N,) int64 in 0..K-1; N may be 0. Steps return `{"loss": (), ...}` with every term of the loss, in evaluation also
`"detections"`, for each image `{"boxes": (M, 4), "scores": (M,), "labels": (M,)}`, as `detect(image)` does. Metrics:
`train/loss`, `val/loss`, `val/map_50`, `test/map_50`.
"""
