"""Tokens -> tokens.

Input: `Tokens` batches, `input_ids` (B, T) int64 in 0..V-1 and `labels` (B, T), -100 at positions without a target.
Steps return `{"loss": (), "logits": (B, T, V)}`, or (M, V) if only the M positions with a target are computed. Metrics:
`train/loss` in nats a target, `train/acc`, and the same for val and test, exact over all targets. Every system
subclasses `base.LanguageModel`, whose `net` has the children `stem`, `blocks`, `head`; a system with further prediction
heads adds them by `heads` and `targets`.
"""
