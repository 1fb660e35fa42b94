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

import itertools
import struct

import numpy as np
import pytest
import torch
from monai.data import DataLoader, IterableDataset
from monai.transforms import Compose, Resized
from monai.utils import OptionalImportError
from PIL import Image

from monai_kd.data import Frames
from monai_kd.transforms import LoadRGBd


def picture(path, number=0, height=20, width=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame(number, height, width)).save(path)


def frame(number, height=20, width=32):
    """Left half dark, right half of a grey that tells the number."""
    array = np.zeros((height, width, 3), np.uint8)
    array[:, width // 2 :] = 40 + 20 * number
    return array


def numbers(items):
    return [round((float(LoadRGBd("image")(item)["image"][:, 4:-4, -6:].mean()) * 255 - 40) / 20) for item in items]


def video(path, count=8, codec="mpeg4", options=None):
    av = pytest.importorskip("av", reason="needs PyAV, the extra `video`")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 20, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(count):
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame(number % 8), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_folder_of_pictures_in_the_order_people_count(tmp_path):
    for number, name in enumerate(["2.png", "10.jpg", "b/1.tif", "b/2.bmp"]):
        picture(tmp_path / name, number)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    frames = Frames(tmp_path)
    items = list(frames)
    assert [item["case"] for item in items] == ["2", "10", "b_1", "b_2"]
    assert [item["frame"] for item in items] == [0, 0, 0, 0]
    assert numbers(items) == [0, 1, 2, 3]
    assert list(frames) == items  # each pass starts anew
    assert [item["case"] for item in Frames(tmp_path / "b" / "2.bmp")] == ["2"]


@pytest.mark.parametrize("suffix", [".gif", ".tif"])
def test_pages_are_frames(tmp_path, suffix):
    pages = [Image.fromarray(frame(number)) for number in range(5)]
    pages[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=pages[1:])
    items = list(Frames(tmp_path / f"a{suffix}"))
    assert [item["case"] for item in items] == [f"a_{number:06d}" for number in range(5)]
    assert numbers(items) == [0, 1, 2, 3, 4]
    every_other = list(Frames(tmp_path, step=2))
    assert [item["frame"] for item in every_other] == [0, 2, 4]
    assert numbers(every_other) == [0, 2, 4]


def test_pages_of_16_bits(tmp_path):
    pages = [Image.fromarray(np.full((4, 4), value, np.uint16)) for value in (0, 32768, 65535)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert [int(item["image"].max()) for item in Frames(tmp_path)] == [0, 128, 255]


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "mpeg4"), (".avi", "mjpeg"), (".mkv", "mpeg4"), (".webm", "vp8")]
)
def test_videos(tmp_path, suffix, codec):
    try:
        path = video(tmp_path / f"a{suffix}", codec=codec)
    except ValueError as error:
        pytest.skip(f"this PyAV cannot write {codec}: {error}")
    items = list(Frames(path))
    assert [item["case"] for item in items] == [f"a_{number:06d}" for number in range(8)]
    assert items[0]["image"].shape == (20, 32, 3)
    assert items[0]["image"].meta["filename_or_obj"] == str(path)
    assert numbers(items) == list(range(8))
    assert numbers(Frames(path, step=3)) == [0, 3, 6]


