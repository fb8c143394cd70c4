"""A stand-in for `vllm serve` on the loopback: the same calls, answered by Transformers and PEFT.

It really loads the adapter from the folder that it is told and really samples, so that ids, ends
and logprobs are those of the model. `faults` plants what a server can get wrong.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from peft import PeftModel

RANKS = 16
"""--max-lora-rank."""


class StandIn:
    """A server of one base model.

    Args:
        base: makes the model anew.
        takes_adapters: whether VLLM_ALLOW_RUNTIME_LORA_UPDATING was set.
    """

    def __init__(self, base, *, takes_adapters=True):
        self.faults, self.loaded, self.log, self.bodies = set(), {}, [], []
        self._base, self._takes_adapters, self._lock = base, takes_adapters, threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(*stand_in.get(self.path))

            def do_POST(self):
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                with stand_in._lock:
                    answer = stand_in.post(self.path, body)
                self.answer(*answer)

            def answer(self, status, value):
                text = value if isinstance(value, str) else json.dumps(value)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def get(self, path):
        if path != "/v1/models":
            return 404, {"detail": "Not Found"}
        names = ["base", *self.loaded]
        return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}

    def post(self, path, body):
        if path == "/v1/completions":
            return self.complete(body)
        calls = {"/v1/load_lora_adapter": self.load, "/v1/unload_lora_adapter": self.unload}
        if not self._takes_adapters or path not in calls:
            return 404, {"detail": "Not Found"}
        return calls[path](body)

    def load(self, body):
        name, folder = body["lora_name"], Path(body["lora_path"])
        self.log.append(("load", name))
        if name in self.loaded:
            return error(400, f"The lora adapter '{name}' has already been loaded.")
        config = folder / "adapter_config.json"
        if not config.exists():
            return error(404, f"No adapter found for {folder}")
        rank = json.loads(config.read_text())["r"]
        if rank > RANKS:
            return error(500, f"LoRA rank {rank} is greater than max_lora_rank {RANKS}.")
        model = self._base() if "no adapter" in self.faults else None
        self.loaded[name] = model or PeftModel.from_pretrained(self._base(), folder).eval()
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body):
        name = body["lora_name"]
        self.log.append(("unload", name))
        if name not in self.loaded:
            return error(404, f"The lora adapter '{name}' cannot be found.")
        del self.loaded[name]
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    @torch.no_grad()
    def complete(self, body):
        self.bodies.append(body)
        if body["model"] not in self.loaded:
            return error(404, f"The model `{body['model']}` does not exist.")
        model, prompt = self.loaded[body["model"]], list(body["prompt"])
        generator = torch.Generator().manual_seed(body["seed"])
        ends, ids, logprobs, reason = body["stop_token_ids"], [], [], "length"
        for place in range(body["max_tokens"]):
            logits = model(torch.tensor([prompt + ids])).logits[0, -1].double()
            processed = logits / body["temperature"]
            if place < body["min_tokens"]:
                processed[ends] = float("-inf")
            token = int(torch.multinomial(processed.softmax(-1), 1, generator=generator))
            raw = logits if "raw logprobs" in self.faults else processed
            ids.append(token)
            logprobs.append(max(float(raw.log_softmax(-1)[token]), -9999.0))
            if token in ends:
                reason = "stop"
                break
        choice = {"index": 0, "text": "", "finish_reason": reason, "prompt_token_ids": prompt}
        choice |= {"token_ids": ids, "logprobs": {"token_logprobs": logprobs}}
        if "no ids" in self.faults:
            choice["token_ids"] = None
        if "another prompt" in self.faults:
            choice["prompt_token_ids"] = [1, *prompt]
        if "another end" in self.faults:
            choice |= {"finish_reason": "stop", "token_ids": [*ids[:-1], 7]}
        if "too long" in self.faults:
            choice["token_ids"] = ids + [7] * body["max_tokens"]
        return 200, {"id": "cmpl-0", "object": "text_completion", "choices": [choice]}


def error(status, message):
    return status, {"error": {"message": message, "type": "Error", "param": None, "code": status}}
