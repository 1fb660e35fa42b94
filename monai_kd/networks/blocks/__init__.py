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

from monai_kd.networks.blocks.atrous_pyramid_pooling import AtrousPyramidPooling
from monai_kd.networks.blocks.augmented_attention import AugmentedAttention
from monai_kd.networks.blocks.basic_resnet_encoder import BasicResNetEncoder
from monai_kd.networks.blocks.camouflage_identification import CamouflageIdentification
from monai_kd.networks.blocks.cascaded_fusion import CascadedFusion
from monai_kd.networks.blocks.conv_norm import conv_norm
from monai_kd.networks.blocks.efficient_spatial_pyramid import EfficientSpatialPyramid
from monai_kd.networks.blocks.enet_bottleneck import ENetBottleneck
from monai_kd.networks.blocks.enet_downsampling import ENetDownsampling
from monai_kd.networks.blocks.enet_upsampling import ENetUpsampling
from monai_kd.networks.blocks.hybrid_resnet_encoder import HybridResNetEncoder
from monai_kd.networks.blocks.image_input import ImageInput
from monai_kd.networks.blocks.inverted_residual import InvertedResidual
from monai_kd.networks.blocks.link_upsampling import LinkUpsampling
from monai_kd.networks.blocks.max_unpool import max_unpool
from monai_kd.networks.blocks.mobilenet_v2_encoder import MobileNetV2Encoder
from monai_kd.networks.blocks.non_bottleneck_1d import NonBottleneck1D
from monai_kd.networks.blocks.pooled_batch_norm import PooledBatchNorm
from monai_kd.networks.blocks.pvt_v2_encoder import PvtV2Encoder
from monai_kd.networks.blocks.pyramid_pooling import PyramidPooling
from monai_kd.networks.blocks.pyramid_squeeze_attention import PyramidSqueezeAttention
from monai_kd.networks.blocks.resnet50_encoder import ResNet50Encoder
from monai_kd.networks.blocks.separable_convolution import SeparableConvolution
from monai_kd.networks.blocks.similarity_aggregation import SimilarityAggregation
from monai_kd.networks.blocks.skip_upsampling import SkipUpsampling
from monai_kd.networks.blocks.standardized_conv2d import StandardizedConv2d
from monai_kd.networks.blocks.vit_encoder import ViTEncoder
from monai_kd.networks.blocks.xception_encoder import XceptionEncoder

__all__ = [
    "AtrousPyramidPooling",
    "AugmentedAttention",
    "BasicResNetEncoder",
    "CamouflageIdentification",
    "CascadedFusion",
    "ENetBottleneck",
    "ENetDownsampling",
    "ENetUpsampling",
    "EfficientSpatialPyramid",
    "HybridResNetEncoder",
    "ImageInput",
    "InvertedResidual",
    "LinkUpsampling",
    "MobileNetV2Encoder",
    "NonBottleneck1D",
    "PooledBatchNorm",
    "PvtV2Encoder",
    "PyramidPooling",
    "PyramidSqueezeAttention",
    "ResNet50Encoder",
    "SeparableConvolution",
    "SimilarityAggregation",
    "SkipUpsampling",
    "StandardizedConv2d",
    "ViTEncoder",
    "XceptionEncoder",
    "conv_norm",
    "max_unpool",
]
