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

"""Photographs with masks, as the endoscopy data sets publish them."""

from __future__ import annotations

import csv
import logging
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_kd.data.photo_pairs import IMAGE_FOLDER, MASK_FOLDER, PHOTO_SUFFIXES, refuse_unusable
from monai_kd.data.same_name import same_name

logger = logging.getLogger(__name__)
SEQUENCE_FOLDER = re.compile(r"seq(uence)?_?\d+", re.IGNORECASE)  # PolypGen, EndoCV2022
# first frame of each video sequence of CVC-ClinicDB, from the README that comes with it
CLINICDB = (
    *(1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298),
    *(318, 343, 364, 384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592),
)
CLINICDB_DATASET = re.compile(r".*clinicdb.*|cvc-612|traindataset", re.IGNORECASE)  # numbers are of its frames alone
FIELDS = ("frame", "sequence")


class _Folder(NamedTuple):
    """A data set: its name and the files of its images and masks by stem."""

    dataset: str
    images: dict[str, list[Path]]
    masks: dict[str, list[Path]]


def endoscopy_cases(
    folder: PathLike,
    names: PathLike | Sequence[str] | None = None,
    sequences: PathLike | None = None,
    datasets: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    check: bool = True,
) -> list[dict[str, str]]:
    """
    Lists the frames of endoscopy data sets as they are published: every folder at or below `folder` that holds images
    and masks side by side is a data set. That covers

    - the layout of PraNet (Fan et al., MICCAI 2020), which KDAS uses: TrainDataset/{image,mask} or {images,masks} and
      TestDataset/{CVC-300,CVC-ClinicDB,CVC-ColonDB,ETIS-LaribPolypDB,Kvasir}/{images,masks};
    - Kvasir-SEG (images/, masks/), CVC-ClinicDB (Original/, "Ground Truth"/; of PNG/ and TIF/ in its Kaggle form PNG
      is taken), CVC-EndoSceneStill (bbdd/, gtpolyp/), ETIS-LaribPolypDB (its own name, "Ground Truth"/); photographs
      of skin and of the fundus in that form;
    - PolypGen, single frames (data_C1/{images_C1,masks_C1}) and sequences (sequenceData/positive/seq1/{images_seq1,
      masks_seq1}), and EndoCV2022 (PolypGen2.0/seq1/{images,masks}): each such folder is a data set. PolypGen's frames
      without a polyp (sequenceData/negativeOnly/) have no masks and are passed over.

    Frames are PNG, JPEG, TIFF, BMP or WebP files; other files and hidden ones are passed over. Links are followed; a
    folder that is reached twice counts at its first path.

    A mask has its image's stem, or that with ``_mask``, ``_segmentation``, or a ``p`` in front (ETIS). All frames that
    cannot be used are named in one error: image or mask is missing, cannot be decoded, or has another size than the
    other, or the mask is none (:py:class:`monai_kd.transforms.LoadMask`), or their EXIF orientations differ and nothing
    tells whether they belong together as stored or as turned.

    To split by video, which PraNet's split does not (all sequences of its ClinicDB test frames are in training), give
    `sequences` and use :py:func:`monai_kd.data.k_fold` or :py:func:`monai_kd.data.hold_out` with
    ``group_key="sequence"``.

    Args:
        folder: what was unpacked.
        names: only these frames: a text file with one stem a line, or a list; a suffix is allowed.
        sequences: a CSV file with the columns "frame" (stem; a suffix is allowed) and "sequence" (or "frame_id",
            "sequence_id", as in Kaggle's metadata.csv), "clinicdb" for the table of CVC-ClinicDB's README,
            which is for data sets with "ClinicDB" in their name, CVC-612 and PraNet's TrainDataset, or "folder" where a
            folder such as seq12/ holds the frames of one video (PolypGen, EndoCV2022). A frame that it does not name is
            a sequence of its own.
        datasets: only the data set or data sets of these names, their folders' names; default: all. Some copies of
            TestDataset hold the five test sets once more in test/.
        exclude: case or cases to leave out, as "CVC-ClinicDB_14"; each must be there, in any data set below `folder`.
        check: whether to decode all files, some ms each; without, a broken file shows up when it is read.

    Returns:
        [{"image", "label", "case", "dataset"}...] and "sequence" if asked for, in the order of data sets and frames;
        "case" is the data set and the stem.

    Raises:
        FileNotFoundError: when there is no data set or no frame, or no such file of names or sequences.
        ValueError: with all frames that cannot be used, names or excluded cases that are not there, or a file that is
            no such table, has blank cells, names a frame in two sequences, or names none of the frames.

    Example::

        >>> import tempfile
        >>> from monai_kd.data import write_endoscopy_phantoms
        >>> folder = write_endoscopy_phantoms(tempfile.mkdtemp(), "pranet", num_frames=10, size=48, progress=False)
        >>> [case["case"] for case in endoscopy_cases(folder, datasets=["Kvasir", "TrainDataset"])]
        ['Kvasir_1', 'TrainDataset_1', 'TrainDataset_2', 'TrainDataset_3', 'TrainDataset_4', 'TrainDataset_5']
    """
    root = Path(folder).expanduser()
    datasets = None if datasets is None else [same_name(name) for name in ensure_tuple(datasets)]
    exclude = [same_name(case) for case in ensure_tuple(exclude)]
    folders = list(_folders(root))
    found = [entry for entry in folders if datasets is None or entry.dataset in datasets]
    lacking = sorted(set(datasets or ()) - {entry.dataset for entry in found})
    if lacking:
        there = ", ".join(sorted({entry.dataset for entry in folders})) or "none"
        raise FileNotFoundError(
            f"`folder` must hold the data sets {', '.join(lacking)}, but got {root} with {there}. Other data needs "
            "other `datasets`; in a bundle see the table of other data in docs/README.md."
        )
    if not found:
        raise FileNotFoundError(f"`folder` must hold images/ and masks/, at any depth, but got {root} without.")
    unknown = sorted(set(exclude) - {case for entry in folders for case in _known(entry)})
    if unknown:
        raise ValueError(
            f"`exclude` must name cases as {found[0].dataset}_STEM, but got {', '.join(unknown)}, not in {root}."
        )
    wanted = None if names is None else _names(names)
    cases, problems = _pairs(found, wanted, exclude)
    refuse_unusable(cases, problems, root, check)
    if not cases:
        raise FileNotFoundError(f"`folder` must hold frames that are not excluded, but got {root} without any.")
    return cases if sequences is None else _with_sequence(cases, sequences)


