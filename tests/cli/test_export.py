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

"""Files that a student is exported to: the same logits, the student alone, its metadata, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import monai.bundle.scripts
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata
from monai.inferers import SliceInferer
from torch import nn

import monai_kd.bundle.export_formats as formats
from monai_kd import cli
from monai_kd.bundle import bundle_network
from monai_kd.bundle.export_formats import to_tensorrt, to_torchscript
from monai_kd.bundle.export_metadata import export_metadata
from monai_kd.cli.export import _shape, calibration_inputs, export
from monai_kd.data import write_aside, write_endoscopy_phantoms
from tests.bundle.frames_bundle import SIZE, write_frames_bundle

HERE = [name for name in ("torchscript", "onnx", "openvino", "openvino_int8") if not formats.why_not(name)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, str]:
    """A bundle after `export --formats all`, and what that printed."""
    folder = write_frames_bundle(tmp_path_factory.mktemp("exported") / "frames")
    data = write_endoscopy_phantoms(folder / "data", "folder", num_frames=3, size=48, progress=False)
    return folder, export(str(folder), "all", override={"dataset_dir": str(data / "images")})


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_frames_bundle(tmp_path / "bundle")


def student_of(folder: Path) -> nn.Module:
    network = bundle_network(folder)
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True)["model"])
    return network.eval()


def run_of(name: str, folder: Path) -> Any:
    models = folder / "models"
    if name == "torchscript":
        return torch.jit.load(str(models / "model.ts")).eval()
    if name == "onnx":
        pytest.importorskip("onnxruntime")
        return formats.onnx_session(models / "model.onnx")
    return formats.openvino_model(models / ("model.xml" if name == "openvino" else "model_int8.xml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HERE if name != "openvino_int8"])
@torch.no_grad()
def test_file_gives_the_logits_of_the_student(exported, name):
    folder, _ = exported
    network, run = student_of(folder), run_of(name, folder)
    for batch in (1, 2, 5):
        image = torch.randn(batch, 3, *SIZE)
        torch.testing.assert_close(run(image), network(image), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif("openvino_int8" not in HERE, reason="needs openvino and nncf")
@torch.no_grad()
def test_eight_bits_are_near_on_frames_like_those_of_the_calibration(exported):
    folder, _ = exported
    network, run = student_of(folder), run_of("openvino_int8", folder)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder), "dataset_dir": str(folder / "data" / "images")})
    for image in calibration_inputs(parser, out_channels=1):
        error = run(image) - network(image)
        assert 0 < error.abs().mean() < 0.05 * network(image).std()  # they are 8 bits, and no less


def block_of(name: str, folder: Path) -> dict[str, Any]:
    models = folder / "models"
    if name == "torchscript":
        return load_net_with_metadata(str(models / "model.ts"))[1]["monai_kd"]
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(models / "model.onnx", providers=["CPUExecutionProvider"])
        return json.loads(session.get_modelmeta().custom_metadata_map["monai_kd"])
    import openvino

    file = models / ("model.xml" if name == "openvino" else "model_int8.xml")
    return json.loads(openvino.Core().read_model(str(file)).get_rt_info("monai_kd").value)


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_block_is_read_from_the_file(exported, name):
    folder, _ = exported
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.read_meta(str(folder / "configs" / "metadata.json"))
    expected = export_metadata(parser, student_of(folder)) | {"input_shape": [3, *SIZE]}
    expected["precision"] = "int8" if name == "openvino_int8" else "float32"
    assert block_of(name, folder) == expected
    assert (expected["size"], expected["network"]) == (SIZE, "Convolution")


@pytest.mark.slow
def test_file_holds_the_student_alone(exported):
    """Of a checkpoint with teacher and optimizer; to MONAI it is one of its own."""
    folder, _ = exported
    network, metadata, files = load_net_with_metadata(
        str(folder / "models" / "model.ts"), more_extra_files=["inference.json"]
    )
    expected = student_of(folder).state_dict()
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == {
        name: tuple(value.shape) for name, value in expected.items()
    }
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "polyp"}
    assert json.loads(files["inference.json"])["image_size"] == SIZE
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(folder / "models" / "model.onnx").graph
    weights = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    assert weights < 1.5 * sum(value.numel() for value in expected.values())  # with a few constants of the graph
    assert "teacher" not in str([node.name for node in (*graph.initializer, *graph.node)])


@pytest.mark.slow
def test_table_tells_size_difference_and_what_was_left_out(exported):
    folder, shown = exported
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    for name in HERE:
        assert str(folder / "models") in lines[name]
    for name in set(formats.FORMATS) - set(HERE):
        assert "left out: needs" in lines[name]
    size = (folder / "models" / "model.ts").stat().st_size / 1e6
    assert f" {size:.2f} " in lines["torchscript"]
    if "openvino_int8" in HERE:
        assert "of the pixels of 3 inputs keep their class" in lines["openvino_int8"]


def test_one_command(bundle, capsys):
    """The file lies beside the checkpoint and is named after it; a second call replaces nothing without being told."""
    assert cli.main(["export", str(bundle)]) == 0
    file = bundle / "models" / "model.ts"
    assert str(file) in capsys.readouterr().out
    file.write_bytes(b"mine")
    assert cli.main(["export", str(bundle)]) == 1
    said = capsys.readouterr().err
    assert f"must not hold {file} yet; replace with --overwrite" in said
    assert file.read_bytes() == b"mine"
    assert cli.main(["export", str(bundle), "--overwrite"]) == 0
    assert torch.jit.load(str(file))(torch.zeros(1, 3, *SIZE)).shape == (1, 1, *SIZE)


@pytest.mark.parametrize("part", ["model.xml", "model.bin"])
def test_no_part_of_a_format_is_replaced_untold(bundle, part, monkeypatch):
    """OpenVINO has two files, and the name of the second one is a common one."""
    monkeypatch.setattr("monai_kd.cli.export.why_not", lambda name: "")
    monkeypatch.setattr("monai_kd.cli.export._write", lambda *_: pytest.fail("it writes"))
    (bundle / "models" / part).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=rf"must not hold \S*{part} yet; replace with --overwrite"):
        export(str(bundle), formats="openvino")


def export_for_ever(models: Path, sender: Connection) -> None:
    """What a process does that is killed while it exports."""
    with write_aside(models / "model.ts") as aside:
        sender.send(aside.parent)
        time.sleep(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_what_a_killed_export_left_is_removed_unless_one_is_running(bundle):
    """Whole models, which nobody sees; another export may still write to its own."""
    models = bundle / "models"
    kept = [models / ".partially", models / "partial-12345678"]
    for folder in kept:
        folder.mkdir()
    fork = multiprocessing.get_context("fork")  # which imports nothing again
    receiver, sender = fork.Pipe(duplex=False)
    running = fork.Process(target=export_for_ever, args=(models, sender))
    running.start()
    try:
        left = receiver.recv()
        (left / "model.ts").write_bytes(b"half")
        os.utime(left, (0, 0))
        export(str(bundle))
        assert (left / "model.ts").is_file()
    finally:
        running.kill()
        running.join()
    assert left.parent == models
    assert left.is_dir()
    os.utime(left, (0, 0))
    export(str(bundle), overwrite=True)
    assert sorted(path.name for path in models.iterdir()) == sorted(["model.pt", "model.ts", *(k.name for k in kept)])


def test_other_checkpoint_folder_and_shape(bundle, tmp_path):
    shutil.move(bundle / "models" / "model.pt", tmp_path / "seed_1.pt")
    export(str(bundle), output_dir=str(tmp_path / "out"), checkpoint=str(tmp_path / "seed_1.pt"), shape=(1, 3, 16, 16))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seed_1.ts"]  # and no scratch
    block = load_net_with_metadata(str(tmp_path / "out" / "seed_1.ts"))[1]["monai_kd"]
    assert (block["input_shape"], block["size"]) == ([3, 16, 16], [16, 16])


def test_channels_are_named_where_the_metadata_has_others(bundle):
    """More classes by an override, as `--task multi` trains them."""
    override = {"network_def::out_channels": 2}
    network = bundle_network(bundle)
    weights = {k: torch.cat([v, v]) if v.dim() else v for k, v in network.state_dict().items()}
    torch.save(weights, bundle / "models" / "model.pt")
    with pytest.raises(ValueError, match="`classes` must be 2, .* but got polyp; add --classes"):
        export(str(bundle), override=override)
    export(str(bundle), override=override, classes="adenoma,hyperplastic")
    block = load_net_with_metadata(str(bundle / "models" / "model.ts"))[1]["monai_kd"]
    assert (block["classes"], block["out_channels"]) == (["adenoma", "hyperplastic"], 2)


class Baked(nn.Module):
    """What a trace gets wrong without a word: a number that depends on the image, taken for a constant."""

    def __init__(self, **unused: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor, **unused: Any) -> torch.Tensor:
        return self.weight * image[:, :1] * float(image.sum())


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        pytest.param((slice(0, 5), 0), False, id="5 of 10000, as where a tie of maxima is broken the other way"),
        pytest.param((slice(None), 0), True, id="a border"),
        pytest.param((slice(None), slice(None)), True, id="all"),
    ],
)
def test_few_values_may_differ_and_a_border_may_not(wrong, refused):
    def run(image: torch.Tensor) -> torch.Tensor:
        changed = image.clone()
        changed[(..., *wrong)] += 0.1
        return changed

    if refused:
        with pytest.raises(ValueError, match="but got a difference of 0.02"):
            formats._difference(nn.Identity(), run, (1, 100, 100), "ONNX")
    else:
        assert formats._difference(nn.Identity(), run, (1, 100, 100), "ONNX") < 1e-7


def test_nan_is_refused():
    with pytest.raises(ValueError, match="but got a difference of nan"):
        formats._difference(nn.Identity(), lambda image: image * float("nan"), (1, 8, 8), "ONNX")


def test_file_that_gives_other_logits_is_not_kept(bundle, monkeypatch):
    with pytest.raises(ValueError, match="within 0.0001, but got"):
        to_torchscript(Baked().eval(), (3, 8, 8), bundle / "models" / "baked.ts", {})
    monkeypatch.setattr(formats, "_difference", lambda *_: (_ for _ in ()).throw(ValueError("another result")))
    before = sorted(bundle.rglob("*"))
    with pytest.raises(ValueError, match="another result"):
        export(str(bundle))
    assert sorted(bundle.rglob("*")) == before


def test_missing_bundle_is_refused():
    with pytest.raises(FileNotFoundError, match="`bundle` must be a folder .* or the name of a shipped bundle"):
        export("polyps")


def test_missing_configuration_is_refused(bundle):
    with pytest.raises(FileNotFoundError, match="got 'inference_3d'; there is inference.json"):
        export(str(bundle), config="inference,inference_3d")


def test_missing_checkpoint_is_refused(bundle):
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"got .*model.pt, .* train the student first, or .* --checkpoint"):
        export(str(bundle))


def test_weights_of_another_network_are_refused(bundle):
    torch.save(nn.Conv2d(3, 1, 3).state_dict(), bundle / "models" / "model.pt")
    with pytest.raises(ValueError, match="`checkpoint` must hold the weights of Convolution .* another architecture"):
        export(str(bundle))


def test_unknown_format_is_refused(bundle):
    with pytest.raises(ValueError, match=r"must be of torchscript, .*, but got 'onx' \(did you mean onnx\?\)"):
        export(str(bundle), formats="torchscript,onx")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx", r"needs onnx and onnxscript, not installed here; pip install 'monai-kd\[export\]'"),
        ("openvino_int8", r"needs openvino and nncf and onnx .* pip install 'monai-kd\[openvino\]'"),
        ("tensorrt", "needs torch_tensorrt, not installed here; pip install torch-tensorrt"),
    ],
)
def test_format_whose_packages_are_missing_is_refused(bundle, name, message, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=f"ones that can be written here, but got {name}, .*{message}"):
        export(str(bundle), formats=name)


def test_tensorrt_without_a_gpu_is_refused(bundle, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda module: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="got tensorrt, which needs a CUDA device, and torch sees none"):
        export(str(bundle), formats="tensorrt")


def test_unknown_override_is_refused(bundle):
    with pytest.raises(ValueError, match="`image_siz` must be an entry of .* did you mean `image_size`"):
        export(str(bundle), override={"image_siz": [8, 8]})


def test_shape_that_does_not_suit_is_refused(bundle):
    with pytest.raises(ValueError, match=r"`shape` must suit Convolution, but got \(1, 1, 8, 8\)"):
        export(str(bundle), shape=(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"`shape` must be \(batch, channel, \*spatial\), but got \(8, 8\)"):
        export(str(bundle), shape=(8, 8))


@pytest.mark.parametrize(
    ("said", "shape"),
    [
        ({"patch_size": [16, 32]}, (3, 16, 32)),
        ({"patch_size": None}, (3, 64, 96)),
        ({"patch_size": None, "size": None}, (3, 80, 48)),
        ({"patch_size": None, "size": None, "crop": None}, (3, 128, 128)),
        ({"patch_size": [-1, 32], "size": None, "crop": [48, -1]}, (3, 128, 128)),
    ],
)
def test_shape_is_what_the_network_gets(said, shape):
    """A patch of the image where the inferer cuts patches; else the image as it was resized, or cropped."""
    block = {"in_channels": 3, "patch_size": [16, 32], "size": [64, 96], "crop": [80, 48]} | said
    data_format = {"network_data_format": {"inputs": {"image": {"spatial_shape": [128, 128]}}}}
    assert _shape(block, (), ConfigParser({"_meta_": data_format})) == shape


def test_export_is_of_the_patch(bundle):
    override = {"inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 24]}}
    export(str(bundle), override=override)
    block = block_of("torchscript", bundle)
    assert (block["input_shape"], block["patch_size"], block["size"]) == ([3, 16, 24], [16, 24], SIZE)


def test_open_shape_is_asked_for(bundle):
    path = bundle / "configs" / "inference.json"
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({key: content[key] for key in ("imports", "network_def")}), "utf-8")
    with pytest.raises(ValueError, match=r"spatial_shape \['32\*n', '32\*n'\]; add --shape 1,3,..."):
        export(str(bundle))


def test_network_of_several_outputs_is_refused(tmp_path):
    """Of heads for deep supervision only one is the prediction; which, the bundle has to say."""
    several = {"_target_": "BasicUNetPlusPlus", "spatial_dims": 2, "in_channels": 3, "out_channels": 1,
               "features": [2, 2, 2, 2, 2, 2]}  # fmt: skip
    bundle = write_frames_bundle(tmp_path / "several", several)
    with pytest.raises(ValueError, match="must return one tensor of logits in eval mode, but got list"):
        export(str(bundle), shape=(1, 3, 32, 32))


def test_trt_export_of_monai_gets_the_student_and_the_block(bundle, monkeypatch):
    """MONAI's command as a whole, but for the engine, which only a GPU builds: TorchScript stands in for it."""
    asked = {}

    def convert(model: nn.Module, **options: Any) -> nn.Module:
        asked.update(options)
        return torch.jit.script(model)

    monkeypatch.setattr(monai.bundle.scripts, "convert_to_trt", convert)
    network, path = student_of(bundle), bundle / "models" / "model_trt.ts"
    meta = {"version": "0.1.0", "monai_kd": {"size": SIZE}}
    to_tensorrt(network, (3, *SIZE), path, meta, [str(bundle / "configs" / "inference.json")], fp16=True)
    module, metadata, _ = load_net_with_metadata(str(path))
    image = torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(module(image), network(image))
    assert metadata == meta
    expected = {"precision": "fp16", "input_shape": [1, 3, *SIZE], "dynamic_batchsize": [1, 1, 8], "use_trace": False}
    assert expected.items() <= asked.items()
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.pt", "model_trt.ts"]


