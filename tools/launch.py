"""Runs a make target's program in the project's environment: `launch.py TARGET`.

Reads make's variables (EXP, DATA, ...) from the environment, where make exports them, composes the
program's arguments, makes sure that the environment is complete (setup_env.py) and replaces itself
by the program, so that Ctrl-C and the exit status are the program's own. Going through Python
instead of recipe text keeps every value in one piece, whatever blanks and quotes it holds.
`make -n` prints the command. Only the standard library may be imported here.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import setup_env

ROOT = setup_env.ROOT
Variables = Mapping[str, str]


# glibc gives a large tensor's pages back to the kernel when it is freed and takes new, zeroed ones
# for the next. Kept instead, a CPU training step has half the page faults and is a tenth faster.
DEFAULT_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    # Detectron2 calls what torch has deprecated: nothing that a user could do about.
    "PYTHONWARNINGS": "ignore::FutureWarning:torch.jit._script",
}

# The tests' processes share the cores; more threads in each would only wait for each other.
TEST_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class UsageError(Exception):
    """A variable is missing or contradicts another; the message is one line."""


def hydra_value(text: str) -> str:
    """`text` as one value of Hydra's override grammar, quoted only where that is needed."""
    if re.fullmatch(r"[\w./@%+-]*[./][\w./@%+-]*", text, flags=re.ASCII):
        return text  # a plain path: has a dot or a slash, so is no number, boolean or null
    # Backslashes are special to Hydra only in front of a quote, the closing one included.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def absolute(path: str) -> str:
    """`path` made absolute, since a program may change its directory; "~" is expanded."""
    return str(Path(path).expanduser().absolute())


def require(variables: Variables, target: str, example: str, *names: str) -> None:
    """Raise UsageError unless all `names` are set."""
    missing = [name for name in names if not variables.get(name)]
    if missing:
        needs = " and ".join(f"{name}=" for name in missing)
        raise UsageError(f"make {target} needs {needs} as in: make {target} {example}")


def directories(data: str) -> list[str]:
    """The directories that DATA names: all of it where it is one, else its words.

    Words are divided by blanks; one that holds blanks itself is in quotes.
    """
    if len(data.split()) < 2 or Path(data).expanduser().is_dir():
        return [data]
    try:
        words = shlex.split(data)
    except ValueError as error:
        raise UsageError(f"DATA={data}: {str(error).lower()}") from error
    for word in words:
        if not Path(word).expanduser().is_dir():
            raise UsageError(
                f"DATA={data}: there is no directory {word}; several data sets are named by their "
                "directories, with quotes around one that has blanks in its name"
            )
    return words


def data_overrides(variables: Variables, root: Path, *, several: bool = False) -> list[str]:
    """Hydra overrides for DATA and DATA_DIR.

    DATA is the name of a file in conf/data or the directory of a data set in the internal format,
    or such directories where the target takes `several`.
    """
    data, data_dir = variables.get("DATA", ""), variables.get("DATA_DIR", "")
    named = (root / "conf" / "data" / f"{data}.yaml").is_file()
    overrides = []
    if data and not named and (re.search(r"[/\s]", data) or Path(data).expanduser().is_dir()):
        if data_dir:
            raise UsageError(f"DATA={data} is a directory already: leave DATA_DIR out")
        overrides.append("data=coco")
        found = directories(data)
        if len(found) > 1:
            if not several:
                raise UsageError(
                    f"DATA={data} names {len(found)} data sets: train, context, ablation and sweep "
                    "take several, this target takes one"
                )
            return [*overrides, f"data.root=[{','.join(hydra_value(absolute(p)) for p in found)}]"]
        data_dir = found[0]
    elif data:
        overrides.append(f"data={data}")
    if data_dir:
        overrides.append(f"data.root={hydra_value(absolute(data_dir))}")
    return overrides


