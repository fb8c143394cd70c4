"""Mutation tests of the core: `make mutants`. Which small changes to it does no test notice?

mutmut makes the mutants and runs for each one the tests that reach the changed function. Here:
functions under common decorators are mutated too, a sample of fixed seed keeps the run near half an
hour on one core, survivors that `equivalent.toml` explains are set apart, and figures are summed by
package. mutmut keeps its work in `mutants/`: a second run tries what was not found or has changed.

    python tests/mutation/run.py [PATTERN ...]      'lora_detox.update.*': all mutants there
"""

import random
import re
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import libcst
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation
from mutmut.mutation.diff_apply import get_diff_for_mutant

EQUIVALENT = Path(__file__).with_name("equivalent.toml")
DECORATORS = {"property", "contextmanager", "torch.no_grad()", "torch.inference_mode()"}
SAMPLE = 0.4
"""Share of each file's mutants that a run without a pattern tries."""
FOUND, LIVING = (1, 3), (0, 5, 33)
"""Exit codes: a test failed; all passed, or none reaches the function. Others are time-outs."""
WANTED = 0.95


def mutate_decorated_functions() -> None:
    """Mutmut leaves decorated functions alone; these decorators bear a mutant below them."""
    skips = file_mutation.MutationVisitor._skip_node_and_children
    arrange = file_mutation.function_trampoline_arrangement
    module = libcst.Module([])

    def names(function):
        return {module.code_for_node(one.decorator) for one in function.decorators}

    def skip(self, node):
        if isinstance(node, libcst.FunctionDef) and names(node) & DECORATORS:
            return not names(node) <= DECORATORS
        return skips(self, node)

    def below(function, mutants, class_name):
        if not names(function) & DECORATORS:
            return arrange(function, mutants, class_name)
        bare = function.with_changes(decorators=[])
        head, (first, *copies), tail, mutant_names = arrange(bare, mutants, class_name)
        first = first.with_changes(decorators=[*function.decorators, *first.decorators])
        return head, [first, *copies], tail, mutant_names

    file_mutation.MutationVisitor._skip_node_and_children = skip
    file_mutation.function_trampoline_arrangement = below


def chosen(patterns: list[str]) -> dict[str, int | None]:
    """The mutants to try, with the exit codes so far: all that match, or a sample of each file."""
    Path("mutants").mkdir(exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.create_mutants(1)
    _, files = mutmut.collect_source_file_mutation_data(mutant_names=[])
    codes = {}
    for path, data in sorted(files.items()):
        names = list(data.exit_code_by_key)
        if patterns:
            names = [one for one in names if any(fnmatch(one, pattern) for pattern in patterns)]
        else:
            names = random.Random(path).sample(names, round(SAMPLE * len(names)))
        codes |= {one: data.exit_code_by_key[one] for one in names}
    return codes


def living(names: set[str]) -> Iterator[tuple[str, str, bool]]:
    """File, name and whether it lives of each mutant that was tried."""
    _, files = mutmut.collect_source_file_mutation_data(mutant_names=[])
    for path, data in sorted(files.items()):
        for name, code in data.exit_code_by_key.items():
            if name in names:
                yield path, name, code in LIVING


def change_of(path: str, name: str) -> str:
    """The lines that a mutant takes out and puts in, as `- old + new`."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[3:]
    return " ".join(f"{one[0]} {one[1:].strip()}" for one in lines if one[:1] in ("-", "+"))


def main() -> int:
    """Try the mutants, print survivors and the table; 1 if fewer than 95 % were found."""
    start = time.monotonic()
    mutate_decorated_functions()
    names = chosen(sys.argv[1:])
    if untried := [name for name, code in names.items() if code not in FOUND]:
        mutmut._run(untried, 1)
    known = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    counts: dict[str, Counter[str]] = {}
    for path, name, lives in living(set(names)):
        kind = "living" if lives else "found"
        change = change_of(path, name) if lives else ""
        if any(fnmatch(path, one["file"]) and re.search(one["change"], change) for one in known):
            kind = "equivalent" if lives else kind
        elif lives:
            print(
                f"\n{path}  {name.rsplit('.', 1)[1]}\n  {change.replace(' + ', chr(10) + '  + ')}"
            )
        package = path.removeprefix("lora_detox/").split("/")[0]
        counts.setdefault(package, Counter())[kind] += 1
    total = sum(counts.values(), Counter())
    print(f"\n{'package':12} mutants  found  equivalent  living  found of those that differ")
    for package, n in [*sorted(counts.items()), ("all", total)]:
        share = n["found"] / max(n["found"] + n["living"], 1)
        print(
            f"{package:12} {n.total():7} {n['found']:6} {n['equivalent']:11} {n['living']:7}"
            f"  {share:.1%}"
        )
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    return int(total["found"] < WANTED * (total["found"] + total["living"]))


if __name__ == "__main__":
    sys.exit(main())
