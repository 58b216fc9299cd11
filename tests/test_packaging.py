"""Locks, environment.yml, pyproject.toml, Makefile and scripts/ agree with each other."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from deepacc_d2.command.arguments import compose as compose_target
from deepacc_d2.command.arguments import data_overrides, hydra_value, make_command
from deepacc_d2.command.program import DETECTRON2
from deepacc_d2.command.table import COMMANDS
from deepacc_d2.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
# PyPI's name -> conda-forge's, where they differ.
CONDA_NAMES = {
    "torch": "pytorch",
    "opencv-python-headless": "py-opencv",
    "matplotlib": "matplotlib-base",
}
EXTRAS = (
    *("joblib", "optuna", "ray", "submitit", "export", "peers"),
    *("review", "browser", "worksheet", "docs"),
)
VARIABLES = (
    *("EXP", "DATA", "DATA_DIR", "SCALE", "SEED", "CKPT", "IMAGE", "OUT", "ARGS", "FORMAT", "SRC"),
    *("PRECISION", "OVERWRITE", "IMAGES", "CASES", "WORKSHEET", "CELLS", "CROPS"),
    *("RESUME", "SWEEPER", "N", "SPACE", "LAUNCHER", "JOBS", "EXTRAS"),
)


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    """scripts/*.py as modules; they are scripts, not part of a package."""
    modules = {}
    for name in ("setup_env", "launch", "lock"):
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        modules[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    return modules


def pinned(path: Path) -> dict[str, str]:
    """Name -> version of the `name==version` lines of a requirements file."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(), flags=re.MULTILINE))


def make(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run make apart from the variables of a make that may be running these tests."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MAKE", "MFLAGS")) and key not in (*VARIABLES, "PYTHON", "VENV")
    }
    return subprocess.run(
        ["make", *arguments], cwd=cwd, env=clean | env, capture_output=True, text=True, check=False
    )


def composed(*arguments: str) -> str:
    """The command that a `make -n` would run."""
    result = make("-n", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


# Locks


@pytest.mark.parametrize("stem", ["bootstrap", "project", "detectron2", "lock", *EXTRAS])
def test_lock_is_pinned_hashed_and_names_no_place(stem: str) -> None:
    text = (REQUIREMENTS / f"{stem}.lock").read_text()
    entries = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for entry in entries.strip().splitlines():
        head, *hashes = re.split(r"\s+--hash=", entry.strip())
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.+]+( ;.*)?", head), head
        assert hashes, head
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), head
    assert not re.search(r"://|--(extra-)?index-url|--find-links|/(opt|home|root|tmp)/", text)


@pytest.mark.parametrize("stem", ["bootstrap", "project", "detectron2", "lock", *EXTRAS])
def test_lock_holds_what_its_in_file_asks_for(stem: str) -> None:
    asked, locked = pinned(REQUIREMENTS / f"{stem}.in"), pinned(REQUIREMENTS / f"{stem}.lock")
    assert asked
    assert {name: locked.get(name) for name in asked} == asked


def test_lock_includes_the_cuda_libraries_of_torch() -> None:
    names = set(pinned(REQUIREMENTS / "project.lock"))
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "triton"} <= names


def test_pyproject_depends_on_the_locked_direct_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in declared}
    assert names == set(pinned(REQUIREMENTS / "project.in"))


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_are_what_their_locks_add_to_the_project(
    scripts: dict[str, ModuleType], extra: str
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"][extra]
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in declared}
    assert names == set(pinned(REQUIREMENTS / f"{extra}.in"))
    # Two releases of one package would overwrite each other.
    locked = {stem: pinned(REQUIREMENTS / f"{stem}.lock") for stem in ("project", *EXTRAS)}
    for stem, versions in locked.items():
        if stem != extra:
            shared = versions.keys() & locked[extra].keys()
            assert {n: versions[n] for n in shared} == {n: locked[extra][n] for n in shared}
    # What the project pins on every platform is there already; on some only, it may be missing.
    text = (REQUIREMENTS / "project.lock").read_text(encoding="utf-8")
    everywhere = {
        line.split("==")[0] for line in text.splitlines() if re.match(r"[\w.-]+==[^;]*$", line)
    }
    assert len(everywhere) > 50
    assert not everywhere & locked[extra].keys()
    assert scripts["setup_env"].EXTRAS == EXTRAS


def test_environment_yml_has_the_locked_versions() -> None:
    listed: dict[str, str] = {}
    for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        for line in entry["pip"] if isinstance(entry, dict) else [entry]:
            name, _, version = line.replace("==", "=").partition("=")
            listed[name] = version
    listed.pop("python")
    expected = {
        CONDA_NAMES.get(name, name): version
        for name, version in pinned(REQUIREMENTS / "project.in").items()
    }
    expected["pip"] = pinned(REQUIREMENTS / "bootstrap.in")["pip"]
    # The wheel's fourth number counts repackagings of one OpenCV release.
    expected["py-opencv"] = ".".join(expected["py-opencv"].split(".")[:3])
    assert listed == expected


# Packages


def test_pyproject_lists_the_packages_on_disk() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("deepacc_d2", "lightning")
        for path in (ROOT / folder).rglob("*.py")
    }
    expected = {re.sub("^lightning", "deepacc_lightning", name) for name in on_disk}
    assert set(table["packages"]) == expected | {"deepacc_conf"}
    assert table["package-dir"] == {"deepacc_lightning": "lightning", "deepacc_conf": "conf"}


def test_lightning_folder_is_no_package_of_that_name() -> None:
    assert not (ROOT / "lightning" / "__init__.py").exists()
    spec = importlib.util.find_spec("deepacc_lightning")
    assert spec is not None, "the project is not installed: make setup"
    assert spec.submodule_search_locations is not None
    assert Path(next(iter(spec.submodule_search_locations))).resolve().name == "lightning"


def imported_modules(path: Path) -> set[str]:
    """Top-level names of all absolute imports of a Python file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_no_file_imports_lightning_and_the_domain_knows_no_framework() -> None:
    folders = ("deepacc_d2", "lightning", "tests", "scripts")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        forbidden = {"lightning"}
        if path.is_relative_to(ROOT / "deepacc_d2"):
            forbidden |= {"pytorch_lightning", "hydra", "wandb", "deepacc_lightning"}
        assert not imported_modules(path) & forbidden, path


# Wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy of what it is made of."""
    source = tmp_path_factory.mktemp("source")
    for name in ("deepacc_d2", "lightning", "conf"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source)
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def empty_venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel and nothing else."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip("--python", venv / "bin" / "python", "install", "--no-deps", "--no-compile", wheel)
    return venv


def pip(*arguments: str | Path) -> None:
    """Run pip without an index."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    moved = {"lightning": "deepacc_lightning", "conf": "deepacc_conf", "deepacc_d2": "deepacc_d2"}
    for folder, package in moved.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md":
                assert f"{package}/{path.relative_to(ROOT / folder)}" in names, path
    assert "deepacc_d2/py.typed" in names


def test_the_wheel_works_in_an_empty_environment(empty_venv: Path, tmp_path: Path) -> None:
    def deepacc(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(empty_venv / "bin" / "deepacc"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    overview = deepacc("--help")
    assert (overview.returncode, overview.stderr) == (0, "")
    assert overview.stdout.startswith("Usage: deepacc COMMAND")
    assert "min_foreground=null" in deepacc("predict", "--help", "all").stdout
    # Detectron2 cannot be a dependency, so its absence is the first thing to go wrong.
    done = deepacc("predict", f"images={tmp_path}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"error: Detectron2 is missing: install it by {empty_venv}/bin/python -m pip" in line
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"--target {empty_venv}/lib/python{version}/site-packages {DETECTRON2}" in line


# Makefile


def test_help_is_the_default_and_lists_every_target_once() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    launched = re.search(r"^LAUNCHED = (.+)$", makefile, flags=re.MULTILINE)
    phony = re.search(r"^\.PHONY: \$\(LAUNCHED\) (.+)$", makefile, flags=re.MULTILINE)
    assert launched is not None
    assert phony is not None
    own = re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE)
    assert set(own) == set(phony[1].split())
    named = {c.name: bool(c.program) for c in COMMANDS.values() if c.target}
    assert named == dict.fromkeys(launched[1].split(), True) | dict.fromkeys(own, False)
    targets = named.keys()
    listing = make().stdout
    assert listing == make("help").stdout
    listed = re.findall(r"^  ([a-z-]+) +\S", listing, flags=re.MULTILINE)
    assert sorted(listed) == sorted(targets)
    assert all(len(line) <= 100 for line in listing.splitlines())


def test_unset_variables_are_left_to_hydra() -> None:
    assert composed("train") == ".venv/bin/python -m deepacc_lightning.train"


def test_train_passes_every_variable() -> None:
    command = composed(
        *("train", "EXP=sep", "DATA=synthetic", "SCALE=paper", "SEED=3", "DATA_DIR=/d", "OUT=/o"),
        *("CKPT=/c/last.ckpt", "ARGS=trainer.max_steps=5 'model.x=[1, 2]'"),
    )
    assert command == (
        ".venv/bin/python -m deepacc_lightning.train experiment=sep scale=paper seed=3 "
        "data=synthetic data.root=/d out=/o ckpt_path=/c/last.ckpt trainer.max_steps=5 "
        "'model.x=[1, 2]'"
    )


def test_train_goes_on_in_a_run_directory() -> None:
    command = composed("train", "RESUME=/runs/a b", "ARGS=logger=csv")
    assert command == (
        ".venv/bin/python -m deepacc_lightning.train 'resume=\"/runs/a b\"' logger=csv"
    )


def test_evaluate_passes_the_checkpoint_first_and_relative_paths_as_absolute() -> None:
    command = composed("evaluate", "CKPT=best.ckpt", "DATA=data/mine", "OUT=out")
    assert command == (
        f".venv/bin/python -m deepacc_lightning.evaluate ckpt={ROOT}/best.ckpt data=coco "
        f"data.root={ROOT}/data/mine out={ROOT}/out"
    )


def test_evaluate_and_explain_take_the_shipped_checkpoint_without_ckpt() -> None:
    command = composed("evaluate", "DATA=/d")
    assert command == ".venv/bin/python -m deepacc_lightning.evaluate data=coco data.root=/d"
    command = composed("explain", "IMAGE=/a.png")
    assert command == ".venv/bin/python -m deepacc_lightning.explain image=/a.png"
    result = make("-n", "explain")
    assert result.returncode == 2
    assert "make explain needs IMAGE= as in" in result.stderr


def test_explain_passes_checkpoint_and_image_as_absolute_paths() -> None:
    command = composed("explain", "CKPT=best.ckpt", "IMAGE=images/a b.png", "OUT=a.pdf")
    assert command == (
        f".venv/bin/python -m deepacc_lightning.explain ckpt={ROOT}/best.ckpt "
        f"'image=\"{ROOT}/images/a b.png\"' out={ROOT}/a.pdf"
    )


def test_hydra_knows_what_the_variables_of_explain_become() -> None:
    variables = {"CKPT": "/c/epoch=1.ckpt", "IMAGE": "/a b/[1].png", "EXP": "sep", "OUT": "/o"}
    for extra, root in (({}, None), ({"DATA": "/d"}, "/d"), ({"DATA_DIR": "/d"}, "/d")):
        overrides = compose_target("explain", variables | extra, ROOT / "conf")[2:]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("explain", overrides)
        assert (config.ckpt, config.image) == ("/c/epoch=1.ckpt", "/a b/[1].png")
        assert (config.preset, config.out, config.data.root) == ("sep", "/o", root)


@pytest.mark.parametrize("target", ["train", "evaluate"])
def test_hydra_knows_what_the_variables_become(target: str) -> None:
    variables = {"EXP": "sep", "DATA": "coco", "DATA_DIR": "/a b", "SCALE": "paper", "SEED": "7"}
    variables |= {"CKPT": "/c/epoch=1.ckpt", "OUT": "/o"}
    overrides = compose_target(target, variables, ROOT / "conf")[2:]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(target, overrides)
    assert (config.data.root, config.out, config.seed) == ("/a b", "/o", 7)
    assert config["ckpt_path" if target == "train" else "ckpt"] == "/c/epoch=1.ckpt"


def test_predict_passes_every_variable() -> None:
    command = composed("predict", "IMAGES=slides/**/*.tif", "OUT=out", "CASES=folder")
    assert command == (
        f".venv/bin/python -m deepacc_lightning.predict 'images=\"{ROOT}/slides/**/*.tif\"' "
        f"out={ROOT}/out cases=folder"
    )
    variables = {"IMAGES": "/a {b}/c,d[1].png", "CKPT": "/m.onnx", "CASES": "/k.csv"}
    overrides = compose_target("predict", variables | {"OVERWRITE": "1"}, ROOT / "conf")[2:]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("predict", overrides)
    assert config.images == "/a {b}/c,d[1].png"
    assert (config.ckpt, config.cases, config.overwrite) == ("/m.onnx", "/k.csv", True)
    result = make("-n", "predict", "OUT=a")
    assert result.returncode == 2
    assert "make predict needs IMAGES= as in" in result.stderr
    result = make("-n", "predict", "IMAGES=a", "OVERWRITE=yes")
    assert "OVERWRITE=yes: write OVERWRITE=1" in result.stderr


