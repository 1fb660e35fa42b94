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

from monai_kd.networks.nets.deeplab_v3_plus import DeepLabV3Plus
from monai_kd.networks.nets.enet import ENet
from monai_kd.networks.nets.epsa_unet import EPSAUNet
from monai_kd.networks.nets.erfnet import ERFNet
from monai_kd.networks.nets.espnet import ESPNet
from monai_kd.networks.nets.hierarchical_discriminator import HierarchicalDiscriminator
from monai_kd.networks.nets.mobilenet_v2_seg import MobileNetV2Seg
from monai_kd.networks.nets.polyp_pvt import PolypPVT
from monai_kd.networks.nets.psp_net import PSPNet
from monai_kd.networks.nets.ra_unet import RAUNet
from monai_kd.networks.nets.resnet18_seg import ResNet18Seg
from monai_kd.networks.nets.separable_epsa_unet import SeparableEPSAUNet
from monai_kd.networks.nets.trans_unet import TransUNet

__all__ = [
    "DeepLabV3Plus",
    "ENet",
    "EPSAUNet",
    "ERFNet",
    "ESPNet",
    "HierarchicalDiscriminator",
    "MobileNetV2Seg",
    "PSPNet",
    "PolypPVT",
    "RAUNet",
    "ResNet18Seg",
    "SeparableEPSAUNet",
    "TransUNet",
]
