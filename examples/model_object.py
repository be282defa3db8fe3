"""One object for a model: name, capabilities, load, unload, complete, chat, embed, tokenize."""

from __future__ import annotations

import pyllama

llm = pyllama.LLM(pyllama.demo_model(), n_ctx=512, n_threads=1, load=False)
print(f"is_loaded: {llm.is_loaded}")

llm.load()
print(f"is_loaded: {llm.is_loaded}")
print(f"name: {llm.name}")
print(f"capabilities: {', '.join(sorted(llm.capabilities))}")

print(f"complete: {llm.complete('The opposite of hot is', max_tokens=8, temperature=0).text!r}")

messages: list[pyllama.Message | dict[str, str]] = [
    {"role": "system", "content": "Your name is Ada."},
    {"role": "user", "content": "What is 2+2?"},
]
reply = llm.chat(messages, temperature=0)
print(f"chat: {reply.text!r}")

# A reply is a message of the next turn.
messages += [reply.message, {"role": "user", "content": "What is the capital of Japan?"}]
print(f"chat: {llm.chat(messages, temperature=0).text!r}")

print(f"embed: a {llm.embed('some text').dtype} array of shape {llm.embed('some text').shape}")

tokens = llm.tokenize("The capital of France")
print(f"tokenize: {tokens.tolist()} and back: {llm.detokenize(tokens)!r}")

llm.unload()
print(f"is_loaded: {llm.is_loaded}")
