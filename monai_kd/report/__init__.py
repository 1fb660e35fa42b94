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

from monai_kd.report.correction_figure import CorrectionCase, correction_cases, correction_figure
from monai_kd.report.cost_table import cost_table
from monai_kd.report.layer_table import layer_table
from monai_kd.report.network_cost import NetworkCost, network_cost
from monai_kd.report.overlay import OverlayCase, overlay
from monai_kd.report.paired_table import paired_table
from monai_kd.report.paired_test import PairedTest, paired_test
from monai_kd.report.read_cases import CaseMetrics, read_cases
from monai_kd.report.score_table import score_table
from monai_kd.report.summary_table import summary_table
from monai_kd.report.table import Spread, Table
from monai_kd.report.values_by_class import values_by_class
from monai_kd.report.write_report import write_report

__all__ = [
    "CaseMetrics",
    "CorrectionCase",
    "NetworkCost",
    "OverlayCase",
    "PairedTest",
    "Spread",
    "Table",
    "correction_cases",
    "correction_figure",
    "cost_table",
    "layer_table",
    "network_cost",
    "overlay",
    "paired_table",
    "paired_test",
    "read_cases",
    "score_table",
    "summary_table",
    "values_by_class",
    "write_report",
]
