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

"""
The numbers of the papers beside those that the bundles train with, as a table. What a bundle does is in test_training.py.

Papers: EMKD (Qin et al., IEEE TMI 2021), KDAS (Trinh et al., ISBI 2024), PLC-KD (Wang et al., MICCAI 2024), XP-Net
(Ragu et al., EndoCV 2022). "Code" is the code that was released with a paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import RandomizableTrait, RandomizableTransform
from torch import nn

from monai_kd.corrections import CorrectedTeacher
from monai_kd.losses import (
    AttentionSupervisionLoss,
    AttentionTransferLoss,
    ChannelWiseLoss,
    CrossImageRelationalLoss,
    DecoupledKDLoss,
    HintLoss,
    ImportanceMapLoss,
    IntraClassFeatureVariationLoss,
    KDLoss,
    LocalAffinityLoss,
    MimicLoss,
    PairwiseAffinityLoss,
    RegionAffinityLoss,
    SimilarityPreservingLoss,
    SymmetricalGuidingLoss,
)
from monai_kd.networks import Teacher
from tests.bundles.as_trained import TRAININGS, AsTrained
from tests.bundles.journey import (
    BUNDLES,
    CT,
    DISC,
    ENDOSCENE,
    HEADNECK,
    KIDNEY,
    LIVER,
    PHOTOS,
    POLYP,
    SKIN,
    TEAMS,
    XPNET,
)

SAME = "the same"
OPEN = "not said"
EVERY = list(BUNDLES)


class Row(NamedTuple):
    """A number of a bundle; `paper` is the paper's, `where` it stands there, `why` ours is another one."""

    what: str
    ours: Any
    paper: Any = SAME
    where: str = ""
    why: str = ""


# ---------------------------------------------------------------------------------------------- the weights of the terms
# by bundle: the term, its weight (a number, or the name of what sets it), the paper's weight
# EMKD, Eq. 9 and below it
EMKD_WEIGHTS = {"pmd": ("auto", 0.1), "imd": ("GradientShare(0.1)", 0.9), "rad": ("GradientShare(0.1)", 0.9)}
WEIGHTS: dict[str, dict[str, tuple[Any, float]]] = {
    LIVER: EMKD_WEIGHTS,
    KIDNEY: EMKD_WEIGHTS,
    HEADNECK: EMKD_WEIGHTS,
    POLYP: {"at": ("auto", 0.2), "sgm": ("auto", 0.2), "kd": (0.0, 0.0)},  # KDAS, Eq. 8
    # PLC-KD, Eq. 1; the paper's lambda is in a supplement, 1 is taken for it
    SKIN: {"kd": ("auto", 1.0)},
    ENDOSCENE: {"kd": ("auto", 1.0)},
    DISC: {"kd": ("auto", 1.0)},
    XPNET: {"adversarial": ("auto", 0.2)},  # XP-Net, Eq. 2, without a number; 0.2 is HAD-Net's
}
# what `--weights` is called that brings the paper's back
PAPERS = dict.fromkeys(EVERY, "paper") | dict.fromkeys((SKIN, ENDOSCENE, DISC), "fixed") | {XPNET: "hadnet"}
SUPERVISED = dict.fromkeys(EVERY, 1.0)  # KDAS, Eq. 8: 0.8, with `--weights paper`

