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

from __future__ import annotations

import warnings
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from torch.nn import functional as F

from monai_kd.handlers import MultiScaleHandler


def engine(batch, iteration=1):
    return SimpleNamespace(state=SimpleNamespace(batch=batch, iteration=iteration, device=torch.device("cpu")))


def resized(batch, scale, **options):
    state = engine(batch)
    MultiScaleHandler(scales=[scale], **options)(state)
    return state.state.batch


def batch_of(side=352):
    return {"image": torch.rand(2, 3, side, side), "label": (torch.rand(2, 1, side, side) > 0.5).float(), "case": ["a"]}


@pytest.mark.parametrize(("scale", "side"), [(0.75, 256), (1.0, 352), (1.25, 448)])
def test_sizes_and_values_of_the_paper(scale, side):
    batch = batch_of()
    out = resized(batch, scale)
    assert out["image"].shape == (2, 3, side, side)
    expected = F.interpolate(batch["image"], (side, side), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out["image"], expected)
    torch.testing.assert_close(out["label"], F.interpolate(batch["label"], (side, side), mode="nearest-exact"))
    assert out["label"].unique().tolist() == [0, 1]
    assert out["case"] is batch["case"]
    assert batch["image"].shape[-1] == 352  # the batch of the loader is left as it was


def test_one_in_three_and_the_same_for_every_run_and_rank():
    handler = MultiScaleHandler(seed=3)
    counts = Counter(handler.scale(iteration) for iteration in range(1, 1201))
    assert set(counts) == {0.75, 1.0, 1.25}
    assert min(counts.values()) > 340
    torch.manual_seed(7)  # no global state has a part in it
    again = MultiScaleHandler(seed=3)
    assert [again.scale(i) for i in range(50, 100)] == [handler.scale(i) for i in range(50, 100)]
    assert [MultiScaleHandler(seed=4).scale(i) for i in range(50)] != [handler.scale(i) for i in range(50)]


def test_sides_are_multiples_and_never_nothing():
    out = resized({"image": torch.rand(1, 3, 100, 40)}, 0.75, keys="image", modes="bilinear")
    assert out["image"].shape[2:] == (64, 32)
    out = resized({"image": torch.rand(1, 3, 20, 20)}, 0.75, keys="image", modes="bilinear")
    assert out["image"].shape[2:] == (32, 32)
    volume = {"image": torch.rand(1, 1, 16, 16, 8), "label": torch.randint(0, 3, (1, 1, 16, 16, 8))}
    out = resized(volume, 1.5, modes=("trilinear", "nearest-exact"), divisor=4)
    assert out["image"].shape == out["label"].shape == (1, 1, 24, 24, 12)
    assert out["label"].dtype == torch.int64
    assert set(out["label"].unique().tolist()) <= {0, 1, 2}


def test_types_are_kept():
    image = MetaTensor(torch.rand(1, 3, 32, 32, dtype=torch.float16), meta={"case": "a"})
    out = resized({"image": image}, 2.0, keys="image", modes="bilinear")["image"]
    assert isinstance(out, MetaTensor)
    assert out.meta["case"] == "a"
    assert out.dtype == torch.float16


def test_integers_are_rounded_and_clipped_to_their_range():
    torch.manual_seed(0)
    image = ((torch.rand(1, 3, 96, 96) > 0.5) * 255).byte()
    out = resized({"image": image}, 0.75, keys="image", modes="bicubic")["image"]
    exact = F.interpolate(image.float(), (64, 64), mode="bicubic", align_corners=False)
    assert exact.min() < -1  # it overshoots, which would wrap around
    assert exact.max() > 256
    assert out.dtype == torch.uint8
    torch.testing.assert_close(out, exact.round().clamp(0, 255).byte())
    flags = resized({"image": image > 0}, 0.75, keys="image", modes="nearest")["image"]
    assert torch.equal(flags, F.interpolate((image > 0).float(), (64, 64), mode="nearest") > 0)


