"""From what was typed, as make variables or in Hydra's grammar, to the arguments of a program."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from deepacc_d2.command.options import Command, Option
from deepacc_d2.command.table import COMMANDS, NAMED
from deepacc_d2.errors import ConfigError

Variables = Mapping[str, str]

SPECIAL = ("null", "true", "false")


def hydra_value(text: str) -> str:
    """Returns a text as one value of Hydra's override grammar, quoted only where that is needed.

    >>> print(hydra_value("runs/a.ckpt"), hydra_value("epoch=3.ckpt"), hydra_value("12"))
    runs/a.ckpt "epoch=3.ckpt" "12"
    """
    if re.fullmatch(r"[\w./@%+-]*[./][\w./@%+-]*", text, flags=re.ASCII) and not _is_number(text):
        return text  # a plain path: has a dot or a slash
    # Backslashes are special to Hydra only in front of a quote, the closing one included.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def absolute(path: str) -> str:
    """Returns ``path`` made absolute, since a program may change its directory; ~ is expanded."""
    return str(Path(path).expanduser().absolute())


def words_of(name: str, text: str) -> list[str]:
    """Divides a variable's value as a shell would.

    Raises:
        ConfigError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text}: {str(error).lower()}") from error


def directories(data: str) -> list[str]:
    """Returns the directories that DATA names: all of it where it is one, else its words.

    Raises:
        ConfigError: one of several is no directory.
    """
    if len(data.split()) < 2 or Path(data).expanduser().is_dir():
        return [data]
    words = words_of("DATA", data)
    for word in words:
        if not Path(word).expanduser().is_dir():
            raise ConfigError(
                f"DATA={data}: there is no directory {word}; several data sets are named by their "
                "directories, with quotes around one that has blanks in its name"
            )
    return words


def data_overrides(variables: Variables, conf: Path, *, several: bool = False) -> list[str]:
    """Returns Hydra overrides for DATA and DATA_DIR.

    Args:
        variables: DATA is the name of a file in conf/data or the directory of a converted data
            set, or such directories.
        conf: the directory of the configs.
        several: whether the command takes several data sets.

    Raises:
        ConfigError: DATA and DATA_DIR contradict each other, or DATA names too many.
    """
    data, data_dir = variables.get("DATA", ""), variables.get("DATA_DIR", "")
    named = (conf / "data" / f"{data}.yaml").is_file()
    overrides = []
    if data and not named and (re.search(r"[/\s]", data) or Path(data).expanduser().is_dir()):
        if data_dir:
            raise ConfigError(f"DATA={data} is a directory already: leave DATA_DIR out")
        overrides.append("data=coco")
        found = directories(data)
        if len(found) > 1:
            if not several:
                takers = [name for name, command in COMMANDS.items() if command.several]
                raise ConfigError(
                    f"DATA={data} names {len(found)} data sets: {', '.join(takers[:-1])} and "
                    f"{takers[-1]} take several, this target takes one"
                )
            return [*overrides, f"data.root=[{','.join(hydra_value(absolute(p)) for p in found)}]"]
        data_dir = found[0]
    elif data:
        overrides.append(f"data={data}")
    if data_dir:
        overrides.append(f"data.root={hydra_value(absolute(data_dir))}")
    return overrides


# Make variables


def compose(name: str, variables: Variables, conf: Path) -> list[str]:
    """Returns Python's arguments of a make target, ARGS last.

    Raises:
        ConfigError: a required variable is missing, two contradict each other, or ARGS has an
            unclosed quote.
    """
    command = COMMANDS[name]
    words = words_of("ARGS", variables.get("ARGS", ""))
    if {"-h", "--help"} & set(words):
        return [*command.program, *words]
    missing = [
        option.variable
        for option in command.options
        if option.required and not variables.get(option.variable)
    ]
    if missing:
        needs = " and ".join(f"{variable}=" for variable in missing)
        raise ConfigError(f"make {name} needs {needs} as in: make {name} {command.example}")
    if command.exclusive and all(variables.get(one) for one in command.exclusive[:2]):
        raise ConfigError(command.exclusive[2])
    given: list[str] = []
    for option in command.options:
        if option.kind == "data":
            given += data_overrides(variables, conf, several=command.several)
        elif option.key != "data.root" and variables.get(option.variable):
            given += _argument(command, option, variables[option.variable])
    return [*command.program, *given, *words]


def _argument(command: Command, option: Option, text: str) -> list[str]:
    """Returns what a variable's value becomes."""
    if not command.config:
        return _flag(option, text)
    if option.kind == "switch":
        if text not in ("0", "1"):
            name = option.variable
            raise ConfigError(f"{name}={text}: write {name}=1, or leave it out")
        return [f"{option.key}=true"] if text == "1" else []
    return [f"{option.key}={_VALUES.get(option.kind, str)(text)}"]


def _flag(option: Option, text: str) -> list[str]:
    if option.kind == "runs":
        return [absolute(word) for word in words_of(option.variable, text)]
    value = absolute(text) if option.kind == "path" else text
    if is_positional(option):
        return [value]
    flag = f"--{option.key.replace('_', '-')}"
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def _seeds(text: str) -> str:
    seeds = text.replace(" ", "")
    return f"[{seeds}]" if "," in seeds and not seeds.startswith("[") else seeds


