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

"""The items of an inference run, without those that cannot be read."""

from __future__ import annotations

import json
import logging
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.data import IterableDataset
from monai.transforms import apply_transform
from torch.utils.data import get_worker_info

from monai_kd.data.frames import Frames

logger = logging.getLogger(__name__)


class ReadableItems(IterableDataset):
    """
    Goes through items as MONAI's ``IterableDataset`` does, but passes over those that cannot be read or transformed, so
    that one damaged file does not stop the others. Each is logged and kept in :py:meth:`failures`;
    :py:class:`monai_kd.handlers.FailedItemsHandler` ends the run with an error that lists them.

    Args:
        data: items with "case" (name) and "image", or :py:class:`monai_kd.data.Frames`, of which a video that cannot be
            decoded any further is passed over from there on.
        transform: transforms of an item.
        strict: whether the first item that cannot be read ends the run.

    Raises:
        RuntimeError: as it is gone through, with `strict`, for the first item that cannot be read, with its name.

    Example::

        >>> def image(item):
        ...     return 1 / item["image"]
        >>> items = ReadableItems([{"case": "a", "image": 0}, {"case": "b", "image": 2}], image)
        >>> list(items), items.failures()
        ([0.5], {'a': 'ZeroDivisionError: division by zero'})
    """

    def __init__(
        self, data: Iterable[Mapping[str, Any]], transform: Callable | None = None, strict: bool = False
    ) -> None:
        super().__init__(data, transform)
        self.strict = strict
        with tempfile.NamedTemporaryFile(suffix=".jsonl", delete=False) as file:
            self.log = Path(file.name)  # workers of a DataLoader write there too
        weakref.finalize(self, self.log.unlink, missing_ok=True)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        for number, item in enumerate(self._items()):
            if worker is not None and number % worker.num_workers != worker.id:
                continue
            try:
                found = item if self.transform is None else apply_transform(self.transform, item)
            except Exception as error:
                self._fail(str(item["case"]), error)
            else:
                yield found

    def failures(self) -> dict[str, str]:
        """Why items could not be read, by name."""
        return dict(json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines())

    def forget_failures(self) -> None:
        """Starts the list anew."""
        self.log.write_text("", encoding="utf-8")

    def _items(self) -> Iterator[Mapping[str, Any]]:
        if not isinstance(self.data, Frames):
            yield from self.data
            return
        for case, frames in self.data.by_file():
            try:
                yield from frames
            except Exception as error:  # the others can be decoded all the same
                self._fail(case, error)

    def _fail(self, case: str, error: Exception) -> None:
        reason = reason_line(error)
        if self.strict:
            raise RuntimeError(f"`{case}` cannot be read, {reason}") from error
        if case in self.failures():  # each worker meets the same damaged video
            return
        logger.error(f"passed over `{case}`: {reason}")
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps([case, reason]) + "\n")


def reason_line(error: BaseException) -> str:
    """
    The cause inside the errors that MONAI puts around it, on one line.

    Example::

        >>> reason_line(ValueError("no\\nvolume"))
        'ValueError: no volume'
    """
    while error.__cause__ is not None and str(error).startswith("applying transform"):
        error = error.__cause__
    text = str(error).strip()
    if "\nTraceback" in text:  # SaveImage puts that of its writer into its message
        return text.splitlines()[-1]
    return " ".join(f"{type(error).__name__}: {text}".split())