def test_robustness_passes_every_variable() -> None:
    assert composed("robustness", "DATA=/d", "CKPT=/a.ckpt", "SEED=4", "OUT=/o") == (
        ".venv/bin/python -m deepacc_lightning.robustness ckpt=/a.ckpt seed=4 data=coco "
        "data.root=/d out=/o"
    )


def test_karyotype_passes_every_variable() -> None:
    variables = {"DATA": "/d", "CKPT": "/a.ckpt", "OUT": "/o", "ARGS": "images=9"}
    assert composed("karyotype", *(f"{name}={value}" for name, value in variables.items())) == (
        ".venv/bin/python -m deepacc_lightning.karyotype ckpt=/a.ckpt data=coco data.root=/d "
        "out=/o images=9"
    )
    overrides = compose_target("karyotype", variables, ROOT / "conf")[2:]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("karyotype", overrides)
    assert (config.ckpt, config.data.root, config.images) == ("/a.ckpt", "/d", 9)
    result = make("-n", "karyotype", "CKPT=a")
    assert result.returncode == 2
    assert "make karyotype needs DATA= as in" in result.stderr


def test_context_passes_every_variable() -> None:
    variables = {"DATA": "/d", "CKPT": "/a.ckpt", "OUT": "/o", "SEED": "3", "ARGS": "views=1"}
    assert composed("context", *(f"{name}={value}" for name, value in variables.items())) == (
        ".venv/bin/python -m deepacc_lightning.context ckpt=/a.ckpt seed=3 data=coco data.root=/d "
        "out=/o views=1"
    )
    overrides = compose_target("context", variables, ROOT / "conf")[2:]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("context", overrides)
    assert (config.ckpt, config.data.root, config.seed, config.views) == ("/a.ckpt", "/d", 3, 1)
    result = make("-n", "context", "DATA=a")
    assert result.returncode == 2
    assert "make context needs CKPT= as in" in result.stderr