def test_scales_of_one_size_are_warned_of_once():
    handler = MultiScaleHandler(keys="image", modes="bilinear")
    found = "the `scales` of 64x64 must .* got 64x64 at 0.75, 64x64 at 1, 64x64 at 1.25; take scales further apart"
    with pytest.warns(UserWarning, match=found):
        handler(engine({"image": torch.rand(1, 3, 64, 64)}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handler(engine({"image": torch.rand(1, 3, 64, 64)}, iteration=2))
        MultiScaleHandler(keys="image", modes="bilinear")(engine({"image": torch.rand(1, 3, 96, 96)}))


class Sizes:
    """A network that notes the size of its input."""

    def __init__(self):
        self.network = torch.nn.Conv2d(3, 1, 1)
        self.seen = []
        self.network.register_forward_pre_hook(lambda module, args: self.seen.append(args[0].shape[-1]))


def trainer(max_epochs, handlers=None):
    torch.manual_seed(0)
    sizes = Sizes()
    data = [{"image": torch.rand(3, 128, 128), "label": torch.rand(1, 128, 128).round()} for _ in range(8)]
    engine = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=sizes.network,
        optimizer=torch.optim.SGD(sizes.network.parameters(), 0.1),
        loss_function=torch.nn.BCEWithLogitsLoss(),
        train_handlers=[MultiScaleHandler()] if handlers is None else handlers,
    )
    return engine, sizes


def test_network_and_label_have_the_drawn_size():
    engine, sizes = trainer(max_epochs=3)
    engine.run()
    handler = MultiScaleHandler()
    expected = [round(128 * handler.scale(iteration) / 32) * 32 for iteration in range(1, 13)]
    assert sizes.seen == expected
    assert len(set(expected)) > 1


def test_resumed_run_goes_on_as_the_whole_one():
    whole, all_sizes = trainer(max_epochs=4)
    whole.run()
    first, _ = trainer(max_epochs=2)
    first.run()
    state = first.state_dict()
    second, rest = trainer(max_epochs=4)
    second.load_state_dict({**state, "max_epochs": 4})
    second.run()
    assert rest.seen == all_sizes.seen[8:]


def test_attached_twice_it_resizes_once():
    handler = MultiScaleHandler(scales=[0.75])
    engine, sizes = trainer(max_epochs=1, handlers=[handler, handler])
    handler.attach(engine)
    engine.run()
    assert sizes.seen == [96] * 4  # not 64, 0.75 of 0.75


@pytest.mark.parametrize("keys", [("image", "label"), "label"])
def test_two_that_resize_one_key_are_refused(keys):
    with pytest.raises(ValueError, match="`keys` must be resized by one `MultiScaleHandler` .* got .*'label' of two"):
        trainer(max_epochs=1, handlers=[MultiScaleHandler(), MultiScaleHandler(keys=keys, modes="nearest", seed=1)])


def test_two_of_one_seed_resize_other_keys_alike():
    handlers = [MultiScaleHandler(keys=key, modes="nearest", seed=3) for key in ("image", "label")]
    engine, sizes = trainer(max_epochs=2, handlers=handlers)
    engine.run()  # image and label would not fit otherwise
    assert len(set(sizes.seen)) > 1


def test_guards():
    for scales in ([0.5, 0], [float("nan"), 1.0], [1.0, float("nan")], [float("inf")], []):
        with pytest.raises(ValueError, match=r"`scales` must be finite and greater than 0, but got \["):
            MultiScaleHandler(scales=scales)
    with pytest.raises(ValueError, match=r"`divisor` must be a whole number, but got 32\.5"):
        MultiScaleHandler(divisor=32.5)
    with pytest.raises(ValueError, match="`modes` must be of bilinear, .*, but got 'cubic'"):
        MultiScaleHandler(modes=("cubic", "nearest"))
    with pytest.raises(ValueError, match="`divisor` must be at least 1 and `seed` not negative, but got 0 and 0"):
        MultiScaleHandler(divisor=0)
    with pytest.raises(ValueError, match=r"`keys` must be entries of the batch, but got \['label'\], .* \['image'\]"):
        resized({"image": torch.rand(1, 3, 8, 8)}, 1.0)
