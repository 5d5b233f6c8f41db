"""Tokens -> tokens.

Input: `Tokens` batches, `input_ids` (B, T) int64 in 0..V-1 and `labels` (B, T), of which -100 asks for nothing.
Steps return `{"loss": (), "logits": (B, T, V)}`, or (M, V) where only the M places asked are computed. Metrics:
`train/loss` in nats a token asked, `train/acc`, and the same for val and test, exact over all tokens. Every system
subclasses `LanguageModel`, whose `net` has the children `stem`, `blocks`, `head`; what more a system asks of a text it
adds by `heads` and `targets`.
"""