def test_export_passes_every_variable() -> None:
    command = composed(
        *("export", "CKPT=best.ckpt", "FORMAT=openvino", "PRECISION=int8", "OUT=a.xml", "DATA=/d"),
    )
    assert command == (
        f".venv/bin/python -m deepacc_lightning.export ckpt={ROOT}/best.ckpt format=openvino "
        f"precision=int8 data=coco data.root=/d out={ROOT}/a.xml"
    )
    variables = {"CKPT": "/c/epoch=1.ckpt", "FORMAT": "onnx", "OUT": "/a 'b'", "DATA_DIR": "/d"}
    overrides = compose_target("export", variables | {"OVERWRITE": "1"}, ROOT / "conf")[2:]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("export", overrides)
    assert (config.ckpt, config.format, config.precision) == ("/c/epoch=1.ckpt", "onnx", "fp32")
    assert (config.out, config.data.root, config.overwrite) == ("/a 'b'", "/d", True)
    result = make("-n", "export", "CKPT=a.ckpt")
    assert result.returncode == 2
    assert "make export needs FORMAT= as in" in result.stderr


def test_ablation_passes_presets_and_seeds_as_lists() -> None:
    assert composed("ablation", "PROTOCOL=heads", "SEEDS=2") == (
        ".venv/bin/python -m deepacc_lightning.ablation ablation.protocol=heads ablation.seeds=2"
    )
    variables = {"EXPS": "sep, aam  siamese", "SEEDS": "[0,3]", "CKPT": "t.ckpt", "RESULTS": "R.md"}
    command = composed("ablation", *(f"{k}={v}" for k, v in variables.items()))
    for part in (
        "'ablation.presets=[sep,aam,siamese]'",
        "'ablation.seeds=[0,3]'",
        f"ablation.trunk={ROOT}/t.ckpt",
        f"ablation.results={ROOT}/R.md",
    ):
        assert part in command


