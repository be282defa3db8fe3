"""llama.cpp's chat templates, reply parsers and schema converter, one function for each.

Templates and schemas are data from elsewhere, and the C++ that reads them has no limits: it
recurses, and counts, as far as they say. So `run` is for `sandbox` only, whose worker process may
end; what is parsed here, in this process, is text, on a stack as deep as the text can need.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pyllama.core import bigstack, sandbox
from pyllama.core.handle import Handle
from pyllama.core.library import ffi, lib
from pyllama.errors import GrammarError, LibraryAbortError, LibraryError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping

OPERATIONS = {
    "render": lib.pyllama_chat_render,
    "caps": lib.pyllama_chat_caps,
    "grammar": lib.pyllama_schema_to_grammar,
}
# What values in a reply nest with, and the stack that the parser takes for each (3 KiB measured).
BRACKETS = b"[{(<"
STACK_PER_BRACKET = 8 << 10
FEW_BRACKETS = 16  # 128 KiB: any thread has that much
MAX_BRACKETS = 100_000


def run(operation: str, request: bytes) -> bytes:
    """Call the C function of an operation: JSON in, JSON out.

    Parameters
    ----------
    operation
        A key of `OPERATIONS`.
    request
        UTF-8.

    Returns
    -------
    bytes

    Raises
    ------
    LibraryError
        What the function refuses, in its own words.
    MemoryError
        If there is not enough.

    Calls: pyllama_chat_render, pyllama_chat_caps, pyllama_schema_to_grammar, pyllama_text_free
    """
    return _taken(OPERATIONS[operation](request))


def render(request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Render a chat template in the worker process.

    Parameters
    ----------
    request
        What bindings/chat.cpp reads.
    timeout
        Seconds that it may take.

    Returns
    -------
    dict
        What bindings/chat.cpp writes.

    Raises
    ------
    TemplateError
        What the template or the engine refuses, or if it took too much memory.
    TimeoutError
        If it took too long.
    """
    return _asked("render", request, timeout)


def caps(request: Mapping[str, Any], timeout: float) -> dict[str, bool]:
    """Find out what a chat template supports, as `render` does it.

    Parameters
    ----------
    request
        template, bos_token, eos_token.
    timeout
        Seconds that it may take.

    Returns
    -------
    dict of str to bool

    Raises
    ------
    TemplateError, TimeoutError
        As for `render`.
    """
    return _asked("caps", request, timeout)


def _asked(operation: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    try:
        return dict(sandbox.ask(operation, request, timeout, TemplateError).result)
    except TemplateError as error:
        # Its words are lost where it is thrown on by value (common/chat.cpp:845).
        if str(error) == "std::exception":
            raise TemplateError("the template cannot be parsed: it is no Jinja") from None
        raise


def schema_to_grammar(schema: Any, timeout: float) -> str:
    """Turn a JSON schema into a grammar, in the worker process.

    Parameters
    ----------
    schema
        What JSON can hold.
    timeout
        Seconds that it may take.

    Returns
    -------
    str
        GBNF.

    Raises
    ------
    GrammarError
        If the converter refuses the schema, or would leave a part of it out.
    TimeoutError
        If it took too long.
    """
    answer = sandbox.ask("grammar", schema, timeout, GrammarError)
    if answer.said:  # the only thing it says: a pattern became "any string"
        raise GrammarError(answer.said)
    return str(answer.result)


class ReplyParser(Handle):
    """The parser that rendering chose for the replies to a prompt.

    Parameters
    ----------
    format
        The number of the format.
    generation_prompt
        The end of the prompt, which belongs to the reply.
    parser
        Its rules, as text; empty if the whole reply is content.

    Raises
    ------
    TemplateError
        If the rules cannot be read.

    Calls: pyllama_chat_parser_new, pyllama_chat_parser_free
    """

    def __init__(self, *, format: int, generation_prompt: str, parser: str) -> None:  # noqa: A002
        params = {"format": format, "generation_prompt": generation_prompt, "parser": parser}
        try:
            pointer = lib.pyllama_chat_parser_new(json.dumps(params).encode())
        except LibraryError as error:
            message = f"the parser of this prompt's replies cannot be read: {error}"
            raise TemplateError(message) from error
        super().__init__(pointer, lib.pyllama_chat_parser_free, shared=True)

    def parse(self, text: str, *, is_partial: bool) -> dict[str, Any]:
        """Parse a reply.

        Parameters
        ----------
        text
            What the model wrote.
        is_partial
            Whether more may come.

        Returns
        -------
        dict
            content, reasoning_content, tool_calls (each id, name, arguments).

        Raises
        ------
        TemplateError
            If the text has not the form that the parser wants.
        ClosedError
            If the parser is closed.

        Calls: pyllama_chat_parse, pyllama_text_free
        """
        data = text.encode("utf-8", "replace")
        n_brackets = sum(map(data.count, BRACKETS))
        if n_brackets > MAX_BRACKETS:
            message = f"the reply has {n_brackets} brackets; at most {MAX_BRACKETS} are parsed"
            raise TemplateError(message)

        def call() -> bytes:
            with self._call as pointer:
                return _taken(lib.pyllama_chat_parse(pointer, data, len(data), is_partial))

        try:
            if n_brackets <= FEW_BRACKETS:
                found = call()
            else:
                found = bigstack.call(call, n_brackets * STACK_PER_BRACKET + (1 << 20))
        except LibraryAbortError:
            raise
        except LibraryError as error:
            raise TemplateError(str(error)) from error
        return dict(json.loads(found))


def _taken(text: Any) -> bytes:
    """Return the bytes of a C string and free it."""
    try:
        return bytes(ffi.string(text))
    finally:
        lib.pyllama_text_free(text)
