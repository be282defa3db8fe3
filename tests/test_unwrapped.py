"""Nothing of the C API is forgotten: core/ reaches every bound function, or it is refused here."""

from __future__ import annotations

import ast
import functools
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pyllama.core.library import lib

ROOT = Path(__file__).parent.parent
CORE = ROOT / "src" / "pyllama" / "core"

# Functions that no public method calls, each with the reason; a star stands for any ending.
REFUSED = {
    # batches
    "llama_batch_init": "a Batch is numpy arrays; C would not look at the bounds of its own",
    "llama_batch_free": "goes with llama_batch_init",
    "llama_batch_get_one": "leaves pos NULL, and libllama writes to the heap before it looks",
    "llama_batch_ext_*": "a Batch carries all of it: tests/core/test_batch_both.py compares; here "
    "an entry that was refused stays in the batch, and the memory's address outlives the context",
    "llama_process": "takes a llama_batch_ext",
    # outputs and states
    "llama_get_logits_ith": "NULL or an assertion for a row that is not there; rows are counted",
    "llama_get_embeddings_ith": "as llama_get_logits_ith",
    "llama_state_load_file": "an assertion on a short file; State.load reads our own container",
    "llama_state_save_file": "success on a full disk; State.save writes our own container",
    "llama_state_seq_load_file": "as llama_state_load_file",
    "llama_state_seq_save_file": "as llama_state_save_file",
    "llama_state_seq_get_size": "llama_state_seq_get_size_ext with flags 0",
    "llama_state_seq_get_data": "llama_state_seq_get_data_ext with flags 0",
    "llama_state_seq_set_data": "llama_state_seq_set_data_ext with flags 0",
    # contexts and models
    "llama_get_model": "a Context holds its Model",
    "llama_set_abort_callback": "the callback is given when the context is made",
    "llama_perf_context_print": "logs what Context.perf returns",
    "llama_model_meta_val_str": "the index functions give the same pairs",
    "llama_model_meta_key_str": "names of keys, which Model.metadata holds under those names",
    "llama_adapter_meta_val_str": "the index functions give the same pairs",
    "llama_adapter_lora_init_from_file_ptr": "wants a FILE *; adapters are loaded by path",
    "llama_ftype_name": "FType names them",
    "llama_flash_attn_type_name": "an assertion on an unknown number; FlashAttnType names them",
    "llama_load_mode_name": "an assertion on an unknown number; LoadMode names them",
    "llama_load_mode_from_str": "throws on an unknown name; LoadMode has them",
    "llama_split_path": "names of parts are made in Python, without a buffer that may be short",
    "llama_split_prefix": "as llama_split_path",
    # samplers
    "llama_sampler_sample": "may be asked for a row that is not there, and asserts if none is "
    "selected; SamplerChain.sample reads the row itself",
    "llama_sampler_chain_n": "takes any sampler for a chain; SamplerChain knows its members",
    "llama_sampler_get_seed": "a Sampler knows the seed that it was made with",
    "llama_perf_sampler_print": "logs what SamplerChain.perf returns",
    # texts
    "llama_chat_apply_template": "knows a fixed list of templates, and no Jinja",
    "llama_chat_builtin_templates": "the names of that list",
    # the library
    "llama_backend_free": "frees tables of the whole process, while other objects use them",
    "llama_log_get": "the log callback is our own, bindings/log.cpp",
    "mtmd_log_set": "mtmd_helper_log_set, in bindings/log.cpp, does it",
    # images and sounds
    "mtmd_tokenize": "a marker in the user's text would stand for an image; "
    "mtmd_tokenize_from_parts has none",
    "mtmd_get_marker": "goes with mtmd_tokenize",
    "mtmd_bitmap_init_lazy": "a Bitmap holds its pixels, so that they are checked before",
    "mtmd_helper_bitmap_init_from_file": "files are read, and their sizes checked, in Python",
    "mtmd_helper_eval_chunk*": "chunks are decoded by Context.decode, whose checks it has not",
    "mtmd_helper_decode_image_chunk": "as mtmd_helper_eval_chunks",
    "mtmd_image_tokens_*": "to be deprecated; the functions of chunks give the same",
    "mtmd_input_chunk_copy": "chunks stay with the list that they are in",
    "mtmd_input_chunk_free": "goes with mtmd_input_chunk_copy",
    "mtmd_input_chunk_get_placeholder": "a chunk without pixels, which can be encoded no more",
    "mtmd_input_chunk_save": "keeps no pixels",
    "mtmd_input_chunk_load": "gives such a placeholder, from bytes that are not checked",
    "mtmd_helper_video_*": "runs ffmpeg on what it is given; frames are bitmaps as well",
    "mtmd_helper_support_video": "goes with mtmd_helper_video_init",
    "mtmd_helper_model_can_chat": "asks what kind of speech output the projector has",
    "mtmd_gen_*": "speech output, experimental in mtmd.h and for two models only",
    "mtmd_helper_gen_audio_*": "speech output, as mtmd_gen_audio_process",
    "mtmd_test_create_input_chunks": "for the tests of mtmd",
    # training: llama_context keeps its ggml_opt_context to itself
    "llama_opt_param_filter_all": "the filter of a Training answers by name",
    "ggml_opt_dataset_get_batch*": "copies out what Dataset has in numpy",
    "ggml_opt_dataset_ndata": "C gets one window at a time",
    "ggml_opt_dataset_shuffle": "needs the ggml_opt_context",
    "ggml_opt_default_params": "for a ggml_opt_context of one's own",
    "ggml_opt_init": "makes a ggml_opt_context; llama_opt_init makes the one of a model",
    "ggml_opt_free": "llama_free does it",
    "ggml_opt_fit": "trains graphs of one's own",
    "ggml_opt_epoch": "as ggml_opt_fit",
    "ggml_opt_epoch_callback_progress_bar": "prints",
    "ggml_opt_optimizer_name": "Training names them",
    "ggml_opt_result_reset": "an epoch begins with new results",
    **dict.fromkeys(
        (
            f"ggml_opt_{name}"
            for name in (
                "alloc", "context_optimizer_type", "eval", "grad_acc", "inputs", "labels", "loss",
                "ncorrect", "outputs", "pred", "prepare_alloc", "reset", "static_graphs",
                "step_adamw", "step_sgd",
            )
        ),
        "works on a ggml_opt_context, or on a graph",
    ),
    # backends: libllama builds the graphs, and what computes them
    "ggml_backend_rpc_*": "needs a build with GGML_RPC, whose server runs what it is sent",
    "ggml_backend_cpu_*": "libllama makes its CPU backend; threads are options of a context",
    "ggml_backend_meta_*": "devices made of devices are libllama's own",
    "ggml_backend_load*": "backend.start loads each library that is installed, by its path",
    "ggml_backend_unload": "objects may still use it",
    "ggml_backend_register": "for backends written against ggml",
    "ggml_backend_device_register": "for backends written against ggml",
    "ggml_backend_reg_*": "devices are listed over all backends",
    **dict.fromkeys(
        (
            f"ggml_backend_{name}"
            for name in (
                "sched_*", "graph_*", "event_*", "buffer_*", "buft_*", "tensor_*", "dev_*",
                "init_*", "is_*", "supports_*", "offload_op", "alloc_buffer", "view_init", "free",
                "guid", "name", "synchronize", "compare_graph_backend", "get_alignment",
                "get_default_buffer_type", "get_device", "get_max_size",
            )
        ),
        "works on graphs, buffers and backends, which libllama keeps; 165 assertions guard them",
    ),
}  # fmt: skip
PREFIXES = ("llama_", "mtmd_", "ggml_opt_", "ggml_backend_")


