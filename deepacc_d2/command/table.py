"""The one table of commands and make targets, and of what each takes.

``scripts/launch.py``, ``make help``, ``deepacc --help``, the shells' completion, the parsers of
programs with flags and docs/COMMAND.md read it.
"""

from __future__ import annotations

from deepacc_d2.command.options import DEVELOPMENT, Command, Option

EXP = Option(
    "experiment",
    "name of a file in conf/experiment, such as sep",
    "EXP",
)
SCALE = Option("scale", "quick (minutes), lab (any magnification) or paper", "SCALE")
SEED = Option("seed", "random seed", "SEED")
DATA = Option(
    "data",
    "a name in conf/data, or the folder of a data set",
    "DATA",
    "data",
)
DATA_DIR = Option("data.root", "folder of the data set, if data is a name", "DATA_DIR")
CKPT = Option("ckpt", "checkpoint that a training wrote", "CKPT", "path")
KNOWN = CKPT._replace(help="checkpoint; default: the included detector")
SHIPPED = CKPT._replace(help="checkpoint, .onnx or .xml; default: the included detector")
OUT = Option("out", "output directory", "OUT", "path")
OVERWRITE = Option("overwrite", "replace what is at the output", "OVERWRITE", "switch")
IS_PRESET = Option("preset", "refuse a checkpoint of another preset", "EXP")
IS_SCALE = Option("scale_name", "refuse a checkpoint of another scale", "SCALE")
JOBS = Option("ablation.jobs", "jobs that run at the same time", "JOBS")


def _needed(option: Option) -> Option:
    return option._replace(required=True)


