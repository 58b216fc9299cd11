"""Image files of every kind to gray levels, against arrays that were written into them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from deepacc_d2.errors import ConfigError, DataError, UserError
from deepacc_d2.images import read as images
from deepacc_d2.images.decoder import decode, listening
from deepacc_d2.images.gray import as_gray
from deepacc_d2.images.read import read_gray, read_image, read_size


def _smooth(height: int = 50, width: int = 70, seed: int = 0) -> np.ndarray:
    """A smooth picture of all gray levels, uint8."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_eight_bit_gray_comes_back_as_it_was_written(tmp_path, suffix, mode):
    pixels = _smooth()
    gray, facts = read_image(_save(tmp_path / f"a{suffix}", pixels, mode))
    np.testing.assert_array_equal(gray, pixels)
    assert (facts.width, facts.height, facts.pages, facts.notes) == (70, 50, 1, ())
    assert facts.format in ("PNG", "BMP", "TIFF")


def _colored(gray: np.ndarray, strength: int) -> np.ndarray:
    """RGB whose channels differ by noise of up to ``strength``."""
    noise = np.random.default_rng(1).integers(-strength, strength + 1, (*gray.shape, 3))
    return np.clip(gray[..., None].astype(int) + noise, 0, 255).astype(np.uint8)


KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": (".jpg", {"quality": 80}),
    "JPEG, best": (".jpg", {"quality": 100, "subsampling": 0}),
    "JPEG, progressive": (".jpg", {"quality": 80, "progressive": True}),
    "JPEG, of RGB": (".jpg", {"quality": 80, "keep_rgb": True}),
    "PNG": (".png", {}),
    "PNG, of few bits": (".png", {"bits": 4}),
    "WebP": (".webp", {"quality": 80}),
    "WebP, lossless": (".webp", {"lossless": True}),
    "BMP": (".bmp", {}),
    "TIFF": (".tif", {}),
    "TIFF, LZW": (".tif", {"compression": "tiff_lzw"}),
}


