"""Image and text -> how well they match.

Input: `Paired` batches, images (B, C, H, W) float32 normalised, `input_ids` (B, T) int64 and their mask. Steps return
`{"loss": (), "logits": (B, B), "image_embedding": (B, D), "text_embedding": (B, D)}`: the similarity of every image
(rows) with every text (columns), and the embeddings, of length 1; B is the global batch in training. `rank(image,
input_ids, attention_mask)` gives the order of the images for each text. Metrics: `train/loss`, the same for val and
test, `test/acc` (zero-shot), `test/recall_1`, `test/recall_5`.
"""