MODEL = (
    Command(
        "train",
        "Model",
        "train a detector and evaluate it",
        "EXP=baseline",
        ("-m", "deepacc_lightning.train"),
        (
            *(EXP, SCALE, SEED, DATA, DATA_DIR, OUT),
            Option("ckpt_path", "checkpoint that a new training starts from", "CKPT", "path"),
            Option("resume", "run directory of a stopped training to continue", "RESUME", "path"),
        ),
        config="train",
        several=True,
        exclusive=(
            "CKPT",
            "RESUME",
            "RESUME continues a run in its directory, CKPT starts another one from a checkpoint: "
            "pass one of them",
        ),
    ),
    Command(
        "context",
        "Model",
        "add cell context to a detector",
        "CKPT=best.ckpt DATA=data/mine",
        ("-m", "deepacc_lightning.context"),
        (_needed(CKPT), SEED, _needed(DATA), DATA_DIR, OUT),
        config="context",
        several=True,
    ),
    Command(
        "masks",
        "Model",
        "add instance masks to a detector",
        "CKPT=best.ckpt DATA=data/mine",
        ("-m", "deepacc_lightning.masks"),
        (
            *(_needed(CKPT), SEED, _needed(DATA), DATA_DIR, OUT),
            Option("start", "checkpoint whose masks are reused", "START", "path"),
        ),
        config="masks",
        several=True,
    ),
    Command(
        "ablation",
        "Model",
        "compare the presets of the paper's tables",
        "PROTOCOL=heads SEEDS=3",
        ("-m", "deepacc_lightning.ablation"),
        (
            Option("table", "1: DeepACC's parts (default); 2: other detectors", "TABLE", "text"),
            SCALE,
            Option("ablation.protocol", "heads (on one frozen trunk) or end_to_end", "PROTOCOL"),
            *(JOBS, DATA, DATA_DIR, OUT),
            Option("ablation.presets", "presets to train; default: the table's", "EXPS", "list"),
            Option("ablation.seeds", "how many seeds (3), or which (0,1,2)", "SEEDS", "seeds"),
            Option("ablation.trunk", "checkpoint whose trunk all presets share", "CKPT", "path"),
            Option("ablation.results", "Markdown file to put the table into", "RESULTS", "path"),
        ),
        config="ablation",
        several=True,
    ),
    Command(
        "peers",
        "Model",
        "compare other detectors with ours",
        "DATA=data/mine MINUTES=30",
        ("-m", "deepacc_lightning.peers"),
        (
            *(_needed(DATA), DATA_DIR, OUT, SEED),
            Option("peers", "detectors: presets, faster_rcnn, yolo9-t, ...", "PEERS", "list"),
            Option("minutes", "training time of each, in wall-clock minutes", "MINUTES"),
            Option("results", "Markdown file to put the table into", "RESULTS", "path"),
        ),
        config="peers",
        several=True,
    ),
    Command(
        "sweep",
        "Model",
        "train over a grid or a search space",
        'EXP=siamese_gia ARGS="m=.25,.5"',
        ("-m", "deepacc_lightning.sweep"),
        (
            EXP._replace(kind="several", help="experiments, such as sep,siamese_gia"),
            SCALE,
            SEED._replace(kind="several", help="random seeds, such as 0,1"),
            Option("sweep.sweeper", "grid (all combinations) or optuna", "SWEEPER"),
            Option("sweep.trials", "number of optuna trials in all", "N"),
            Option("sweep@space", "search space of optuna: a file in conf/sweep", "SPACE"),
            Option("sweep.launcher", "basic, processes, joblib, submitit or ray", "LAUNCHER"),
            *(JOBS._replace(key="sweep.jobs"), DATA, DATA_DIR),
            OUT._replace(key="sweep.dir"),
            Option("ckpt_path", "checkpoint that every job starts from", "CKPT", "path"),
        ),
        config="sweep",
        several=True,
    ),
    Command(
        "evaluate",
        "Model",
        "evaluate a checkpoint on a test split",
        "DATA=data/mine",
        ("-m", "deepacc_lightning.evaluate"),
        (KNOWN, IS_PRESET, IS_SCALE, SEED, DATA, DATA_DIR, OUT),
        config="evaluate",
    ),
    Command(
        "compare",
        "Model",
        "compare runs in a table and an HTML page",
        'RUNS="runs/a runs/b"',
        ("-m", "deepacc_lightning.compare"),
        (
            Option("runs", "run directories, folders of runs, or patterns", "RUNS", "runs", True),
            OUT._replace(default="runs/compare"),
            Option("by", "keys to group by, such as preset,alpha; default: all that differ", "BY"),
            Option("ref", "reference group: preset or key=value; default: sep or the first", "REF"),
            Option("resamples", "bootstrap resamples; 0 leaves the bootstrap out", default=1000),
            Option("title", "title of the page"),
        ),
    ),
    Command(
        "dashboard",
        "Model",
        "make or update the W&B dashboard of a project",
        "PROJECT=deepacc-d2",
        ("-m", "deepacc_lightning.dashboard"),
        (
            Option("project", "W&B project; default: deepacc-d2", "PROJECT", "text"),
            Option("entity", "its user or team; default: who is logged in", "ENTITY", "text"),
            OUT._replace(help="file of the dashboard's description"),
        ),
        config="dashboard",
    ),
    Command(
        "predict",
        "Model",
        "turn images into karyograms and karyotypes",
        "IMAGES=slides OUT=results",
        ("-m", "deepacc_lightning.predict"),
        (
            SHIPPED,
            Option("images", 'image, folder or pattern: "a/**/*.tif"', "IMAGES", "path", True),
            OUT,
            Option("cases", "folder (each folder is a case), or a CSV of cases", "CASES", "folder"),
            Option("worksheet", "CSV of header fields for case worksheets", "WORKSHEET", "path"),
            Option("cells", "CSV with slide, coordinates and reviewer of cells", "CELLS", "path"),
            Option("crops", "also write each chromosome as a PNG", "CROPS", "switch"),
            Option("engine", "lightning (this machine) or ray (a cluster)", "LAUNCHER"),
            OVERWRITE._replace(help="remove the results in OUT first; default: continue them"),
        ),
        config="predict",
        many_sizes=True,
    ),
    Command(
        "review",
        "Model",
        "correct, confirm and sign results in a browser",
        "OUT=results",
        ("-m", "deepacc_d2.review"),
        (
            Option("results", "folder that predict wrote; see docs/REVIEW.md", "OUT", "path", True),
            Option("port", "port of the server", default=8765),
            Option("address", "address that the server listens on", default="127.0.0.1"),
            Option("browse", "open a browser", kind="switch"),
            Option("rule", "cells to count, analyze and karyotype", default="20,5,5"),
            Option("user", "who works alone here; the system's name by default"),
        ),
        actions=("serve", "verify", "export", "dataset", "backup", "restore", "user"),
        many_sizes=True,
    ),
    Command(
        "explain",
        "Model",
        "draw how chromosomes got their classes",
        "IMAGE=slides/a.tif",
        ("-m", "deepacc_lightning.explain"),
        (
            KNOWN,
            Option("image", "image file to explain", "IMAGE", "path", True),
            *(IS_PRESET, IS_SCALE, DATA, DATA_DIR),
            OUT._replace(help="a .png, .pdf or .svg file, or a folder"),
        ),
        config="explain",
    ),
    Command(
        "robustness",
        "Model",
        "measure metrics on rescaled, inverted and noisy images",
        "DATA=data/mine",
        ("-m", "deepacc_lightning.robustness"),
        (SHIPPED, SEED, DATA, DATA_DIR, OUT),
        config="robustness",
    ),
    Command(
        "karyotype",
        "Model",
        "calibrate on val, evaluate karyotypes on test",
        "DATA=data/mine",
        ("-m", "deepacc_lightning.karyotype"),
        (SHIPPED, _needed(DATA), DATA_DIR, OUT),
        config="karyotype",
    ),
    Command(
        "export",
        "Model",
        "export a detector to ONNX Runtime or OpenVINO",
        "CKPT=best.ckpt FORMAT=onnx",
        ("-m", "deepacc_lightning.export"),
        (
            _needed(CKPT),
            Option("format", "onnx or openvino", "FORMAT", required=True),
            Option("precision", "fp32; with openvino also bf16 or int8", "PRECISION"),
            DATA._replace(help="data set to check the export on; default: drawn images"),
            *(DATA_DIR, OUT._replace(help="a .onnx or .xml file, or a folder")),
            OVERWRITE,
        ),
        config="export",
    ),
    Command(
        "polarity",
        "Model",
        "train the network that turns the p arm up",
        "DATA=data/mine",
        ("-m", "deepacc_d2.karyogram.orientation.train"),
        (
            Option(
                "data",
                "data set whose train split is used; default: drawn cells alone",
                "DATA",
                "path",
            ),
            OUT._replace(default="runs/polarity"),
            CKPT._replace(help="detector whose masks cut chromosomes; default: the included one"),
            SEED._replace(key="seed", default=0),
            Option("images", "real images to use, evenly spaced", default=400),
            Option("drawn", "synthetic cells to draw", default=150),
            Option("steps", "training steps in all rounds", default=2000),
            Option("thresholds", "cut by thresholds instead of masks", kind="switch"),
        ),
    ),
    Command(
        "release",
        "Model",
        "make a small copy of a checkpoint to share",
        "CKPT=best.ckpt CARD=card.yaml OUT=deepacc.ckpt",
        ("-m", "deepacc_d2.release"),
        (
            _needed(CKPT),
            Option("card", "YAML file with the model card", "CARD", "path", True),
            Option("calibration", "calibration.json that karyotype wrote", kind="path"),
            Option("delta", "lowest score of a local class center", kind="number"),
            _needed(OUT)._replace(help="the file to write"),
        ),
        target=False,
    ),
)

