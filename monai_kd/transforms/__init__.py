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

"""Transforms that MONAI lacks."""

from __future__ import annotations

from monai_kd.transforms.boundary_transform import RandBoundaryTransform, RandBoundaryTransformd
from monai_kd.transforms.check_hounsfield import check_hounsfield, hounsfield_problem, hounsfield_range
from monai_kd.transforms.check_spacing import CheckSpacingd
from monai_kd.transforms.copy_affine import CopyAffined
from monai_kd.transforms.ct_window import CT_WINDOWS, CTWindow, CTWindowd
from monai_kd.transforms.dicom_series_reader import DicomSeriesReader, register_dicom_series_reader
from monai_kd.transforms.foreground_channels import foreground_channels
from monai_kd.transforms.load_mask import LoadMask, LoadMaskd
from monai_kd.transforms.load_rgb import LoadRGB, LoadRGBd
from monai_kd.transforms.load_slice import LoadSlice, LoadSliced
from monai_kd.transforms.load_soft_label import LoadSoftLabeld
from monai_kd.transforms.load_volume import LoadVolume, LoadVolumed
from monai_kd.transforms.rand_hue import RandHued
from monai_kd.transforms.rand_perspective import RandPerspectived
from monai_kd.transforms.same_size import SameSized
from monai_kd.transforms.task_label import TASKS, TaskLabeld, task_labels

__all__ = [
    "CT_WINDOWS",
    "TASKS",
    "CTWindow",
    "CTWindowd",
    "CheckSpacingd",
    "CopyAffined",
    "DicomSeriesReader",
    "LoadMask",
    "LoadMaskd",
    "LoadRGB",
    "LoadRGBd",
    "LoadSlice",
    "LoadSliced",
    "LoadSoftLabeld",
    "LoadVolume",
    "LoadVolumed",
    "RandBoundaryTransform",
    "RandBoundaryTransformd",
    "RandHued",
    "RandPerspectived",
    "SameSized",
    "TaskLabeld",
    "check_hounsfield",
    "foreground_channels",
    "hounsfield_problem",
    "hounsfield_range",
    "task_labels",
]

register_dicom_series_reader()
