"""GGUF files from checkpoints, written with the gguf package of the pinned llama.cpp."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from . import tokenizer
from .chat import BEGIN, CONTROL, END, TEMPLATE
from .network import Network, Shape

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "vendor" / "llama.cpp" / "gguf-py"))
import gguf  # noqa: E402

MODELS = ROOT / "src" / "pyllama" / "models"
FILES = {"main": "demo.gguf", "draft": "demo-draft.gguf"}
NAMES = {"main": "pyllama demo", "draft": "pyllama demo draft"}
ABOUT = {
    "main": "A very small model for demonstrations and tests: capitals, sums to 99+99, counting, "
    "weekdays, opposites, JSON objects, tool calls and little stories.",
    "draft": "The draft model of 'pyllama demo' for speculative decoding; same vocabulary.",
}


def add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write the sizes of the network."""
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)


def add_tokenizer(writer: gguf.GGUFWriter, words: Tokenizer) -> None:
    """Write tokens, merges, the control tokens' part, and that texts begin with BOS."""
    ids = words.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.__getitem__)
    kinds = [
        gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens
    ]
    merges = json.loads(words.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.PRE)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(ids[BEGIN])
    writer.add_eos_token_id(ids[END])
    writer.add_eot_token_id(ids[END])
    writer.add_pad_token_id(ids[BEGIN])
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=False)
    writer.add_chat_template(TEMPLATE)


def add_about(writer: gguf.GGUFWriter, which: str, size: int) -> None:
    """Write what the file is and whose."""
    writer.add_name(NAMES[which])
    writer.add_description(ABOUT[which])
    writer.add_author("the pyllama authors")
    writer.add_license("mit")
    writer.add_size_label(f"{size / 1e6:.1f}M")
    writer.add_languages(["en"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def export(which: str, network: Network, words: Tokenizer, path: Path) -> None:
    """Write a network and its tokenizer: matrices as Q8_0, norms as f32."""
    writer = gguf.GGUFWriter(str(path), "llama")
    add_about(writer, which, sum(weight.numel() for weight in network.parameters()))
    add_shape(writer, network.shape)
    add_tokenizer(writer, words)
    for name, weight in network.state_dict().items():
        values = weight.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def network_of(checkpoint: Path) -> Network:
    """Read the network of a checkpoint."""
    state = torch.load(checkpoint)
    network = Network(Shape(**state["shape"]))
    network.load_state_dict(state["network"])
    return network


def from_checkpoint(which: str, work: Path, models: Path) -> Path:
    """Export the checkpoint of one network and give the file's path."""
    network = network_of(work / f"{which}.pt")
    path = models / FILES[which]
    models.mkdir(parents=True, exist_ok=True)
    export(which, network, tokenizer.load(work / "tokenizer.json"), path)
    return path


def main() -> None:
    """Read the command line and export one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=FILES)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"))
    parser.add_argument("--models", type=Path, default=MODELS)
    asked = parser.parse_args()
    path = from_checkpoint(asked.which, asked.work, asked.models)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
