"""The size of a pixel and the place on the slide, as files tell them, and as they pretend to."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from deepacc_d2.images.resolution import Scale, read_scale

OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>'
    '<Pixels PhysicalSizeX="{size}" PhysicalSizeXUnit="{unit}" SizeX="8"><Plane PositionX="1200.5"'
    ' PositionY="-3" PositionXUnit="µm"/></Pixels></Image></OME>'
)


def write(path: Path, **tags: object) -> Path:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    names = {"x": 282, "y": 283, "unit": 296, "text": 270, "left": 286, "top": 287}
    for name, value in tags.items():
        number = names[name]
        # Pillow would write ASCII; OME is UTF-8.
        info[number] = value.encode() if isinstance(value, str) else value
        if number == 270:
            info.tagtype[270] = 2
    Image.new("L", (8, 8)).save(path, tiffinfo=info)
    return path


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"x": 72.0, "y": 72.0, "unit": 2}, None),  # what programs write that know nothing
        ({"x": 300.0, "y": 300.0, "unit": 2}, None),
        ({"x": 254_000.0, "y": 254_000.0, "unit": 2}, 0.1),  # dots per inch
        ({"x": 154_000.0, "y": 154_000.0, "unit": 3}, 10_000 / 154_000),  # and per centimeter
        ({"x": 100_000.0, "unit": 1}, None),  # no unit
        ({"x": 15.5, "y": 15.5, "unit": 1, "text": "ImageJ=1.54f\nunit=micron\n"}, 1 / 15.5),
        ({"x": 15.5, "y": 15.5, "unit": 1, "text": "ImageJ=1.54f\nunit=\\u00B5m\n"}, 1 / 15.5),
        ({"x": 15.5, "text": "ImageJ=1.54f\nunit=pixel\n"}, None),
        ({"text": "<OME broken"}, None),
        ({"text": OME.format(size="0.065", unit="µm")}, 0.065),
        ({"text": OME.format(size="65", unit="nm")}, 0.065),
        ({"text": OME.format(size="NaN", unit="nm")}, None),
    ],
)
def test_pixel_sizes(tmp_path: Path, tags: dict[str, object], expected: float | None) -> None:
    found = read_scale(write(tmp_path / "a.tif", **tags)).pixel_size
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_places_on_the_slide(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", text=OME.format(size="0.065", unit="um"))
    assert read_scale(path).position == "1200.5, -3 µm"
    tags = {"x": 100_000.0, "y": 100_000.0, "unit": 3, "left": 1.25, "top": 0.5}
    assert read_scale(write(tmp_path / "b.tif", **tags)) == Scale(
        pytest.approx(0.1),  # type: ignore[arg-type]
        "12.500, 5.000 mm",
    )


def test_files_that_tell_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"II*\0 nothing")
    Image.new("L", (8, 8)).save(tmp_path / "a.png", dpi=(254_000, 254_000))
    for path in ("bad.tif", "a.png", "none.tif"):
        assert read_scale(tmp_path / path) == Scale()
    assert read_scale("") == Scale()
