"""Everything that is fuzzed, by the name that the command line takes."""

from __future__ import annotations

from fuzz import calls, files, states, sweep, texts
from fuzz.bench import Target

TARGETS: dict[str, Target] = {
    "model": Target(files.make_model, files.use_model),
    "sweep": Target(sweep.make_next, files.use_model),
    "lora": Target(files.make_lora, files.use_lora),
    "mmproj": Target(files.make_projector, files.use_projector),
    "state": Target(states.make_container, states.use_container, megabytes=1024),
    "blob": Target(states.make_blob, states.use_blob, megabytes=1024),
    "grammar": Target(calls.make_grammar, calls.use_grammar),
    "schema": Target(texts.make_schema, texts.use_schema),
    "template": Target(texts.make_template, texts.use_template),
    "text": Target(calls.make_text, calls.use_text),
    "batch": Target(calls.make_batch, calls.use_batch),
}
