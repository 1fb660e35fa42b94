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

"""Images without labels, the teacher's score and the resumed weights, in every bundle."""

from __future__ import annotations

import pytest

from monai_kd.data import write_endoscopy_phantoms, write_phantoms
from tests.bundles.as_trained import AsTrained
from tests.bundles.journey import BUNDLES, PHOTOS, XPNET

every_bundle = pytest.mark.parametrize("name", list(BUNDLES))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of pictures and one of volumes, for which there are no labels."""
    root = tmp_path_factory.mktemp("unlabelled")
    photos = write_endoscopy_phantoms(root / "photos", "folder", num_frames=6, size=64, progress=False)
    volumes = write_phantoms(root / "ct", "folder", num_cases=2, size=64, num_slices=4, progress=False)
    return {"photos": photos, "volumes": volumes / "images"}


@every_bundle
def test_they_look_as_the_labelled_ones(tiny_data, images, name):
    folder = images["photos" if name in PHOTOS else "volumes"]
    training = AsTrained(name, tiny_data(name), unlabelled_dir=str(folder), batch_size=2)
    handler = training.handler("DistillationHandler")
    labelled, bare = next(iter(training.loader())), next(iter(handler.unlabelled.loader))
    assert "label" not in bare
    assert bare["image"].shape == labelled["image"].shape
    assert bare["image"].dtype == labelled["image"].dtype
    seeded = training.handler("EpochSeedHandler").datasets
    assert seeded == [training.loader().dataset, handler.unlabelled.loader.dataset]
    assert "images without labels" in handler.summary()


@every_bundle
def test_blends_of_the_labelled_images(tiny_data, name):
    training = AsTrained(name, tiny_data(name), unlabelled_dir="mixed", batch_size=2)
    handler = training.handler("DistillationHandler")
    assert handler.summary().endswith("also on blends of its images")
    assert training.handler("EpochSeedHandler").datasets == [training.loader().dataset]


@every_bundle
def test_without_the_folder_there_are_none(trained, name):
    handler = trained(name).handler("DistillationHandler")
    assert handler is None if name == XPNET else handler.unlabelled is None


@every_bundle
@pytest.mark.parametrize("overlay", ["", "train_student.yaml"])
def test_gain_is_said_of_the_distilled_student_alone(trained, name, overlay):
    training = trained(name, overlay) if overlay else trained(name)
    handler = training.handler("GainHandler")
    if overlay:
        assert handler is None
        return
    assert handler.evaluator is training.get("validate::evaluator")
    assert handler.baseline.name == "student_alone.pt"
    distillation = training.handler("AdversarialDistillationHandler" if name == XPNET else "DistillationHandler")
    asked = distillation.teacher
    assert handler.teacher_evaluator.network.teacher is getattr(asked, "teacher", asked)  # a corrected one's own
    assert handler.teacher_evaluator is not handler.evaluator
    assert handler.teacher_evaluator.data_loader is handler.evaluator.data_loader
    assert handler.distillation is training.handler("DistillationHandler")  # None for XP-Net without plain KD


@every_bundle
def test_weights_that_set_themselves_are_resumed(trained, name):
    training = trained(name)
    state = training.get("resume::state")
    assert state.get("distillation") is training.handler("DistillationHandler")
    assert state["gain"] is training.handler("GainHandler")