@pytest.mark.parametrize("color", [None, 0, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_either_decoder_gives_the_same_gray_levels(tmp_path, monkeypatch, kind, color):
    suffix, options = KINDS[kind]
    pixels = _smooth(120, 131)
    shown = pixels if color is None else _colored(pixels, color)
    if options.get("keep_rgb") and color is None:
        return
    path = _save(tmp_path / f"a{suffix}", shown, **options)
    gray, facts = read_image(path)
    np.testing.assert_array_equal(read_gray(path), gray)
    assert read_size(path) == (facts.width, facts.height) == (131, 120)
    assert facts.shortcomings == ()
    assert gray.flags.writeable
    # What OpenCV gives for gray, which is what training was once shown: to the level for gray
    # pictures and for JPEG; libraries round colors in ways of their own.
    opencv = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(int)
    assert np.abs(gray - opencv).max() <= (0 if not color or suffix == ".jpg" else 1)
    with monkeypatch.context() as only_pillow:
        only_pillow.setattr(images, "plain_header", lambda _: None)
        other, same = read_image(path)
    np.testing.assert_array_equal(other, gray)
    assert same == facts
    if suffix in (".jpg", ".png", ".webp"):
        monkeypatch.setattr(images, "_decode_any", None)  # it was not needed
        np.testing.assert_array_equal(read_gray(path), gray)


def test_shortcomings_are_reported(tmp_path):
    pixels = _smooth()
    few = _save(tmp_path / "a.png", (pixels // 20 * 20).astype(np.uint8))
    assert read_image(few).facts.shortcomings == ("only 13 gray levels",)
    flat = _save(tmp_path / "b.png", (100 + pixels // 64).astype(np.uint8))
    assert read_image(flat).facts.shortcomings == ("no contrast (gray levels 100 to 103)",)
    # A hot pixel is no contrast.
    hot = np.full((100, 100), 90, np.uint8)
    hot[3, 3] = 255
    assert "no contrast" in read_image(_save(tmp_path / "c.png", hot)).facts.shortcomings[0]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("factor", [1, 16, 256, 257])
def test_sixteen_bits_that_are_used_keep_their_proportion(tmp_path, compression, factor):
    pixels = _smooth()
    deep = pixels.astype(np.uint16) * factor
    gray, _ = read_image(_save(tmp_path / "a.tif", deep, compression=compression))
    assert np.abs(gray.astype(int) - pixels).max() <= 1
    gray, _ = read_image(_save(tmp_path / "a.png", deep))
    assert np.abs(gray.astype(int) - pixels).max() <= 1


def test_a_dim_twelve_bit_picture_is_stretched_and_its_bands_are_not_clipped(tmp_path):
    pixels = _smooth(400, 500)
    deep = pixels.astype(np.uint16) * 2 + 1000  # 1000 to 1510 of 4095
    deep[7, 9] = 4095  # a hot pixel
    gray, facts = read_image(_save(tmp_path / "a.tif", deep))
    assert gray[7, 9] == 255
    gray[7, 9] = gray[7, 8]
    pixels[7, 9] = pixels[7, 8]
    assert len(np.unique(gray)) > 200
    assert np.isin(gray, (0, 255)).mean() < 2e-4
    # Order and proportion of the levels stay.
    assert np.corrcoef(gray.ravel(), pixels.ravel())[0, 1] > 0.9999
    assert "mapped to 8 bits" in facts.notes[0]


def test_sixteen_bit_color_is_not_cut_to_its_upper_byte(tmp_path):
    pixels = _smooth().astype(np.uint16) * 8 + 100  # upper bytes: 0 to 8
    for suffix in (".png", ".tif"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(cv2.imencode(suffix, cv2.merge([pixels] * 3))[1].tobytes())
        gray = read_image(path).gray
        assert len(np.unique(gray)) > 60
        assert np.corrcoef(gray.ravel(), pixels.ravel())[0, 1] > 0.9999


def test_float_tiff(tmp_path):
    pixels = _smooth()
    for values in (pixels.astype(np.float32), pixels.astype(np.float32) / 255):
        gray = read_image(_save(tmp_path / "a.tif", values)).gray
        np.testing.assert_array_equal(gray, pixels)
    broken = pixels.astype(np.float32)
    broken[3, 4] = np.nan
    with pytest.raises(DataError, match="not finite"):
        read_image(_save(tmp_path / "b.tif", broken))


def test_palette_and_bilevel(tmp_path):
    pixels = (_smooth() // 32 * 36).astype(np.uint8)  # 8 levels: a palette holds them all
    path = tmp_path / "a.png"
    Image.fromarray(pixels).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    np.testing.assert_array_equal(read_image(path).gray, pixels)
    path = _save(tmp_path / "b.png", pixels > 100)
    np.testing.assert_array_equal(read_image(path).gray, (pixels > 100) * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path, mode):
    image = Image.fromarray(np.full((10, 20), 100, np.uint8)).convert(mode)
    alpha = np.full((10, 20), 255, np.uint8)
    alpha[:5], alpha[5:, :10] = 0, 51
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    gray = read_image(tmp_path / "a.png").gray
    assert (gray[:5] == 255).all()
    assert (gray[5:, :10] == round(0.2 * 100 + 0.8 * 255)).all()
    assert (gray[5:, 10:] == 100).all()


def test_an_alpha_channel_that_is_empty_is_ignored_and_reported(tmp_path):
    pixels = _smooth()
    image = Image.fromarray(pixels).convert("RGBA")
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    gray, facts = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(gray, pixels)
    assert "ignored" in facts.notes[0]


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    pixels = _smooth()
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).convert("RGB").convert("CMYK").save(path, quality=98)
    assert np.abs(read_image(path).gray.astype(int) - pixels).mean() < 3


def test_of_several_pages_the_first_is_taken_and_reported(tmp_path):
    first, second = _smooth(), _smooth(30, 30, seed=1)
    path = tmp_path / "a.tiff"
    Image.fromarray(first).save(path, save_all=True, append_images=[Image.fromarray(second)])
    gray, facts = read_image(path)
    np.testing.assert_array_equal(gray, first)
    assert facts.pages == 2
    assert facts.notes == ("the first of 2 pages",)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".webp"])
def test_orientation_is_as_shown(tmp_path, suffix):
    pixels = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, 16, 0), 16, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    options = {".jpg": {"quality": 100}, ".webp": {"lossless": True}}.get(suffix, {})
    gray, facts = read_image(_save(tmp_path / f"a{suffix}", pixels, exif=exif, **options))
    assert gray.shape == (48, 32)
    assert np.abs(gray.astype(int) - np.rot90(pixels, -1)).max() <= 2
    assert facts.notes == ("turned as its EXIF orientation says",)
    assert facts.turned
    np.testing.assert_array_equal(read_gray(tmp_path / f"a{suffix}"), gray)
    assert read_size(tmp_path / f"a{suffix}") == (32, 48)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9, 0.98])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    path = _save(tmp_path / f"a{suffix}", _smooth())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"truncated|damaged|is no JPEG") as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("turn", [None, 6])
def test_a_jpeg_with_a_broken_middle_is_refused_in_silence(tmp_path, capfd, turn):
    exif = Image.Exif()
    if turn:
        exif[0x0112] = turn  # this one is not for OpenCV
    path = _save(tmp_path / "a.jpg", _smooth(300, 400), quality=95, exif=exif)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    for read in (read_image, read_gray):
        with pytest.raises(DataError, match=r"a\.jpg is truncated or damaged \(Corrupt JPEG data"):
            read(path)
    assert capfd.readouterr().err == ""


def test_what_a_decoder_complains_of_is_not_printed(tmp_path, capfd):
    path = _save(tmp_path / "a.png", _smooth(20, 30))
    data = path.read_bytes()
    body = b"Comment\0\0" + zlib.compress(b"no profile")
    chunk = struct.pack(">I", len(body)) + b"iCCP" + body
    checksum = struct.pack(">I", zlib.crc32(b"iCCP" + body))
    path.write_bytes(data[:33] + chunk + checksum + data[33:])
    np.testing.assert_array_equal(read_gray(path), _smooth(20, 30))
    assert capfd.readouterr().err == ""


def test_what_the_libraries_of_pillow_complain_of_is_not_printed(tmp_path, capfd):
    """A TIFF that claims to be compressed as a JPEG is left to Pillow, whose libtiff prints."""
    path = tmp_path / "a.tif"
    Image.fromarray(_smooth(40, 60)).save(path, compression="jpeg")
    data = path.read_bytes()
    start = data.rindex(b"\xff\xd8")  # of the pixels, after the tables
    path.write_bytes(data[:start] + b"\xe8\xeb" + data[start + 2 :])
    with Image.open(path) as image, pytest.raises(OSError, match="decoder error"):
        image.load()
    assert "Not a JPEG file" in capfd.readouterr().err
    with pytest.raises(DataError, match="is truncated or damaged"):
        read_gray(path)
    assert capfd.readouterr().err == ""


def test_other_threads_lines_are_kept(capfd):
    with listening() as lines:
        os.write(2, b"libtiff: broken\nanother thread says this\n")
        assert decode(b"no image", cv2.IMREAD_GRAYSCALE).pixels is None  # one within another
    assert lines[0] == "libtiff: broken"
    assert capfd.readouterr().err == "another thread says this\n"


def test_what_pillow_logs_is_not_printed(tmp_path):
    """In a process of its own: pytest listens to every logger."""
    path = _save(tmp_path / "a.tif", np.dstack([_smooth(20, 30)] * 3))
    data = path.read_bytes()
    # Samples per pixel, once 3.
    tag = struct.pack("<HHI", 277, 3, 1)
    at = data.index(tag) + len(tag)
    path.write_bytes(data[:at] + struct.pack("<H", 2048) + data[at + 2 :])
    program = "import sys; from deepacc_d2 import read_image; read_image(sys.argv[1])"
    run = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DataError: image" in done.stderr
    assert not done.stderr.startswith("More samples")


def test_a_size_is_given_for_whatever_is_read(tmp_path):
    """A text that expands to 100 MB besides the pixels, which Pillow refuses."""
    path = _save(tmp_path / "a.png", _smooth(20, 30))
    data = path.read_bytes()
    body = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    checksum = struct.pack(">I", zlib.crc32(b"zTXt" + body))
    path.write_bytes(data[:33] + chunk + checksum + data[33:])
    assert read_size(path) == (30, 20)
    assert read_image(path).gray.shape == (20, 30)


def test_what_is_no_image_is_refused(tmp_path):
    def refused(name: str, data: bytes, what: str) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=what):
            read_image(tmp_path / name)

    refused("a.jpg", b"", r"a\.jpg is empty")
    refused("b.jpg", b"<html>404</html>", "is no JPEG, PNG, BMP, TIFF or WebP")
    refused("c.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no JPEG")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="no file name"):
        read_image("a\0b.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="no regular file"):  # and does not wait for ever
        read_image(tmp_path / "pipe.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_permission(tmp_path):
    path = _save(tmp_path / "a.png", _smooth())
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(path)


def _png_header(width: int, height: int) -> bytes:
    """A PNG that ends after its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _tiff_header(width: int, height: int) -> bytes:
    """A compressed TIFF of a hundred and some bytes that claims a size."""
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, 4)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + b"\0" * 8


@pytest.mark.parametrize("make", [_png_header, _tiff_header])
@pytest.mark.parametrize("size", [(100_000, 100_000), (14_000, 13_000), (70_000, 10)])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch, make, size):
    def decoded(*_):
        raise AssertionError("was decoded")

    monkeypatch.setattr(images, "_decode_any", decoded)
    monkeypatch.setattr(cv2, "imdecode", decoded)
    (tmp_path / "a.tif").write_bytes(make(*size))
    with pytest.raises(DataError, match=r"claims .* over the limit of 175 million and 65500"):
        read_image(tmp_path / "a.tif")


def test_arrays_of_every_accepted_kind():
    pixels = _smooth()
    assert as_gray(pixels) is pixels
    third = pixels[..., None]
    for same in (
        third,
        np.repeat(third, 3, axis=2),
        np.concatenate([np.repeat(third, 3, axis=2), np.full_like(third, 255)], axis=2),
        pixels.astype(np.uint16),
        pixels.astype(np.uint16) * 257,
        pixels.astype(np.int64),
        pixels.astype(np.float32),
        pixels / 255,
        np.repeat(third / 255, 3, axis=2),
    ):
        np.testing.assert_array_equal(as_gray(same), pixels)
    np.testing.assert_array_equal(as_gray(pixels > 99), (pixels > 99) * np.uint8(255))
    color = np.array([[[200, 100, 50]]], dtype=np.uint8)
    assert as_gray(color)[0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    half = np.array([[[0.2, 0.2, 0.2, 0.5], [1, 1, 1, 1]]])
    np.testing.assert_array_equal(as_gray(half), [[round(0.6 * 255), 255]])


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros(5), "of shape"),
        (np.zeros((3, 4, 5)), "of shape"),
        (np.zeros((2, 3, 4, 1)), "of shape"),
        (np.zeros((0, 4)), "4x0"),
        (np.array([[np.nan]]), "no finite"),
        (np.array([[np.inf, 1]]), "no finite"),
        (np.array([["a"]]), "an array of <U1"),
        (np.array([[1j]]), "an array of complex128"),
    ],
)
def test_other_arrays_are_refused(array, what):
    with pytest.raises(ConfigError, match=what):
        as_gray(array)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int64, np.float16, np.float64, bool]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
    )
)
def test_any_array_is_gray_or_refused(array):
    try:
        gray = as_gray(array)
    except UserError:
        return
    assert gray.dtype == np.uint8
    assert gray.shape == array.shape[:2]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damaged_file_raises_anything_else(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".bmp", ".tif", ".webp"]))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    _save(path, _smooth(20, 30))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        gray, facts = read_image(path)
    except DataError:
        return
    assert gray.shape == (facts.height, facts.width)