def test_hydra_knows_what_the_variables_of_ablation_become() -> None:
    variables = {"EXPS": "sep aam", "SEEDS": "0,3", "CKPT": "/c/epoch=1.ckpt", "OUT": "/a 'b'"}
    variables |= {"PROTOCOL": "end_to_end", "JOBS": "2", "RESULTS": "/r.md", "DATA_DIR": "/d"}
    variables |= {"TABLE": "2"}
    overrides = compose_target("ablation", variables | {"DATA": "coco"}, ROOT / "conf")[2:]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("ablation", overrides)
    settings = config.ablation
    assert list(settings.presets) == ["sep", "aam"]
    assert list(settings.seeds) == [0, 3]
    assert (settings.protocol, settings.jobs) == ("end_to_end", 2)
    assert settings.reference == "baseline"
    assert (settings.trunk, settings.results) == ("/c/epoch=1.ckpt", "/r.md")
    assert (config.out, config.data.root) == ("/a 'b'", "/d")


def test_reports_name_the_command_as_it_was_typed() -> None:
    variables = {"SEEDS": "3", "PROTOCOL": "heads", "ARGS": "m=0.5 s=32", "HOME": "/h"}
    assert make_command("ablation", variables) == (
        "make ablation PROTOCOL=heads SEEDS=3 ARGS='m=0.5 s=32'"
    )


