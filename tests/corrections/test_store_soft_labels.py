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

"""Soft labels stored and loaded: what survives half precision, what moves along, and what is refused."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, RandFlipd, RandRotate90d, ScaleIntensityd, Spacingd
from PIL import Image
from torch import nn
from torch.nn import functional as F

from monai_kd.corrections import AssistantCorrection, SimilarityCorrection, store_soft_labels, weights_key
from monai_kd.corrections.store_soft_labels import stored_logits
from monai_kd.handlers import DistillationHandler, DistillationTerm, SoftLabelCorrectionHandler
from monai_kd.losses import KDLoss
from monai_kd.networks import StoredSoftLabel, Teacher
from monai_kd.networks.soft_label import as_soft_label
from monai_kd.transforms import LoadMaskd, LoadRGBd, LoadSoftLabeld
from monai_kd.transforms.soft_label_file import sample_key
from tests.corrections.correction_case import cases, make_case, predicted

save_file = pytest.importorskip("safetensors.torch").save_file
pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def items(length: int = 4, classes: int = 2, size: int = 12) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, size, size, generator=generator) for _ in range(length)]
    labels = [torch.randint(classes, (1, size, size), generator=generator).float() for _ in range(length)]
    return [{"image": image, "label": label} for image, label in zip(images, labels)]


def network(seed: int = 0, classes: int = 2, scale: float = 3.0) -> nn.Conv2d:
    generator = torch.Generator().manual_seed(seed)
    convolution = nn.Conv2d(3, classes, 1)
    for parameter in convolution.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return convolution


def parts() -> dict[str, Any]:
    return {"assistant": AssistantCorrection(network(1)), "similarity": SimilarityCorrection()}


def stored(folder: Path, data: Any, key: str = "1", **kwargs: Any) -> int:
    return store_soft_labels(data, Teacher(network()), folder, key, **({"corrections": parts()} | kwargs))


class TestHalfPrecision:
    @given(case=cases)
    def test_most_probable_class_and_probabilities_survive(self, case):
        corrected = SimilarityCorrection()(*case)
        kept = stored_logits(corrected)
        assert kept.dtype == torch.float16
        assert torch.isfinite(kept).all()
        loaded = kept.float().sigmoid() if kept.shape[1] == 1 else kept.float().softmax(1)
        assert torch.equal(predicted(loaded), case.label)
        expected = corrected.float() / (corrected.float().sum(1, keepdim=True) if kept.shape[1] > 1 else 1)
        bound = 2**-11 * (0.37 + math.log(max(2, kept.shape[1]))) + 2e-6  # the margin and single precision
        assert (loaded - expected).abs().max() <= bound

    @given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), temperature=st.sampled_from([1.0, 4.0, 20.0]))
    def test_any_temperature_is_off_by_little(self, seed, classes, temperature):
        generator = torch.Generator().manual_seed(seed)
        logits = 12 * torch.randn(1, classes, 16, 16, generator=generator)
        kept = stored_logits(logits.softmax(1)).float()
        off = (kept / temperature).softmax(1) - (logits / temperature).softmax(1)
        assert off.abs().max() <= 2**-11 * (0.37 + math.log(classes)) + 2e-6

    @given(seed=st.integers(0, 10**6), classes=st.integers(2, 4))
    def test_classes_that_differ_in_the_last_bit_or_not_at_all(self, seed, classes):
        generator = torch.Generator().manual_seed(seed)
        low = (1 / classes) * (1 - 1e-3 * torch.rand(1, 1, 8, 8, generator=generator))
        top = torch.randint(classes, (1, 1, 8, 8), generator=generator)
        equal = low.expand(1, classes, 8, 8).clone()
        above = equal.scatter(1, top, torch.nextafter(low, torch.ones(())))
        for soft_label in (equal, above):
            loaded = stored_logits(soft_label).float().softmax(1)
            assert torch.equal(loaded.argmax(1), soft_label.argmax(1))
            assert (loaded == loaded.amax(1, keepdim=True)).sum(1).max() == 1

    def test_foreground_by_the_last_bit(self):
        half = torch.tensor(0.5)
        values = torch.stack([torch.nextafter(half, torch.zeros(())), half, torch.nextafter(half, torch.ones(()))])
        loaded = stored_logits(values.view(1, 1, 1, 3)).float().sigmoid()
        assert (loaded > 0.5).flatten().tolist() == [False, False, True]


class TestLoading:
    def test_what_is_loaded_is_what_the_team_said(self, tmp_path):
        data = items()
        assert stored(tmp_path, data) == 4
        load = LoadSoftLabeld("soft_label", tmp_path, "1")
        for item in data:
            image, label = item["image"][None], item["label"][None]
            soft_label = as_soft_label(network()(image))
            for part in parts().values():
                soft_label = part(soft_label, image, label)
            loaded = load(item)["soft_label"]
            torch.testing.assert_close(loaded, soft_label[0], atol=6e-4, rtol=0)
            assert torch.equal(loaded.argmax(0, keepdim=True).float(), item["label"])

    def test_without_corrections_the_teachers_own(self, tmp_path):
        data = items()
        store_soft_labels(data, Teacher(network()), tmp_path, "1")
        loaded = LoadSoftLabeld("soft_label", tmp_path, "1")(data[0])["soft_label"]
        torch.testing.assert_close(loaded, network()(data[0]["image"][None]).softmax(1)[0], atol=6e-4, rtol=0)

    def test_says_how_many_and_where(self, tmp_path, caplog):
        with caplog.at_level(logging.INFO, logger="monai_kd"):
            for length, key in ((3, "1"), (4, "1"), (4, "2")):
                stored(tmp_path, items(4)[:length], key=key)
        expected = ("3 soft labels stored in {}, 0", "1 soft labels stored in {}, 3", "4 soft labels stored in {}, 0")
        assert caplog.messages == [f"{text.format(tmp_path)} were there already" for text in expected]

    def test_stored_once(self, tmp_path):
        assert [stored(tmp_path, items(6)), stored(tmp_path, items(6)), stored(tmp_path, items(6), key="2")] == [
            6,
            0,
            6,
        ]
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == sorted(f"{sample_key(item['image'], item['label'])}.safetensors" for item in items(6))

    def test_run_that_was_stopped_goes_on(self, tmp_path):
        class Stops(Dataset):
            def __getitem__(self, index: int) -> Any:
                if index == 2:
                    raise KeyboardInterrupt
                return super().__getitem__(index)

        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path, Stops(items()))
        assert len(list(tmp_path.iterdir())) == 2
        assert stored(tmp_path, items()) == 2

    def test_affine_is_the_images_and_moves_it_alike(self, tmp_path):
        affine = torch.diag(torch.tensor([-2.0, 3.0, 1.0, 1.0]))
        volumes = [
            {key: MetaTensor(value[..., None].repeat(1, 1, 1, 4), affine=affine) for key, value in item.items()}
            for item in items()
        ]
        teacher = Teacher(nn.Conv3d(3, 2, 1))
        store_soft_labels(volumes, teacher, tmp_path, "1", [SimilarityCorrection()])
        keys = ["image", "label", "soft_label"]
        moved = Compose([
            LoadSoftLabeld("soft_label", tmp_path, "1"),
            Spacingd(keys, pixdim=(1.5, 1.5, 1.0), mode=["bilinear", "nearest", "bilinear"]),
        ])(volumes[0])  # fmt: skip
        assert moved["soft_label"].shape == (2, *moved["label"].shape[1:])
        torch.testing.assert_close(moved["soft_label"].affine, moved["image"].affine)
        torch.testing.assert_close(moved["soft_label"].sum(0).as_tensor(), torch.ones(moved["label"].shape[1:]))

    def test_random_transforms_move_it_with_its_label(self, tmp_path):
        stored(tmp_path, items())
        keys = ["image", "label", "soft_label"]
        transforms = [LoadSoftLabeld("soft_label", tmp_path, "1"), RandFlipd(keys, 0.5, 0), RandRotate90d(keys, 0.6)]
        dataset = CacheDataset(items(), Compose(transforms), progress=False)
        turned = 0
        for _ in range(4):
            for item, original in zip(dataset, items()):
                assert torch.equal(item["soft_label"].argmax(0, keepdim=True).float(), item["label"])
                turned += not torch.equal(item["image"], original["image"])
        assert turned > 4

    def test_training_without_a_teacher_is_training_with_one(self, tmp_path):
        stored(tmp_path, items())
        load = LoadSoftLabeld("soft_label", tmp_path, "1")
        found = []
        for alone in (False, True):
            student = network(7)
            teacher = Teacher(StoredSoftLabel(), image_key="soft_label") if alone else Teacher(network())
            handlers: list[Any] = [DistillationHandler(teacher, [DistillationTerm(KDLoss(temperature=4.0))])]
            handlers += [] if alone else [SoftLabelCorrectionHandler(parts())]
            trainer = SupervisedTrainer(
                device=torch.device("cpu"),
                max_epochs=3,
                train_data_loader=DataLoader([load(item) for item in items()], batch_size=2),
                network=student,
                optimizer=torch.optim.SGD(student.parameters(), 0.1),
                loss_function=lambda logits, label: F.cross_entropy(logits, label[:, 0].long()),
                train_handlers=handlers,
            )
            trainer.run()
            found.append(torch.cat([parameter.flatten() for parameter in student.parameters()]).detach())
        torch.testing.assert_close(found[0], found[1], atol=2e-4, rtol=0)
        assert (found[0] - torch.cat([p.flatten() for p in network(7).parameters()])).abs().max() > 0.05


class TestBroken:
    @staticmethod
    def spoil(path: Path, how: str) -> None:
        if how == "no metadata":
            save_file({"logits": torch.zeros(2, 12, 12)}, str(path))
        elif how == "no logits":
            save_file({"other": torch.zeros(2)}, str(path), {"weights_key": "1"})
        else:
            content = path.read_bytes()
            path.write_bytes({"empty": b"", "cut": content[:-10], "header": content[:20], "text": b"none" * 50}[how])

    @pytest.mark.parametrize("how", ["empty", "cut", "header", "text", "no metadata", "no logits"])
    def test_is_refused_by_name_and_written_again(self, tmp_path, how):
        stored(tmp_path, items())
        broken = items()[1]
        path = tmp_path / f"{sample_key(broken['image'], broken['label'])}.safetensors"
        self.spoil(path, how)
        load = LoadSoftLabeld("soft_label", tmp_path, "1")
        with pytest.raises(
            ValueError, match=rf"whole files of .*, but got .*{path.name}, which .* Store soft labels again"
        ):
            load(broken)
        assert stored(tmp_path, items()) == 1
        assert load(broken)["soft_label"].shape == (2, 12, 12)

    def test_two_machines_with_one_process_number_write_two_files(self, tmp_path, monkeypatch):
        partial: list[str] = []
        replace = os.replace
        monkeypatch.setattr(os, "getpid", lambda: 7)
        monkeypatch.setattr(os, "replace", lambda old, new: (partial.append(str(old)), replace(old, new)))
        stored(tmp_path, items(1), key="1")
        stored(tmp_path, items(1), key="2")
        assert len(set(partial)) == 2


class TestStale:
    @pytest.mark.parametrize(
        "other",
        [
            {"similarity": SimilarityCorrection(max_candidates=1)},
            {"similarity": SimilarityCorrection(seed=1)},
            {"copy": SimilarityCorrection()},
            {},
            {"similarity": SimilarityCorrection(), "assistant": AssistantCorrection(network(1))},
        ],
    )
    def test_other_corrections(self, tmp_path, other):
        before = {"similarity": SimilarityCorrection()}
        assert stored(tmp_path, items(), corrections=before) == 4
        assert stored(tmp_path, items(), corrections={"similarity": SimilarityCorrection(memory_mb=1)}) == 0
        assert [stored(tmp_path, items(), corrections=other) for _ in range(2)] == [4, 0]

    def test_other_order(self, tmp_path):
        chains = [parts(), dict(reversed(parts().items()))]
        assert [stored(tmp_path, items(), corrections=chain) for chain in chains] == [4, 4]

    def test_other_number_of_classes(self, tmp_path):
        teachers = [Teacher(network(classes=classes)) for classes in (2, 3, 3)]
        assert [store_soft_labels(items(), teacher, tmp_path, "1") for teacher in teachers] == [4, 4, 0]
        assert len(LoadSoftLabeld("soft_label", tmp_path, "1")(items()[0])["soft_label"]) == 3

    def test_two_chains_in_one_folder_are_noticed(self, tmp_path):
        stored(tmp_path, items())
        stored(tmp_path, items()[:2], corrections={"similarity": SimilarityCorrection(max_candidates=1)})
        load = LoadSoftLabeld("soft_label", tmp_path, "1")
        for item in items()[:2]:
            load(item)
        with pytest.raises(
            ValueError, match=r"must hold soft labels of one chain .* but got .*max_candidates None.* and"
        ):
            load(items()[2])

    @pytest.mark.parametrize("changed", ["image", "label"])
    def test_another_image_or_label(self, tmp_path, changed):
        stored(tmp_path, items())
        item = items()[0]
        item[changed][0, 0, 0] = 1 - item[changed][0, 0, 0]
        with pytest.raises(FileNotFoundError, match=r"must hold a soft label for this image, .* have image, label or"):
            LoadSoftLabeld("soft_label", tmp_path, "1")(item)

    def test_another_preprocessing(self, tmp_path):
        stored(tmp_path, items())
        chain = Compose([ScaleIntensityd("image"), LoadSoftLabeld("soft_label", tmp_path, "1")])
        with pytest.raises(RuntimeError) as error:
            chain(items()[0])
        assert "preprocessing changed since" in str(error.value.__cause__)

    def test_other_weights(self, tmp_path):
        stored(tmp_path, items(), key="old")
        with pytest.raises(
            ValueError, match=r"got new and old in .*: teacher, assistants or corrections have changed"
        ) as error:
            LoadSoftLabeld("soft_label", tmp_path, "new")(items()[0])
        remedies = ("`monai_kd.corrections.store_soft_labels`", "in a bundle", "configs/store_soft_labels.yaml")
        assert [remedy for remedy in remedies if remedy not in str(error.value)] == []
        stored(tmp_path, items(), key="new")
        LoadSoftLabeld("soft_label", tmp_path, "new")(items()[0])

    def test_key_of_a_sample_is_its_content(self):
        image, label = torch.rand(3, 4, 6), torch.zeros(1, 4, 6)
        key = sample_key(image, label)
        assert sample_key(MetaTensor(image, affine=2 * torch.eye(4)), MetaTensor(label)) == key
        assert sample_key(image.numpy(), label.numpy()) == key
        assert sample_key(image.flip(2).flip(2), label) == key
        assert sample_key(image.bfloat16(), label) == sample_key(image.bfloat16().float(), label)
        others = [(image.double(), label), (image, label.long()), (image.mT, label.mT), (label, image)]
        others += [(image.flip(2), label), (image, 1 - label), (image.reshape(3, 6, 4), label.reshape(1, 6, 4))]
        assert len({key, *(sample_key(*other) for other in others)}) == 8

    def test_key_of_the_weights(self, tmp_path):
        for name, module in (("a", network(0)), ("b", network(1))):
            torch.save(module.state_dict(), tmp_path / f"{name}.pt")
        a, b = tmp_path / "a.pt", tmp_path / "b.pt"
        renamed = tmp_path / "renamed.pt"
        renamed.write_bytes(a.read_bytes())
        key = weights_key([a, b], "similarity", 3)
        assert weights_key([renamed, b], "similarity", 3) == key
        others = [([b, a], "similarity", 3), ([a, a], "similarity", 3), ([a], "similarity", 3), ([a, b], "similarity")]
        others += [([a, b], "similarity", 4), ([a, b], "similarity, 3"), ([a, b], "similarity3")]
        assert len({key, *(weights_key(*other) for other in others)}) == 8
        with pytest.raises(
            FileNotFoundError, match="must be files of weights, but got .*c.pt; train the networks first"
        ):
            weights_key([a, tmp_path / "c.pt"])


def test_in_a_bundle(tmp_path):
    """Configuration alone: store, load, distil."""
    torch.save(network().state_dict(), tmp_path / "teacher.pt")
    config = {
        "imports": ["$import monai_kd"],
        "key": f"$monai_kd.corrections.weights_key(['{tmp_path}/teacher.pt'], 'similarity')",
        "teacher": {"_target_": "monai_kd.networks.Teacher", "network": "$torch.nn.Conv2d(3, 2, 1)"}
        | {"checkpoint": f"{tmp_path}/teacher.pt"},
        "corrections": [{"_target_": "monai_kd.corrections.SimilarityCorrection"}],
        "count": {"_target_": "monai_kd.corrections.store_soft_labels", "dataset": "@data", "teacher": "@teacher"}
        | {"folder": str(tmp_path / "soft"), "weights_key": "@key", "corrections": "@corrections"},
        "load": {"_target_": "monai_kd.transforms.LoadSoftLabeld", "keys": "soft_label", "weights_key": "@key"}
        | {"folder": str(tmp_path / "soft")},
        "alone": {"_target_": "monai_kd.networks.Teacher", "image_key": "soft_label"}
        | {"network": {"_target_": "monai_kd.networks.StoredSoftLabel"}},
        "data": items(),
    }
    parser = ConfigParser(config)
    assert parser.get_parsed_content("count") == 4
    item = parser.get_parsed_content("load")(items()[0])
    logits = parser.get_parsed_content("alone")({"soft_label": item["soft_label"][None]}).logits
    assert torch.equal(logits.argmax(1, keepdim=True)[0].float(), item["label"])


def test_items_read_from_files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(255 * (pixels[..., 0] > 100).astype(np.uint8)).save(tmp_path / "label.png")
    data = [{key: str(tmp_path / f"{key}.png") for key in ("image", "label")}]
    read = [LoadRGBd("image"), LoadMaskd("label")]
    store_soft_labels(
        Dataset(data, Compose(read)), Teacher(network()), tmp_path / "soft", "1", [SimilarityCorrection()]
    )
    (item,) = Dataset(data, Compose([*read, LoadSoftLabeld("soft_label", tmp_path / "soft", "1")]))
    assert isinstance(item["soft_label"], MetaTensor)
    assert torch.equal(item["soft_label"].argmax(0, keepdim=True).float(), item["label"])


def test_one_channel_teacher(tmp_path):
    case = make_case(outputs=1)
    data = [{"image": case.image[0], "label": case.label[0]}]
    store_soft_labels(data, Teacher(nn.Conv2d(3, 1, 1)), tmp_path, "1", [SimilarityCorrection()])
    loaded = LoadSoftLabeld("soft_label", tmp_path, "1")(data[0])["soft_label"]
    assert loaded.shape == (1, 6, 7)
    assert torch.equal((loaded > 0.5).long(), case.label[0])
