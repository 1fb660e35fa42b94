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

"""Small networks for nnU-Net, taught by those that nnU-Net trained."""

from __future__ import annotations

from monai_kd.nnunet.distilled_loss import DistilledLoss
from monai_kd.nnunet.plans import shrink_plans

__all__ = ["DistilledLoss", "shrink_plans"]
