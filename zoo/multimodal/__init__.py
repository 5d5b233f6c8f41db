"""Image and text -> similarity.

Input: `Paired` batches, images (B, C, H, W) float32 normalized, `input_ids` (B, T) int64 and their mask. Steps return
`{"loss": (), "logits": (B, B), "image_embedding": (B, D), "text_embedding": (B, D)}`: the similarity of every image
(rows) with every text (columns), and the embeddings, of length 1; B is the global batch in training. `rank(image,
input_ids, attention_mask)` returns the order of the images for each text. Metrics: `train/loss`, `val/loss`,
`test/loss`, and for val and test `acc`, `acc_new` (zero-shot), `recall_1`, `recall_5`.
"""
