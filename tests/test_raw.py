"""The raw layer against the headers, read here once more and without the code that binds them."""

from __future__ import annotations

import ctypes
import inspect
import re
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

import pytest

from pyllama import _libllama
from pyllama.core import enums
from pyllama.core.library import ffi, lib
from pyllama.errors import LibraryAbortError, LibraryError, UnsupportedError

ROOT = Path(__file__).parent.parent
LLAMA_CPP = ROOT / "vendor" / "llama.cpp"
INSTALLED = Path(_libllama.__file__).parent

LLAMA = "include/llama.h"
GGML = "ggml/include/ggml.h"
BACKEND = "ggml/include/ggml-backend.h"
CPU = "ggml/include/ggml-cpu.h"
HEADERS = (
    LLAMA,
    BACKEND,
    CPU,
    "ggml/include/ggml-opt.h",
    "ggml/include/ggml-rpc.h",
    "ggml/include/gguf.h",
    "tools/mtmd/mtmd.h",
    "tools/mtmd/mtmd-helper.h",
)
NOWHERE = {"ggml_threadpool_get_n_threads"}  # declared, and defined in no library of this pin
CPP_ONLY = {"mtmd_get_memory_usage"}  # returns a std::map, so C cannot call it

ENUMERATIONS = {
    enums.VocabType: (LLAMA, "llama_vocab_type", "LLAMA_VOCAB_TYPE_"),
    enums.TokenAttr: (LLAMA, "llama_token_attr", "LLAMA_TOKEN_ATTR_"),
    enums.RopeType: (LLAMA, "llama_rope_type", "LLAMA_ROPE_TYPE_"),
    enums.RopeScalingType: (LLAMA, "llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_"),
    enums.PoolingType: (LLAMA, "llama_pooling_type", "LLAMA_POOLING_TYPE_"),
    enums.AttentionType: (LLAMA, "llama_attention_type", "LLAMA_ATTENTION_TYPE_"),
    enums.FlashAttnType: (LLAMA, "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_"),
    enums.ContextType: (LLAMA, "llama_context_type", "LLAMA_CONTEXT_TYPE_"),
    enums.SplitMode: (LLAMA, "llama_split_mode", "LLAMA_SPLIT_MODE_"),
    enums.LoadMode: (LLAMA, "llama_load_mode", "LLAMA_LOAD_MODE_"),
    enums.LazyMode: (LLAMA, "llama_lazy_mode", "LLAMA_LAZY_MODE_"),
    enums.FType: (LLAMA, "llama_ftype", "LLAMA_FTYPE_"),
    enums.NumaStrategy: (CPU, "ggml_numa_strategy", "GGML_NUMA_STRATEGY_"),
    enums.DeviceType: (BACKEND, "ggml_backend_dev_type", "GGML_BACKEND_DEVICE_TYPE_"),
    enums.GGMLType: (GGML, "ggml_type", "GGML_TYPE_"),
}
NO_MEMBERS = {"COUNT", "MAX_VALUE"}  # they count the members


def code_of(path: str) -> str:
    """Return a header without comments and preprocessor lines."""
    text = (LLAMA_CPP / path).read_text()
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)


def functions_of(path: str) -> tuple[set[str], set[str]]:
    """Return the functions that a header exports, and those of them that are deprecated."""
    code = code_of(path)
    deprecated = set()
    while found := re.search(r"\b(?:GGML_)?DEPRECATED\s*\(", code):
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        deprecated.add(re.search(r"(\w+)\s*\(", code[found.end() : end])[1])
        code = code[: found.start()] + code[end:]
    exported = re.findall(r"\b(?:LLAMA|GGML|GGML_BACKEND|MTMD)_API\b[^;{}()]*?\b(\w+)\s*\(", code)
    return set(exported), deprecated


def enumerators_of(header: str, name: str) -> dict[str, int]:
    """Return the members of one enumeration of a header with their values."""
    body = re.search(rf"enum\s+{name}\s*{{(.*?)}}", code_of(header), re.DOTALL)[1]
    macros = re.findall(r"#define\s+(\w+)\s+(\d+)", (LLAMA_CPP / GGML).read_text())
    known = {macro: int(number) for macro, number in macros}
    members: dict[str, int] = {}
    value = -1
    for entry in filter(None, (part.strip() for part in body.split(","))):
        member, _, given = (part.strip() for part in entry.partition("="))
        number, _, shift = given.partition("<<")
        if not given:
            value += 1
        elif given in known:
            value = known[given]
        else:
            value = int(number, 0) << int(shift or 0)
        known[member] = members[member] = value
    return members


