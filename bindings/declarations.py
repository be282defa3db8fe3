"""Derive cffi declarations from the pinned llama.cpp headers.

The headers are preprocessed with the compiler that will build the extension. Of the result the
regions that come from the bound headers are kept, cut into statements, and filtered: deprecated
functions and inline bodies go, and of ``ggml.h`` only the functions named below stay.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

# Bound whole, in the order of their dependence: every function that is not deprecated.
WHOLE = (
    "ggml-backend.h",
    "ggml-cpu.h",
    "ggml-opt.h",
    "ggml-rpc.h",
    "gguf.h",
    "llama.h",
    "mtmd.h",
    "mtmd-helper.h",
)
# Of these all types are kept, and the functions that FUNCTIONS names.
TYPES = ("ggml.h", "ggml-alloc.h")
FUNCTIONS = frozenset(
    """
    ggml_version ggml_commit ggml_time_us ggml_status_to_string ggml_guid_matches
    ggml_init ggml_free ggml_reset ggml_used_mem ggml_tensor_overhead
    ggml_get_first_tensor ggml_get_next_tensor ggml_get_tensor
    ggml_new_tensor ggml_new_tensor_1d ggml_new_tensor_2d ggml_new_tensor_3d ggml_new_tensor_4d
    ggml_set_name ggml_get_name ggml_get_data ggml_get_data_f32
    ggml_nelements ggml_nrows ggml_nbytes ggml_n_dims ggml_element_size
    ggml_is_contiguous ggml_is_quantized ggml_is_transposed ggml_is_permuted ggml_is_empty
    ggml_blck_size ggml_type_size ggml_type_name ggml_row_size ggml_op_name ggml_op_desc
    ggml_ftype_to_ggml_type ggml_get_type_traits
    ggml_fp16_to_fp32_row ggml_fp32_to_fp16_row ggml_bf16_to_fp32_row ggml_fp32_to_bf16_row
    ggml_quantize_chunk ggml_quantize_requires_imatrix ggml_quantize_init ggml_quantize_free
    ggml_threadpool_params_default ggml_threadpool_params_init ggml_threadpool_params_match
    ggml_opt_step_adamw ggml_opt_step_sgd
    """.split()
)
# Declared in a header and defined in no library of the pin.
UNDEFINED = frozenset({"ggml_threadpool_get_n_threads"})

ATTRIBUTE = "PYLLAMA_ATTRIBUTE"
FUNCTION = re.compile(r"\b(\w+)\s*\(([^()]|\([^()]*\))*\)\s*;$")
MACRO = re.compile(
    r"^[ \t]*#[ \t]*define[ \t]+((?:LLAMA|GGML|GGUF|MTMD|RPC)_[A-Z0-9_]+)[ \t]+-?(?:0x)?[0-9]",
    re.MULTILINE,
)


@dataclass
class Declarations:
    """What the extension binds.

    Parameters
    ----------
    cdef
        Text for ``FFI.cdef``.
    functions
        Name of each bound function, mapped to the text of its declaration.
    constants
        Names of enumerators and numeric macros.
    origin
        Name of each bound function, mapped to the header it stands in.
    """

    cdef: str = ""
    functions: dict[str, str] = field(default_factory=dict)
    constants: list[str] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)


def preprocess(compiler: str, include: list[Path]) -> str:
    """Return the bound headers, preprocessed as C, with line markers."""
    names = (*TYPES, *WHOLE)
    with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
        source.write("".join(f'#include "{name}"\n' for name in names))
        source.flush()
        command = [
            compiler,
            "-E",
            f"-D__attribute__(x)={ATTRIBUTE} x",
            "-D_Noreturn=",
            "-Drestrict=",
            *(f"-I{path}" for path in include),
            source.name,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def regions(text: str) -> list[tuple[str, str]]:
    """Return ``(header, text)`` of each stretch that comes from a bound header, in order."""
    found: list[tuple[str, str]] = []
    lines: list[str] = []
    header = ""
    for line in text.splitlines():
        marker = re.match(r'#\s*\d+ "(.*?)"', line)
        if marker is None:
            lines.append(line)
            continue
        if lines and header in (*WHOLE, *TYPES):
            found.append((header, "\n".join(lines)))
        header, lines = Path(marker[1]).name, []
    return found


def statements(text: str) -> list[str]:
    """Cut *text* at the semicolons and bodies that stand outside any brace."""
    found, start, depth = [], 0, 0
    for index, character in enumerate(text):
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            # An inline function ends with its body; a struct goes on to its semicolon.
            if depth == 0 and ")" in text[start : text.index("{", start)]:
                found.append(text[start : index + 1].strip())
                start = index + 1
        elif character == ";" and depth == 0:
            found.append(text[start : index + 1].strip())
            start = index + 1
    return [statement for statement in found if statement not in ("", ";")]


def without_attributes(statement: str) -> str:
    """Drop each compiler attribute with its balanced parentheses."""
    while ATTRIBUTE in statement:
        start = statement.index(ATTRIBUTE)
        depth, end = 0, statement.index("(", start)
        for end in range(end, len(statement)):  # noqa: B020 - goes on from the first parenthesis
            depth += {"(": 1, ")": -1}.get(statement[end], 0)
            if depth == 0:
                break
        statement = statement[:start] + statement[end + 1 :]
    return re.sub(r"\b(?:extern|__extension__)\b", "", statement).strip()


def deprecated(statement: str) -> bool:
    """Tell whether the header marks this declaration as deprecated."""
    return bool(re.search(rf"{ATTRIBUTE}\s*\(+\s*deprecated", statement))


def derive(compiler: str, include: list[Path]) -> Declarations:
    """Derive everything the extension binds from the headers in *include*.

    Parameters
    ----------
    compiler
        A C compiler that understands ``-E`` as GCC and Clang do.
    include
        Directories that hold the headers.

    Raises
    ------
    subprocess.CalledProcessError
        If the preprocessor fails.
    """
    result = Declarations()
    kept: list[str] = []
    by_header: dict[str, str] = {}
    for header, text in regions(preprocess(compiler, include)):
        by_header[header] = by_header.get(header, "") + "\n" + text
    # Whole headers, not stretches, are cut: a statement may cross an inner #include.
    for header in (*TYPES, *WHOLE):
        for raw in statements(by_header[header]):
            if deprecated(raw) or raw.startswith("static") or raw.endswith("}"):
                continue
            statement = without_attributes(raw)
            function = None if "{" in statement else FUNCTION.search(statement)
            if function is None or statement.startswith("typedef"):
                kept.append(re.sub(r"\[[^\]]*sizeof[^\]]*\]", "[...]", statement))
                continue
            name = function[1]
            if name in UNDEFINED or (header in TYPES and name not in FUNCTIONS):
                continue
            result.functions[name] = statement
            result.origin[name] = header
            kept.append(statement)
    result.constants = sorted({*enumerators(kept), *macros(include)})
    defines = "".join(f"#define {name} ...\n" for name in sorted(macros(include)))
    result.cdef = "\n".join(kept) + "\n" + defines
    return result


def enumerators(kept: list[str]) -> set[str]:
    """Return the names inside the enums of *kept*."""
    names: set[str] = set()
    for statement in kept:
        if re.match(r"(typedef\s+)?enum\b[^(]*{", statement):
            body = statement[statement.find("{") + 1 : statement.rfind("}")]
            names.update(re.findall(r"(?:^|,)\s*(\w+)", body))
    return names


def macros(include: list[Path]) -> set[str]:
    """Return the names of the numeric macros of the bound headers."""
    names: set[str] = set()
    for directory in include:
        for name in (*WHOLE, *TYPES):
            header = directory / name
            if header.is_file():
                names.update(MACRO.findall(header.read_text()))
    return names
