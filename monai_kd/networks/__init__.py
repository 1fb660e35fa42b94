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

from monai_kd.networks.channel_adapter import ChannelAdapter
from monai_kd.networks.feature_capture import FeatureCapture
from monai_kd.networks.knowledge import Knowledge
from monai_kd.networks.shrink import shrink
from monai_kd.networks.stored_soft_label import StoredSoftLabel
from monai_kd.networks.teacher import Teacher
from monai_kd.networks.teacher_network import TeacherNetwork
from monai_kd.networks.teacher_team import TeacherTeam

__all__ = [
    "ChannelAdapter",
    "FeatureCapture",
    "Knowledge",
    "StoredSoftLabel",
    "Teacher",
    "TeacherNetwork",
    "TeacherTeam",
    "shrink",
]
