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

"""VOE and RVD: values, laws and their use as MONAI metrics and ignite handlers."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.metrics import DiceMetric

from monai_kd.metrics import RelativeVolumeDifferenceMetric, VolumeOverlapErrorMetric

METRICS = [VolumeOverlapErrorMetric, RelativeVolumeDifferenceMetric]
FORMULAS = {
    "jaccard": lambda p, g, both: 1 - both / (p + g - both),
    "paper": lambda p, g, both: 1 - both / (p + g),
    "code": lambda p, g, both: (2 * (p - both)) / (p + g),
}


def masks(shape=(3, 2, 6, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction, label = (torch.randint(0, 2, shape, generator=generator).float() for _ in range(2))
    label[:, :, 0, 0] = 1  # no empty label
    return prediction, label


def by_numpy(formula, prediction, label):
    values = np.empty(prediction.shape[:2])
    for b, c in np.ndindex(*values.shape):
        p, g = prediction[b, c].numpy() > 0, label[b, c].numpy() > 0
        values[b, c] = formula(p.sum(), g.sum(), (p & g).sum())
    return values


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("shape", [(3, 2, 6, 5), (2, 3, 4, 5, 3)])
def test_volume_overlap_error_of_numpy(formula, shape):
    prediction, label = masks(shape)
    expected = by_numpy(FORMULAS[formula], prediction, label)
    np.testing.assert_allclose(VolumeOverlapErrorMetric(formula=formula)(prediction, label), expected, rtol=1e-6)


def test_default_is_the_usual_formula_and_follows_from_dice():
    prediction, label = masks()
    dice = DiceMetric(reduction="none")(prediction, label)
    error = VolumeOverlapErrorMetric()(prediction, label)
    torch.testing.assert_close(error, 1 - dice / (2 - dice))
    torch.testing.assert_close(VolumeOverlapErrorMetric(formula="paper")(prediction, label), 1 - dice / 2)


def test_relative_volume_difference_of_numpy():
    prediction, label = masks()
    expected = by_numpy(lambda p, g, both: (p - g) / g, prediction, label)
    np.testing.assert_allclose(RelativeVolumeDifferenceMetric()(prediction, label), expected, rtol=1e-6)
    absolute = RelativeVolumeDifferenceMetric(absolute=True)(prediction, label)
    np.testing.assert_allclose(absolute, np.abs(expected), rtol=1e-6)


def test_empty_label_is_no_case_for_dice_voe_and_rvd_alike():
    prediction, label = masks()
    label[0, 1] = label[2, 0] = 0
    prediction[2, 0] = 0  # rightly empty: still no case
    for metric in (DiceMetric(reduction="none"), VolumeOverlapErrorMetric(), RelativeVolumeDifferenceMetric()):
        assert torch.isnan(metric(prediction, label)).nonzero().tolist() == [[0, 1], [2, 0]]


def test_perfect_prediction_and_empty_prediction():
    _, label = masks()
    for formula, perfect, nothing in (("jaccard", 0.0, 1.0), ("paper", 0.5, 1.0), ("code", 0.0, 0.0)):
        metric = VolumeOverlapErrorMetric(formula=formula)
        assert metric(label, label).unique().tolist() == [perfect]
        assert metric(torch.zeros_like(label), label).unique().tolist() == [nothing]
    assert RelativeVolumeDifferenceMetric()(label, label).unique().tolist() == [0.0]
    assert RelativeVolumeDifferenceMetric()(torch.zeros_like(label), label).unique().tolist() == [-1.0]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 5), st.integers(0, 99))
def test_volume_error_is_that_of_its_tiles_and_depth_one_is_2d(batch, classes, size, seed):
    prediction, label = masks((batch, classes, size, size), seed)
    for metric in (VolumeOverlapErrorMetric(), RelativeVolumeDifferenceMetric()):
        flat = metric(prediction, label)
        torch.testing.assert_close(metric(prediction[..., None], label[..., None]), flat)
        torch.testing.assert_close(metric(prediction.repeat(1, 1, 2, 3), label.repeat(1, 1, 2, 3)), flat)


@pytest.mark.parametrize("metric_class", METRICS)
def test_accumulates_like_a_monai_metric(metric_class):
    prediction, label = masks((4, 3, 5, 5))
    label[1, 2] = 0
    whole, parts = metric_class(reduction="none"), metric_class(reduction="none")
    whole(prediction, label)
    parts(prediction[:3], label[:3])
    parts([MetaTensor(prediction[3])], [MetaTensor(label[3])])  # decollated, as an evaluator hands them over
    torch.testing.assert_close(whole.aggregate(), parts.aggregate(), equal_nan=True)
    assert whole.get_buffer().shape == (4, 3)
    values = whole.get_buffer().double().numpy()
    expected = [np.nanmean(column) if (~np.isnan(column)).any() else np.nan for column in values.T]
    np.testing.assert_allclose(whole.aggregate("mean_batch"), expected, rtol=1e-5)
    whole.reset()
    with pytest.raises(ValueError, match="`aggregate` must come after a case"):
        whole.aggregate()


@pytest.mark.parametrize("metric_class", METRICS)
def test_background_and_number_of_valid_values(metric_class):
    prediction, label = masks((4, 3, 5, 5))
    label[1, 2] = 0
    metric = metric_class(include_background=False, reduction="mean_batch", get_not_nans=True)
    assert metric(prediction, label).shape == (4, 2)
    _, valid = metric.aggregate()
    assert valid.tolist() == [4, 3]


def test_mean_of_no_case_is_not_the_best_value():
    metric = VolumeOverlapErrorMetric()
    metric(torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3))
    assert torch.isnan(metric.aggregate())
    assert torch.isnan(metric.aggregate("mean_batch")).all()


def test_unknown_formula():
    with pytest.raises(ValueError, match="`formula` must be one of jaccard, paper, code, but got 'dice'"):
        VolumeOverlapErrorMetric(formula="dice")


EVALUATOR = {
    "metric": {
        name: {
            "_target_": "monai.handlers.IgniteMetricHandler",
            "metric_fn": {"_target_": target, "include_background": False},
            "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            "save_details": True,
        }
        for name, target in {
            "dice": "monai.metrics.DiceMetric",
            "voe": "monai_kd.metrics.VolumeOverlapErrorMetric",
            "rvd": "monai_kd.metrics.RelativeVolumeDifferenceMetric",
        }.items()
    },
    "saver": {
        "_target_": "monai.handlers.MetricsSaver",
        "save_dir": "@folder",
        "metric_details": "*",
        "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
        "summary_ops": "*",
    },
    "evaluator": {
        "_target_": "monai.engines.SupervisedEvaluator",
        "device": "$torch.device('cpu')",
        "val_data_loader": "@loader",
        "network": "$torch.nn.Identity()",
        "postprocessing": {
            "_target_": "monai.transforms.AsDiscreted",
            "keys": ["pred", "label"],
            "argmax": [True, False],
            "to_onehot": 3,
        },
        "key_val_metric": {"dice": "@metric#dice"},
        "additional_metrics": {name: f"@metric#{name}" for name in ("voe", "rvd")},
        "val_handlers": ["@saver"],
    },
}


def test_evaluator_of_a_bundle_writes_every_case(tmp_path):
    """The YAML that evaluation bundles use, on volumes; the files hold what numpy computes."""
    logits = torch.randn(3, 3, 6, 5, 4, generator=torch.Generator().manual_seed(1))
    label = torch.randint(0, 3, (3, 1, 6, 5, 4), generator=torch.Generator().manual_seed(2))
    label[1][label[1] == 2] = 0
    batches = [
        {"image": MetaTensor(logits[i][None], meta={"filename_or_obj": [f"case_{i}"]}), "label": label[i][None]}
        for i in range(3)
    ]
    parser = ConfigParser({**EVALUATOR, "folder": str(tmp_path), "loader": batches, "imports": ["$import monai"]})
    parser.parse(True)
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    assert set(evaluator.state.metric_details) == {"dice", "voe", "rvd"}
    prediction = logits.argmax(1, keepdim=True)
    one_hot = [torch.cat([x == k for k in (1, 2)], dim=1).float() for x in (prediction, label)]
    expected = by_numpy(lambda p, g, both: 1 - both / (p + g - both) if g else np.nan, *one_hot)
    rows = list(csv.reader((tmp_path / "voe_raw.csv").open()))
    assert [row[0] for row in rows[1:]] == ["case_0", "case_1", "case_2"]
    np.testing.assert_allclose([[float(v) for v in row[1:3]] for row in rows[1:]], expected, atol=1e-4)
    assert (tmp_path / "rvd_summary.csv").is_file()
    np.testing.assert_allclose(
        evaluator.state.metrics["voe"], np.mean([np.nanmean(row) for row in expected]), rtol=1e-5
    )