def _name(text: str) -> str:
    return hydra_value(text) if "=" in text else text


_VALUES: dict[str, Callable[[str], str]] = {
    "path": lambda text: hydra_value(absolute(text)),
    "folder": lambda text: text if text == "folder" else hydra_value(absolute(text)),
    "text": hydra_value,
    "list": lambda text: f"[{','.join(map(_name, re.split('[ ,]+', text.strip())))}]",
    "several": lambda text: ",".join(re.split("[ ,]+", text.strip())),
    "seeds": _seeds,
}


def make_command(target: str, variables: Variables) -> str:
    """Returns the make command line that was typed, for reports that name it."""
    words = ["make", target]
    words += [f"{n}={shlex.quote(variables[n])}" for n in NAMED if variables.get(n)]
    return " ".join(words)


# Words of `deepacc`


def arguments_of(command: Command, words: Iterable[str], conf: Path) -> list[str]:
    """Returns Python's arguments of a command with words in Hydra's grammar.

    Paths may hold what the grammar would need quotes for, and ``data`` may be a directory.

    Raises:
        ConfigError: a required key is missing, or a key of a program without config is unknown.
    """
    words = list(words)
    if not any(word.startswith("-") for word in words):
        _check_required(command, words)
    if not command.config:
        return [*command.program, *flags_of(command, words)]
    options = {option.key: option for option in command.options}
    given: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        option = options.get(key)
        if not equals or option is None:
            given.append(word)
        elif option.kind == "data" and ("," not in value or Path(value).is_dir()):
            given += data_overrides({"DATA": value}, conf, several=command.several)
        elif option.kind in ("path", "folder") and _is_bare(value, command):
            given.append(f"{key}={hydra_value(str(Path(value).expanduser()))}")
        else:
            given.append(word)
    return [*command.program, *given]


def _is_bare(value: str, command: Command) -> bool:
    """Whether a value is a path as it stands: no list, quote, interpolation, sweep or word."""
    if value in (*SPECIAL, "folder", "") or value[0] in "\"'[{$":
        return False
    return command.name != "sweep" or "," not in value


def _check_required(command: Command, words: list[str]) -> None:
    said = {word.partition("=")[0] for word in words}
    if command.name == "train" and "resume" in said:
        return
    missing = [
        option.key
        for option in command.options
        if option.required
        and option.key not in said
        and not (option.kind == "data" and "data.root" in said)
        and not (is_positional(option) and any("=" not in word for word in words))
    ]
    if "out" in missing and "preview" in said:
        missing.remove("out")
    if missing:
        needs = " and ".join(f"{key}=" for key in missing)
        raise ConfigError(
            f"deepacc {command.name} needs {needs} as in: "
            f"deepacc {command.name} {example_words(command)}"
        )


def is_positional(option: Option) -> bool:
    """Whether a program with flags takes an option without its name."""
    return option.key in ("runs", "root") or (option.key == "results" and option.required)


def flags_of(command: Command, words: Iterable[str]) -> list[str]:
    """Turns ``key=value`` into the flags of a program that has no config.

    Raises:
        ConfigError: a key is unknown; the nearest one is named.
    """
    options = {option.key: option for option in command.options}
    given: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        key = key.replace("-", "_")
        if not equals or word.startswith("-") or not key.isidentifier():
            given.append(word)
            continue
        option = options.get(key)
        if option is None and command.name != "synthetic":  # its parser knows the rest
            raise ConfigError(f"{command.name} has no key {key}{nearest(key, options)}")
        value = re.sub(r"""^(["'])(.*)\1$""", r"\2", value)
        if option is not None and is_positional(option):
            given.append(value)
        elif (option is None or option.kind == "switch") and value in ("true", "false"):
            given += [f"--{key.replace('_', '-')}"] if value == "true" else []
        else:
            flag = f"--{key.replace('_', '-')}"
            pair = re.fullmatch(r"[\[(](\d+),\s*(\d+)[\])]", value)  # synthetic size=[640,480]
            given += [flag, *pair.groups()] if pair else [f"{flag}={value}"]
    return given


def nearest(word: str, among: Iterable[str]) -> str:
    """Returns ``: did you mean ...?`` for the most similar name, or a pointer to the help.

    >>> nearest("predcit", ["train", "predict"])
    ': did you mean predict?'
    """
    found = difflib.get_close_matches(word, list(among), n=1, cutoff=0.5)
    return f": did you mean {found[0]}?" if found else ": --help lists what there is"


def example_words(command: Command) -> str:
    """Returns a command's example in Hydra's grammar.

    >>> example_words(COMMANDS["predict"])
    'images=slides out=results'
    """
    keys = {option.variable: option for option in command.options if option.variable}
    words: list[str] = []
    for word in shlex.split(command.example):
        variable, _, value = word.partition("=")
        if variable == "ARGS" or (variable in keys and is_positional(keys[variable])):
            words.append(value)
        elif variable in keys:
            words.append(f"{keys[variable].key}={value}")
    return " ".join(words)
