"""Let the model call Python functions, and answer with what they return."""

from __future__ import annotations

import pyllama


def get_weather(city: str) -> dict[str, str | int]:
    """Return the weather of a city.

    Parameters
    ----------
    city
        Its name.
    """
    return {"weather": "sunny" if city == "Paris" else "rainy", "temperature": 21}


with pyllama.LLM(pyllama.demo_model(), n_ctx=1024, n_threads=1) as llm:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]

    # One reply: what the model wants to be called.
    [call] = llm.chat(messages, tools=[get_weather], temperature=0).tool_calls
    print(f"the model calls {call.name}({call.arguments})")

    # The whole loop: call, tell the result, and answer.
    conversation = llm.run(messages, [get_weather], temperature=0)
    for message in conversation.messages:
        print(f"{message['role']}: {message['content'] or message['tool_calls'][0]['function']}")
