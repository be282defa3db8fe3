"""Write the source of the extension, ``_libllama.cpp``, and its stub, ``_libllama.pyi``."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import cffi
from declarations import FUNCTION, Declarations, derive

HERE = Path(__file__).parent

PREAMBLE = """
#include "llama.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml-opt.h"
#include "ggml-rpc.h"
#include "gguf.h"
#include "mtmd.h"
#include "mtmd-helper.h"
#include "build-info.h"
#include "shim.h"
#include "chat.h"
#include "guard.hpp"
"""

NUMBERS = {
    "int": r"(?:unsigned )?(?:u?int(?:8|16|32|64)_t|int|long|size_t|uint|enum \w+|llama_(?:token"
    r"|pos|seq_id|state_seq_flags)|ggml_(?:fp16|bf16)_t)",
    "bool": "bool",
    "float": "float|double",
    "None": "void",
}


# Functions of backends, which a build may load at run time or leave out: the backend's name, the
# macro that says it is linked, and the option to get it.
BACKENDS = {
    "ggml-cpu.h": ("CPU", "PYLLAMA_LINKS_CPU", "-DGGML_BACKEND_DL=off"),
    "ggml-rpc.h": ("RPC", "PYLLAMA_LINKS_RPC", "-DGGML_RPC=on"),
}


# Functions of our own that call libllama, or common/.
OWN = (
    "pyllama_decode",
    "pyllama_encode",
    "pyllama_memory_uses",
    "pyllama_memory_has_bare_cache",
    "pyllama_chat_render",
    "pyllama_chat_caps",
    "pyllama_chat_parser_new",
    "pyllama_chat_parse",
    "pyllama_schema_to_grammar",
)
HEADERS = ("shim.h", "chat.h", "callbacks.h")


def guards(declared: Declarations) -> str:
    """Return a macro for each function that sends its calls through ``pyllama::guard``.

    A function-like macro does not expand inside itself, so the name in its body is the function.
    """
    lines = [guard(name, name) for name in OWN]
    for name, header in sorted(declared.origin.items()):
        if header not in BACKENDS:
            lines.append(guard(name, name))
            continue
        backend, linked, option = BACKENDS[header]
        lookup = f'pyllama::from_backend<decltype({name})>("{backend}", "{name}", "{option}")'
        lines += [f"#ifdef {linked}", guard(name, name), "#else", guard(name, lookup), "#endif"]
    return "\n".join(lines)


def guard(name: str, function: str) -> str:
    """Return the macro that calls *function* under the guard when *name* is called."""
    call = f'PYLLAMA_INJECT("{name}") return {function}(__VA_ARGS__);'
    return f"#define {name}(...) pyllama::guard([&] {{ {call} }})"


def stub(declared: Declarations, extra: str) -> str:
    """Return a type stub, so that a type checker finds a misspelt C name.

    *extra* holds declarations of our own: the files that HEADERS names.
    """
    functions = dict(declared.functions)
    for line in re.sub(r"/\*.*?\*/", "", extra, flags=re.DOTALL).split(";"):
        statement = " ".join(line.split()) + ";"
        found = FUNCTION.search(statement)
        if found and "{" not in statement:
            functions[found[1]] = statement
    constants = [*declared.constants, *re.findall(r"\bPYLLAMA_[A-Z_]+\b", extra)]
    return "\n".join(
        [
            '"""The functions and constants of libllama. Made by bindings/build.py."""',
            "",
            "from collections.abc import Callable",
            "from typing import Any, TypeVar",
            "",
            'F = TypeVar("F", bound=Callable[..., Any])',
            "",
            "class _FFI:",
            "    def def_extern(",
            "        self, *, onerror: Callable[..., object] | None = ...",
            "    ) -> Callable[[F], F]: ...",
            "    def __getattr__(self, name: str) -> Any: ...",
            "",
            "ffi: _FFI",
            "",
            "class _Lib:",
            "    pyllama_log_waiting: int",
            *(f"    {name}: int" for name in sorted(set(constants))),
            *(
                f"    def {name}(self, *args: Any) -> {python_type(name, statement)}: ..."
                for name, statement in sorted(functions.items())
            ),
            "",
            "lib: _Lib",
            "",
        ]
    )


def python_type(name: str, statement: str) -> str:
    """Return the Python type of what the C function *name* returns."""
    result = " ".join(statement.split(name, maxsplit=1)[0].replace("const", "").split())
    for python, pattern in NUMBERS.items():
        if re.fullmatch(pattern, result):
            return python
    return "Any"


def main() -> None:
    """Derive the declarations and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", required=True, help="a C compiler")
    parser.add_argument("--output", required=True, type=Path, help="directory to write to")
    parser.add_argument("--include", required=True, type=Path, nargs="+", help="header directories")
    options = parser.parse_args()
    try:
        declared = derive(options.compiler, options.include)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{options.compiler} could not preprocess llama.h:\n{error.stderr}")

    own = "".join((HERE / name).read_text() for name in HEADERS)
    ffi = cffi.FFI()
    ffi.cdef(declared.cdef, override=True)  # ggml repeats some typedefs
    ffi.cdef(own)
    ffi.set_source("pyllama._libllama", PREAMBLE + guards(declared), source_extension=".cpp")

    options.output.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(options.output / "_libllama.cpp"))
    (options.output / "_libllama.pyi").write_text(stub(declared, own))


if __name__ == "__main__":
    main()
