"""Complete a command line in a shell: the script that asks, and the answer.

    shell -> argcomplete's script -> fastformers -> [completion] -> parser of the command -> words

Only the parser of the command at hand is loaded. This module knows nothing of any argument.
"""

import argparse
import os
from collections.abc import Callable, Collection
from typing import Any

SHELLS = ("bash", "zsh", "fish")
_ASKED = "_ARGCOMPLETE"  # argcomplete's: the number of words before those to complete


class PrintCompletion(argparse.Action):
    """Prints the script of a shell, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        """Print it."""
        from argcomplete.shell_integration import shellcode

        _, shell, *_ = arguments
        print(shellcode([parser.prog], True, shell))
        parser.exit()


def complete(
    parser: argparse.ArgumentParser,
    commands: Collection[str],
    parse: Callable[[list[str]], object],
) -> None:
    """Answer a shell and end, where one asks.

    Args:
        parser: Parser of the list of commands.
        commands: Names of the commands.
        parse: Gives the words of a command line to the parser of their command, which answers.
    """
    if _ASKED not in os.environ:
        return
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", 0))]
    words = line.split()
    complete_words = words if line.endswith(" ") else words[:-1]
    if len(complete_words) > 1 and complete_words[1] in commands:
        number = 2 if complete_words[1:3] == ["cost", "refresh"] else 1
        os.environ[_ASKED] = str(number + 1)
        parse(complete_words[1 : number + 1])
    import argcomplete

    argcomplete.autocomplete(parser)
