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

"""The table that an evaluation leaves behind, one row a case and class."""

from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from monai.data import DataLoader, Dataset, DistributedSampler, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, MeanDice, from_engine
from monai.transforms import AsDiscreted

from monai_kd.handlers import CaseMetricsHandler
from monai_kd.metrics import RelativeVolumeDifferenceMetric, VolumeOverlapErrorMetric
from monai_kd.report import read_cases

PAIR = from_engine(["pred", "label"])
SHAPE = (4, 4, 4)


def volume(*counts: int, shift: int = 0) -> torch.Tensor:
    """Classes 1, 2, ... with so many voxels each, one after the other from voxel `shift` on."""
    flat = torch.zeros(64)
    for label, count in enumerate(counts, start=1):
        flat[shift : shift + count] = label
        shift += count
    return flat.reshape(1, *SHAPE)


CASES = [  # name, label, what the "network" predicts
    ("a", volume(8, 4), volume(8, 4)),
    ("b", volume(10, 0), volume(10, 6, shift=5)),  # no class 2, but 6 voxels of it are predicted
    ("c", volume(6, 2), volume(0, 0)),
]


def evaluate(
    folder: Path, cases: Any = CASES, classes: Any = ("organ", "tumor"), sampler: bool = False, **kwargs: Any
) -> None:
    """MONAI's evaluator on the cases; the image of a case is what the network gives."""
    items = [{"image": pred, "label": label, "case": name} for name, label, pred in cases]
    data = Dataset(kwargs.pop("items", items))
    one = DistributedSampler(data, even_divisible=False, shuffle=False) if sampler else None
    metrics = {"voe": VolumeOverlapErrorMetric(False), "rvd": RelativeVolumeDifferenceMetric(False)}
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(data, batch_size=1, sampler=one),
        torch.nn.Identity(),
        postprocessing=AsDiscreted(["pred", "label"], to_onehot=3),
        key_val_metric={"dice": MeanDice(include_background=False, output_transform=PAIR)},
        additional_metrics={
            name: IgniteMetricHandler(metric_fn=metric, output_transform=PAIR, save_details=kwargs.get("details", True))
            for name, metric in metrics.items()
        },
        val_handlers=[CaseMetricsHandler(folder, classes, group_key=kwargs.get("group_key"))],
    ).run()


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "cases.csv", newline="") as file:
        return list(csv.DictReader(file))


EXPECTED = [
    # case, class, dice, voe, rvd, label, prediction: by hand from the counts above
    ["a", "organ", 1.0, 0.0, 0.0, 8, 8],
    ["a", "tumor", 1.0, 0.0, 0.0, 4, 4],
    ["b", "organ", 2 * 5 / 20, 1 - 5 / 15, 0.0, 10, 10],
    ["b", "tumor", None, None, None, 0, 6],
    ["c", "organ", 0.0, 1.0, -1.0, 6, 0],
    ["c", "tumor", 0.0, 1.0, -1.0, 2, 0],
]


def assert_as_expected(folder: Path) -> None:
    found = sorted(rows(folder), key=lambda row: (row["case"], row["class"]))
    assert len(found) == len(EXPECTED)
    for row, expected in zip(found, EXPECTED):
        assert list(row) == ["case", "class", "dice", "voe", "rvd", "label_voxels", "pred_voxels"]
        values = [float(value) if value else None for value in list(row.values())[2:]]
        assert [row["case"], row["class"]] == expected[:2]
        assert values == [value if value is None else pytest.approx(value) for value in expected[2:]]


def test_values_are_those_of_the_counts(tmp_path):
    evaluate(tmp_path / "new" / "folder")
    assert_as_expected(tmp_path / "new" / "folder")