# ------------------------------------------------------------------------------------------------ the terms and the layers
# by bundles: the term, its loss, layers of the student and of the teacher (none: logits)
# EMKD, III-B: low and high
EMKD_LAYERS = (["encoder.stem", "encoder.stage3"], ["encoder.stem", "encoder.stage2"])
SCALES = ["scale1", "scale2"]
LOGITS: tuple[list[str], list[str]] = ([], [])
Terms = dict[str, tuple[nn.Module, Sequence[str], Sequence[str]]]
TERMS: list[tuple[Sequence[str], Terms]] = [
    (
        [LIVER, KIDNEY],
        {
            # Eq. 1; the forward direction: code, whose T = 4 makes students of small structures predict background
            "pmd": (KDLoss(1.0, direction="forward", balance="none"), *LOGITS),
            # Eq. 3 to 5, as the code reads them
            "imd": (ImportanceMapLoss(exponent=4, norm="squared_l2"), *EMKD_LAYERS),
            # Eq. 6 to 8
            "rad": (RegionAffinityLoss(num_classes=2, norm="squared"), *EMKD_LAYERS),
        },
    ),
    (
        [HEADNECK],
        {
            "pmd": (KDLoss(1.0, direction="forward", balance="none"), *LOGITS),
            "imd": (ImportanceMapLoss(exponent=4, norm="squared_l2"), *EMKD_LAYERS),
            "rad": (RegionAffinityLoss(num_classes=5, norm="squared"), *EMKD_LAYERS),
        },
    ),
    (
        [POLYP],
        {
            # Eq. 3, k = 1 and 2
            "at": (AttentionSupervisionLoss(temperature=2.0), SCALES, SCALES),
            # Eq. 4 to 6, i = 2
            "sgm": (SymmetricalGuidingLoss(temperature=2.0), ["scale2"], ["scale2"]),
            # Table 3
            "kd": (KDLoss(temperature=2.0), SCALES, SCALES),
        },
    ),
    # Eq. 1, "the KL paradigm"
    (TEAMS, {"kd": (KDLoss(1.0, direction="forward", balance="none"), *LOGITS)}),
]

# compare.yaml: the weights of released codes, see docs/methods/comparators.md
LAST = (["encoder.stage3"], ["encoder.stage2"])  # of the encoders
INMOST = (["model.1.submodule.1.submodule.1.submodule.1.submodule"], ["reduce"])
METHODS: list[tuple[Sequence[str], tuple[Sequence[str], Sequence[str]], dict[str, tuple[float, type[nn.Module]]]]] = [
    (
        CT,
        LAST,
        {
            "pa": (1.0, PairwiseAffinityLoss),
            "mimic": (0.01, MimicLoss),
            "local": (1.0, LocalAffinityLoss),
            "ifvd": (20.0, IntraClassFeatureVariationLoss),
            "at": (1000.0, AttentionTransferLoss),
            "spkd": (3000.0, SimilarityPreservingLoss),
            "fitnet": (1.0, HintLoss),
            "cwd": (3.0, ChannelWiseLoss),
            "cirkd": (1.0, CrossImageRelationalLoss),
            "dkd": (1.0, DecoupledKDLoss),
        },
    ),
    (
        TEAMS,
        INMOST,
        {
            "fitnet": (1.0, HintLoss),
            "at": (1000.0, AttentionTransferLoss),
            "cwd": (3.0, ChannelWiseLoss),
            "spkd": (3000.0, SimilarityPreservingLoss),
            "pa": (1.0, PairwiseAffinityLoss),
            "ifvd": (20.0, IntraClassFeatureVariationLoss),
            "cirkd": (1.0, CrossImageRelationalLoss),
            "dkd": (1.0, DecoupledKDLoss),
        },
    ),
]
OF_LOGITS = ("local", "cwd", "dkd")
COMPARED_LOSSES = {
    "cwd": ChannelWiseLoss(temperature=4.0),
    "cirkd": CrossImageRelationalLoss(pool=16, temperature=0.1),
    "dkd": DecoupledKDLoss(alpha=1.0, beta=8.0, temperature=4.0),
    "at": AttentionTransferLoss(exponent=2),
    "pa": PairwiseAffinityLoss(pool=2, pool_mode="max"),
}

