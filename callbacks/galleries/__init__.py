"""Callbacks that show items: an evaluation's images, boxes, text or search results, and what a model generates.

A gallery (`base.Gallery`) collects the most interesting items of an evaluation and draws them at its end. The others
(`generated_images`, `generated_text`, `animation`) have the model make something and draw that. What `zoo report` shows
item by item goes to `items/*.json` in the run folder, see `items`.
"""
