"""Data sets of images: with a class for each image (batches are `Labelled`), or one or two images as the complete data.

MNIST, Fashion-MNIST, CIFAR-10 and scikit-learn's digits are kept in memory; `image_folder` reads the user's own files,
and `single_image` feeds the systems that optimize an image (batches are `ContentStyle`).
"""