# --------------------------------------------------------------------------------------------------- everything else
FLIP, TURN = ("RandFlipd", ("image", "label"), 0.5), ("RandRotated", ("image", "label"), 0.5)
COSINE = [5e-4 * (1 + math.cos(math.pi * part)) for part in (0, 0.25, 0.5, 0.75)]
TABLE: list[tuple[Sequence[str], list[Row]]] = [
    (
        EVERY,
        [
            Row("shuffle", True, OPEN, why="all codes shuffle"),
            Row(
                "drop last",
                True,
                OPEN,
                why="a last batch of one image would spoil batch normalisation",
            ),
            Row("seed", 0, OPEN),
            Row("seed of an epoch", 0, OPEN),
            Row("mixed precision on the CPU", False, OPEN),
            Row(
                "key metric",
                ("dice", "MeanDice", False),
                SAME,
                "EMKD, IV-C; KDAS, 4.3: the mean Dice of foreground",
            ),
            Row("validation batch", 1, OPEN, why="images differ in size"),
        ],
    ),
    (
        CT,
        [
            Row("student", "ENet", SAME, "EMKD, IV-A, Table I"),
            Row("teacher", "RAUNet", SAME, "EMKD, IV-A, Table I, T1"),
            Row("optimizer", "Adam", SAME, "EMKD, IV-A"),
            Row("betas", (0.9, 0.999), SAME, "EMKD, IV-A"),
            Row("learning rate", 1e-3, SAME, "EMKD, IV-A; code: 1e-2"),
            Row("weight decay", 0, OPEN),
            Row("learning rate at 0, 1/4, 1/2, 3/4", COSINE, SAME, "EMKD, IV-A: cosine annealing"),
            Row("learning rate at the end", 1e-6, SAME, "EMKD, IV-A: the lowest is 0.000001"),
            Row("temperature", 1.0, OPEN, "EMKD, Eq. 1", "code: T = 4, x 16 (`--weights paper`)"),
            Row(
                "validated every",
                2,
                "the last 20 epochs",
                "EMKD, IV-A",
                "volumes take as long as an epoch",
            ),
            Row("train::dataset::keep", "foreground", OPEN, why="code: the slices with the organ"),
            Row(
                "train::dataset::background_step",
                8,
                OPEN,
                why="code: 0; without any, others are false positives",
            ),
        ],
    ),
    (
        [LIVER, KIDNEY],
        [
            Row("student parameters", 353_761, 353_000, "EMKD, Table I: 0.353 M", "rounded there"),
            Row("epochs", 60, SAME, "EMKD, IV-A: up to 60"),
            Row("batch size", 8, OPEN),
            Row("classes", ["tumor"], SAME, "EMKD, Table I: tumour and organ, one network each"),
            Row("task", "tumor", SAME, "EMKD, Table I"),
            Row("patch_size", [384, 384], [512, 512], "EMKD, IV-A", "code: crops of 384 x 384"),
            Row("train::dataset::foreground", "organ", OPEN, why="code: the slices with the organ"),
            Row("fold", 0, SAME, "EMKD, IV-A: 5-fold cross-validation"),
            Row(
                "random transforms",
                [("RandSpatialCropd", ("image", "label"), None), FLIP, TURN],
                SAME,
                "EMKD, IV-A: rotation and flipping",
            ),
            Row("rotation", (-0.26, 0.26), OPEN, why="code: 15 degrees"),
        ],
    ),
    ([LIVER], [Row("window", (-40, 160), SAME, "EMKD, IV-A; code: -60 to 140")]),
    ([KIDNEY], [Row("window", (-200, 300), SAME, "EMKD, IV-A")]),
    (
        [HEADNECK],
        [
            Row("epochs", 20, 60, "EMKD, IV-A", "the data are fewer"),
            Row("batch size", 16, OPEN),
            Row("window", (-160, 240), OPEN, why="soft tissue; the paper has no head and neck"),
            Row("classes", ["brainstem", "spinal_cord", "right_parotid", "left_parotid"], OPEN),
            Row("labels", {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 0, 6: 0, 7: 0}, OPEN),
            Row("field_of_view", [64, 64], OPEN),
            Row(
                "random transforms",
                [("RandAffined", ("image", "label"), 0.5)],
                "rotation and flipping",
                "EMKD, IV-A",
                "a flip would exchange the parotids",
            ),
        ],
    ),
    (
        PHOTOS,
        [
            Row(
                "mean of the image",
                [0.485, 0.456, 0.406],
                OPEN,
                why="ImageNet's, as in the codes of the encoders",
            ),
            Row("deviation of the image", [0.229, 0.224, 0.225], OPEN, why="ImageNet's"),
        ],
    ),
    ([POLYP, XPNET, SKIN, ENDOSCENE], [Row("validated every", 1, OPEN)]),
    (
        [POLYP],
        [
            Row("student", "PolypPVT", SAME, "KDAS, 4.2"),
            Row(
                "student parameters",
                3_650_740,
                3_700_000,
                "KDAS, 5.1: approximately 3.7 M",
                "rounded there",
            ),
            Row("teacher", "PolypPVT", SAME, "KDAS, 4.2"),
            Row("teacher_def::backbone", "b2", SAME, "KDAS, 4.2: the Polyp-PVT baseline"),
            Row("image_size", [352, 352], SAME, "KDAS, 3 and 4.2"),
            Row("scales", [1.0], SAME, "KDAS, 4.2; code: 0.75, 1, 1.25"),
            Row("optimizer", "AdamW", SAME, "KDAS, 4.2"),
            Row("learning rate", 1e-4, SAME, "KDAS, 4.2"),
            Row("betas", (0.9, 0.999), OPEN),
            Row("weight decay", 1e-4, OPEN, why="code: 1e-4"),
            Row("schedule", None, OPEN, why="code: constant in effect"),
            Row("epochs", 120, SAME, "KDAS, 4.2"),
            Row("batch size", 16, SAME, "KDAS, 4.2"),
            Row("temperature", 2.0, SAME, "KDAS, 3.1, 4.2 and Table 4"),
            Row("seg_loss::jaccard", False, SAME, "KDAS, Eq. 7; 4.2 says Jaccard"),
            Row(
                "random transforms",
                [
                    FLIP,
                    FLIP,
                    TURN,
                    ("RandScaleIntensityd", ("image",), 0.5),
                    ("RandScaleIntensityd", ("image",), 0.5),
                    ("RandAdjustContrastd", ("image",), 0.3),
                ],
                OPEN,
                why="code: none in effect; PraNet's flips and turns, and light",
            ),
            Row("rotation", (-1.57, 1.57), OPEN, why="PraNet's 90 degrees"),
        ],
    ),
    (
        TEAMS,
        [
            Row("student", "UNet", SAME, "PLC-KD, 3: UNet"),
            Row("student_def::channels", [32, 64, 128, 256, 512], OPEN),
            Row("teacher", "TransUNet", SAME, "PLC-KD, 3"),
            Row("image_size", [224, 224], OPEN, why="TransUNet's"),
            Row("optimizer", "AdamW", OPEN, "PLC-KD: in a supplement", "ours"),
            Row("learning rate", 1e-4, OPEN, "PLC-KD: in a supplement", "ours"),
            Row("betas", (0.9, 0.999), OPEN),
            Row("weight decay", 1e-4, OPEN),
            Row("schedule", None, OPEN),
            Row("temperature", 1.0, OPEN, "PLC-KD, Eq. 1: Y^U is a probability map"),
            Row(
                "corrections",
                ["assistant_f", "assistant_b", "similarity"],
                SAME,
                "PLC-KD, Fig. 1: Y_F, Y_B, Y^U",
            ),
            Row("max_candidates", None, SAME, "PLC-KD, 2.1: all correct pixels"),
            Row("stored", False, OPEN),
            Row("boundary_swap::prob", 0.0, SAME, "PLC-KD, 2.3: in the assistant's training only"),
            Row("boundary_swap::fraction", 0.5, OPEN, "PLC-KD, 2.3: an equal number"),
            Row(
                "random transforms",
                [
                    ("RandFlipd", ("image", "label"), 0.5),
                    ("RandFlipd", ("image", "label"), 0.5),
                    ("RandRotate90d", ("image", "label"), 0.5),
                    ("RandBoundaryTransformd", ("image",), 0.0),
                    ("RandShiftIntensityd", ("image",), 0.5),
                ],
                OPEN,
                why="no interpolation, so that stored soft labels are moved exactly",
            ),
        ],
    ),
    (
        [SKIN, ENDOSCENE],
        [
            Row(
                "false_pixel_queues",
                {"length": 4096, "draw": 256},
                OPEN,
                "PLC-KD: M, N and k in a supplement",
            ),
            Row("boundary_swap::width", 5, OPEN, "PLC-KD: delta in a supplement"),
        ],
    ),
    (
        [SKIN],
        [
            Row("epochs", 100, OPEN),
            Row("batch size", 16, OPEN),
        ],
    ),
    (
        [ENDOSCENE],
        [
            Row("epochs", 200, OPEN),
            Row("batch size", 16, OPEN),
        ],
    ),
    (
        [DISC],
        [
            Row("epochs", 400, OPEN, why="of 6 batches"),
            Row("validated every", 5, OPEN, why="epochs are short"),
            Row("batch size", 8, OPEN),
            Row(
                "false_pixel_queues",
                {"length": 1024, "draw": 64},
                OPEN,
                "PLC-KD: M, N and k in a supplement",
            ),
            Row("boundary_swap::width", 3, OPEN, why="discs are small"),
        ],
    ),
    (
        [XPNET],
        [
            Row("student", "SeparableEPSAUNet", SAME, "XP-Net, 2.2.2"),
            Row("teacher", "EPSAUNet", SAME, "XP-Net, 2.2.1, both"),
            Row("image_size", [512, 512], SAME, "XP-Net, 3.1.1"),
            Row("optimizer", "Adam", SAME, "XP-Net, 3.2"),
            Row("learning rate", 1e-4, SAME, "XP-Net, 3.2, the student"),
            Row("betas", (0.5, 0.999), SAME, "XP-Net, 3.2, the student"),
            Row("weight decay", 0, OPEN),
            Row(
                "learning rate at 29, 30, 59, 60, 90",
                [1e-4, 1e-5, 1e-5, 1e-6, 1e-7],
                SAME,
                "XP-Net, 3.2: steps of 30",
            ),
            Row("epochs", 100, 450, "XP-Net, 3.2", "the rate is 1e-14 of the first one then"),
            Row("batch size", 8, SAME, "XP-Net, 3.2"),
            Row("turns", "alternate", SAME, "XP-Net, 2.1: either teacher 1 or teacher 2"),
            Row("teachers", ["teacher", "teacher2"], SAME, "XP-Net, 2.1: two"),
            Row(
                "layers of the discriminator",
                ["encoder1", "encoder3", "decoder1", "decoder3"],
                SAME,
                "XP-Net, 2.2.3",
            ),
            Row("discriminator::channels", [32, 128, 128, 32, 32], SAME, "XP-Net, 2.2.3"),
            Row("probabilities", True, SAME, "XP-Net, Fig. 2: the sigmoid's output"),
            Row("max_accuracy", None, OPEN, why="HAD-Net: 0.8"),
            Row("rate of the discriminator", (2e-4, (0.5, 0.999)), OPEN, why="HAD-Net's"),
            Row("tversky", (0.3, 0.7), OPEN, "XP-Net, Eq. 1", "misses weigh more"),
            Row(
                "random transforms",
                [
                    FLIP,
                    FLIP,
                    TURN,
                    ("RandPerspectived", ("image", "label"), 0.5),
                    ("RandHued", ("image",), 0.5),
                    ("RandScaleIntensityFixedMeand", ("image",), 0.5),
                    ("RandScaleIntensityd", ("image",), 0.5),
                ],
                SAME,
                "XP-Net, 3.1.1: rotation, flips, perspective, hue, contrast, brightness",
            ),
            Row("rotation", (-1.57, 1.57), OPEN),
        ],
    ),
]

