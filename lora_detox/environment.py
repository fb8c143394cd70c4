"""Keep what libraries say of themselves out of a run's output; errors still come through."""

import logging
import os
import warnings

from transformers.utils import logging as transformers_logging


def quieten_libraries() -> None:
    """Silence progress bars and notices of loading that a user can do nothing about."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("bitsandbytes", "datasets", "httpx", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("transformers", "peft", "torch", "bitsandbytes"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