def _folders(root: Path) -> Iterator[_Folder]:
    seen: set[Path] = set()  # links may lead in circles
    for place, inner, _ in os.walk(root, followlinks=True):
        folder, owner = Path(place), Path(place).resolve()
        if owner in seen:
            inner.clear()
            continue
        seen.add(owner)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if {"PNG", "TIF"} <= set(inner):
            inner.remove("TIF")  # the same frames
        images = [name for name in inner if IMAGE_FOLDER.fullmatch(name)] or [n for n in inner if n == folder.name]
        masks = [name for name in inner if MASK_FOLDER.fullmatch(name)]
        if not (images and masks):
            continue
        if len(images) + len(masks) > 2:
            raise ValueError(
                f"a data set must have one folder of images and one of masks, but got {images + masks} in {folder}."
            )
        inner.clear()
        name = owner.parent.name if owner.name in ("PNG", "TIF") else owner.name
        yield _Folder(same_name(name), _stems(folder / images[0]), _stems(folder / masks[0]))


def _stems(folder: Path) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith("."):
            stems.setdefault(same_name(path.stem), []).append(path)
    return stems


def _mask_stem(stem: str, masks: dict[str, list[Path]]) -> str | None:
    """The stem of an image's mask."""
    options = (stem, f"{stem}_mask", f"{stem}_segmentation", f"{stem.rstrip('_')}_mask", f"p{stem}")
    return next((option for option in options if option in masks), None)


def _known(folder: _Folder) -> set[str]:
    """The cases of a data set, also those of masks without an image."""
    paired = {_mask_stem(stem, folder.masks) for stem in folder.images}
    return {f"{folder.dataset}_{stem}" for stem in {*folder.images, *(set(folder.masks) - paired)}}


