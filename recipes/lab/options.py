"""Options that the command lines of queues have in common."""

import argparse
import sys
from pathlib import Path


def queue_parser(doc: str, out: str) -> argparse.ArgumentParser:
    """A parser with the options of every queue.

    Args:
        doc: docstring of the recipe, whose first line is the description.
        out: where results go by default.

    Returns:
        A parser to which a recipe adds its own options.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2", help="by comma")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", default=out, help="folder of the results")
    parser.add_argument("--shared", default="../shared", help="corpora and models")
    parser.add_argument("--retry", action="store_true", help="begin failed runs again")
    parser.add_argument("--report", action="store_true", help="only tables, pictures and samples")
    return parser


def require_shared(shared: str) -> None:
    """End the program where the development corpora and models are not.

    Args:
        shared: their folder.
    """
    if not (Path(shared) / "data").is_dir():
        sys.exit(
            f"no corpora in {Path(shared).resolve()}/data, which is where the development data of "
            "this project should be; --shared DIR names another folder"
        )


def comparison_parser(doc: str, out: str) -> argparse.ArgumentParser:
    """The same with the sizes of a comparison and the environment of its peer."""
    parser = queue_parser(doc, out)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16, help="scored samples per iteration")
    parser.add_argument("--prompts", type=int, default=200, help="held out, that are judged")
    parser.add_argument("--peer", help="environment of TRL 0.11.4 (a folder with bin/python)")
    return parser