def test_sweep_passes_several_experiments_and_its_own_settings() -> None:
    assert composed("sweep", "EXP=siamese_gia", "ARGS=alpha=.05,.1 m=.25,.5") == (
        ".venv/bin/python -m deepacc_lightning.sweep experiment=siamese_gia alpha=.05,.1 m=.25,.5"
    )
    variables = {"EXP": "sep, aam", "SEED": "0 1", "SWEEPER": "optuna", "N": "20", "OUT": "o"}
    variables |= {"SPACE": "method", "LAUNCHER": "joblib", "JOBS": "2", "SCALE": "paper"}
    assert composed("sweep", *(f"{k}={v}" for k, v in variables.items())) == (
        ".venv/bin/python -m deepacc_lightning.sweep experiment=sep,aam scale=paper seed=0,1 "
        "sweep.sweeper=optuna sweep.trials=20 sweep@space=method sweep.launcher=joblib "
        f"sweep.jobs=2 sweep.dir={ROOT}/o"
    )


def test_hydra_knows_what_the_variables_of_sweep_become() -> None:
    variables = {"EXP": "sep", "SEED": "3", "SWEEPER": "optuna", "N": "20", "SPACE": "method"}
    variables |= {"LAUNCHER": "ray", "JOBS": "2", "OUT": "/a 'b'", "DATA": "/d"}
    overrides = compose_target("sweep", variables, ROOT / "conf")[2:]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("sweep", overrides)
    settings = config.sweep
    assert (settings.sweeper, settings.trials, settings.launcher) == ("optuna", 20, "ray")
    assert (settings.jobs, settings.dir, config.seed, config.preset) == (2, "/a 'b'", 3, "sep")
    assert config.space.m == "interval(0.0, 0.6)"