def test_calibration_sees_what_the_network_sees():
    """Windows of slices that the inferer cuts, 16 of an image at most, others than the first ones."""
    volume = torch.arange(40.0).expand(1, 1, 8, 8, 40)  # the value of a voxel is its slice
    inferer = SliceInferer(roi_size=(8, 8), spatial_dim=2, sw_batch_size=4)
    parser = ConfigParser({"dataloader": [{"image": volume}] * 2, "inferer": inferer})
    inputs = list(calibration_inputs(parser, out_channels=2))
    assert len(inputs) == 32
    assert all(image.shape == (1, 1, 8, 8) and image.std() == 0 for image in inputs)
    slices = [int(image[0, 0, 0, 0]) for image in inputs]
    assert len(set(slices[:16])) == 16
    assert max(slices[:16]) > 20
    assert slices == [int(image[0, 0, 0, 0]) for image in calibration_inputs(parser, out_channels=2)]


def test_calibration_is_bounded():
    parser = ConfigParser({"dataloader": ({"image": torch.full((2, 3, 4, 4), float(n))} for n in range(1000))})
    assert len(list(calibration_inputs(parser, out_channels=1))) == 300


def test_calibration_without_images_is_refused():
    with pytest.raises(ValueError, match="must have a `dataloader`"):
        list(calibration_inputs(ConfigParser({}), 1))
    with pytest.raises(ValueError, match="`dataset_dir` must hold images"):
        list(calibration_inputs(ConfigParser({"dataloader": []}), 1))


@pytest.mark.slow
def test_onnx_file_names_its_batch(exported):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(exported[0] / "models" / "model.onnx").graph
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, *SIZE]
    assert ([node.name for node in graph.input], [node.name for node in graph.output]) == (["image"], ["pred"])


def test_onnxruntime_takes_as_many_threads_as_torch(exported, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    seen, session = [], onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, **rest: seen.append(options) or session(path, **rest)
    )
    formats.onnx_session(exported[0] / "models" / "model.onnx")
    assert [options.intra_op_num_threads for options in seen] == [torch.get_num_threads()]
