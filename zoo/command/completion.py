"""Completion of words in a shell: verbs, recipes and ready models, and the options of a recipe.

Bash and zsh ask for it after `eval "$(register-python-argcomplete zoo)"`.
"""

import argparse
from typing import Any

import argcomplete

from zoo.command import options, recipes
from zoo.inference import ready

NAMED = ("recipe", "source", "name", "net")  # the positional arguments that may be a recipe


def complete(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Answers the shell, and ends the process.

    Args:
        parser: of the command, with the arguments of the verb that was typed.
        words: what was typed that is not an option, from the verb on.
    """
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if words and (verb := verbs.choices.get(words[0])) is not None:
        for action in verb._actions:
            if action.dest in NAMED and not action.option_strings:
                action.completer = names
        if words[1:] and words[1] in recipes.names():
            known = {option for action in verb._actions for option in action.option_strings}
            for option in sorted(options.of_recipe(words[1]) - known):
                verb.add_argument(option)
    argcomplete.autocomplete(parser)


def names(prefix: str, **_: Any) -> list[str]:
    """The recipes and ready models whose names begin so."""
    return [name for name in {*recipes.names(), *ready.names()} if name.startswith(prefix)]
