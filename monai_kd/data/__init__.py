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

"""From published data sets and folders to MONAI data lists and slices."""

from __future__ import annotations

from monai_kd.data.endoscopy_cases import endoscopy_cases
from monai_kd.data.endoscopy_phantoms import EndoscopyPhantom, endoscopy_phantom, write_endoscopy_phantoms
from monai_kd.data.find_volumes import find_volumes
from monai_kd.data.folder_cases import folder_cases
from monai_kd.data.frames import Frames
from monai_kd.data.idrid_cases import idrid_cases
from monai_kd.data.isic_cases import isic_cases
from monai_kd.data.join_test_sets import join_test_sets
from monai_kd.data.k_fold import hold_out, k_fold
from monai_kd.data.kits19 import kits19_cases
from monai_kd.data.lits import lits_cases
from monai_kd.data.phantoms import CTPhantom, ct_phantom, write_phantoms
from monai_kd.data.readable_items import ReadableItems
from monai_kd.data.scan_cases import scan_cases
from monai_kd.data.slice_dataset import slice_dataset
from monai_kd.data.slice_list import slice_list
from monai_kd.data.split_by_ranges import split_by_ranges
from monai_kd.data.unlabelled_loader import unlabelled_loader
from monai_kd.data.whole_writers import WholeNiftiWriter, WholePictureWriter
from monai_kd.data.write_aside import replace_file, write_aside
from monai_kd.data.write_dicom_series import write_dicom_series

__all__ = [
    "CTPhantom",
    "EndoscopyPhantom",
    "Frames",
    "ReadableItems",
    "WholeNiftiWriter",
    "WholePictureWriter",
    "ct_phantom",
    "endoscopy_cases",
    "endoscopy_phantom",
    "find_volumes",
    "folder_cases",
    "hold_out",
    "idrid_cases",
    "isic_cases",
    "join_test_sets",
    "k_fold",
    "kits19_cases",
    "lits_cases",
    "replace_file",
    "scan_cases",
    "slice_dataset",
    "slice_list",
    "split_by_ranges",
    "unlabelled_loader",
    "write_aside",
    "write_dicom_series",
    "write_endoscopy_phantoms",
    "write_phantoms",
]