def test_summary_counts_only_what_is_defined(tmp_path):
    evaluate(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == ["organ", "tumor"]
    dice = np.array([1.0, 0.5, 0.0])
    assert summary["organ"]["dice"] == pytest.approx({"mean": 0.5, "std": dice.std(ddof=1), "median": 0.5, "n": 3})
    tumor = summary["tumor"]
    assert (tumor["cases"], tumor["empty_labels"], tumor["false_positive_voxels"]) == (3, 1, 6)
    assert tumor["rvd"] == pytest.approx({"mean": -0.5, "std": np.std([0, -1], ddof=1), "median": -0.5, "n": 2})


def test_report_reads_the_table(tmp_path):
    evaluate(tmp_path)
    cases = read_cases(tmp_path / "cases.csv")
    assert [(case.case, case.class_name) for case in cases][:2] == [("a", "organ"), ("a", "tumor")]
    assert np.isnan(cases[3].metrics["dice"])
    assert cases[3].pred_voxels == 6


def test_class_that_no_case_has(tmp_path):
    evaluate(tmp_path, cases=[("a", volume(8), volume(8)), ("b", volume(4), volume(4))])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tumor"]["dice"] == {"mean": None, "std": None, "median": None, "n": 0}


def test_case_without_a_name_is_named_after_its_file(tmp_path):
    """A file of NIfTI, or the folder of a DICOM series."""
    names = {"scan.nii.gz": "scan", "deep/scan.nii": "scan", "a/1.2.3": "1.2.3", "": "unknown"}
    for path, name in names.items():
        image = MetaTensor(volume(8), meta={"filename_or_obj": path})
        evaluate(tmp_path, items=[{"image": image, "label": MetaTensor(volume(8))}])
        assert rows(tmp_path)[0]["case"] == name


def test_evaluations_replace_each_other_as_a_whole(tmp_path):
    evaluate(tmp_path)
    with pytest.raises(ValueError, match="`classes` must name the 2 classes of `dice`"):
        evaluate(tmp_path, classes=["organ"])
    assert_as_expected(tmp_path)
    evaluate(tmp_path, cases=CASES[:1])
    assert [row["case"] for row in rows(tmp_path)] == ["a", "a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.csv", "network.json", "summary.json"]


def test_tells_which_network_it_was(tmp_path):
    evaluate(tmp_path)
    assert json.loads((tmp_path / "network.json").read_text()) == {"network": "Identity", "parameters": 0}


def test_class_that_is_predicted_nowhere_or_everywhere_is_warned_of(tmp_path, caplog):
    evaluate(tmp_path)
    assert "was predicted" not in caplog.text
    evaluate(tmp_path, cases=[("a", volume(8), volume(8)), ("b", volume(4), volume(6))])  # a class that no label has
    assert "was predicted" not in caplog.text
    evaluate(tmp_path, cases=[("a", volume(8, 4), volume(8)), ("b", volume(4), volume(6))])
    assert "tumor was predicted nowhere in 2 cases; the network has not learnt it" in caplog.text
    assert "organ" not in caplog.text
    evaluate(tmp_path, cases=[("a", volume(8), volume(64)), ("b", volume(64), volume(64))])
    assert "organ was predicted everywhere in 2 cases; the network has not learnt it" in caplog.text


def test_evaluation_of_nothing_is_refused(tmp_path):
    """MONAI skips it, and the table of an earlier one would be taken for its own."""
    with pytest.raises(ValueError, match="`val_data_loader` must give at least one item on each rank, but got none"):
        evaluate(tmp_path, items=[])


def test_metric_without_details_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`voe` must be a metric with `save_details=True`, but got \['dice'\]"):
        evaluate(tmp_path, details=False)


def test_no_class_is_refused():
    with pytest.raises(ValueError, match="`classes` must name at least one foreground class, but got none"):
        CaseMetricsHandler("eval", [])


def one_rank(rank: int, folder: str) -> None:
    """Two of the three cases on the first rank, one on the second."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    evaluate(Path(folder) / "eval", sampler=True)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo")
def test_uneven_cases_of_two_processes_come_together(tmp_path):
    multiprocessing.set_forkserver_preload(["tests.handlers.test_case_metrics_handler"])
    processes = torch.multiprocessing.start_processes(
        one_rank, args=(str(tmp_path),), nprocs=2, join=False, start_method="forkserver"
    )
    while not processes.join():
        pass
    assert_as_expected(tmp_path / "eval")


def test_groups_are_a_column_and_have_a_summary_each(tmp_path):
    groups = ["Kvasir", "ETIS", "Kvasir"]
    items = [
        {"image": pred, "label": label, "case": name, "dataset": group}
        for (name, label, pred), group in zip(CASES, groups, strict=True)
    ]
    evaluate(tmp_path / "plain", items=items)
    evaluate(tmp_path / "grouped", items=items, group_key="dataset")
    grouped = rows(tmp_path / "grouped")
    assert [row.pop("group") for row in grouped] == [group for group in groups for _ in range(2)]
    assert grouped == rows(tmp_path / "plain")
    summary = json.loads((tmp_path / "grouped" / "summary.json").read_text())
    assert list(summary) == ["Kvasir organ", "Kvasir tumor", "ETIS organ", "ETIS tumor"]
    assert summary["Kvasir organ"]["dice"]["mean"] == pytest.approx((1 + 0) / 2)
    assert summary["ETIS organ"]["dice"]["mean"] == pytest.approx(0.5)
    assert {case.class_name for case in read_cases(tmp_path / "grouped" / "cases.csv")} == set(summary)
    with pytest.raises(ValueError, match="`group_key` must be an entry of each item, but got 'dataset'"):
        evaluate(tmp_path / "none", group_key="dataset")