@functools.cache
def bound() -> set[str]:
    """Return the functions that the extension offers, of those that are to be reached."""
    return {name for name in dir(lib) if name.startswith(PREFIXES) and callable(getattr(lib, name))}


@functools.cache
def reached() -> set[str]:
    """Return the names that core/ takes from ``lib``, and those our own C calls for it."""
    found: set[str] = set()
    for file in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "lib":
                found.add(node.attr)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("addressof"):
                found |= {each.value for each in node.args[1:] if isinstance(each, ast.Constant)}
    for file in (ROOT / "bindings").glob("*.cpp"):
        code = re.sub(r"//[^\n]*|/\*.*?\*/", "", file.read_text(), flags=re.S)
        found |= set(re.findall(r"\b(?:llama|ggml|mtmd)_\w+(?=[(,)])", code))
    return found


def test_every_function_is_reached_or_refused():
    """What llama.h and mtmd.h offer is offered here, or there is a reason."""
    open_ones = bound() - reached()
    missing = {name for name in open_ones if not any(fnmatchcase(name, each) for each in REFUSED)}
    assert sorted(missing) == []


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_is_refused_is_there_and_not_reached(pattern):
    """No reason outlives its function, and none stands for a function that is used after all."""
    meant = {name for name in bound() if fnmatchcase(name, pattern)}
    assert meant - reached()
    if not pattern.endswith("*"):
        assert not meant & reached()
