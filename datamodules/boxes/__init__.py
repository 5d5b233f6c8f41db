"""Data sets of images with boxes (batches are `Boxed`), and the readers of annotation formats.

`voc`, `coco` and `via` read one format each, `read` recognizes the format and also reads a plain table; all give
`Annotation`s (`annotations`) of images that `image_search` finds. `annotated` makes datamodules of them, of which
`box_folder` takes any format; `shapes` draws its scenes and needs no files. `anchors` finds typical sizes of boxes.
"""
