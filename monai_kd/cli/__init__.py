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

"""The command line ``python -m monai_kd``, one module a verb. A verb is a function that returns a text."""

from __future__ import annotations

from monai_kd.cli.command_line import main
from monai_kd.cli.verbs import VERBS, UsageError

__all__ = ["VERBS", "UsageError", "main"]