def test_compare_passes_each_run_and_how_to_group_them() -> None:
    command = composed(
        *("compare", "RUNS=runs/a 'runs/b c' runs/x-*", "OUT=o", "BY=preset,alpha", "REF=sep"),
    )
    assert command == (
        f".venv/bin/python -m deepacc_lightning.compare {ROOT}/runs/a '{ROOT}/runs/b c' "
        f"'{ROOT}/runs/x-*' --out {ROOT}/o --by preset,alpha --ref sep"
    )


def test_data_targets() -> None:
    assert composed("data", "FORMAT=voc", "SRC=/a b", "OUT=/c", "SPLIT=official", "SEED=1") == (
        ".venv/bin/python -m deepacc_d2.data.convert --format voc --src '/a b' --out /c "
        "--split official --seed 1"
    )
    assert composed("data-check", "DATA_DIR=/d") == (
        ".venv/bin/python -m deepacc_d2.data.validate /d"
    )
    assert composed("synthetic", "OUT=/s", "ARGS=--train 4") == (
        ".venv/bin/python -m deepacc_d2.data.synthetic --out /s --train 4"
    )
    two = ".venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder"
    assert composed("test", "ARGS=-k aam") == f"{two} -k aam"
    assert composed("coverage") == f"{two} --cov --cov-report=term"
    assert composed("bench") == ".venv/bin/python tests/benchmarks/run.py"
    given = ("SEED=3", "MINUTES=5", "PARTS=images soak", "OUT=/t", "RESULTS=/r.md")
    assert composed("torture", *given) == (
        ".venv/bin/python tests/torture/run.py --seed 3 --minutes 5 --parts 'images soak' --out /t"
        " --results /r.md"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["context", "DATA=/d"], "make context needs CKPT= as in: make context CKPT="),
        (["explain", "CKPT=a.ckpt"], "make explain needs IMAGE= as in: make explain IMAGE="),
        (["compare"], "make compare needs RUNS= as in: make compare RUNS="),
        (["compare", "RUNS='a"], "RUNS='a: no closing quotation"),
        (["data", "FORMAT=voc"], "make data needs SRC= and OUT= as in: make data FORMAT="),
        (["data-check"], "make data-check needs DATA_DIR="),
        (["synthetic"], "make synthetic needs OUT="),
        (["train", "DATA=/a", "DATA_DIR=/b"], "DATA=/a is a directory already"),
        (["train", "ARGS='a"], "ARGS='a: no closing quotation"),
        (["train", "RESUME=/a", "CKPT=/b"], "RESUME continues a run in its directory"),
    ],
)
def test_wrong_variables_get_one_line_and_status_2(arguments: list[str], message: str) -> None:
    result = make(*arguments)
    own, by_make = result.stderr.splitlines()
    assert own.startswith(f"error: {message}")
    assert by_make.startswith("make: ***")
    assert result.returncode == 2


