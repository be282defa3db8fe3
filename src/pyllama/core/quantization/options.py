"""What `quantize` may be told, each option checked before C sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from pyllama.core.enums import FType, GGMLType, member
from pyllama.core.params import MAX_THREADS, flag, one_of, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyllama.core.files.gguf import Header
    from pyllama.core.quantization.importance import ImportanceMatrix

_FLOATS = frozenset(["F32", "F16", "BF16"])
# What ggml_quantize_chunk takes (ggml.c:8067); the others end the process (ggml.c:8139).
TARGETS = _FLOATS | frozenset(
    "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS "
    "IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0".split()
)
# What llama_ftype_get_default_type has no type for (llama-quant.cpp).
_NO_TARGET = frozenset([FType.GUESSED, FType.MOSTLY_NVFP4])
# Types that libllama refuses without (llama-quant.cpp: tensor_requires_imatrix), and the mixes
# that hold such.
_NEED_IMATRIX = frozenset(["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"])
_MIXES_NEED_IMATRIX = _NEED_IMATRIX | {"IQ2_M", "IQ3_XS", "Q2_K_S"}


class QuantizeOptions(TypedDict, total=False):
    """The options of `quantize`, as ``llama_model_quantize_params`` names them.

    Attributes
    ----------
    nthread : int
        Threads; left out, the CPUs this process may use.
    output_tensor_type, token_embedding_type : GGMLType or str
        For the output matrix, and for the token embeddings; left out, what the mix has.
    allow_requantize : bool
        Whether tensors that are quantised already may lose more.
    quantize_output_tensor : bool
        Whether the output matrix is quantised; left out, it is.
    only_copy : bool
        Copy all tensors as they are: joins the parts of a split model.
    pure : bool
        Give all tensors the same type, instead of a mix.
    keep_split : bool
        Write as many parts as the source has; *target* is then the name of the first one.
    dry_run : bool
        Write nothing, and say how large it would be.
    max_buf_size : int
        Bytes of one tensor in memory at a time; left out, 8 GiB.
    """

    nthread: int | None
    output_tensor_type: GGMLType | str | None
    token_embedding_type: GGMLType | str | None
    allow_requantize: bool | None
    quantize_output_tensor: bool | None
    only_copy: bool | None
    pure: bool | None
    keep_split: bool | None
    dry_run: bool | None
    max_buf_size: int | None


CHECKS = {
    "nthread": whole(1, MAX_THREADS),
    "output_tensor_type": one_of(GGMLType, only=TARGETS),
    "token_embedding_type": one_of(GGMLType, only=TARGETS),
    "max_buf_size": whole(1, 2**63 - 1),
    **dict.fromkeys(
        (
            "allow_requantize",
            "quantize_output_tensor",
            "only_copy",
            "pure",
            "keep_split",
            "dry_run",
        ),
        flag,
    ),
}


def file_type(value: FType | str) -> FType:
    """Return a mix; its name may be given without MOSTLY or ALL, as llama-quantize has it.

    Parameters
    ----------
    value
        Such as ``FType.MOSTLY_Q4_K_M`` or "q4_k_m".

    Returns
    -------
    FType

    Raises
    ------
    TypeError, ValueError
        If it is none that can be made.
    """
    if isinstance(value, str):
        name = value.upper()
        short = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"}.get(name, f"MOSTLY_{name}")
        value = short if short in FType.__members__ else name
    found = member(FType, value, "ftype")
    if found in _NO_TARGET:
        message = f"ftype={found.name.lower()!r} is not one that libllama can make"
        raise ValueError(message)
    return found


def tensor_overrides(values: Mapping[str, GGMLType | str], ftype: FType) -> list[tuple[str, int]]:
    """Return patterns and types in order.

    Parameters
    ----------
    values
        A regular expression (ECMAScript) for each type; the first that is found in the name of a
        tensor counts.
    ftype
        The mix.

    Returns
    -------
    list of (str, int)

    Raises
    ------
    TypeError, ValueError
        If a pattern or type is none, or the mix is one where libllama does not look at them.
    """
    if not isinstance(values, Mapping):
        message = f"tt_overrides must be a mapping of pattern to type, not {values!r:.80}"
        raise TypeError(message)
    if values and short_name(ftype) in _FLOATS:
        message = f"tt_overrides are for quantised files; with ftype={short_name(ftype)} none count"
        raise ValueError(message)
    check = one_of(GGMLType, only=TARGETS)
    found = []
    for pattern, kind in values.items():
        if not isinstance(pattern, str):
            message = f"a pattern of tt_overrides must be text, not {pattern!r:.80}"
            raise TypeError(message)
        if not pattern or "\0" in pattern or len(pattern.encode()) > 1000:
            message = f"{pattern[:40]!r} is no pattern: 1 to 1000 bytes, without NUL"
            raise ValueError(message)
        found.append((pattern, int(check(f"tt_overrides[{pattern!r}]", kind))))
    return found


def layers(values: Sequence[int], header: Header) -> list[int]:
    """Return the layers to leave out, sorted: libllama takes the first for the lowest.

    Parameters
    ----------
    values
        Layers, from 0.
    header
        Of the source.

    Returns
    -------
    list of int

    Raises
    ------
    TypeError, ValueError
        If there is no such layer, one is given twice, or none is left.
    """
    n_layer = header.count(f"{header.architecture}.block_count")
    check = whole(0, max(n_layer - 1, 0))
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        message = f"prune_layers must be layers, not {values!r:.80}"
        raise TypeError(message)
    found = sorted(check("a layer of prune_layers", each) for each in values)
    if len(set(found)) < len(found) or (found and len(found) >= n_layer):
        message = f"prune_layers={found}: each layer once, and one of {n_layer} must be left"
        raise ValueError(message)
    return found


def require_imatrix(
    ftype: FType, kinds: Mapping[str, Iterable[int]], imatrix: ImportanceMatrix | None
) -> None:
    """Raise if types of few bits are wanted, and nothing says where the bits matter.

    Parameters
    ----------
    ftype
        The mix.
    kinds
        The types asked for besides, under the name of the option.
    imatrix
        What was given.

    Raises
    ------
    ValueError
        With what needs it.
    """
    hint = "collect an importance matrix with pyllama.imatrix() and give it as imatrix="
    if imatrix is None and short_name(ftype) in _MIXES_NEED_IMATRIX:
        message = f"ftype={short_name(ftype).lower()!r} has too few bits to do without: {hint}"
        raise ValueError(message)
    tensors = {"output_tensor_type": "output.weight", "token_embedding_type": "token_embd.weight"}
    for option, found in kinds.items():
        few = sorted({GGMLType(kind).name for kind in found} & _NEED_IMATRIX)
        if few and (imatrix is None or tensors.get(option, "") not in ("", *imatrix.sums)):
            message = f"{option}={few[0].lower()!r} has too few bits to do without: {hint}"
            raise ValueError(message)


def check_imatrix(imatrix: ImportanceMatrix, headers: Sequence[Header]) -> None:
    """Raise unless an importance matrix is of this model.

    Parameters
    ----------
    imatrix
        What was given.
    headers
        Of all files of the source.

    Raises
    ------
    ValueError
        With the tensor that it does not fit.
    """
    known = {tensor.name: tensor for header in headers for tensor in header.tensors}
    if not imatrix.sums.keys() & known.keys():
        message = f"the imatrix is of another model: {headers[0].path} has none of its weights"
        raise ValueError(message)
    for name in imatrix.sums.keys() & known.keys():
        shape = known[name].shape
        wanted = shape[0] * (shape[2] if len(shape) > 2 else 1)
        if imatrix.sums[name].size != wanted:
            message = (
                f"the imatrix is of another model: it has {imatrix.sums[name].size} numbers for "
                f"{name}, not {wanted}"
            )
            raise ValueError(message)


def short_name(ftype: FType) -> str:
    """Return the name of a mix as llama-quantize has it."""
    return ftype.name.removeprefix("MOSTLY_").removeprefix("ALL_")
