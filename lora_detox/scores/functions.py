"""Any Python function with TRL's reward signature as scorer."""

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from lora_detox.errors import ScorerError
from lora_detox.fitting import Batches, fitted
from lora_detox.processes import processes
from lora_detox.scores.calling import call_function
from lora_detox.scores.contract import accepted_columns, check_takes_columns
from lora_detox.types import Scorer, Scores

RewardFunction = Callable[..., list[float]]


class FunctionScorer:
    """Scores by a function `(prompts, completions, **kwargs) -> list[float]`, higher is better.

    A function says nothing of toxicity, so that comes from a companion scorer.

    Args:
        function: the function itself, "package.module:function" or "file.py:function".
        companion: scorer that tells the toxicity.
        key: settings group of the scorer, for messages.
        timeout: seconds that one call of the function may take; None waits.

    Raises:
        ScorerError: if there is no such function, or the companion takes no columns.
    """

    def __init__(
        self,
        function: str | RewardFunction,
        companion: Scorer,
        *,
        key: str = "reward",
        timeout: float | None = None,
    ) -> None:
        check_takes_columns(companion)
        self._key, self._timeout = key, timeout
        self._function = import_function(function, key) if isinstance(function, str) else function
        self._companion = companion
        self._takes_columns = _takes_keywords(self._function)
        name = function if isinstance(function, str) else getattr(function, "__name__", "function")
        self._name = Path(name).name
        self._batches = Batches(
            name=f"the reward function {self._name}",
            key="algorithm.rollout_batch_size",
            shorter="generation.response_tokens",
        )
        self._scorer_id = f"{self._name}+{companion.scorer_id}"

    @property
    def toxicity_by(self) -> Scorer:
        """Who tells the toxicity."""
        return self._companion

    @property
    def scorer_id(self) -> str:
        """Name of the function and id of the companion."""
        return self._scorer_id

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Call the function once, with the columns of the rows as keywords, as TRL does.

        Where memory runs out it is called with half of the rows at a time, and so on. Of several
        processes the first calls it, with all rows.

        Args:
            prompts: B prompt texts.
            responses: B response texts.
            **columns: `references` and others, one entry per response.

        Returns:
            The function's numbers as score, the companion's toxicity.

        Raises:
            ScorerError: if the function fails, takes too long, or does not return B finite
                numbers.
        """
        taken = accepted_columns(self._companion, columns)
        toxic = self._companion.score(prompts, responses, **taken)
        keywords = columns if self._takes_columns else {}
        texts = {"prompts": list(prompts), "completions": list(responses)}
        arguments = _Arguments({**texts, **keywords})
        values = processes().first(lambda: self._values(arguments))
        if len(values) != len(responses) or not all(math.isfinite(value) for value in values):
            raise ScorerError(
                f"the reward function {self._name} returned {len(values)} numbers "
                f"({sum(map(math.isfinite, values))} finite) for {len(responses)} responses: want "
                "one finite number for each"
            )
        score = torch.tensor(values, dtype=torch.float32)
        return Scores(
            score=score,
            toxicity=toxic.toxicity,
            parts={self._name: score, **toxic.parts},
            scorer_id=self.scorer_id,
        )

    def _values(self, arguments: "_Arguments") -> list[float]:
        parts = fitted(self._batches, arguments, self._call)
        return [value for _, returned in parts for value in returned]

    def _call(self, arguments: "_Arguments") -> list[float]:
        of_function = self._function, arguments.columns, self._name
        return call_function(*of_function, self._key, self._timeout)


class _Arguments:
    """Keyword arguments of a reward function, which can be cut by rows.

    Args:
        columns: each with one entry per response; `completions` among them.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["completions"])

    def __getitem__(self, places: slice) -> "_Arguments":
        return _Arguments({name: entries[places] for name, entries in self.columns.items()})


def _takes_keywords(function: RewardFunction) -> bool:
    """Whether a function takes any keyword, as TRL's reward functions do with **kwargs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def import_function(name: str, key: str = "reward") -> RewardFunction:
    """Import "package.module:function" or "file.py:function".

    Args:
        name: where the function is.
        key: settings group of the scorer, for messages.

    Returns:
        The function.

    Raises:
        ScorerError: if the module cannot be imported, or has no such function.
    """
    module_name, _, function_name = name.rpartition(":")
    wanted = f"want package.module:function or file.py:function; change `{key}.function`"
    if not module_name or not function_name:
        raise ScorerError(f"the reward function `{name}` names no module; {wanted}")
    try:
        module = _import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ScorerError(
            f"cannot import the reward function `{name}`: {type(error).__name__}: {error}; {wanted}"
        ) from error
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        raise ScorerError(f"{module_name} has no function `{function_name}`; {wanted}")
    return function  # type: ignore[no-any-return]  # what it returns is checked at each call


def _import_module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {name}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is no Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