def test_old_or_absent_python_gets_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] || exit 1\necho Python 3.9.2\n')
    old.chmod(0o755)
    for python, found in ((str(old), "3.9.2"), ("/no/python", "not found")):
        result = make("setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
        assert result.returncode == 2
        assert result.stderr.splitlines()[0] == (
            f"error: Python 3.11 or newer is needed and {python} is {found}; "
            "name one with PYTHON=/path/to/python3.11"
        )
    assert not (tmp_path / "venv").exists()


def test_data_names_a_config_before_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = data_overrides
    (tmp_path / "data").mkdir(parents=True)
    (tmp_path / "data" / "synthetic.yaml").touch()
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert overrides({"DATA": "synthetic"}, tmp_path) == ["data=synthetic"]
    assert overrides({"DATA": "mine"}, tmp_path) == ["data=coco", f"data.root={tmp_path}/mine"]
    assert overrides({"DATA": "sets/mine"}, tmp_path)[0] == "data=coco"
    assert overrides({"DATA": "tpyo"}, tmp_path) == ["data=tpyo"]  # Hydra lists what exists


def test_data_may_be_several_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "my cells", "a b"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sets")
    sets = tmp_path / "sets"

    def roots(data: str, target: str = "train") -> object:
        _, _, *overrides = compose_target(target, {"DATA": data, "CKPT": "/c.ckpt"}, ROOT / "conf")
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose(target, overrides).data.root

    # The whole is tried first: a directory of this name is one data set.
    assert roots("a b") == str(sets / "a b")
    assert roots(f"{sets}/a b") == str(sets / "a b")
    (sets / "a b").rmdir()
    for target in ("train", "ablation", "sweep"):
        assert roots("a  b", target) == [str(sets / "a"), str(sets / "b")]
    assert roots("'my cells' ../sets/b") == [str(sets / "my cells"), str(sets / ".." / "sets/b")]
    assert roots("my cells") == roots("'my cells'") == str(sets / "my cells")
    error = ConfigError
    for target in ("evaluate", "karyotype", "robustness"):
        with pytest.raises(error, match=r"names 2 data sets: .* this target takes one"):
            roots("a b", target)
    with pytest.raises(error, match="there is no directory synthetic; several data sets are named"):
        roots("synthetic a")
    with pytest.raises(error, match="no closing quotation"):
        roots("'a b")


@pytest.mark.parametrize(
    "path",
    ["/a/b.c", "/a b/c", "/a/epoch=3,step=4.ckpt", "/a'b", '/a"b', "/a\\", '/a\\"b', "/a{b}[c]#~!"],
)
def test_hydra_reads_paths_as_they_were(path: str) -> None:
    override = f"data.root={hydra_value(path)}"
    assert OverridesParser.create().parse_overrides([override])[0].value() == path


# Environment


@pytest.fixture
def checkout(scripts: dict[str, ModuleType], tmp_path: Path) -> Path:
    """A copy of what decides the environment's state."""
    (tmp_path / "requirements").mkdir()
    for name in (*scripts["setup_env"].LOCKS, *(f"{extra}.lock" for extra in EXTRAS)):
        (tmp_path / "requirements" / name).write_bytes((REQUIREMENTS / name).read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return tmp_path


def test_stamp_follows_contents_not_times(scripts: dict[str, ModuleType], checkout: Path) -> None:
    setup_env = scripts["setup_env"]
    before = setup_env.wanted_stamp(checkout)
    lock = checkout / "requirements" / "project.lock"
    os.utime(lock, (1, 1))
    assert setup_env.wanted_stamp(checkout) == before
    lock.write_text(lock.read_text().replace("numpy==", "numpie=="))
    after = setup_env.wanted_stamp(checkout)
    assert after["lock"] != before["lock"]
    assert after["project"] == before["project"]
    assert set(after["packages"]) ^ set(before["packages"]) == {"numpy", "numpie"}


def test_stamp_follows_packaging_but_not_tool_settings(
    scripts: dict[str, ModuleType], checkout: Path
) -> None:
    wanted = scripts["setup_env"].wanted_stamp
    before, pyproject = wanted(checkout), checkout / "pyproject.toml"
    text = pyproject.read_text()
    pyproject.write_text(text.replace("line-length = 100", "line-length = 99"))
    assert wanted(checkout) == before
    pyproject.write_text(text.replace('    "deepacc_d2.losses",\n', ""))
    assert wanted(checkout)["project"] != before["project"]


def test_unfinished_environment_counts_as_none(
    scripts: dict[str, ModuleType], checkout: Path
) -> None:
    setup_env = scripts["setup_env"]
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    assert setup_env.read_stamp(venv) is None
    (venv / "stamp.json").write_text("{")
    assert setup_env.read_stamp(venv) is None
    wanted = setup_env.wanted_stamp(checkout)
    setup_env.write_stamp(venv, wanted)
    assert setup_env.read_stamp(venv) is None  # its Python is gone
    (venv / "bin" / "python").symlink_to(sys.executable)
    assert setup_env.is_current(setup_env.read_stamp(venv), wanted)
    assert not setup_env.is_current(setup_env.read_stamp(venv), {**wanted, "lock": "other"})


def test_extras_are_of_the_stamp_and_stay_chosen(
    scripts: dict[str, ModuleType], checkout: Path
) -> None:
    setup_env = scripts["setup_env"]
    plain, with_two = setup_env.wanted_stamp(checkout), setup_env.wanted_stamp(checkout, EXTRAS[:2])
    assert (plain["lock"], plain["extras"]) == (with_two["lock"], {})
    assert set(with_two["packages"]) > set(plain["packages"]) | {"optuna", "joblib"}
    assert not setup_env.is_current(plain, with_two)
    assert setup_env.is_current({k: v for k, v in plain.items() if k != "extras"}, plain)
    lock = checkout / "requirements" / "optuna.lock"
    lock.write_text(lock.read_text().replace("optuna==", "optuma=="))
    changed = setup_env.wanted_stamp(checkout, EXTRAS[:2])
    assert changed["extras"]["optuna"] != with_two["extras"]["optuna"]
    assert changed["extras"]["joblib"] == with_two["extras"]["joblib"]


def test_an_environment_keeps_its_extras_and_gets_only_what_is_new(
    scripts: dict[str, ModuleType], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_env = scripts["setup_env"]
    installed: list[str] = []
    monkeypatch.setattr(setup_env, "ROOT", checkout)
    monkeypatch.setattr(setup_env, "REQUIREMENTS", checkout / "requirements")
    monkeypatch.setattr(
        setup_env, "pip", lambda python, *args, what: installed.append(" ".join((*args, what)))
    )
    wanted = setup_env.wanted_stamp
    monkeypatch.setattr(setup_env, "wanted_stamp", lambda extras=(): wanted(checkout, extras))
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    setup_env.write_stamp(venv, {"python": setup_env.python_version(), **wanted(checkout)})

    setup_env.ensure(venv, ["optuna"])
    assert [text for text in installed if "optuna.lock" in text]
    assert not [text for text in installed if "project.lock" in text or "joblib.lock" in text]
    assert setup_env.read_stamp(venv)["extras"].keys() == {"optuna"}
    installed.clear()
    setup_env.ensure(venv)  # as every later make
    assert installed == []
    setup_env.ensure(venv, ["joblib"])
    assert not [text for text in installed if "optuna.lock" in text or "uninstall" in text]
    assert setup_env.read_stamp(venv)["extras"].keys() == {"joblib", "optuna"}

    # What cannot be had, offline say, is not asked for again by a make that does not name it.
    def fail(*arguments: str, what: str) -> None:
        raise SystemExit(2)

    monkeypatch.setattr(setup_env, "pip", fail)
    with pytest.raises(SystemExit):
        setup_env.ensure(venv, ["ray"])
    assert setup_env.chosen_extras(venv) == ["joblib", "optuna"]


@pytest.mark.parametrize(
    ("text", "names"), [("", []), ("optuna", ["optuna"]), (" ray, joblib", ["joblib", "ray"])]
)
def test_extras_are_divided_by_blanks_or_commas(
    scripts: dict[str, ModuleType], text: str, names: list[str]
) -> None:
    assert scripts["setup_env"].parse_extras(text) == names


def test_unknown_extra_gets_one_line(tmp_path: Path) -> None:
    result = make("setup", "EXTRAS=optna", f"VENV={tmp_path / 'venv'}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[0] == (
        f"error: EXTRAS=optna: unknown extra optna: there is {', '.join(EXTRAS)}"
    )
    assert not (tmp_path / "venv").exists()


def test_setup_spares_foreign_directories(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").touch()
    result = make("setup", f"VENV={tmp_path}")
    assert result.returncode == 2
    assert "is no virtual environment" in result.stderr.splitlines()[-2]
    assert (tmp_path / "precious.txt").exists()