def test_video_is_decoded_as_it_is_gone_through(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4")
    import av

    class Counting:
        """A container that counts what is decoded."""

        decoded = 0

        def __init__(self, name):
            self.container = open_video(name)
            self.streams = self.container.streams
            self.format = self.container.format

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.container.close()

        def decode(self, stream):
            for item in self.container.decode(stream):
                Counting.decoded += 1
                yield item

    open_video = av.open
    monkeypatch.setattr(av, "open", Counting)
    assert numbers(itertools.islice(Frames(path), 3)) == [0, 1, 2]
    assert Counting.decoded == 3


def test_phone_held_upright(tmp_path):
    path = video(tmp_path / "a.mp4", count=2)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # the matrix by which the track is shown: turned clockwise by 90 degrees
    content[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 20 << 16, 0, 1 << 30)
    path.write_bytes(content)
    image = next(iter(Frames(path)))["image"]
    assert image.shape == (32, 20, 3)
    assert image[:12].max() < 20  # what was left, dark, is on top
    assert image[20:].min() > 20


def test_through_a_data_loader(tmp_path):
    picture(tmp_path / "still.png", 7, 40, 64)
    pages = [Image.fromarray(frame(number)) for number in range(4)]
    pages[0].save(tmp_path / "clip.gif", save_all=True, append_images=pages[1:])
    transform = Compose([LoadRGBd("image"), Resized("image", [16, 16])])
    for num_workers in (0, 2):
        loader = DataLoader(IterableDataset(Frames(tmp_path), transform), batch_size=2, num_workers=num_workers)
        batches = list(loader)
        assert all(batch["image"].shape[1:] == (3, 16, 16) for batch in batches)
        found = dict(
            zip((c for b in batches for c in b["case"]), torch.cat([b["image"][:, 0, 8, -3] for b in batches]))
        )
        assert sorted(found) == ["clip_000000", "clip_000001", "clip_000002", "clip_000003", "still"]
        assert [round((float(found[name]) * 255 - 40) / 20) for name in sorted(found)] == [0, 1, 2, 3, 7]


def test_broken_files_are_named(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match="must be a picture that Pillow reads, but got .*a.png"):
        numbers(Frames(tmp_path))
    pytest.importorskip("av", reason="needs PyAV, the extra `video`")
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(RuntimeError, match="b.mp4 cannot be decoded at all"):
        list(Frames(tmp_path))


def test_without_pyav_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("monai_kd.data.frames.find_spec", lambda name: None)
    picture(tmp_path / "a.png")
    assert len(list(Frames(tmp_path))) == 1
    (tmp_path / "b.mp4").touch()
    with pytest.raises(OptionalImportError, match=r"where PyAV is installed.*pip install monai-kd\[video\]"):
        Frames(tmp_path)


def test_guards(tmp_path):
    with pytest.raises(ValueError, match="`step` must be at least 1, but got 0"):
        Frames(tmp_path, step=0)
    with pytest.raises(FileNotFoundError, match="`path` must be a file or folder, but got .*nowhere"):
        Frames(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="`path` must hold pictures or videos, but got"):
        Frames(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"`path` must be one of \.png, .*\.mp4.*, but got .*a.txt"):
        Frames(tmp_path / "a.txt")
    picture(tmp_path / "1.png")
    picture(tmp_path / "1.jpg")
    with pytest.raises(ValueError, match="files must have different names, but got `1` for .*1.jpg and .*1.png"):
        Frames(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "codec", "message"),
    [
        (".mp4", "mpeg4", r"a.mp4 is truncated, it holds \d+ of 100 frames, \d\.\d\d of 4\.00 s"),
        (".avi", "mpeg4", r"a.avi is truncated, it holds \d+ of 100 frames, \d\.\d\d of 4\.00 s"),
        (".mkv", "mpeg4", r"a.mkv is truncated, it holds \d+ frames, \d\.\d\d of 4\.00 s"),
    ],
)
@pytest.mark.parametrize("step", [1, 3])
def test_truncated_videos_are_named(tmp_path, suffix, codec, message, step):
    path = video(tmp_path / f"a{suffix}", 100, codec, {"movflags": "faststart"} if suffix == ".mp4" else None)
    assert [item["frame"] for item in Frames(path, step)] == list(range(0, 100, step))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    found = []
    with pytest.raises(RuntimeError, match=message):
        found.extend(item["frame"] for item in Frames(path, step))
    first = list(itertools.islice(Frames(path, step), 3))  # whoever stops before does not mind
    assert [item["frame"] for item in first] == [0, step, 2 * step]


def test_edit_list_that_hides_frames_is_no_truncation(tmp_path):
    source = video(tmp_path / "a.mp4", 40)
    import av

    with (
        av.open(str(source)) as before,
        av.open(str(tmp_path / "b.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as after,
    ):
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - 10 * packet.duration, packet.dts - 10 * packet.duration
                packet.stream = stream
                after.mux(packet)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].frames == 40
    assert len(list(Frames(tmp_path / "b.mp4"))) == 30


def test_sound_longer_than_the_pictures_is_no_truncation(tmp_path):
    av = pytest.importorskip("av", reason="needs PyAV, the extra `video`")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le", rate=8000)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 20, "yuv420p"
        for number in range(8):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame(number), format="rgb24")))
        container.mux(pictures.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 5), np.int16), format="s16", layout="mono")
        silence.rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with av.open(str(path)) as container:
        assert container.duration > 4e6
    assert len(list(Frames(path))) == 8