SETS = (
    Command(
        "data",
        "Data",
        "convert an annotated data set",
        "FORMAT=voc SRC=downloads/mine OUT=data/mine",
        ("-m", "deepacc_d2.data.convert"),
        (
            Option("format", "tseng2023, voc, coco, yolo or labelme", "FORMAT", required=True),
            Option("src", "the data as downloaded", "SRC", "path", True),
            _needed(OUT)._replace(help="the data set to make"),
            Option("split", "case, or official (the lists in src)", "SPLIT", default="case"),
            Option("seed", "random seed of the split", "SEED", default=0),
            Option("ratios", "shares of train:val:test", default="3:1:1"),
            Option("overwrite", "replace the data set at the output", kind="switch"),
            Option("strict", "refuse a source with defects", kind="switch"),
            Option("case_regex", "regular expression on image paths, groups case and batch"),
            Option("one_based", "VOC coordinates count from 1, inclusive", kind="switch"),
        ),
    ),
    Command(
        "data-check",
        "Data",
        "validate a converted data set",
        "DATA_DIR=data/mine",
        ("-m", "deepacc_d2.data.validate"),
        (Option("root", "the data set to check", "DATA_DIR", "path", True),),
    ),
    Command(
        "synthetic",
        "Data",
        "draw a synthetic data set",
        "OUT=data/drawn",
        ("-m", "deepacc_d2.data.synthetic"),
        (_needed(OUT)._replace(help="folder to make"), SEED._replace(default=0)),
    ),
)

