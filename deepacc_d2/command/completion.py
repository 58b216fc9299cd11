"""Completion of the shells: commands, keys, choices and files.

Hydra's own would import the program, PyTorch included, at every Tab.
"""

from __future__ import annotations

from pathlib import Path

from deepacc_d2.command.conf_keys import all_keys, choices, groups_of
from deepacc_d2.command.options import Command
from deepacc_d2.command.table import COMMANDS

SCRIPTS = {
    "bash": r"""# eval "$(deepacc completion bash)", in ~/.bashrc to keep it
_deepacc() {
    local line=${COMP_LINE:0:COMP_POINT} words cur
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[-1]}
    mapfile -t COMPREPLY < <(deepacc completion query "${words[@]:1}" 2>/dev/null)
    [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%=*}="}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/.] ]] && compopt -o nospace
    return 0
}
complete -F _deepacc deepacc""",
    "zsh": r"""# eval "$(deepacc completion zsh)", in ~/.zshrc after compinit to keep it
_deepacc() {
    local -a found
    found=("${(@f)$(deepacc completion query "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n $found[1] ]] && compadd -S '' -- $found
}
compdef _deepacc deepacc""",
    "fish": r"""# deepacc completion fish > ~/.config/fish/completions/deepacc.fish
complete -c deepacc -f -a '(deepacc completion query (commandline -opc)[2..] (commandline -ct))'""",
}


def candidates(words: list[str], conf: Path) -> list[str]:
    """Returns what the last word could become.

    Args:
        words: after ``deepacc``, the unfinished one last; it may be empty.
        conf: the directory of the configs.
    """
    if len(words) < 2:
        names = [command.name for command in COMMANDS.values() if command.public]
        return _starting([*names, "completion"], words[-1] if words else "")
    command, word = COMMANDS.get(words[0]), words[-1]
    if words[0] == "completion":
        return _starting(list(SCRIPTS), word)
    if command is None or not command.public:
        return []
    key, equals, value = word.partition("=")
    if equals:
        return [f"{key}={found}" for found in _values(command, key, value, conf)]
    options = [f"{option.key}=" for option in command.options if option.key != "runs"]
    runs = _files(word) if any(option.key == "runs" for option in command.options) else []
    return [*_starting([*options, *_conf_keys(command, word, conf)], word), *runs]


def _conf_keys(command: Command, word: str, conf: Path) -> list[str]:
    """Lists keys up to the dot that the word has reached, so that the list stays short."""
    if not command.config:
        return []
    groups = [f"{group}=" for group in groups_of(command.config, conf)]
    found = []
    for key in all_keys(command.config, conf):
        parts = key.name.split(".")
        deep = word.count(".") + 1
        found.append(".".join(parts[:deep]) + ("." if len(parts) > deep else "="))
    # A node of keys is of no use as a value.
    nodes = {name for name in found if name.endswith(".")}
    return [*groups, *(name for name in found if f"{name[:-1]}." not in nodes or name in nodes)]


def _values(command: Command, key: str, value: str, conf: Path) -> list[str]:
    option = next((option for option in command.options if option.key == key), None)
    groups = groups_of(command.config, conf) if command.config else {}
    group = next((name for name in groups if key in (name, f"+{name}")), None)
    if group:
        named = _starting(choices(group, conf), value)
        return [*named, *(_files(value) if group == "data" else [])]
    if option is not None and option.kind in ("path", "folder", "data", "runs"):
        words = ["folder"] if option.kind == "folder" else []
        return [*_starting(words, value), *_files(value)]
    defaults = {k.name: k.default for k in all_keys(command.config, conf)} if command.config else {}
    switch = defaults.get(key) in ("true", "false") or (option and option.kind == "switch")
    if switch:
        return _starting(["true", "false"], value)
    return _files(value) if key in ("data.root", "init_weights", "init_trunk", "crops") else []


def _starting(names: list[str], start: str) -> list[str]:
    return list(dict.fromkeys(name for name in names if name.startswith(start)))


def _files(start: str) -> list[str]:
    folder, slash, name = start.rpartition("/")
    place = Path(folder + slash).expanduser() if slash else Path()
    try:
        found = sorted(place.iterdir())
    except OSError:
        return []
    return [
        f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in found
        if path.name.startswith(name) and (name.startswith(".") or not path.name.startswith("."))
    ]
