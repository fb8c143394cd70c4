"""Hydra's own command-line options, read on every Python that is supported."""

import functools
from argparse import Action, ArgumentParser

from hydra._internal.utils import get_args_parser


def hydra_options() -> ArgumentParser:
    """The parser of Hydra's options.

    Hydra 1.3 gives one option a help that is no text but an object that becomes one when printed.
    Python 3.14 looks into every help for `%`, and stops there. `hydra.main` makes the same parser
    after this one, so the change stays.

    Returns:
        A parser of `--multirun`, `--config-dir` and the like.
    """
    check_texts_alone(ArgumentParser)
    return get_args_parser()


def check_texts_alone(parser: type[ArgumentParser]) -> None:
    """Let a class of parsers pass over a help that is no text; nothing before Python 3.14.

    Args:
        parser: the class, which is changed once.
    """
    check = getattr(parser, "_check_help", None)
    if check is None or hasattr(check, "__wrapped__"):
        return

    @functools.wraps(check)
    def checked(self: ArgumentParser, action: Action) -> None:
        if isinstance(action.help, str):
            check(self, action)

    setattr(parser, "_check_help", checked)  # noqa: B010 (no attribute that mypy knows)