def model_overrides(
    variables: Variables, root: Path, keys: Mapping[str, str], *, several: bool = False
) -> list[str]:
    """Hydra overrides of a target that runs a model; what is unset is left to Hydra.

    `keys` maps the variables that hold plain values to the target's configuration keys; `several`
    says whether it takes several data sets.
    """
    overrides = [f"{key}={variables[name]}" for name, key in keys.items() if variables.get(name)]
    overrides += data_overrides(variables, root, several=several)
    if variables.get("OUT"):
        overrides.append(f"out={hydra_value(absolute(variables['OUT']))}")
    return overrides


def paths(variables: Variables, *names: str) -> list[str]:
    """Hydra overrides of the variables that hold a path, where they are set."""
    return [
        f"{name.lower()}={hydra_value(absolute(variables[name]))}"
        for name in names
        if variables.get(name)
    ]


def train(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make train`."""
    keys = {"EXP": "experiment", "SCALE": "scale", "SEED": "seed"}
    overrides = model_overrides(variables, root, keys, several=True)
    arguments = ["-m", "deepacc_lightning.train", *overrides]
    if variables.get("CKPT") and variables.get("RESUME"):
        raise UsageError(
            "RESUME continues a run in its directory, CKPT starts another one from a checkpoint: "
            "pass one of them"
        )
    for name, key in (("CKPT", "ckpt_path"), ("RESUME", "resume")):
        if variables.get(name):
            arguments.append(f"{key}={hydra_value(absolute(variables[name]))}")
    return arguments


def evaluate(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make evaluate`.

    The checkpoint knows its experiment and scale: EXP and SCALE only say what it has to be.
    """
    keys = {"EXP": "preset", "SCALE": "scale_name", "SEED": "seed"}
    overrides = [*paths(variables, "CKPT"), *model_overrides(variables, root, keys)]
    return ["-m", "deepacc_lightning.evaluate", *overrides]


def explain(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make explain`."""
    require(variables, "explain", "IMAGE=slides/a.tif", "IMAGE")
    overrides = model_overrides(variables, root, {"EXP": "preset", "SCALE": "scale_name"})
    return ["-m", "deepacc_lightning.explain", *paths(variables, "CKPT", "IMAGE"), *overrides]


def predict(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make predict`."""
    require(variables, "predict", "IMAGES=slides OUT=results", "IMAGES")
    arguments = ["-m", "deepacc_lightning.predict", *paths(variables, "CKPT", "IMAGES", "OUT")]
    cases = variables.get("CASES")
    if cases:
        arguments.append(f"cases={cases if cases == 'folder' else hydra_value(absolute(cases))}")
    return [*arguments, *switch(variables, "OVERWRITE", "overwrite")]


def robustness(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make robustness`."""
    overrides = model_overrides(variables, root, {"SEED": "seed"})
    return ["-m", "deepacc_lightning.robustness", *paths(variables, "CKPT"), *overrides]


def karyotype(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make karyotype`."""
    require(variables, "karyotype", "CKPT=best.ckpt DATA=data/mine OUT=runs/karyotype", "DATA")
    overrides = [*paths(variables, "CKPT"), *model_overrides(variables, root, {})]
    return ["-m", "deepacc_lightning.karyotype", *overrides]


def context(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make context`."""
    example = "CKPT=runs/deepacc/checkpoints/best.ckpt DATA=data/mine OUT=runs/context"
    require(variables, "context", example, "CKPT", "DATA")
    checkpoint = f"ckpt={hydra_value(absolute(variables['CKPT']))}"
    overrides = model_overrides(variables, root, {"SEED": "seed"}, several=True)
    return ["-m", "deepacc_lightning.context", checkpoint, *overrides]


def switch(variables: Variables, name: str, key: str) -> list[str]:
    """The override of a variable that is 1 or unset (0).

    Raises:
        UsageError: it is something else.
    """
    value = variables.get(name) or "0"
    if value not in ("0", "1"):
        raise UsageError(f"{name}={value}: write {name}=1, or leave it out")
    return [f"{key}=true"] if value == "1" else []


def export(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make export`."""
    example = "CKPT=runs/siamese_gia/checkpoints/best.ckpt FORMAT=onnx OUT=deepacc.onnx"
    require(variables, "export", example, "CKPT", "FORMAT")
    checkpoint = f"ckpt={hydra_value(absolute(variables['CKPT']))}"
    keys = {"FORMAT": "format", "PRECISION": "precision"}
    return [
        "-m",
        "deepacc_lightning.export",
        checkpoint,
        *model_overrides(variables, root, keys),
        *switch(variables, "OVERWRITE", "overwrite"),
    ]


def ablation(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make ablation`.

    EXPS are names divided by blanks or commas; SEEDS is a count, or seeds divided by commas.
    """
    keys = {
        "SCALE": "scale",
        "PROTOCOL": "ablation.protocol",
        "JOBS": "ablation.jobs",
    }
    overrides = model_overrides(variables, root, keys, several=True)
    if variables.get("EXPS"):
        overrides.append(f"ablation.presets=[{','.join(re.split('[ ,]+', variables['EXPS']))}]")
    seeds = variables.get("SEEDS", "").replace(" ", "")
    if seeds:
        listed = "," in seeds and not seeds.startswith("[")
        overrides.append(f"ablation.seeds={f'[{seeds}]' if listed else seeds}")
    for name, key in (("CKPT", "ablation.trunk"), ("RESULTS", "ablation.results")):
        if variables.get(name):
            overrides.append(f"{key}={hydra_value(absolute(variables[name]))}")
    return ["-m", "deepacc_lightning.ablation", *overrides]


def sweep(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make sweep`.

    EXP and SEED may be several, divided by commas or blanks. OUT is the folder of the sweep.
    """
    lists = {n: ",".join(re.split("[ ,]+", variables.get(n, "").strip())) for n in ("EXP", "SEED")}
    keys = {
        **{"EXP": "experiment", "SCALE": "scale", "SEED": "seed", "SWEEPER": "sweep.sweeper"},
        **{"N": "sweep.trials", "SPACE": "sweep@space", "LAUNCHER": "sweep.launcher"},
        "JOBS": "sweep.jobs",
    }
    overrides = model_overrides({**variables, **lists, "OUT": ""}, root, keys, several=True)
    if variables.get("OUT"):
        overrides.append(f"sweep.dir={hydra_value(absolute(variables['OUT']))}")
    if variables.get("CKPT"):
        overrides.append(f"ckpt_path={hydra_value(absolute(variables['CKPT']))}")
    return ["-m", "deepacc_lightning.sweep", *overrides]


def compare(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make compare`.

    RUNS are directories or shell patterns divided by blanks, in quotes where one holds blanks.
    """
    require(variables, "compare", 'RUNS="runs/a runs/b"', "RUNS")
    try:
        runs = shlex.split(variables["RUNS"])
    except ValueError as error:
        raise UsageError(f"RUNS={variables['RUNS']}: {str(error).lower()}") from error
    arguments = ["-m", "deepacc_lightning.compare", *map(absolute, runs)]
    if variables.get("OUT"):
        arguments += ["--out", absolute(variables["OUT"])]
    for name in ("BY", "REF"):
        if variables.get(name):
            arguments += [f"--{name.lower()}={variables[name]}"]
    return arguments


def dashboard(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make dashboard`."""
    overrides = [
        f"{name.lower()}={hydra_value(variables[name])}"
        for name in ("PROJECT", "ENTITY")
        if variables.get(name)
    ]
    if variables.get("OUT"):
        overrides.append(f"out={hydra_value(absolute(variables['OUT']))}")
    return ["-m", "deepacc_lightning.dashboard", *overrides]


def data(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make data`."""
    example = "FORMAT=tseng2023 SRC=downloads/tseng2023 OUT=data/tseng2023"
    require(variables, "data", example, "FORMAT", "SRC", "OUT")
    arguments = ["-m", "deepacc_d2.data.convert", "--format", variables["FORMAT"]]
    arguments += ["--src", absolute(variables["SRC"]), "--out", absolute(variables["OUT"])]
    for name in ("SPLIT", "SEED"):
        if variables.get(name):
            arguments += [f"--{name.lower()}", variables[name]]
    return arguments


def data_check(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make data-check`."""
    require(variables, "data-check", "DATA_DIR=data/tseng2023", "DATA_DIR")
    return ["-m", "deepacc_d2.data.validate", absolute(variables["DATA_DIR"])]


def synthetic(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make synthetic`."""
    require(variables, "synthetic", "OUT=data/synthetic", "OUT")
    arguments = ["-m", "deepacc_d2.data.synthetic", "--out", absolute(variables["OUT"])]
    if variables.get("SEED"):
        arguments += ["--seed", variables["SEED"]]
    return arguments


def test(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make test`: two processes, each with whole files; ARGS="-n 0" for one."""
    return ["-m", "pytest", "-n", "2", "--dist", "loadfile"]


def coverage(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make coverage`."""
    return [*test(variables, root), "--cov", "--cov-report=term"]


def bench(variables: Variables, root: Path) -> list[str]:
    """Arguments of `make bench`."""
    return [str(Path("tests") / "benchmarks" / "run.py")]


NAMED = (
    *("PROTOCOL", "EXPS", "SEEDS", "SCALE", "DATA", "DATA_DIR", "CKPT"),
    *("PROJECT", "ENTITY", "OUT", "ARGS"),
)
"""Variables that decide a result, in the order in which reports name them."""

TARGETS: dict[str, Callable[[Variables, Path], list[str]]] = {
    "train": train,
    "evaluate": evaluate,
    "ablation": ablation,
    "sweep": sweep,
    "compare": compare,
    "dashboard": dashboard,
    "predict": predict,
    "robustness": robustness,
    "karyotype": karyotype,
    "context": context,
    "explain": explain,
    "export": export,
    "data": data,
    "data-check": data_check,
    "synthetic": synthetic,
    "test": test,
    "coverage": coverage,
    "bench": bench,
}


def make_command(target: str, variables: Variables) -> str:
    """The make command line that was typed, for reports that name it."""
    words = ["make", target]
    words += [f"{n}={shlex.quote(variables[n])}" for n in NAMED if variables.get(n)]
    return " ".join(words)


def compose(target: str, variables: Variables, root: Path = ROOT) -> list[str]:
    """The Python arguments of a target, ARGS last.

    Raises:
        UsageError: a required variable is missing, DATA and DATA_DIR contradict each other, or
            ARGS has an unclosed quote.
    """
    try:
        extra = shlex.split(variables.get("ARGS", ""))
    except ValueError as error:
        raise UsageError(f"ARGS={variables['ARGS']}: {str(error).lower()}") from error
    return [*TARGETS[target](variables, root), *extra]


def is_dry_run(makeflags: str) -> bool:
    """Whether make was called with -n: single-letter flags are the first word of MAKEFLAGS."""
    first = makeflags.split(" ", maxsplit=1)[0]
    return "n" in first and "=" not in first and not first.startswith("--")


def main() -> None:
    """Command line: see the module's docstring."""
    if len(sys.argv) != 2 or sys.argv[1] not in TARGETS:
        setup_env.fail(f"usage: launch.py {'|'.join(TARGETS)}")
    venv = Path(os.environ.get("VENV") or ".venv")
    python = venv / "bin" / "python"
    try:
        arguments = compose(sys.argv[1], os.environ)
        if is_dry_run(os.environ.get("MAKEFLAGS", "")):
            print(shlex.join([str(python), *arguments]))
            return
        setup_env.ensure(ROOT / venv, setup_env.parse_extras(os.environ.get("EXTRAS", "")))
    except UsageError as error:
        setup_env.fail(str(error))
    except KeyboardInterrupt:
        setup_env.fail("interrupted; the next make installs what is missing", status=130)
    os.chdir(ROOT)
    tests = TEST_ENVIRONMENT if sys.argv[1] in ("test", "coverage") else {}
    for name, value in {**DEFAULT_ENVIRONMENT, **tests}.items():
        os.environ.setdefault(name, value)
    os.environ["DEEPACC_COMMAND"] = make_command(sys.argv[1], os.environ)
    os.execv(python, [str(python), *arguments])


if __name__ == "__main__":
    main()
