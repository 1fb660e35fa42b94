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

from monai_kd.handlers.adversarial_distillation_handler import AdversarialDistillationHandler
from monai_kd.handlers.case_metrics_handler import CaseMetricsHandler
from monai_kd.handlers.distillation_handler import DistillationHandler
from monai_kd.handlers.distillation_term import DistillationTerm
from monai_kd.handlers.epoch_seed_handler import EpochSeedHandler
from monai_kd.handlers.failed_items_handler import FailedItemsHandler
from monai_kd.handlers.false_pixel_handler import FalsePixelHandler
from monai_kd.handlers.finite_loss_handler import FiniteLossHandler
from monai_kd.handlers.frame_table_handler import FrameTableHandler
from monai_kd.handlers.gain_handler import GainHandler
from monai_kd.handlers.gradient_share import GradientShare
from monai_kd.handlers.linear_schedule import LinearSchedule
from monai_kd.handlers.loss_terms import loss_terms
from monai_kd.handlers.multi_scale_handler import MultiScaleHandler
from monai_kd.handlers.pix2pix_handler import Pix2PixHandler
from monai_kd.handlers.soft_label_correction_handler import SoftLabelCorrectionHandler

__all__ = [
    "AdversarialDistillationHandler",
    "CaseMetricsHandler",
    "DistillationHandler",
    "DistillationTerm",
    "EpochSeedHandler",
    "FailedItemsHandler",
    "FalsePixelHandler",
    "FiniteLossHandler",
    "FrameTableHandler",
    "GainHandler",
    "GradientShare",
    "LinearSchedule",
    "MultiScaleHandler",
    "Pix2PixHandler",
    "SoftLabelCorrectionHandler",
    "loss_terms",
]
