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

"""
Distillation losses: one a file, each called as ``loss(student, teacher, label=None)`` and giving a scalar. Beside them
``StructureLoss``, a supervised loss that MONAI lacks, called as MONAI's ``loss(input, target)``.
"""

from __future__ import annotations

from .attention_supervision_loss import AttentionSupervisionLoss
from .attention_transfer_loss import AttentionTransferLoss
from .channel_wise_loss import ChannelWiseLoss
from .cross_image_relational_loss import CrossImageRelationalLoss
from .decoupled_kd_loss import DecoupledKDLoss
from .hint_loss import HintLoss
from .importance_map_loss import ImportanceMapLoss
from .intra_class_feature_variation_loss import IntraClassFeatureVariationLoss
from .kd_loss import KDLoss
from .local_affinity_loss import LocalAffinityLoss
from .mimic_loss import MimicLoss
from .pairwise_affinity_loss import PairwiseAffinityLoss
from .region_affinity_loss import RegionAffinityLoss
from .similarity_preserving_loss import SimilarityPreservingLoss
from .structure_loss import StructureLoss
from .symmetrical_guiding_loss import SymmetricalGuidingLoss

__all__ = [
    "AttentionSupervisionLoss",
    "AttentionTransferLoss",
    "ChannelWiseLoss",
    "CrossImageRelationalLoss",
    "DecoupledKDLoss",
    "HintLoss",
    "ImportanceMapLoss",
    "IntraClassFeatureVariationLoss",
    "KDLoss",
    "LocalAffinityLoss",
    "MimicLoss",
    "PairwiseAffinityLoss",
    "RegionAffinityLoss",
    "SimilarityPreservingLoss",
    "StructureLoss",
    "SymmetricalGuidingLoss",
]
