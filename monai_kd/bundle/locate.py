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

"""Where the bundles that ship with monai_kd lie: in a checkout, an editable install and a wheel alike."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# a wheel holds them inside the package; a checkout, editable or not, beside it
PLACES = (PACKAGE / "bundles", PACKAGE.parent / "bundles")


def shipped_bundles() -> dict[str, Path]:
    """
    Find the bundles that ship with monai_kd.

    Returns:
        the folder of each bundle under its name, sorted by name.

    Example::

        >>> from monai_kd.bundle.locate import shipped_bundles
        >>> all((folder / "configs" / "metadata.json").is_file() for folder in shipped_bundles().values())
        True
    """
    found = {path.parents[1] for place in PLACES for path in place.glob("*/configs/metadata.json")}
    return {folder.name: folder for folder in sorted(found)}


def locate_bundle(bundle: str | Path) -> Path:
    """
    Find a bundle by its folder or, for one that ships with monai_kd, by its name.

    Args:
        bundle: a folder that holds ``configs/``, or a name such as ``liver_tumor_ct_emkd``. A folder goes first.

    Returns:
        the absolute path of its folder.

    Raises:
        FileNotFoundError: when it is neither; the message names the nearest bundle.

    Example::

        >>> from monai_kd.bundle.locate import locate_bundle
        >>> locate_bundle("no_such_bundle")
        Traceback (most recent call last):
        FileNotFoundError: `bundle` must be a folder with configs/ or the name of a shipped bundle, ...
    """
    folder = Path(bundle)
    if (folder / "configs").is_dir():
        return folder.resolve()
    shipped = shipped_bundles()
    if str(bundle) in shipped:
        return shipped[str(bundle)]
    nearest = get_close_matches(str(bundle), shipped, n=1) or list(shipped)
    remedy = f"; there is {', '.join(nearest)}" if nearest else ""
    raise FileNotFoundError(
        f"`bundle` must be a folder with configs/ or the name of a shipped bundle, but got {str(bundle)!r}{remedy}."
    )
