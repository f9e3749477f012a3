"""Datasets by path for engines, which pass functions to other threads and processes."""

from __future__ import annotations

import os
from functools import lru_cache

from geolookup.answer.dataset import Dataset
from geolookup.answer.dataset import open as open_dataset


def dataset_of(dataset: Dataset | str | os.PathLike[str] | None) -> Dataset:
    """Return a dataset that was given, or that of a file; None: the embedded one.

    A file is opened once a process, and again when another has taken its place.

    Raises:
        DatasetError, OSError: as `geolookup.open`.
        TypeError: something else.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if dataset is None:
        return _opened(None, None)
    if not isinstance(dataset, (str, os.PathLike)):
        raise TypeError(f"dataset: expected Dataset or a path, not {type(dataset).__name__}")
    path = os.path.abspath(dataset)
    status = os.stat(path)
    return _opened(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(4)
def _opened(path: str | None, _: tuple[int, ...] | None) -> Dataset:
    return open_dataset(path)
