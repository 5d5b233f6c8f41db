"""What is fed: one `LightningDataModule` per data set, all behind the same contract.

Input: files under `data_dir` (`$ZOO_DATA`, else `data/`). Output: batches that are NamedTuples
(`datamodules.batches`), normalised on the device. Every datamodule knows `mean`, `std`, `classes`,
`num_classes`, `image_shape`, keeps its own train / validation / test split (validation comes out of
train, seeded) and turns a normalised image back with `denormalize`.
"""
