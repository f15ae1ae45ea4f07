"""One reader of pictures: what becomes of depths, modes, orientations and sizes, and what is refused."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rfdetr.data.images import MAX_PIXELS, image_size, read_header, read_image
from rfdetr.errors import UserError

RAMP = np.add.outer(np.arange(20) * 6, np.arange(30) * 4).astype(np.uint8)  # 0..230, no symmetry


def png(path, height, width, depth, colour, rows):
    """A PNG file from its parts: of kinds that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def colour_png(path, values):
    """16 bits and three channels."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    png(path, *values.shape[:2], 16, 2, rows)


@given(st.integers(4096, 65535))
def test_sixteen_bits_are_divided_by_257_and_rounded(largest):
    values = np.linspace(0, largest, 12).astype(np.uint16).reshape(3, 4)
    expected = np.rint(values / 257)
    for source in (values, values.astype(">u2"), Image.fromarray(values)):
        found = read_image(source)
        assert found.dtype == np.uint8 and (found == expected[..., None]).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
def test_files_of_sixteen_bits(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    np.testing.assert_array_equal(read_image(path), np.repeat(RAMP[..., None], 3, 2))
    assert "divided by 257" in read_header(path).rule
    assert read_image(path, max_side=15).shape == (10, 15, 3)


def test_a_grey_map_with_its_own_maximum_is_scaled_to_it(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 1 4095\n" + np.array([0, 2048, 4095], ">u2").tobytes())
    assert read_image(path)[0, :, 0].tolist() == [0, 128, 255]


def test_sixteen_bits_of_a_colour(tmp_path):
    colour_png(tmp_path / "a.png", np.repeat(RAMP[..., None].astype(np.uint16), 3, 2) * 257)
    assert "upper 8 bits" in read_header(tmp_path / "a.png").rule
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], RAMP)
    colour_png(tmp_path / "few.png", np.full((4, 5, 3), 4095))
    with pytest.raises(UserError, match="all but black"):
        read_image(tmp_path / "few.png")


@pytest.mark.parametrize("largest", [1, 255, 1023, 4095])
@pytest.mark.parametrize("kind", ["file", "array", "tensor", "pillow"])
def test_twelve_bits_in_sixteen_are_refused_everywhere(tmp_path, largest, kind):
    values = np.linspace(0, largest, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "dark.png")
    source = {
        "file": tmp_path / "dark.png",
        "array": values,
        "tensor": torch.from_numpy(values)[None],
        "pillow": Image.fromarray(values),
    }[kind]
    with pytest.raises(UserError, match=rf"{'dark.png' if kind == 'file' else ''}.*at most {largest}.*scale"):
        read_image(source)


def test_a_black_picture_of_sixteen_bits_is_black():
    assert not read_image(np.zeros((4, 5), np.uint16)).any()


def test_floating_point_files_are_read_as_arrays_are(tmp_path):
    values = (RAMP / 255).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert "times 255" in read_header(tmp_path / "a.tif").rule
    for source in (tmp_path / "a.tif", values, torch.from_numpy(values)[None]):
        np.testing.assert_array_equal(read_image(source)[..., 0], RAMP)


@pytest.mark.parametrize("values", [[0, 10000], [-0.1, 1], [0, 1.001], [0, np.nan], [0, np.inf], [0, 255]])
def test_floating_point_values_outside_one_are_refused(tmp_path, values):
    array = np.array([values], np.float32)
    Image.fromarray(array).save(tmp_path / "a.tif")
    for source in (tmp_path / "a.tif", array):
        with pytest.raises(UserError, match=r"must be in 0\.\.1"):
            read_image(source)


def test_integers_of_32_bits_are_refused(tmp_path):
    array = np.full((4, 5), 200, np.int32)
    Image.fromarray(array).save(tmp_path / "a.tif")
    for source, words in (
        (tmp_path / "a.tif", r"a\.tif holds 32-bit"),
        (array, "int32"),
        (Image.fromarray(array), "32"),
    ):
        with pytest.raises(UserError, match=words):
            read_image(source)
    assert "refused" in read_header(tmp_path / "a.tif").rule


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, suffix, orientation):
    """Turned as shown, or left as stored, whatever Pillow itself does with the format."""
    stored = np.stack([RAMP, RAMP.T.repeat(2, 1)[:20, :30], 255 - RAMP], axis=2)
    image = Image.fromarray(stored)
    tags = image.getexif()
    tags[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=tags, **({"lossless": True} if suffix == "webp" else {}))
    reference = Image.fromarray(stored)
    reference.getexif()[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(reference))
    header = read_header(path)
    assert header.size == image_size(path) == (20, 30) and header.orientation == orientation
    assert header.shown == shown.shape[:2]
    np.testing.assert_array_equal(read_image(path), shown)
    np.testing.assert_array_equal(read_image(path, oriented=False), stored)
    np.testing.assert_array_equal(read_image(path, oriented=(7, 7)), shown)  # a size that cannot tell
    if orientation >= 5:
        assert header.turned((30, 20)) is True and header.turned((20, 30)) is False
        np.testing.assert_array_equal(read_image(path, oriented=(20, 30)), stored)
        np.testing.assert_array_equal(read_image(path, oriented=(30, 20)), shown)
        assert read_image(path, max_side=15).shape == (15, 10, 3)
    elif orientation > 1:
        assert header.turned((20, 30)) is None


def test_a_header_is_read_without_decoding(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert image_size(path) == (90, 80)
    with pytest.raises(UserError, match=r"a\.png is damaged or cut short"):
        read_image(path)


@pytest.mark.parametrize(("height", "width"), [(9000, 20000), (30000, 30000)])
def test_a_picture_that_is_too_large(tmp_path, height, width):
    png(tmp_path / "map.png", height, width, 1, 0, b"\0")
    assert height * width > MAX_PIXELS
    for read in (read_image, read_header):
        with pytest.raises(UserError, match=r"map\.png is too large.*178 megapixels.*tiles"):
            read(tmp_path / "map.png")


def test_what_is_no_picture(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for name, words in (("text.jpg", "not a picture"), ("absent.png", "does not exist"), ("", "is a folder")):
        with pytest.raises(UserError, match=words):
            read_image(tmp_path / name)
