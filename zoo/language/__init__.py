"""Tokens -> tokens.

Input: `Tokens` batches, `input_ids` (B, T) int64 in 0..V-1 and `labels` (B, T), of which -100 asks for nothing.
Steps return `{"loss": (), "logits": (B, T, V)}`. Metrics: `train/loss` in nats a token, the same for val and test,
exact over all tokens. Every system subclasses `LanguageModel`.
"""
