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

"""A DICOM series is read right, or refused in one line, by inference and training alike."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import itk
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import LoadImage
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import RLELossless, generate_uid

from monai_kd.data import find_volumes, folder_cases, scan_cases, write_dicom_series
from monai_kd.transforms import LoadSlice, LoadVolume
from monai_kd.transforms.check_frames import check_positions
from monai_kd.transforms.dicom_frames import Frame
from monai_kd.transforms.dicom_series import DicomSeries
from tests.transforms.dicom import AFFINE, HU, part, position_of, write_enhanced, write_series

# ---- read whole: what differs within a series and says nothing of its geometry


def thickness(number, dataset):
    dataset.SliceThickness = "5" if number < 2 else "2.5"


def spelling(number, dataset):
    dataset.SliceThickness = "2.5" if number % 2 else "2.50"


def no_thickness(number, dataset):
    del dataset.SliceThickness


def wrong_thickness(number, dataset):
    dataset["SliceThickness"] = pydicom.DataElement(0x00180050, "LO", "thin")


def midnight(number, dataset):
    dataset.SeriesDate = "20000101" if number < 4 else "20000102"


def series_number(number, dataset):
    if number < 2:
        del dataset.SeriesNumber


def sequence_name(number, dataset):
    dataset.SequenceName = "a" if number < 3 else "b"


def no_instance_number(number, dataset):
    if number < 2:
        del dataset.InstanceNumber


def instance_numbers_against_positions(number, dataset):
    dataset.InstanceNumber = (number * 5) % 6


def slope_of_each(number, dataset):
    slope = 0.5 if number % 2 else 1
    dataset.RescaleSlope = str(slope)
    dataset.PixelData = ((HU[:, :, number].T + 1024.0) / slope).astype("<u2").tobytes()


def signed_in_some(number, dataset):
    if number % 2:
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, "0"
        dataset.PixelData = HU[:, :, number].T.astype("<i2").tobytes()


def no_rescale(number, dataset):
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.PixelRepresentation = 1
    dataset.PixelData = HU[:, :, number].T.astype("<i2").tobytes()


def no_frame_of_reference(number, dataset):
    del dataset.FrameOfReferenceUID


def run_length(number, dataset):
    dataset.compress(RLELossless)


WHOLE = [
    thickness,
    spelling,
    no_thickness,
    wrong_thickness,
    midnight,
    series_number,
    sequence_name,
    no_instance_number,
    instance_numbers_against_positions,
    slope_of_each,
    signed_in_some,
    no_rescale,
    no_frame_of_reference,
    run_length,
]


def check_read(folder, affine=AFFINE, array=HU):
    """Inference and training give the array at its affine."""
    (item,) = find_volumes(folder)
    image = LoadImage(ensure_channel_first=True)(item["image"])
    volume = LoadSlice().volume(folder)
    np.testing.assert_array_equal(image[0].numpy(), array)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)


def check_refused(folder, message):
    """Inference and training refuse the folder in one line."""
    with pytest.raises(ValueError, match=message) as at_inference:
        find_volumes(folder)
    with pytest.raises(RuntimeError, match=message) as in_training:
        LoadSlice()(folder, 0)
    assert "\n" not in str(at_inference.value) + str(in_training.value)
    with pytest.raises(ValueError, match=message):  # whoever loads the folder without looking for volumes
        LoadImage()(folder)


@pytest.mark.parametrize("edit", WHOLE)
def test_series_is_read_whole(tmp_path, edit):
    write_series(tmp_path / "ct", edit)
    check_read(tmp_path / "ct")


def test_order_and_names_of_files_make_no_difference(tmp_path):
    for number, file in enumerate(write_series(tmp_path / "ct")):
        file.rename(file.with_name(f"{(number * 5) % 6}.dcm"))
    check_read(tmp_path / "ct")


def write_as(dataset, file, implicit, little):
    data = dataset.pixel_array.astype("<u2" if little else ">u2")
    dataset.PixelData = data.tobytes()
    pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)


SYNTAXES = {
    "implicit": ("1.2.840.10008.1.2", True, True),
    "big endian": ("1.2.840.10008.1.2.2", False, False),
    "deflated": ("1.2.840.10008.1.2.1.99", False, True),
}


@pytest.mark.parametrize("name", SYNTAXES)
def test_transfer_syntaxes(tmp_path, name):
    syntax, implicit, little = SYNTAXES[name]
    for file in write_series(tmp_path / "ct"):
        dataset = pydicom.dcmread(file)
        dataset.pixel_array  # noqa: B018 -- read in its first transfer syntax
        dataset.file_meta.TransferSyntaxUID = syntax
        write_as(dataset, file, implicit, little)
    check_read(tmp_path / "ct")


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("suffix", [".dcm", "", ".ima"])
def test_files_without_preamble(tmp_path, implicit, little, suffix):
    for file in write_series(tmp_path / "ct"):
        dataset = pydicom.dcmread(file)
        dataset.pixel_array  # noqa: B018 -- read before its transfer syntax is gone
        del dataset.file_meta
        write_as(dataset, file, implicit, little)
        file.rename(file.with_suffix(suffix))
    check_read(tmp_path / "ct")


def compress_by_itk(file, share=1.0):
    """JPEG lossless, which no plugin of pydicom decodes here; of the stream a share is kept."""
    dataset = pydicom.dcmread(file)
    stored = np.ascontiguousarray(dataset.pixel_array.astype(np.uint16))
    writer = itk.GDCMImageIO.New()
    writer.SetCompressionType(0)
    writer.SetUseCompression(True)
    other = file.with_name("compressed.dcm")
    itk.imwrite(itk.image_from_array(stored), str(other), imageio=writer, compression=True)
    compressed = pydicom.dcmread(other)
    other.unlink()
    assert compressed.file_meta.TransferSyntaxUID.endswith(".4.70")
    frame = get_frame(compressed.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: int(len(frame) * share)]])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
    dataset.save_as(file)


def test_jpeg_lossless(tmp_path):
    for file in write_series(tmp_path / "ct"):
        compress_by_itk(file)
    check_read(tmp_path / "ct")


def test_jpeg_lossless_that_is_cut_off(tmp_path):
    files = write_series(tmp_path / "ct")
    for file in files:
        compress_by_itk(file, share=0.5 if file == files[3] else 1)
    with pytest.raises(ValueError, match="must be decodable, but ITK refuses .*slice_0003.dcm; copy it again"):
        LoadImage()(tmp_path / "ct")


def test_plugin_that_is_missing_is_named(tmp_path):
    def edit(number, dataset):
        dataset.compress(RLELossless)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"

    write_series(tmp_path / "ct", edit)
    check_refused(tmp_path / "ct", r"High-Throughput JPEG 2000 .*slice_0000.dcm; install a plugin .*pylibjpeg-openjpeg")


# ---- geometry


def test_tilted_gantry_has_its_sheared_affine(tmp_path):
    """The table moves along the body while the planes are tilted: the third column is the step of the positions."""

    def tilt(number, dataset):
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", f"{math.cos(0.26):.6f}", f"{-math.sin(0.26):.6f}"]
        dataset.ImagePositionPatient = ["-25", "-30", f"{-100 + 2.5 * number:.4f}"]

    write_series(tmp_path / "ct", tilt)
    sheared = AFFINE.copy()
    sheared[:3, 1] = 0.7 * np.array([0, -math.cos(0.26), -math.sin(0.26)])
    (item,) = find_volumes(tmp_path)
    np.testing.assert_allclose(LoadImage()(item["image"]).affine, sheared, atol=1e-5)
    np.testing.assert_allclose(LoadSlice().volume(tmp_path / "ct").affine, sheared, atol=1e-5)


def shift_in_x(number, dataset):
    if number > 2:
        dataset.ImagePositionPatient = ["-5", *(str(value) for value in dataset.ImagePositionPatient[1:])]


def shift_of_half_a_voxel(number, dataset):
    if number == 2:
        dataset.ImagePositionPatient = ["-25", "-29.65", str(dataset.ImagePositionPatient[2])]


def turned(number, dataset):
    if number > 2:
        dataset.ImageOrientationPatient = ["-1", "0", "0", "0", "-1", "0"]


def turned_a_little(number, dataset):
    if number > 2:
        dataset.ImageOrientationPatient = ["0.9998", "0.02", "0", "-0.02", "0.9998", "0"]


def coronal(number, dataset):
    if number == 5:
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]


def no_axes(number, dataset):
    dataset.ImageOrientationPatient = ["1", "0", "0", "1", "0", "0"]


def pixel_spacing(number, dataset):
    if number > 2:
        dataset.PixelSpacing = ["0.4", "0.4"]


def no_spacing(number, dataset):
    dataset.PixelSpacing = ["0", "0"]


def rows(number, dataset):
    if number == 3:
        dataset.Rows, dataset.PixelData = 6, dataset.PixelData[:120]


def nowhere(number, dataset):
    del dataset.ImagePositionPatient


def nowhere_in_one(number, dataset):
    if number == 0:
        del dataset.ImagePositionPatient


def not_finite(number, dataset):
    if number == 0:
        dataset["ImagePositionPatient"] = pydicom.DataElement(0x00200032, "LO", ["nan", "0", "0"])


def no_orientation(number, dataset):
    if number == 4:
        del dataset.ImageOrientationPatient


def gap(number, dataset):
    if number > 2:
        dataset.ImagePositionPatient = ["-25", "-30", str(-100 + 2.5 * (number + 1))]


def two_spacings(number, dataset):
    if number > 2:
        dataset.ImagePositionPatient = ["-25", "-30", str(-100 + 2.5 * number + 0.5 * (number - 2))]


def doubled(number, dataset):
    if number == 3:
        dataset.ImagePositionPatient = ["-25", "-30", "-95"]


def other_frame_of_reference(number, dataset):
    if number > 2:
        dataset.FrameOfReferenceUID = "1.2.3"


def rescale_in_some(number, dataset):
    if number > 2:
        del dataset.RescaleSlope, dataset.RescaleIntercept


def half_a_rescale(number, dataset):
    if number == 2:
        del dataset.RescaleIntercept


def no_slope(number, dataset):
    dataset.RescaleSlope = "0"


def lookup_table(number, dataset):
    dataset.ModalityLUTSequence = [part(LUTDescriptor=[1, 0, 16], LUTData=b"\0\0")]


def colour(number, dataset):
    if number == 1:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"


def bits(number, dataset):
    if number == 1:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7


def odd_bits(number, dataset):
    dataset.BitsAllocated = 12


def no_pixels(number, dataset):
    if number == 1:
        del dataset.PixelData


def unknown_syntax(number, dataset):
    dataset.file_meta.TransferSyntaxUID = "1.2.3.4"


REFUSED = [
    (shift_in_x, r"on a straight line at equal steps, but got .* mm between .*dcm and its place; repair its `ImagePos"),
    (shift_of_half_a_voxel, r"but got 0.35 mm between .*slice_0002.dcm and its place"),
    (turned, r"the same `ImageOrientationPatient`, but got \[1.0, .*slice_0000.dcm and \[-1.0, .*slice_0003.dcm; move"),
    (turned_a_little, r"the same `ImageOrientationPatient`"),
    (coronal, r"the same `ImageOrientationPatient`, .*slice_0005.dcm"),
    (no_axes, r"`ImageOrientationPatient` must hold two perpendicular unit vectors, but got \[1.0, 0.0, 0.0, 1.0"),
    (pixel_spacing, r"the same `PixelSpacing`, but got \[0.7, 0.8\] in .* and \[0.4, 0.4\] in .*slice_0003.dcm"),
    (no_spacing, r"`PixelSpacing` must be above 0, but got \[0.0, 0.0\]"),
    (rows, r"the same `Rows` and `Columns`, but got \(8, 10\) in .* and \(6, 10\) in .*slice_0003.dcm"),
    (nowhere, r"must hold 3 numbers as `ImagePositionPatient`, but got none in .*slice_0000.dcm"),
    (nowhere_in_one, r"must hold 3 numbers as `ImagePositionPatient`, but got none in .*slice_0000.dcm"),
    (not_finite, r"must hold 3 numbers as `ImagePositionPatient`, but got"),
    (no_orientation, r"must hold 6 numbers as `ImageOrientationPatient`, but got none in .*slice_0004.dcm"),
    (gap, r"must lie at equal gaps, but got 2.5 to 5 mm \(usually 2.5\) in .*ct; a slice is missing or doubled"),
    (two_spacings, r"must lie at equal gaps, but got 2.5 to 3 mm"),
    (doubled, r"must lie at equal gaps, but got 0 to 5 mm"),
    (other_frame_of_reference, r"the same `FrameOfReferenceUID`"),
    (
        rescale_in_some,
        r"must hold a `RescaleSlope` or none, but got \(1.0, -1024.0\) in .* and none in .*slice_0003.dcm",
    ),
    (half_a_rescale, r"must hold 1 number as `RescaleIntercept`, but got none in .*slice_0002.dcm"),
    (no_slope, r"`RescaleSlope` must not be 0"),
    (lookup_table, r"must be scaled by `RescaleSlope` .* but got a `ModalityLUTSequence`"),
    (colour, r"must hold one value a pixel, but got 3 in .*slice_0001.dcm"),
    (bits, r"must hold its pixels whole, 80 bytes, but got 160 in .*slice_0001.dcm"),
    (odd_bits, r"`BitsAllocated` must be 8, 16 or 32, but got 12"),
    (no_pixels, r"must hold its pixels whole, but got none in .*slice_0001.dcm; copy it again"),
    (unknown_syntax, r"must have a transfer syntax of images, but got 1.2.3.4 in .*slice_0000.dcm"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED)
def test_what_is_no_volume_is_refused(tmp_path, edit, message):
    write_series(tmp_path / "ct", edit)
    check_refused(tmp_path / "ct", message)


@pytest.mark.parametrize("number", [0, 3, 5])
@pytest.mark.parametrize("kept", [0, 100, 300, 700, -100, -1])
def test_interrupted_copy_is_refused(tmp_path, number, kept):
    """Wherever the copy ended: the first or last slice of a series would be missed by no check of gaps."""
    files = write_series(tmp_path / "ct")
    files[number].write_bytes(files[number].read_bytes()[:kept])
    check_refused(tmp_path / "ct", rf"slice_000{number}.dcm.*copy it again")


def test_interrupted_copy_without_suffix(tmp_path):
    for number, file in enumerate(write_series(tmp_path / "ct")):
        target = file.rename(file.with_suffix(""))
        target.write_bytes(target.read_bytes() if number < 5 else b"")
    check_refused(tmp_path / "ct", r"slice_0005 is empty; copy it again")


def test_interrupted_copy_of_compressed_slices(tmp_path):
    files = write_series(tmp_path / "ct", run_length)
    files[5].write_bytes(files[5].read_bytes()[:-40])
    check_refused(tmp_path / "ct", r"slice_0005.dcm.*copy it again")


def test_missing_slice(tmp_path):
    write_series(tmp_path / "ct")[2].unlink()
    check_refused(tmp_path / "ct", r"equal gaps, but got 2.5 to 5 mm")


def test_one_slice_has_its_thickness(tmp_path):
    write_series(tmp_path / "ct", array=HU[..., :1])
    check_read(tmp_path / "ct", array=HU[..., :1])
    write_series(tmp_path / "thin", no_thickness, array=HU[..., :1])
    check_refused(tmp_path / "thin", r"must hold its `SliceThickness`, but got None")


# ---- positions


def frames_at(positions):
    return [
        Frame(
            file=Path("file.dcm"),
            number=0,
            series="",
            frame_of_reference="",
            size=(8, 8),
            position=np.asarray(position, dtype=float),
            orientation=np.eye(3)[:2].ravel(),
            spacing=np.ones(2),
            thickness=None,
            rescale=None,
        )
        for position in positions
    ]


def check_z(places, spacing=0.7):
    """Checks slices at these places along the body."""
    frames = frames_at([(-25.1, -30.3, z) for z in places])
    step = (places[-1] - places[0]) / (len(places) - 1)
    check_positions(frames, np.diag([spacing, spacing, step]))


@given(
    gap=st.sampled_from([0.3, 0.4, 0.5, 0.6, 0.625, 0.7, 0.75, 0.8, 1.0, 1.25, 1.5, 2.5, 3.75, 5.0]),
    count=st.integers(3, 60),
    start=st.floats(-500, 500),
    decimals=st.sampled_from([1, 2, 3, 6]),
)
def test_positions_that_are_rounded_are_whole_and_a_missing_slice_is_seen(gap, count, start, decimals):
    whole = [round(start + gap * number, decimals) for number in range(count)]
    check_z(whole)
    if count > 3:
        for missing in {1, count // 2, count - 2}:
            with pytest.raises(ValueError, match="a slice is missing or doubled"):
                check_z(whole[:missing] + whole[missing + 1 :])


def test_positions_of_whole_millimetres():
    check_z([0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="1 to 2 mm"):
        check_z([0, 1, 3, 4, 5])


def test_tenth_of_a_voxel_is_no_error():
    frames = frames_at([(0.0, 0.0, 0.0), (0.05, 0.0, 2.5), (0.0, 0.0, 5.0)])
    check_positions(frames, np.diag([0.8, 0.8, 2.5]))


# ---- enhanced CT

ALL = list(range(6))


@pytest.mark.parametrize("order", [ALL, ALL[::-1], ALL[::2] + ALL[1::2]])
@pytest.mark.parametrize("slopes", [None, [1, 0.5] * 3])
def test_frames_in_any_order_with_slopes_of_their_own(tmp_path, order, slopes):
    write_enhanced(tmp_path / "ct" / "volume.dcm", order, slopes)
    check_read(tmp_path / "ct")


def test_one_file_in_training(tmp_path):
    file = write_enhanced(tmp_path / "volume.dcm", ALL[::-1])
    np.testing.assert_array_equal(LoadSlice().volume(file).array, HU)


def test_frames_in_several_files(tmp_path):
    write_enhanced(tmp_path / "ct" / "a.dcm", [5, 1, 3], [1, 0.5] * 3)
    write_enhanced(tmp_path / "ct" / "b.dcm", [0, 4, 2])
    check_read(tmp_path / "ct")


def test_attributes_for_each_frame_and_for_all(tmp_path):
    """The scaling of all frames in the shared groups, the orientation in those of each."""

    def edit(number, dataset):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        for group in dataset.PerFrameFunctionalGroupsSequence:
            group.PlaneOrientationSequence = shared.PlaneOrientationSequence
            shared.PixelValueTransformationSequence = group.PixelValueTransformationSequence
            del group.PixelValueTransformationSequence
        del shared.PlaneOrientationSequence

    write_enhanced(tmp_path / "ct" / "volume.dcm", ALL, edit=edit)
    check_read(tmp_path / "ct")


def test_many_frames_whose_groups_are_read_later(tmp_path):
    """A description of the frames that is longer than what is read at first."""

    def edit(number, dataset):
        for group in dataset.PerFrameFunctionalGroupsSequence:
            group.FrameAnatomySequence = [part(ImageComments="a" * 10000) for _ in range(2)]

    write_enhanced(tmp_path / "ct" / "volume.dcm", ALL, edit=edit)
    check_read(tmp_path / "ct")


def turned_frame(number, dataset):
    plane = part(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    dataset.PerFrameFunctionalGroupsSequence[4].PlaneOrientationSequence = [plane]


def spacing_of_one_frame(number, dataset):
    dataset.PerFrameFunctionalGroupsSequence[4].PixelMeasuresSequence = [part(PixelSpacing=[0.4, 0.4])]


def undescribed_frame(number, dataset):
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:5]


def nowhere_in_a_frame(number, dataset):
    del dataset.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence


def two_phases(number, dataset):
    for place, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = position_of(place // 2)


def no_groups(number, dataset):
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.ImagePositionPatient = position_of(0)


def pixels_of_five(number, dataset):
    dataset.PixelData = dataset.PixelData[:-160]


def no_number(number, dataset):
    dataset.NumberOfFrames = 0


REFUSED_FRAMES = [
    (turned_frame, r"the same `ImageOrientationPatient`"),
    (spacing_of_one_frame, r"the same `PixelSpacing`"),
    (undescribed_frame, r"must describe each frame, but got 6 frames and 5 descriptions in .*volume.dcm"),
    (nowhere_in_a_frame, r"`ImagePositionPatient`, but got none in .*volume.dcm, frame 5"),
    (two_phases, r"equal gaps, but got 0 to 2.5 mm"),
    (no_groups, r"equal gaps, but got 0 to 0 mm"),
    (pixels_of_five, r"pixels whole, 960 bytes, but got 800 in .*volume.dcm"),
    (no_number, r"a whole number above 0 as `NumberOfFrames`"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED_FRAMES)
def test_frames_that_are_no_volume_are_refused(tmp_path, edit, message):
    write_enhanced(tmp_path / "ct" / "volume.dcm", ALL, edit=edit)
    check_refused(tmp_path / "ct", message)


def test_missing_frame(tmp_path):
    write_enhanced(tmp_path / "ct" / "volume.dcm", [0, 1, 2, 4, 5])
    check_refused(tmp_path / "ct", r"equal gaps, but got 2.5 to 5 mm")


# ---- values


def test_values_keep_the_smallest_type_that_holds_them(tmp_path):
    write_series(tmp_path / "whole")
    assert DicomSeries.of_path(tmp_path / "whole").array().dtype == np.int16
    write_series(tmp_path / "large", lambda number, dataset: setattr(dataset, "RescaleSlope", "100"))
    assert DicomSeries.of_path(tmp_path / "large").array().dtype == np.int32

    def broken(number, dataset):
        dataset.RescaleSlope = "0.3"

    write_series(tmp_path / "broken", broken)
    array = DicomSeries.of_path(tmp_path / "broken").array()
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, (HU + 1024) * 0.3 - 1024, rtol=1e-6)


# ---- the reader that MONAI takes


def test_other_reader_must_agree_with_the_files(tmp_path):
    write_series(tmp_path / "good")
    for reader in ("ITKReader", "PydicomReader"):
        LoadSlice(reader)(tmp_path / "good", 0)
    write_series(tmp_path / "ct", midnight)
    with pytest.raises(
        RuntimeError, match=r"`reader` must read .* shape \(10, 8, 6\) .* but ITKReader gives \(10, 8, 4"
    ):
        LoadSlice("ITKReader")(tmp_path / "ct", 0)


def test_reader_that_the_environment_prefers_is_refused(tmp_path, monkeypatch):
    write_series(tmp_path / "ct")
    monkeypatch.setenv("MONAI_DICOM_READER", "itk")
    with pytest.raises(ValueError, match="but got MONAI_DICOM_READER=itk for .*ct; unset MONAI_DICOM_READER"):
        find_volumes(tmp_path)


def test_two_series_are_two_uids(tmp_path):
    def edit(number, dataset):
        dataset.SeriesInstanceUID = "1.2.3" if number < 3 else generate_uid()

    write_series(tmp_path / "ct", edit)
    check_refused(tmp_path / "ct", r"the slices of one DICOM series, but got 4 in .*ct; move each")


@pytest.fixture
def series(tmp_path):
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    return write_dicom_series(tmp_path / "series", np.full((16, 16, 6), -1000), affine)


def test_whole_series_passes_in_any_order(series):
    DicomSeries.of_files(series)
    DicomSeries.of_files(series[::-1])


def test_missing_slice_names_the_folder(series):
    with pytest.raises(ValueError, match=r"must lie at equal gaps, but got 2\.5 to 5 mm \(usually 2\.5\) in .*series"):
        DicomSeries.of_files(series[:2] + series[3:])


def test_doubled_slice_is_refused_wherever_a_folder_is_read(series):
    shutil.copy(series[3], series[3].with_name("copy of 3.dcm"))
    folder = series[0].parent
    with pytest.raises(ValueError, match="but got 0 to 2.5 mm.*missing or doubled"):
        find_volumes(folder)
    with pytest.raises(RuntimeError, match="missing or doubled"):
        LoadSlice()(folder, 0)


def test_slices_of_two_series(series, tmp_path):
    other = write_dicom_series(tmp_path / "other", np.full((16, 16, 6), -900), np.diag([-1.0, -1.0, 3.0, 1.0]), "other")
    with pytest.raises(ValueError, match="one DICOM series, but got 2"):
        DicomSeries.of_files([*series, *other])


def test_other_files_beside_the_slices_are_no_series(series):
    (series[0].parent / "README.txt").write_text("a note")
    assert LoadSlice()(series[0].parent, 2).shape == (1, 16, 16)


def test_slice_is_no_series(tmp_path):
    files = write_series(tmp_path / "ct")
    message = f"given as its folder, but got one slice, {files[2]}; give {files[2].parent}"
    for load in (DicomSeries.of_path, LoadVolume(), LoadSlice().volume):
        with pytest.raises((RuntimeError, ValueError), match=message):
            load(files[2])


def test_file_of_an_enhanced_ct_is_a_series(tmp_path):
    file = write_enhanced(tmp_path / "ct.dcm", order=[3, 1, 0, 2, 5, 4], slopes=[1, 0.5, 2, 1, 1, 1])
    expected = np.stack([np.rint((HU[..., k] + 1024.0) / s) * s - 1024 for k, s in enumerate([1, 0.5, 2, 1, 1, 1])], -1)
    np.testing.assert_allclose(LoadVolume()(file)[0], expected)
    np.testing.assert_allclose(LoadVolume()(file).affine, AFFINE, atol=1e-5)


def halves(root):
    """One series in two folders, each of which looks whole."""
    write_series(root / "a")
    (root / "b").mkdir(parents=True)
    for file in sorted((root / "a").iterdir())[3:]:
        file.rename(root / "b" / file.name)


def test_series_in_two_folders_is_refused_by_name(tmp_path):
    halves(tmp_path / "images")
    message = "a DICOM series must lie in one folder, but got slices of .* in .*/a and .*/b; put them into one folder"
    for check in (True, False):
        with pytest.raises(ValueError, match=message):
            find_volumes(tmp_path, check=check)
    for folder in (tmp_path, tmp_path / "images"):
        assert len(find_volumes(folder, pattern="a")) == 1  # the others are left out
    for _ in range(2):  # the second time from what is kept
        with pytest.raises(ValueError, match=rf"2 of 2 cases cannot be used.*\n  a: {message}.*\n  b: {message}"):
            scan_cases(folder_cases(tmp_path, with_labels=False), progress=False, cache_dir=tmp_path)


def test_copies_and_phases_of_a_series_are_volumes(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b")
    assert len(find_volumes(tmp_path)) == 2
