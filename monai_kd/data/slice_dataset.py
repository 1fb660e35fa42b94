# Copyright (c) monai_kd contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A MONAI dataset of CT slices, cached in memory or on disk."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.data.utils import pickle_hashing
from torch import distributed

from monai_kd._private_attributes import cache_item
from monai_kd.data.progress_bar import progress_bar
from monai_kd.data.slice_list import slice_list

CACHES = ("memory", "disk", "none")


def slice_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Sequence[Callable] | Callable,
    cache: str = "memory",
    cache_dir: PathLike | None = None,
    progress: bool = True,
    **slice_options: Any,
) -> Dataset:
    """
    Builds a MONAI dataset of the axial slices of CT cases: :py:class:`monai.data.CacheDataset` (memory),
    :py:class:`monai.data.PersistentDataset` (disk) or :py:class:`monai.data.Dataset` (none).

    The cache is filled at once and in the order of the cases, so that each volume is decoded once; it holds what the
    transforms before the first random one give, and the random ones run each time. On disk, the name of a cached slice
    depends on these transforms and on the files' size and time: a changed window is computed anew. Processes that fill
    the same folder together share the work.

    Args:
        data: cases, see :py:func:`monai_kd.data.slice_list`.
        transform: transforms of an item, :py:class:`monai_kd.transforms.LoadSliced` first.
        cache: "memory", "disk" or "none" (every access reads the volume: for uncompressed NIfTI only).
        cache_dir: folder of the disk cache and of the scan's result; needed for "disk".
        progress: whether to show progress bars.
        slice_options: further arguments of :py:func:`monai_kd.data.slice_list`, as `keep` and `foreground`.

    Raises:
        ValueError: when an argument is out of range, or a transform cannot be pickled for the disk cache.

    Example, in a bundle::

        train:
          dataset:
            _target_: monai_kd.data.slice_dataset
            data: "$@folds['train']"
            transform: "@train::preprocessing"
            keep: foreground
            foreground: tumor
            cache_dir: "$@bundle_root + '/cache'"
    """
    if cache not in CACHES:
        raise ValueError(f"`cache` must be one of {', '.join(CACHES)}, but got {cache!r}.")
    if cache == "disk" and cache_dir is None:
        raise ValueError('`cache_dir` must be a folder for cache="disk", but got None.')
    cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
    items = slice_list(data, cache_dir=cache_dir, progress=progress, **slice_options)
    if cache == "none":
        return Dataset(items, transform)
    if cache == "memory":
        return CacheDataset(items, transform, num_workers=1, progress=progress)
    try:
        dataset = PersistentDataset(items, transform, cache_dir, hash_transform=pickle_hashing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "`transform` must be picklable up to the first random one, because a cached slice's name depends on it, "
            f'but got {error}; replace a lambda by a named transform, or use `cache="memory"`.'
        ) from error
    _fill(dataset, progress)
    return dataset


def _fill(dataset: PersistentDataset, progress: bool) -> None:
    count = len(dataset.data)
    first = 0
    if distributed.is_available() and distributed.is_initialized():  # ranks start elsewhere and skip what is there
        first = count * distributed.get_rank() // distributed.get_world_size()
    for index in progress_bar(range(count), "Caching slices", count, progress):
        item = dataset.data[(first + index) % count]
        name = f"{dataset.hash_func(item).decode()}{dataset.transform_hash}.pt"
        if not (Path(dataset.cache_dir) / name).is_file():
            cache_item(dataset, item)