# what an overlay changes: the bundle, the overlay, what, the value there, where it stands
OVERLAYS = [
    (XPNET, "train_teacher.yaml", "learning rate", 3e-4, "XP-Net, 3.2, the teachers"),
    (
        XPNET,
        "train_teacher.yaml",
        "betas",
        (0.9, 0.999),
        "XP-Net, 3.2, none named for the teachers",
    ),
    (XPNET, "train_teacher2.yaml", "learning rate", 3e-4, "XP-Net, 3.2"),
    (XPNET, "train_teacher2.yaml", "betas", (0.9, 0.999), "XP-Net, 3.2"),
    (XPNET, "train_teacher2.yaml", "gan_weight", 0.01, "pix2pix: 1 to 100 for the labels"),
    (HEADNECK, "train_3d.yaml", "epochs", 60, "EMKD, IV-A"),
    (HEADNECK, "train_3d.yaml", "batch size", 2, "ours, four patches each"),
    (HEADNECK, "train_3d.yaml", "patch_size", [64, 64, 32], "ours"),
    *(
        (
            name,
            "train_assistant_b.yaml",
            "boundary_swap::prob",
            1.0,
            "PLC-KD, 2.3: each image X is transformed",
        )
        for name in TEAMS
    ),
]


# ----------------------------------------------------------------------------------------- how a value is read
def random_transforms(training: AsTrained) -> list[tuple[str, tuple[str, ...], float | None]]:
    found = []
    for transform in training.loader().dataset.transform.transforms:
        if isinstance(transform, (RandomizableTrait, RandomizableTransform)):
            keys = tuple(getattr(transform, "keys", ("image",)))
            inner = getattr(transform, "transform", transform)  # of RandBoundaryTransformd
            found.append((type(transform).__name__, keys, getattr(inner, "prob", None)))
    return found


