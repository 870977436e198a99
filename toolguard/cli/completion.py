"""The command ``toolguard completion``."""

from __future__ import annotations

import argparse
from functools import partial

__all__ = ["add_to"]

_SCRIPT = """\
if [ -n "$ZSH_VERSION" ]; then autoload -U +X bashcompinit && bashcompinit; fi
_toolguard() {{
  local words="{commands}"
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "${{COMP_WORDS[1]}}" in
{cases}
      *) words="" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _toolguard toolguard"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line, after those it completes."""
    completion = commands.add_parser(
        "completion",
        help="complete commands and options in bash and zsh",
        description='Print a script for bash and zsh: eval "$(toolguard completion)"',
    )
    completion.set_defaults(run=partial(_run, commands))


def _run(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    arguments: argparse.Namespace,  # noqa: ARG001 - every command takes them
) -> int:
    cases = [
        f'      {name}) words="{" ".join(_words(parser))}" ;;'
        for name, parser in commands.choices.items()
    ]
    print(_SCRIPT.format(commands=" ".join(commands.choices), cases="\n".join(cases)))
    return 0


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options of a command, and the words that its arguments may be."""
    words: list[str] = []
    for action in parser._actions:
        words += [each for each in action.option_strings if each.startswith("--")]
        words += map(str, action.choices or ())
    return words
