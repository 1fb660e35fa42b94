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

"""What was found in each frame, as a table."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from monai_kd.data.case_name import case_name
from monai_kd.data.csv_rows import append_rows, write_rows
from monai_kd.data.write_aside import write_aside

logger = logging.getLogger(__name__)
COLUMNS = ("frame", "height", "width", "foreground_pixels", "foreground_share", "highest_probability")


class FrameTableHandler:
    """
    Writes a CSV file with a row for each frame that an evaluator has segmented, while it goes: of a video that is
    stopped half way, or fills the disk, the whole rows until there are in the file. An earlier file of that name is
    replaced when the first frame is done. A name that a spreadsheet would take for a formula has an apostrophe before
    it.

    Columns: ``frame`` (its name), ``height``, ``width``, ``foreground_pixels``, ``foreground_share`` (0 to 1) and
    ``highest_probability`` of any pixel (0 to 1).

    Args:
        path: the file; its folder is made if it is missing.
        pred_key: entry of the decollated output that holds the mask, (1, H, W) of 0 and 1.
        probability_key: entry that holds the probabilities, (1, H, W).

    Raises:
        ValueError: as it runs, when an entry is missing or no map of one channel, or a probability is not finite.

    Example::

        >>> handler = FrameTableHandler("eval/predictions/frames.csv")
    """

    def __init__(self, path: str | os.PathLike, pred_key: str = "pred", probability_key: str = "probability") -> None:
        self.path = Path(path)
        self.keys = (pred_key, probability_key)
        self.count = 0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output is decollated."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._report)

    def _start(self, engine: Any) -> None:
        self.count = 0

    def _write(self, engine: Any) -> None:
        rows = [self._row(*pair) for pair in zip(engine.state.batch, engine.state.output, strict=True)]
        if self.count:
            append_rows(self.path, rows)
        else:
            with write_aside(self.path) as aside:
                write_rows(aside, [COLUMNS, *rows])
        self.count += len(rows)

    def _row(self, item: dict[str, Any], output: dict[str, Any]) -> list[Any]:
        for key in self.keys:
            shape = tuple(getattr(output.get(key), "shape", ()))
            if len(shape) != 3 or shape[0] != 1:
                raise ValueError(f"`{key}` must be a map (1, H, W) of the output, but got {shape or 'none'}.")
        mask, probability = (output[key] for key in self.keys)
        odd = probability[~probability.isfinite()]
        if odd.numel():
            raise ValueError(
                f"`{self.keys[1]}` must be finite, but got {float(odd[0])} on {odd.numel()} pixels of frame "
                f"{case_name(item)}, whose mask is void; look for NaN in the weights, and where mixed precision "
                "overflows, run without it (`--evaluator::amp False`)."
            )
        pixels = int((mask > 0).sum())
        height, width = mask.shape[1:]
        share = pixels / (height * width)
        return [case_name(item), height, width, pixels, round(share, 6), round(float(probability.max()), 4)]

    def _report(self, engine: Any) -> None:
        logger.info(f"wrote {self.path} of {self.count} frames")
