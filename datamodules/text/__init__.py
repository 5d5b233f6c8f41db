"""Data sets of text (batches are `Tokens`), and the tokenizers.

`text` predicts the next token, `sentence_pairs` masked tokens and the relation of two segments.
"""
