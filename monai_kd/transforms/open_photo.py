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

"""One picture of a file, the right way up."""

from __future__ import annotations

from pathlib import Path

from monai.config import PathLike
from PIL import ExifTags, Image, ImageOps

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def open_photo(filename: PathLike) -> Image.Image:
    """
    Opens and decodes a picture (PNG, JPEG, TIFF, BMP and whatever else Pillow reads) and turns it as its EXIF
    orientation says, as every viewer does.

    Args:
        filename: the file.

    Returns:
        the picture in the mode of the file; its ``format`` is that of the file, and so is ``info["orientation"]``, the
        EXIF tag from 1 (as stored) to 8.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no picture, or holds several.
        RuntimeError: when it cannot be decoded, because it is truncated for example.

    Example::

        >>> open_photo("frame.png")
        Traceback (most recent call last):
        ...
        FileNotFoundError: `filename` must be a picture, but got frame.png, which is not there.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"`filename` must be a picture, but got {path}, which is not there.")
    try:
        # Pillow 13 maps a grey TIFF file into memory by its size as turned, where it has the path
        with path.open("rb") as stream, Image.open(stream) as image:
            kind, pages = image.format, getattr(image, "n_frames", 1)
            if pages == 1 or kind == "MPO":  # the second picture of an MPO is a preview or the other eye's
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                upright = ImageOps.exif_transpose(image)
                upright.load()
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"`filename` must be a picture that Pillow reads, but got {path}; convert it to PNG or JPEG."
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RuntimeError(f"{path} cannot be read, {type(error).__name__}: {reason}; copy it once more.") from error
    if pages > 1 and kind != "MPO":
        raise ValueError(
            f"`filename` must hold one picture, but got {pages} in {path}; read them with `monai_kd.data.Frames`."
        )
    upright.format = kind
    upright.info["orientation"] = orientation if orientation in range(1, 9) else 1
    return upright


def check_depth(image: Image.Image, name: str) -> None:
    """
    Refuses a picture whose pixels have no known range: 32 bits or floating point, or a colour space without RGB.

    Args:
        image: what :py:func:`open_photo` gives.
        name: how the error calls it.

    Raises:
        ValueError: when it is such a picture.

    Example::

        >>> check_depth(Image.new("L", (2, 2)), "frame.png")
    """
    if image.mode not in MODES and not image.mode.startswith("I;16") and (image.mode, image.format) != ("I", "PNG"):
        raise ValueError(
            f"a picture must have 8 or 16 bits a channel, but got mode {image.mode} in {name}; "
            "save it as PNG of 8 bits, or of 16 bits with values up to 65535."
        )