def transform(training: AsTrained, kind: str) -> Any:
    transforms = training.loader().dataset.transform.transforms
    return next(each for each in transforms if type(each).__name__ == kind)


def rates(training: AsTrained, epochs: Sequence[int]) -> list[float]:
    """The learning rates of some epochs, by the scheduler that the trainer's handler has."""
    scheduler = training.handler("LrScheduleHandler").lr_scheduler
    assert scheduler.optimizer is training.optimizer()
    start = scheduler.state_dict()
    found = []
    for epoch in range(max(epochs) + 1):
        found.append(scheduler.get_last_lr()[0])
        training.optimizer().step()
        scheduler.step()
    scheduler.load_state_dict(start)
    return [found[epoch] for epoch in epochs]


def key_metric(training: AsTrained) -> tuple[str, str, bool]:
    ((name, metric),) = training.evaluator["key_val_metric"].items()
    return name, type(metric).__name__, metric.metric_fn.include_background


def schedule(training: AsTrained) -> Any:
    handler = training.handler("LrScheduleHandler")
    return handler and type(handler.lr_scheduler).__name__


def discriminator_rate(training: AsTrained) -> tuple[float, tuple[float, float]]:
    defaults = training.handler("AdversarialDistillationHandler").optimizer.defaults
    return defaults["lr"], defaults["betas"]


