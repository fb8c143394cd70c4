"""Load a model as its users will, in a process of its own, and write down its logits.

`python -m lora_detox.export.reload REQUEST.json` uses Transformers and PEFT alone. The request
names `base`, `revision`, `adapter` (or null), `trust_remote_code`, `encoder_decoder`,
`decoder_start_token_id` (of an encoder-decoder), `eos_token_ids` (all ends of responses), `dtype`,
`device`, `rows` (token ids of some texts) and `out`, the file that the logits go to.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox.errors import ExportError
from lora_detox.progress import phase

_TIMEOUT_SECONDS = 1800


def logits_of(model: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits in fp32 for each row of token ids; an encoder-decoder reads and writes the row.

    Args:
        model: any Transformers or PEFT model.
        rows: token ids, one text each, without padding.

    Returns:
        One tensor [T, V] per row, on the CPU.
    """
    logits = []
    model.eval()
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([list(row)], device=model.device)
            decoder: dict[str, Tensor] = {}
            if model.config.is_encoder_decoder:
                start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
                decoder = {"decoder_input_ids": torch.cat([start, ids[:, :-1]], dim=1)}
            logits.append(model(input_ids=ids, **decoder).logits[0].float().cpu())
    return logits


def load_plain(request: dict[str, Any]) -> Any:
    """The model of a request, by Transformers and PEFT alone."""
    auto = AutoModelForSeq2SeqLM if request["encoder_decoder"] else AutoModelForCausalLM
    model = auto.from_pretrained(
        request["base"],
        revision=request["revision"],
        dtype=getattr(torch, request["dtype"]),
        use_safetensors=True,
        trust_remote_code=request["trust_remote_code"],
    ).to(request["device"])
    generation = model.generation_config
    generation.eos_token_id = request["eos_token_ids"]
    if request["encoder_decoder"]:  # its config.json may lack what the run began with
        model.config.decoder_start_token_id = request["decoder_start_token_id"]
        generation.decoder_start_token_id = request["decoder_start_token_id"]
    if request["adapter"]:
        model = PeftModel.from_pretrained(model, request["adapter"])
    return model


def logits_in_fresh_process(request: dict[str, Any]) -> list[Tensor]:
    """Run a request in another Python process.

    Args:
        request: as above, without `out`.

    Returns:
        Logits of each row.

    Raises:
        ExportError: the model did not load there.
    """
    with TemporaryDirectory() as folder, phase("loading again in a fresh process"):
        file, out = Path(folder) / "request.json", Path(folder) / "logits.safetensors"
        file.write_text(json.dumps({**request, "out": str(out)}), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "lora_detox.export.reload", str(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(
                f"what was exported does not load again in a fresh process ({last}); base "
                f"{request['base']}, adapter {request['adapter']}"
            )
        return [tensor for _, tensor in sorted(load_file(out).items())]


def main() -> None:
    """Answer the request that the command line names."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if request["device"] == "cpu":
        torch.set_num_threads(request.get("threads") or torch.get_num_threads())
    logits = logits_of(load_plain(request), request["rows"])
    save_file(
        {f"{place:04d}": one.contiguous() for place, one in enumerate(logits)}, request["out"]
    )


if __name__ == "__main__":
    main()
