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

"""MONAI's writers, whose files are replaced as a whole or not at all."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data.image_writer import ImageWriter, NibabelWriter, PILWriter

from monai_kd.data.write_aside import remove_left, write_aside

logger = logging.getLogger("monai.data.image_writer")  # as MONAI's writers


@cache
def _remove_left_once(folder: str) -> None:
    """Remove what killed processes left in a folder, once in a process."""
    remove_left(folder)


class _WholeWriter(ImageWriter):
    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """
        Writes aside, then replaces the file.

        Args:
            filename: the file.
            verbose: whether to log its name.
            kwargs: of the writer of the format.

        Raises:
            OSError: when it cannot be written, as on a full disk; an earlier file stays.
        """
        path = Path(filename)
        _remove_left_once(os.path.realpath(path.parent))
        with write_aside(path) as aside:
            super().write(aside, verbose=False, **kwargs)
        if verbose:
            logger.info(f"writing: {path}")


class WholeNiftiWriter(_WholeWriter, NibabelWriter):
    """
    MONAI's ``NibabelWriter`` for ``SaveImage``, which leaves a mask or none: a run that is killed while it writes, or
    that meets a full disk, leaves no half file under the final name.

    Example::

        >>> import tempfile
        >>> from monai.transforms import SaveImage
        >>> save = SaveImage(tempfile.mkdtemp(), output_ext=".nii.gz", writer="monai_kd.data.WholeNiftiWriter")
    """


class WholePictureWriter(_WholeWriter, PILWriter):
    """
    MONAI's ``PILWriter`` for ``SaveImage``, as :py:class:`WholeNiftiWriter`.

    Example::

        >>> import tempfile
        >>> from monai.transforms import SaveImage
        >>> save = SaveImage(tempfile.mkdtemp(), output_ext=".png", writer="monai_kd.data.WholePictureWriter")
    """
