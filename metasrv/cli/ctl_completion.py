"""`metactl completion bash|zsh|fish`: a script for the shell, made from the command line's own parser.

So a command or a flag that is added is completed without a word here. Knows argparse and the shells, no command.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from metasrv.cli.terminal import show_text

SHELLS = ("bash", "zsh", "fish")
_FILES = frozenset({"FILE", "DIR"})
"""Metavars whose values are names of files."""


class Flag(NamedTuple):
    """One flag of a command, with all its names."""

    names: tuple[str, ...]
    takes_value: bool
    choices: tuple[str, ...]
    is_file: bool
    text: str


class Level(NamedTuple):
    """A command and what may follow it."""

    path: str
    """Its words with blanks between, empty for metactl itself."""
    commands: dict[str, str]
    """Subcommands, with their help."""
    flags: tuple[Flag, ...]
    words: tuple[str, ...]
    """Values that its positional arguments may have."""
    takes_file: bool


def levels(parser: argparse.ArgumentParser, path: str = "", top: tuple[str, ...] = ()) -> Iterator[Level]:
    """The whole tree of commands; `top` are those of metactl itself, which `help` takes."""
    commands: dict[str, argparse.ArgumentParser] = {}
    texts: dict[str, str] = {}
    flags: list[Flag] = []
    words: list[str] = []
    takes_file = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands.update(action.choices)
            texts.update({choice.dest: choice.help or "" for choice in action._choices_actions})
            continue
        choices = tuple(map(str, action.choices or ()))
        is_file = action.metavar in _FILES
        if action.option_strings:
            text = (action.help or "").replace("%%", "%")
            flags.append(Flag(tuple(action.option_strings), action.nargs != 0, choices, is_file, text))
        else:
            words += top if action.metavar == "COMMAND" else choices
            takes_file = takes_file or is_file
    yield Level(path, {name: texts.get(name, "") for name in commands}, tuple(flags), tuple(words), takes_file)
    for name, command in commands.items():
        yield from levels(command, f"{path} {name}".strip(), top or tuple(commands))


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The completion script of one shell."""
    tree = list(levels(parser))
    if shell == "fish":
        return "\n".join(_fish(tree))
    bash = "\n".join(_bash(tree))
    # zsh runs bash's completions by itself.
    return f"#compdef metactl\nautoload -U +X bashcompinit && bashcompinit\n{bash}" if shell == "zsh" else bash


def _bash(tree: list[Level]) -> Iterator[str]:
    yield "_metactl() {"
    yield '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" path="" words="" i'
    yield "    COMPREPLY=()"
    yield "    for ((i = 1; i < COMP_CWORD; i++)); do"
    yield '        case "$path/${COMP_WORDS[i]}" in'
    for level in tree:
        if level.commands:
            cases = "|".join(f'"{level.path}/{name}"' for name in level.commands)
            yield f'        {cases}) path="${{path:+$path }}${{COMP_WORDS[i]}}" ;;'
    yield "        esac"
    yield "    done"
    yield '    case "$path/$before" in'
    for level in tree:
        for flag in level.flags:
            if flag.takes_value:
                cases = "|".join(f'"{level.path}/{name}"' for name in flag.names)
                yield f"        {cases}) {_bash_values(flag)}; return ;;"
    yield "    esac"
    yield '    case "$path" in'
    for level in tree:
        words = [*level.commands, *level.words, *(name for flag in level.flags for name in flag.names)]
        files = ' COMPREPLY=($(compgen -f -- "$word"));' if level.takes_file else ""
        yield f'        "{level.path}") words="{" ".join(words)}";{files} ;;'
    yield "    esac"
    yield '    COMPREPLY+=($(compgen -W "$words" -- "$word"))'
    yield "}"
    yield "complete -F _metactl metactl"


def _bash_values(flag: Flag) -> str:
    if flag.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(flag.choices)}" -- "$word"))'
    return 'COMPREPLY=($(compgen -f -- "$word"))' if flag.is_file else ":"


def _fish(tree: list[Level]) -> Iterator[str]:
    yield "function __metactl_at"
    yield "    set -l path"
    yield "    for word in (commandline -opc)[2..-1]"
    yield '        switch "$path/$word"'
    for level in tree:
        if level.commands:
            yield f"            case {' '.join(shlex.quote(f'{level.path}/{name}') for name in level.commands)}"
            yield '                set path (string trim "$path $word")'
    yield "        end"
    yield "    end"
    yield '    test "$path" = "$argv[1]"'
    yield "end"
    yield "complete -c metactl -f"
    for level in tree:
        at = f"complete -c metactl -n {shlex.quote(f'__metactl_at {shlex.quote(level.path)}')}"
        for name, text in level.commands.items():
            yield f"{at} -a {shlex.quote(name)} -d {_fish_text(text)}"
        if level.words:
            yield f"{at} -a {shlex.quote(' '.join(level.words))}"
        if level.takes_file:
            yield f"{at} -F"
        for flag in level.flags:
            named = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
            value = ""
            if flag.takes_value:
                value = " -x" if not flag.is_file else " -r -F"
                value += f" -a {shlex.quote(' '.join(flag.choices))}" if flag.choices else ""
            yield f"{at} {named}{value} -d {_fish_text(flag.text)}"


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def add_completion(parser: argparse.ArgumentParser, whole: argparse.ArgumentParser) -> None:
    """The argument of `completion`, and what it does."""
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS))
    parser.set_defaults(command=lambda arguments: show_text(script(arguments.shell, whole)))