def window(training: AsTrained) -> tuple[float, float]:
    """The same for training, validation and inference."""
    of_training = transform(training, "CTWindowd").window
    validation = training.evaluator["val_data_loader"].dataset.transform.transforms
    of_validation = next(each for each in validation if type(each).__name__ == "CTWindowd").window
    limits = {(each.lower, each.upper) for each in (of_training, of_validation)}
    assert len(limits) == 1
    return limits.pop()


def parts(training: AsTrained) -> list[str]:
    return list(training.get("corrected_teacher").chain.corrections)


def class_of(network: Any) -> str:
    return type(network).__name__


def quarters(training: AsTrained) -> list[float]:
    epochs = training.trainer["max_epochs"]
    return rates(training, [0, epochs // 4, epochs // 2, 3 * epochs // 4])


def teachers(training: AsTrained) -> list[Teacher]:
    """Those that the student learns from."""
    handler = training.handler("DistillationHandler") or training.handler("AdversarialDistillationHandler")
    teacher = handler.teacher
    teacher = teacher.teacher if isinstance(teacher, CorrectedTeacher) else teacher
    return list(teacher.members.values()) or [teacher]


READ = {
    "shuffle": lambda t: isinstance(t.loader().sampler, torch.utils.data.RandomSampler),
    "drop last": lambda t: t.loader().drop_last,
    "batch size": lambda t: t.loader().batch_size,
    "validation batch": lambda t: t.evaluator["val_data_loader"].batch_size,
    "seed of an epoch": lambda t: t.handler("EpochSeedHandler").seed,
    "mixed precision on the CPU": lambda t: t.trainer["amp"] or t.evaluator["amp"],
    "key metric": key_metric,
    "student": lambda t: class_of(t.trainer["network"]),
    "student parameters": lambda t: sum(parameter.numel() for parameter in t.trainer["network"].parameters()),
    "teacher": lambda t: class_of(teachers(t)[0].network),
    "optimizer": lambda t: class_of(t.optimizer()),
    "learning rate": lambda t: t.optimizer().defaults["lr"],
    "betas": lambda t: tuple(t.optimizer().defaults["betas"]),
    "weight decay": lambda t: t.optimizer().defaults["weight_decay"],
    "schedule": schedule,
    "learning rate at 0, 1/4, 1/2, 3/4": quarters,
    "learning rate at the end": lambda t: rates(t, [t.trainer["max_epochs"]])[0],
    "learning rate at 29, 30, 59, 60, 90": lambda t: rates(t, [29, 30, 59, 60, 90]),
    "epochs": lambda t: t.trainer["max_epochs"],
    "validated every": lambda t: t.handler("ValidationHandler").interval,
    "scales": lambda t: t.handler("MultiScaleHandler").scales,
    "window": window,
    "random transforms": random_transforms,
    "rotation": lambda t: tuple(transform(t, "RandRotated").rand_rotate.range_x),
    "mean of the image": lambda t: list(transform(t, "NormalizeIntensityd").normalizer.subtrahend),
    "deviation of the image": lambda t: list(transform(t, "NormalizeIntensityd").normalizer.divisor),
    "corrections": parts,
    "turns": lambda t: t.handler("AdversarialDistillationHandler").turns,
    "probabilities": lambda t: t.handler("AdversarialDistillationHandler").probabilities,
    "max_accuracy": lambda t: t.handler("AdversarialDistillationHandler").max_accuracy,
    "layers of the discriminator": lambda t: t.handler("AdversarialDistillationHandler").student_layers,
    "rate of the discriminator": discriminator_rate,
    "tversky": lambda t: (t.get("tversky_loss").alpha, t.get("tversky_loss").beta),
}


def read(training: AsTrained, what: str) -> Any:
    return READ[what](training) if what in READ else training.get(what)


ROWS = [pytest.param(name, row, id=f"{name}-{row.what}") for names, rows in TABLE for name in names for row in rows]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_value_is_that_of_the_table(trained, name, row):
    found = read(trained(name), row.what)
    numbers = isinstance(row.ours, (float, list)) and not isinstance(found, (str, bool))
    simple = numbers and all(
        isinstance(each, float) for each in (row.ours if isinstance(row.ours, list) else [row.ours])
    )
    assert found == (pytest.approx(row.ours, rel=1e-9) if simple else row.ours)


def test_table_says_where_a_number_stands_and_why_ours_is_another():
    for _, rows in TABLE:
        for row in rows:
            assert row.where or row.paper == OPEN, row
            assert row.why or row.paper in (SAME, OPEN), row


@pytest.mark.parametrize(("name", "overlay", "what", "value", "where"), OVERLAYS)
def test_overlay_has_the_value_of_its_stage(trained, name, overlay, what, value, where):
    assert read(trained(name, overlay), what) == value, where


@pytest.mark.parametrize(("name", "overlay"), [each for each in TRAININGS if each[1]])
def test_stages_share_what_is_not_their_own(trained, tiny_data, name, overlay):
    """Teachers, assistants and the student alone see the same batches for as many epochs, and start from the seed."""
    own = AsTrained(name, tiny_data(name), overlay, network="$torch.nn.Conv2d(1, 1, 1)")
    shared = [
        "shuffle",
        "drop last",
        "seed",
        "seed of an epoch",
        "validated every",
        "key metric",
        "optimizer",
    ]
    shared += [] if overlay == "train_3d.yaml" else ["batch size", "epochs"]
    for what in shared:
        assert read(own, what) == read(trained(name), what), what
    if overlay not in ("train_3d.yaml", "train_assistant_b.yaml"):
        assert random_transforms(own) == random_transforms(trained(name))


# ----------------------------------------------------------------------------------------------- terms, weights, layers
def shown(weight: Any) -> Any:
    """A weight as the table has it: a number, or what sets it."""
    if isinstance(weight, (int, float)):
        return float(weight)
    return weight if isinstance(weight, str) else repr(weight)


def settings(loss: nn.Module) -> dict[str, Any]:
    """What a loss was made with."""
    own = {key: value for key, value in vars(loss).items() if not key.startswith("_") and key != "training"}
    return own | {"temperature": getattr(loss, "temperature", None)} | {"kind": type(loss).__name__}


def terms(training: AsTrained) -> dict[str, Any]:
    handler = training.handler("DistillationHandler")
    return dict(handler.terms) if handler else {}


@pytest.mark.parametrize("name", EVERY)
def test_weights_are_those_of_the_table(trained, name):
    training = trained(name)
    if name == XPNET:
        assert terms(training) == {}  # plain KD is off
        found = {"adversarial": shown(training.handler("AdversarialDistillationHandler").weight)}
    else:
        found = {term.name: shown(term.weight) for term in terms(training).values()}
        assert training.handler("DistillationHandler").supervised_weight == SUPERVISED[name]
    assert found == {term: ours for term, (ours, _) in WEIGHTS[name].items()}


@pytest.mark.parametrize("name", EVERY)
def test_weights_of_the_paper_are_an_override_away(tiny_data, name):
    paper = {term: number for term, (_, number) in WEIGHTS[name].items()}
    training = AsTrained(name, tiny_data(name), weights=PAPERS[name])
    if name == XPNET:
        assert training.get("distillation::1").weight == paper["adversarial"]
    else:
        assert {term.name: shown(term.weight) for term in training.get("distillation::0::terms")} == paper


@pytest.mark.parametrize(("name", "expected"), [(name, of) for names, of in TERMS for name in names])
def test_terms_are_those_of_the_table(trained, name, expected):
    found = terms(trained(name))
    assert list(found) == list(expected)
    for term, (loss, student_layers, teacher_layers) in expected.items():
        assert settings(found[term].loss) == settings(loss), term
        assert list(found[term].student_layers) == list(student_layers), term
        assert list(found[term].teacher_layers) == list(teacher_layers), term
        assert found[term].outputs == "first"
        assert not len(found[term].adapters)


@pytest.mark.parametrize("name", EVERY)
def test_teachers_are_frozen_and_of_the_table(trained, name):
    """Each has its own weights: of XP-Net's two, and beside the student's."""
    training = trained(name)
    found = teachers(training)
    assert len(found) == (2 if name == XPNET else 1)
    assert [type(teacher) for teacher in found] == [Teacher] * len(found)
    learnt = {id(each) for group in training.optimizer().param_groups for each in group["params"]}
    for teacher in found:
        assert not any(parameter.requires_grad or id(parameter) in learnt for parameter in teacher.parameters())
    assert learnt == {id(parameter) for parameter in training.trainer["network"].parameters()}


@pytest.mark.parametrize("name", [name for name in EVERY if name != XPNET])
def test_weights_of_the_teacher_are_those_of_its_stage(name):
    shipped, stage = ConfigParser(), ConfigParser()
    shipped.read_config(str(BUNDLES[name] / "configs" / "train.yaml"))
    stage.read_config([str(BUNDLES[name] / "configs" / file) for file in ("train.yaml", "train_teacher.yaml")])
    assert shipped.get_parsed_content("teacher_ckpt") == stage.get_parsed_content("best_ckpt")
    assert shipped.get_parsed_content("best_ckpt") != stage.get_parsed_content("best_ckpt")


CASES = [(name, of, layers, methods[of]) for names, layers, methods in METHODS for name in names for of in methods]


@pytest.mark.parametrize(("name", "method", "layers", "expected"), CASES)
def test_compared_methods_have_the_weights_of_released_codes(tiny_data, name, method, layers, expected):
    training = AsTrained(name, tiny_data(name), "compare.yaml", method=f"@methods::{method}")
    found = {term.name: term for term in training.get("method")}
    term = found[method]
    assert (term.weight, type(term.loss)) == expected
    own, teachers = ([], []) if method in OF_LOGITS else layers
    assert (list(term.student_layers), list(term.teacher_layers)) == (own, teachers)
    if method in COMPARED_LOSSES:
        assert settings(term.loss) == settings(COMPARED_LOSSES[method])
    plain = [] if name in CT or method in ("cwd", "dkd") else ["kd"]
    assert [each for each in found if each != method] == plain
    assert [found[each].weight for each in plain] == ["auto"] * len(plain)


def test_no_method_is_left_out():
    for names, _, methods in METHODS:
        for name in names:
            parser = AsTrained(name, BUNDLES[name], "compare.yaml").parser
            assert set(parser.get("methods")) - {"emkd"} == set(methods)


@pytest.mark.parametrize("name", TEAMS)
def test_emkd_beside_a_team_has_the_weights_of_its_paper(tiny_data, name):
    training = AsTrained(name, tiny_data(name), "compare.yaml", method="@methods::emkd")
    found = {term.name: term.weight for term in training.get("method")}
    assert found == {"pmd": 0.1, "imd": 0.9, "rad": 0.9}
