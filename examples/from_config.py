"""Load a model from a configuration, here or in a JSON file, and run an inference request."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyllama

CONFIG: dict[str, Any] = {
    "model": {
        "path": str(pyllama.demo_model()),
        "n_ctx": 512,
        "n_batch": 256,
        "n_gpu_layers": 0,
        "n_threads": 1,
    },
    "request": {"prompt": "The capital of France is", "max_tokens": 16, "temperature": 0.0},
}


def load(path: str, **options: Any) -> pyllama.LLM:
    """Load a model with the options of a configuration; an unknown one is a TypeError."""
    return pyllama.LLM(path, **options)


def main() -> None:
    """Answer the request of the configuration."""
    config = json.loads(Path(sys.argv[1]).read_text()) if sys.argv[1:] else CONFIG
    with load(**config["model"]) as llm:
        print(f"loaded {llm.name}")
        print(llm.complete(**config["request"]).text)


if __name__ == "__main__":
    main()
