"""Image and text -> how well they match.

Input: `Paired` batches, images (B, C, H, W) float32 normalised and `input_ids` (B, T) int64. Steps return
`{"loss": (), "logits": (B, B)}`, similarity of every image (rows) with every text (columns).
"""
