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

"""How a soft label is repaired before the student sees it (PLC-KD)."""

from __future__ import annotations

from monai_kd.corrections.assistant_correction import AssistantCorrection
from monai_kd.corrections.corrected_teacher import CorrectedTeacher
from monai_kd.corrections.correction_chain import CorrectionChain
from monai_kd.corrections.false_pixels import false_pixels
from monai_kd.corrections.similarity_correction import SimilarityCorrection
from monai_kd.corrections.store_soft_labels import store_soft_labels
from monai_kd.corrections.weights_key import weights_key

__all__ = [
    "AssistantCorrection",
    "CorrectedTeacher",
    "CorrectionChain",
    "SimilarityCorrection",
    "false_pixels",
    "store_soft_labels",
    "weights_key",
]
