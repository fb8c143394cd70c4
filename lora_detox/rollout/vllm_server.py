"""The few calls that rollouts need of a vLLM server (vLLM 0.10.2 and later)."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from lora_detox.errors import RolloutError

_TRIES, _PAUSE_SECONDS = 3, 1.0
_START = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank RANK "
    "--logprobs-mode processed_logprobs --generation-config vllm"
)


class VllmServer:
    """The few calls that rollouts need of a server.

    Args:
        url: of the server, without /v1.
        timeout: seconds that an answer may take.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self._timeout = url.rstrip("/").removesuffix("/v1"), timeout
        self._opener = build_opener(ProxyHandler({}))  # a server of one's own is behind no proxy

    def models(self) -> list[str]:
        """Names of the models and adapters that it serves.

        Returns:
            The base model first.

        Raises:
            RolloutError: it cannot be reached.
        """
        answer = self._call("/v1/models", None)
        try:
            return [str(one["id"]) for one in answer["data"]]
        except (TypeError, KeyError) as error:
            raise RolloutError(f"rollout.url: {self.url} is no vLLM server ({answer})") from error

    def load(self, name: str, folder: Path) -> None:
        """Make an adapter known under a name.

        Args:
            name: that requests give as their model.
            folder: as PEFT writes it, under the path that the server sees.

        Raises:
            RolloutError: adapters are not taken while it runs, or not this one.
        """
        self._call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        self._call("/v1/unload_lora_adapter", {"lora_name": name})

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The first choice of a completion.

        Args:
            body: of the request.

        Returns:
            `token_ids`, `logprobs` and `finish_reason` among other things.

        Raises:
            RolloutError: it refuses, or its answer is something else.
        """
        answer = self._call("/v1/completions", body)
        try:
            choice: dict[str, Any] = answer["choices"][0]
        except (TypeError, KeyError, IndexError) as error:
            raise RolloutError(f"{self.url}/v1/completions: no choices in {answer}") from error
        return choice

    def _call(self, path: str, body: Mapping[str, Any] | None) -> Any:
        """Ask, again where the connection breaks; JSON where the answer is JSON, else its text."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("VLLM_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = Request(f"{self.url}{path}", data=data, headers=headers)
        for number in range(1, _TRIES + 1):
            try:
                with self._opener.open(request, timeout=self._timeout) as answer:
                    text = answer.read().decode()
                break
            except HTTPError as error:
                raise self._refusal(path, error) from error
            except (URLError, OSError) as error:
                if number == _TRIES:
                    reason = getattr(error, "reason", error)
                    raise RolloutError(
                        f"rollout.url: {self.url}{path} does not answer ({reason}); start a server "
                        f"with {_START}"
                    ) from error
                time.sleep(_PAUSE_SECONDS * number)
        with suppress(ValueError):
            return json.loads(text)
        return text

    def _refusal(self, path: str, error: HTTPError) -> RolloutError:
        text = error.read().decode(errors="replace")
        message, missing = text.strip()[:500], False
        with suppress(ValueError, TypeError, AttributeError):
            answer = json.loads(text)
            missing = answer.get("detail") == "Not Found"  # of the web framework: no such path
            message = (answer.get("error") or answer).get("message", message)
        if missing and "lora" in path:
            message = "it takes no adapters while it runs"
        return RolloutError(
            f"{self.url}{path}: {message} (HTTP {error.code}); start the server with {_START}"
        )
