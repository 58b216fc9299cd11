from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.detection import runners
from deepacc_d2.detection.export.parity import compare
from deepacc_d2.detection.export.write import read_openvino, write_onnx, write_openvino
from deepacc_d2.detection.metadata import describe
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.detection.runners import OpenVinoDetector, load_runner, require
from deepacc_d2.detection.select import SelectionSettings
from deepacc_d2.errors import ConfigError, DataError

EVERYTHING = SelectionSettings(min_foreground=0.0)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> TorchDetector:
    return TorchDetector(build_from_checkpoint(read_checkpoint(checkpoint), checkpoint))


@pytest.fixture(scope="module")
def onnx_file(
    checkpoint: Path, reference: TorchDetector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    pytest.importorskip("onnx", reason="make setup EXTRAS=export")
    pytest.importorskip("onnxruntime", reason="make setup EXTRAS=export")
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    content = read_checkpoint(checkpoint)
    multiple = reference.core.size_divisibility
    metadata = describe(content, checkpoint, size_divisibility=multiple, precision="fp32")
    write_onnx(reference.core, path, metadata)
    return path


@pytest.fixture(scope="module")
def xml_file(onnx_file: Path) -> Path:
    pytest.importorskip("openvino", reason="make setup EXTRAS=export")
    path = onnx_file.with_suffix(".xml")
    write_openvino(read_openvino(onnx_file), path, load_runner(onnx_file).metadata)
    return path


def image(height: int, width: int) -> np.ndarray[Any, Any]:
    found = np.random.default_rng(height).integers(190, 255, (height, width), dtype=np.uint8)
    found[height // 3 : height // 2, width // 4 : width // 2] = 90
    return found


@pytest.mark.parametrize("kind", ["onnx_file", "xml_file"])
def test_any_size_gives_what_pytorch_gives(
    kind: str, reference: TorchDetector, request: pytest.FixtureRequest
) -> None:
    runner = load_runner(request.getfixturevalue(kind), threads=1)
    assert runner.metadata["preset"] == "siamese_gia"
    assert runner.metadata["karyotype"] == {"temperature": 1.5}
    for size in ((96, 128), (131, 77), (200, 190)):
        gray = image(*size)
        parity = compare(reference(gray), runner(gray), EVERYTHING)
        assert parity.chromosomes
        assert parity.same, parity
    before = runner(image(96, 128))[0].copy()
    kept = runner(image(96, 128))[0]
    runner(image(131, 77))
    assert (kept == before).all()


def test_no_proposals(
    onnx_file: Path, xml_file: Path, reference: TorchDetector, tmp_path: Path
) -> None:
    metadata = load_runner(onnx_file).metadata
    generator = reference.core.model.proposal_generator
    before = generator.min_box_size
    generator.min_box_size = 1e6  # no box is that large
    try:
        write_onnx(reference.core, tmp_path / "none.onnx", metadata)
    finally:
        generator.min_box_size = before
    write_openvino(read_openvino(tmp_path / "none.onnx"), tmp_path / "none.xml", metadata)
    for name in ("none.onnx", "none.xml"):
        boxes, probabilities = load_runner(tmp_path / name, threads=1)(image(64, 64))
        assert boxes.shape == (0, 4)
        assert probabilities.shape == (0, 25)


def test_bfloat16_and_unknown_choices(xml_file: Path) -> None:
    _, probabilities = OpenVinoDetector(xml_file, precision="bf16")(image(96, 128))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=2e-2)
    with pytest.raises(ConfigError, match=r"precision 'fp8' is unknown"):
        OpenVinoDetector(xml_file, precision="fp8")
    with pytest.raises(ConfigError, match=r"OpenVINO has no device 'NPU9' here: there is .*CPU"):
        OpenVinoDetector(xml_file, device="NPU9")


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_runner(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_files_of_others_are_refused(onnx_file: Path, xml_file: Path, tmp_path: Path) -> None:
    import onnx

    cut = tmp_path / "cut.onnx"
    cut.write_bytes(onnx_file.read_bytes()[:5000])
    assert "is damaged or no model" in refused(cut)
    bare = onnx.load(str(onnx_file))
    del bare.metadata_props[:]
    onnx.save(bare, str(tmp_path / "bare.onnx"))
    assert "was not written by `make export`" in refused(tmp_path / "bare.onnx")

    silent = onnx.load(str(onnx_file))
    del silent.graph.output[:]
    onnx.save(silent, str(tmp_path / "silent.onnx"))
    assert "gives nothing, not boxes and probabilities" in refused(tmp_path / "silent.onnx")

    for name in ("cut.xml", "cut.bin"):
        shutil.copy(xml_file.with_suffix(name[-4:]), tmp_path / name)
    weights = tmp_path / "cut.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "is damaged or no model" in refused(tmp_path / "cut.xml")
    (tmp_path / "cut.xml").write_text("<net")
    assert "is damaged or no model" in refused(tmp_path / "cut.xml")
    # OpenVINO's reader of another format would print lines of its own.
    (tmp_path / "cut.xml").write_text("<html>404</html>")
    assert "no <net> at its beginning" in refused(tmp_path / "cut.xml")


def test_missing_files(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.xml"):
        assert "does not exist" in refused(tmp_path / name)
    (tmp_path / "a.xml").touch()
    with pytest.raises(DataError, match=r"a\.bin does not exist"):
        load_runner(tmp_path / "a.xml")
    assert "neither .onnx nor .xml" in refused(tmp_path / "a.pt")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need nncf, which is not installed: make setup EXTRAS"):
        require("nncf")
    for name in ("a.onnx", "a.xml", "a.bin"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"need onnxruntime, which is not installed"):
        load_runner(tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match=r"need openvino, which is not installed"):
        load_runner(tmp_path / "a.xml")