# Two processes, each with whole files, the slow ones first; ARGS="-n 0" uses one.
TESTS = ("-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")

WORK = (
    Command(
        "test",
        DEVELOPMENT,
        "run the tests; -m 'not slow' is the fast half",
        'ARGS="tests/losses -k aam"',
        program=TESTS,
    ),
    Command(
        "coverage",
        DEVELOPMENT,
        "run the tests and print which lines they reach",
        program=(*TESTS, "--cov", "--cov-report=term"),
    ),
    Command("docs", DEVELOPMENT, "build the documentation into site/ and check its links"),
    Command("docs-serve", DEVELOPMENT, "show the documentation as you edit it, on port 8000"),
    Command("lint", DEVELOPMENT, "check style, formatting, imports and types"),
    Command("format", DEVELOPMENT, "reformat the code and fix what ruff can fix"),
    Command(
        "bench",
        DEVELOPMENT,
        "run the timed comparisons (minutes) and save their table",
        program=("tests/benchmarks/run.py",),
    ),
    Command(
        "torture",
        DEVELOPMENT,
        "damage files, kill programs, fill disks (half an hour)",
        "PARTS=soak",
        ("tests/torture/run.py",),
        (
            Option("seed", "random seed", "SEED", default=0),
            Option("minutes", "minutes that it may take on two idle cores", "MINUTES", default=30),
            Option("parts", "which parts; those that passed in OUT are skipped", "PARTS"),
            OUT._replace(default="runs/torture"),
            Option("results", "Markdown file to put the report into", "RESULTS", "path"),
        ),
    ),
    Command("setup", DEVELOPMENT, "make or update .venv, hash-checked", 'EXTRAS="joblib optuna"'),
    Command("lock", DEVELOPMENT, "resolve requirements/*.in anew into the hash-checked locks"),
    Command("clean", DEVELOPMENT, "remove caches and build leftovers; .venv, data and runs stay"),
    Command("help", DEVELOPMENT, "show this list"),
)

COMMANDS = {command.name: command for command in (*MODEL, *SETS, *WORK)}

ARGS = 'further keys: ARGS="trainer.max_steps=100 optim.optimizer.lr=0.01"'
ENVIRONMENT = {
    "PYTHON": "the Python >= 3.11 that .venv is made from",
    "VENV": "the folder of the environment, .venv by default",
    "EXTRAS": "optional packages to add and keep, see docs/INSTALL.md: export ray review ...",
}
"""Variables of every make target."""

NAMED = (
    *("TABLE", "PROTOCOL", "EXPS", "PEERS", "MINUTES", "SEEDS", "SCALE", "DATA", "DATA_DIR"),
    "CKPT",
    *("PROJECT", "ENTITY", "OUT", "ARGS"),
)
"""Variables that decide a result, in the order in which reports name them."""
