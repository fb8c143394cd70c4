"""Hydra's parser is made on every Python; what Python 3.14 checks of it is checked of texts."""

from argparse import Action, ArgumentParser

import pytest

from lora_detox.settings.hydra_options import check_texts_alone, hydra_options


class Lazy:
    """As Hydra's help of `--shell-completion`."""

    def __repr__(self):
        return "a text"


def parsers():
    class Strict(ArgumentParser):
        """As in Python 3.14, which calls the check for each option."""

        def _check_help(self, action):
            if action.help and "%" in action.help:
                raise ValueError("badly formed help string")

    return Strict


def check(parsers, text):
    parsers(add_help=False)._check_help(Action([], "shell_completion", help=text))


def test_a_help_that_is_no_text_is_passed_over_and_texts_are_checked():
    strict = parsers()
    with pytest.raises(TypeError):
        check(strict, Lazy())
    check_texts_alone(strict)
    check(strict, Lazy())
    with pytest.raises(ValueError, match="badly formed"):
        check(strict, "50 %")


def test_a_class_is_changed_once():
    strict = parsers()
    check_texts_alone(strict)
    once = strict._check_help
    check_texts_alone(strict)
    assert strict._check_help is once


def test_a_class_without_the_check_stays_as_it_is():
    class Lenient(ArgumentParser):
        _check_help = None

    check_texts_alone(Lenient)
    assert Lenient._check_help is None


def test_the_options_of_hydra_are_read():
    options = hydra_options().parse_args(["--multirun", "--config-dir", "there", "seed=1,2"])
    assert (options.multirun, options.config_dir) == (True, "there")
    assert options.overrides == ["seed=1,2"]