def _pairs(
    found: Sequence[_Folder], wanted: set[str] | None, exclude: Sequence[str]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The cases that have an image and a mask, and what is wrong with others."""
    cases: dict[str, dict[str, str]] = {}
    problems: dict[str, str] = {}
    for dataset, images, masks in found:
        unused = dict(masks)
        for stem in sorted(images, key=natural_order):
            mask = _mask_stem(stem, masks)
            paths = images[stem] + unused.pop(mask or "", [])
            case = f"{dataset}_{stem}"
            if case in exclude or (wanted is not None and stem not in wanted):
                continue
            if case in cases:
                problems[case] = f"it is also {cases[case]['image']}; read one folder at a time"
            elif mask is None:
                problems[case] = f"{paths[0]} has no mask"
            elif len(paths) != 2:
                problems[case] = f"it must be one image and one mask, but got {', '.join(map(str, paths))}"
            else:
                cases[case] = {"image": str(paths[0]), "label": str(paths[1]), "case": case, "dataset": dataset}
        if wanted is None:
            lonely = {f"{dataset}_{stem}": f"{paths[0]} has no image" for stem, paths in unused.items()}
            problems |= {case: reason for case, reason in lonely.items() if case not in exclude}
    known = {stem for folder in found for stem in folder.images}
    problems |= dict.fromkeys(sorted((wanted or set()) - known), "`names` has it, but there is no such image")
    return list(cases.values()), problems


def _names(names: PathLike | Sequence[str]) -> set[str]:
    if isinstance(names, (str, os.PathLike)):
        file = Path(names).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"`names` must be a list or a text file, but got {file}, which is not there.")
        names = file.read_text(encoding="utf-8-sig").splitlines()
    stems = {_stem(name) for name in names if name.strip()}
    if not stems:
        raise ValueError("`names` must hold at least one name, but got none.")
    return stems


def _stem(name: str) -> str:
    path = Path(same_name(name.strip()))
    return path.stem if path.suffix.lower() in PHOTO_SUFFIXES else path.name


def _with_sequence(cases: list[dict[str, str]], sequences: PathLike) -> list[dict[str, str]]:
    if sequences == "folder":
        own = [bool(SEQUENCE_FOLDER.fullmatch(case["dataset"])) for case in cases]
        if not any(own):
            found = ", ".join(sorted({case["dataset"] for case in cases})[:5])
            raise ValueError(f'`sequences="folder"` must find frames in folders such as seq12/, but got {found}.')
        return [{**case, "sequence": case["dataset" if in_one else "case"]} for case, in_one in zip(cases, own)]
    table = _sequences(sequences)
    if sequences == "clinicdb":
        covered = [case for case in cases if CLINICDB_DATASET.fullmatch(case["dataset"])]
    else:
        covered = cases
    named = {case["case"]: table[stem] for case in covered if (stem := same_name(Path(case["image"]).stem)) in table}
    if not named:
        raise ValueError(
            f"`sequences` must name the frames, but got {sequences} without "
            f"{', '.join(Path(case['image']).stem for case in cases[:3])} of {cases[0]['dataset']}."
        )
    if covered is cases and len(named) < len(cases):
        logger.warning(
            f"{sequences} names {len(named)} of {len(cases)} frames; each of the others is a sequence of its own"
        )
    return [{**case, "sequence": named.get(case["case"], case["case"])} for case in cases]


def _sequences(sequences: PathLike) -> dict[str, str]:
    if sequences == "clinicdb":
        return {str(frame): str(bisect_right(CLINICDB, frame)) for frame in range(1, 613)}
    file = Path(sequences).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f'`sequences` must be a CSV file, "clinicdb" or "folder", but got {file}, which is not there.'
        )
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = [next((c for c in (name, f"{name}_id") if c in (reader.fieldnames or ())), "") for name in FIELDS]
        if not all(columns):
            raise ValueError(f"`sequences` must have the columns {FIELDS}, but got {reader.fieldnames} in {file}.")
        table: dict[str, str] = {}
        for row in reader:
            frame, sequence = ((row[column] or "").strip() for column in columns)
            if not (frame and sequence):
                raise ValueError(
                    f"`sequences` must have a frame and a sequence in each row, but got {frame!r} and {sequence!r} in "
                    f"line {reader.line_num} of {file}."
                )
            first = table.setdefault(_stem(frame), sequence)
            if first != sequence:
                raise ValueError(
                    f"`sequences` must have one sequence for each frame, but got {first!r} and {sequence!r} for "
                    f"{frame!r} in {file}."
                )
        return table


def natural_order(stem: str) -> list[int | str]:
    """By this key 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", stem)]
