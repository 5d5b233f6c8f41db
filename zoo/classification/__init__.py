"""Image -> logits.

Input: `Labelled` batches, images (B, C, H, W) float32 normalised, labels (B,) int64 in 0..K-1.
Output: logits (B, K). `training_step`, `validation_step` and `test_step` return
`{"loss": (), "logits": (B, K)}`; `predict_step` returns logits. Metrics: `train/loss`, `train/acc` and the same for
val and test. Every system subclasses `Classifier`, whose `net` has the children `stem`, `stages`, `head`.
"""
