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

"""What the demo gains on several seeds, one line for each finished run.

    python benchmarks/demo.py --output OUT                            # 10 seeds with 1 thread
    python benchmarks/demo.py --output OUT --threads 2
    python benchmarks/demo.py --output OUT --table_only               # the table of docs/results/demo.md

A finished run is a line of ``OUT/runs.jsonl``, so that a call that was stopped goes on with the next seed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import fire
import torch

from monai_kd.cli.demo import demo
from monai_kd.report import Table, paired_test, read_cases, values_by_class


def finished(file: Path) -> list[dict[str, Any]]:
    """The runs that are done."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def measured(folder: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Run the demo once."""
    start = time.process_time()
    page = Path(demo(str(folder / "pages"), seed=seed, epochs=epochs).splitlines()[-1])
    cpu = time.process_time() - start
    scores = []
    for name in ("alone", "distilled"):
        cases = read_cases(page.parent / "eval" / name / "cases.csv")
        scores.append(list(values_by_class(cases, "dice")["mean of classes"].values()))
    found = json.loads((page.parent / "demo.json").read_text("utf-8"))
    return found | {"p": paired_test(*scores).p_value, "cpu": round(cpu, 1)}


def table(runs: list[dict[str, Any]]) -> Table:
    """A row for each run."""
    numbers = dict.fromkeys(("teacher", "alone", "distilled"), ".3f")
    columns = {"threads": "d", "epochs": "d", "seed": "d", **numbers, "gain": "+.3f", "p": ".1e", "CPU s": ".0f"}
    rows = []
    for run in sorted(runs, key=lambda run: (run["threads"], -run["epochs"], run["seed"])):
        head = [run["threads"], run["epochs"], run["seed"]]
        scores = [run[name] for name in numbers]
        rows.append([*head, *scores, run["distilled"] - run["alone"], run["p"], run["cpu"]])
    return Table("The demo", columns, rows)


def main(output: str, seeds: int = 10, threads: int = 1, epochs: int = 8, table_only: bool = False) -> None:
    """Run what is not finished yet, and print the table."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "runs.jsonl"
    for seed in [] if table_only else range(seeds):
        key = {"threads": threads, "epochs": epochs, "seed": seed}
        if any(all(run[name] == value for name, value in key.items()) for run in finished(file)):
            continue
        torch.set_num_threads(threads)
        line = key | measured(folder, seed, epochs)
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    print(table(finished(file)).to_markdown())


if __name__ == "__main__":
    fire.Fire(main)