@pytest.mark.parametrize("header", HEADERS)
def test_every_function_is_bound(header):
    """Whatever a header exports and does not deprecate can be called."""
    exported, _ = functions_of(header)
    assert len(exported) > 5, "the reading of the header found next to nothing"
    assert exported - NOWHERE - CPP_ONLY - set(dir(lib)) == set()


def test_llama_h_is_read_whole():
    """As many functions are found as llama.h has of its export macro."""
    text = (LLAMA_CPP / LLAMA).read_text()
    macros = len(re.findall(r"^[^#\n/]*\bLLAMA_API\b", text, re.MULTILINE))
    exported, deprecated = functions_of(LLAMA)
    assert len(exported) + len(deprecated) == macros


@pytest.mark.parametrize("header", HEADERS)
def test_deprecated_functions_are_left_out(header):
    """Nothing can begin to depend on what llama.cpp is about to remove."""
    _, deprecated = functions_of(header)
    assert deprecated & set(dir(lib)) == set()


def test_functions_defined_nowhere_are_defined_nowhere():
    """The list of exceptions holds none that a library exports."""
    found = set()
    for file in (*INSTALLED.glob("lib*.so"), *INSTALLED.glob("lib*.dylib")):
        library = ctypes.CDLL(str(file))
        found |= {name for name in NOWHERE if hasattr(library, name)}
    assert found == set()


def test_stub_names_everything():
    """A type checker knows each function and constant that can be reached."""
    stub = (INSTALLED / "_libllama.pyi").read_text()
    named = set(re.findall(r"^    (?:def )?(\w+)", stub, re.MULTILINE))
    assert set(dir(lib)) - named == set()


@pytest.mark.parametrize("kind", ENUMERATIONS, ids=lambda kind: kind.__name__)
def test_enumeration_has_the_members_of_the_header(kind):
    """Each name and value is the header's, and none is missing."""
    header, name, prefix = ENUMERATIONS[kind]
    wanted = {
        member.removeprefix(prefix): value
        for member, value in enumerators_of(header, name).items()
        if member.removeprefix(prefix) not in NO_MEMBERS
    }
    assert {member.name: int(member) for member in kind.__members__.values()} == wanted


def test_every_enumeration_is_compared():
    """An enumeration added to enums.py joins the test above."""
    defined = {
        each
        for _, each in inspect.getmembers(enums, inspect.isclass)
        if issubclass(each, int) and each.__module__ == enums.__name__
    }
    assert defined == set(ENUMERATIONS)


def test_pin_is_the_submodule_commit():
    """vendor/PIN, which an sdist carries, is the commit that git records."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--stage", "vendor/llama.cpp"]
    line = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert line.split()[:2] == ["160000", (ROOT / "vendor" / "PIN").read_text().strip()]


def test_extension_was_built_from_the_pin():
    """What runs is what the tests read."""
    built = ffi.string(lib.pyllama_llama_commit()).decode()
    assert built == (ROOT / "vendor" / "PIN").read_text().strip()


def test_cpp_exception_arrives():
    """What C++ throws becomes a Python exception with its words, and the process goes on."""
    with pytest.raises(LibraryError, match="unknown load mode: bogus") as caught:
        lib.llama_load_mode_from_str(b"bogus")
    assert not isinstance(caught.value, LibraryAbortError)


def test_failed_assertion_arrives():
    """An assertion that fails on the calling thread says where, and the process goes on."""
    with pytest.raises(LibraryAbortError, match=r"ggml-backend-reg\.cpp:\d+"):
        lib.ggml_backend_dev_get(lib.ggml_backend_dev_count())


def test_call_after_a_failed_one_is_clean():
    """A caught failure leaves nothing behind that the next call would raise."""
    with pytest.raises(LibraryAbortError):
        lib.ggml_backend_dev_get(lib.ggml_backend_dev_count())
    assert lib.ggml_backend_dev_get(0) != ffi.NULL


def test_absent_backend_is_named():
    """A function of a backend that is not in the build says which option brings it."""
    if lib.llama_supports_rpc():
        pytest.skip("this build has RPC")
    with pytest.raises(UnsupportedError, match="-DGGML_RPC=on"):
        lib.ggml_backend_is_rpc(ffi.NULL)


def test_enumerations_are_numbers_to_c():
    """A member can be given to C as it is."""
    assert issubclass(enums.GGMLType, IntEnum)
    assert ffi.string(lib.ggml_type_name(enums.GGMLType.Q8_0)) == b"q8_0"
