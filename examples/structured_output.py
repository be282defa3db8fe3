"""Get an answer of the shape that was asked for: a dataclass, a schema, a pattern, a choice."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pyllama


@dataclass
class Person:
    """What the answer must hold."""

    name: str
    age: int


with pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1) as llm:
    question = [{"role": "user", "content": "Give me JSON with name and age for a person."}]
    reply = llm.chat(question, schema=Person, temperature=0)
    print(Person(**json.loads(reply.text)))

    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3}
    print(json.loads(llm.complete("Three numbers:", schema=numbers, seed=1).text))

    pattern = re.compile(r"[A-Z][a-z]{2,5}-[0-9]{3}")
    print(llm.complete("The code is", schema=pattern, seed=1).text)

    yes_or_no = ["yes", "no"]
    print(llm.complete("Is water wet?", schema=yes_or_no, temperature=0).text)