@pytest.mark.parametrize("suffix", [".gif", ".tif"])
@pytest.mark.parametrize("part", [0.5, 0.98])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_truncated_pages_are_named(tmp_path, suffix, part):
    noise = np.random.RandomState(0).randint(0, 256, (5, 40, 40, 3)).astype(np.uint8)
    pages = [Image.fromarray(page) for page in noise]
    path = tmp_path / f"a{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert len(list(Frames(path))) == 5
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(RuntimeError, match=rf"a\{suffix} cannot be decoded at page \d, "):
        list(Frames(path))


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".mp4"])
def test_frame_and_picture_of_one_name(tmp_path, suffix):
    picture(tmp_path / "b" / "first.png")
    if suffix == ".mp4":
        video(tmp_path / "b" / "v.mp4", count=2)
    else:
        page = Image.fromarray(frame(1))
        page.save(tmp_path / "b" / f"v{suffix}", save_all=True, append_images=[Image.fromarray(frame(2))])
    picture(tmp_path / "b" / "v_01.png")
    picture(tmp_path / "w_000000.png")
    cases = [item["case"] for item in Frames(tmp_path)]
    assert len(cases) == len(set(cases))
    picture(tmp_path / "b" / "v_000000.png")
    with pytest.raises(ValueError, match=rf"but got `b_v_000000` for .*000.png and a frame of .*v\{suffix}; rename"):
        Frames(tmp_path)


def test_picture_of_one_page_has_no_frames(tmp_path):
    for name in ("v.gif", "w.png", "v_000000.png", "w_000000.png"):
        picture(tmp_path / name)
    (tmp_path / "broken.tif").write_text("no picture")
    picture(tmp_path / "broken_000000.png")
    cases = {"broken", "broken_000000", "v", "v_000000", "w", "w_000000"}
    assert {item["case"] for item in Frames(tmp_path)} == cases


def test_excluded_folder_is_passed_over(tmp_path):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "out" / "a_mask.png")
    picture(tmp_path / "in" / "out" / "more" / "b_mask.png")
    picture(tmp_path / "in" / "out2" / "c.png")
    assert len(list(Frames(tmp_path / "in"))) == 4
    for exclude in (tmp_path / "in" / "out", f"{tmp_path}/in/out2/../out/"):
        assert [item["case"] for item in Frames(tmp_path / "in", exclude=exclude)] == ["a", "out2_c"]
    for exclude in (tmp_path / "in" / "not yet", tmp_path / "elsewhere", tmp_path):
        assert len(list(Frames(tmp_path / "in", exclude=exclude))) == 4
    assert len(list(Frames(tmp_path / "in" / "a.png", exclude=tmp_path / "in"))) == 1
    with pytest.raises(ValueError, match="`exclude` must be another folder than `path`, but got .*in for both; write"):
        Frames(tmp_path / "in", exclude=tmp_path / "in" / "out" / "..")


def test_picture_that_is_too_large_is_named(tmp_path, monkeypatch):
    picture(tmp_path / "huge.png", height=40, width=40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RuntimeError, match=r"huge\.png cannot be read, DecompressionBombError"):
        numbers(Frames(tmp_path))


def test_links_in_circles_are_followed_once(tmp_path):
    picture(tmp_path / "b" / "1.png")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b", target_is_directory=True)
    assert [item["case"] for item in Frames(tmp_path)] == ["b_1"]


def test_superscripts_are_no_numbers(tmp_path):
    for name in ("m²", "m10", "m9", "²/1", "5²"):
        picture(tmp_path / f"{name}.png")
    assert [item["case"] for item in Frames(tmp_path)] == ["5²", "m9", "m10", "m²", "²_1"]


def test_masks_are_no_frames(tmp_path, caplog):
    """Those beside the images, and what an earlier inference wrote elsewhere below the folder."""
    for name in ("images/1.png", "masks/1.png", "eval/1_mask.png", "eval/1_overlay.png", "more/2_mask.png"):
        picture(tmp_path / name)
    (tmp_path / "eval" / "frames.csv").touch()
    assert [item["case"] for item in Frames(tmp_path)] == ["images_1", "more_2_mask"]
    assert f"{tmp_path}: passed over masks: masks (1)" in caplog.messages
    assert [item["case"] for item in Frames(tmp_path / "masks")] == ["1"]
