"""Data sets as `LightningDataModule`s, one class for each, all with the same contract.

Input: files under `data_dir` (`$ZOO_DATA`, else `data/`), or files of the user's own. Output: batches that are
NamedTuples (`datamodules.batches`), normalized on the device. A datamodule of images knows `mean`, `std`, `classes`,
`num_classes` and `image_shape`, keeps its own training, validation and test split (validation comes out of train,
seeded), and turns a normalized image back with `denormalize`.

`base`, `image`, `loader`, `batches`, `files` and `io` hold the contracts; the rooms are `images`, `boxes`, `captions`,
`text` and `augment`.
"""

import os

# Before any module here imports albumentations, which would otherwise look for updates on the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
