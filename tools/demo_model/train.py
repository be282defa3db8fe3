"""Training: AdamW for vectors and embeddings, Muon for matrices, a schedule sized by the clock."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from . import cases, packing, tokenizer
from .chat import LEARNT, Span, messages_of, spans
from .corpus import MEASURED, plain
from .network import DRAFT, MAIN, Network, Shape
from .skills.exchange import Exchange

SHAPES = {"main": MAIN, "draft": DRAFT}
SEED = 7
SAVE_EVERY, CHECK_EVERY = 60.0, 240.0  # seconds
TELL_EVERY = 50  # steps
WARM_UP = 0.02  # share of the time in which the rate rises
RATE_MATRIX, RATE_VECTOR, DECAY = 3e-3, 2e-3, 0.05


def optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Give Muon for the layers' matrices and AdamW for the rest."""
    matrices = [w for n, w in network.named_parameters() if w.dim() == 2 and n.startswith("blk")]
    others = [w for n, w in network.named_parameters() if w.dim() < 2 or not n.startswith("blk")]
    return [
        torch.optim.Muon(
            matrices, lr=RATE_MATRIX, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=RATE_VECTOR, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(done: float) -> float:
    """Give the share of the full learning rate after this share of the time."""
    return min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * min(done, 1.0))) + 1e-4


def loss_of(network: Network, rows: packing.Rows) -> Tensor:
    """Give the mean cross-entropy of the targets, weighted."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = network(rows.inputs, rows.mask.bfloat16())
        kept = rows.weights > 0
        logits = network.logits(hidden[kept])
    losses = functional.cross_entropy(logits.float(), rows.targets[kept], reduction="none")
    weights = rows.weights[kept]
    return (losses * weights).sum() / weights.sum()


def document_of(exchange: Exchange) -> list[Span]:
    """Write an exchange as the document that asks and answers it."""
    if exchange.plain:
        return plain(exchange)
    return spans(messages_of([exchange]), exchange.tools)


def accuracy(network: Network, words: Tokenizer, skill: str, count: int = 100) -> float:
    """Give the share of held-out cases in which every token of the answer is the likeliest."""
    right = 0
    chosen = cases.cases(skill, count)
    for at in range(0, len(chosen), 20):
        packed = [[packing.encode(words, document_of(e))] for e in chosen[at : at + 20]]
        length = max(len(row[0].ids) for row in packed)
        rows = packing.rows_of(packed, length)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            best = network.logits(network(rows.inputs, rows.mask.bfloat16())).argmax(-1)
        wrong = (best != rows.targets) & (rows.weights >= LEARNT)
        right += int((~wrong.any(1)).sum())
    return right / len(chosen)


def check(network: Network, words: Tokenizer) -> str:
    """Write the accuracy of each skill that has one right answer."""
    skills = [skill for skill in MEASURED if skill not in cases.CHECKS]
    return " ".join(f"{skill} {accuracy(network, words, skill):.2f}" for skill in skills)


class Trainer:
    """A network in training: its optimizers, its clock and its checkpoint."""

    def __init__(self, shape: Shape, path: Path, minutes: float) -> None:
        torch.manual_seed(SEED)
        self.path, self.seconds = path, 60 * minutes
        self.network = Network(shape)
        self.optimizers = optimizers(self.network)
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.step, self.started = 0, time.monotonic()
        if path.exists():
            self.resume()

    @property
    def spent(self) -> float:
        """Give the seconds trained, those before an interruption too."""
        return time.monotonic() - self.started

    def resume(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.path)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.started = state["step"], self.started - state["spent"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self.path.with_suffix(".part")
        state = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "shape": asdict(self.network.shape),
            "step": self.step,
            "spent": self.spent,
        }
        torch.save(state, part)
        part.replace(self.path)

    def learn(self, rows: packing.Rows) -> float:
        """Take one step and give its loss."""
        share = rate(self.spent / self.seconds)
        for optimizer, full in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = full * share
        loss = loss_of(self.network, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return loss.item()


def run(shape: Shape, words: Tokenizer, path: Path, minutes: float) -> None:
    """Train for so many minutes in all; a checkpoint at ``path`` is continued."""
    trainer = Trainer(shape, path, minutes)
    source = packing.batches(words, SEED + trainer.step)
    saved = checked = told = trainer.spent
    losses: list[float] = []
    while trainer.spent < trainer.seconds:
        losses.append(trainer.learn(next(source)))
        if len(losses) == TELL_EVERY:
            speed = len(losses) * packing.TOKENS / (trainer.spent - told)
            print(
                f"{trainer.spent:6.0f} s step {trainer.step} loss {sum(losses) / TELL_EVERY:.4f} "
                f"{speed:.0f} tokens/s",
                flush=True,
            )
            losses, told = [], trainer.spent
        if trainer.spent - saved > SAVE_EVERY:
            trainer.save()
            saved = trainer.spent
        if trainer.spent - checked > CHECK_EVERY:
            print("held out:", check(trainer.network, words), flush=True)
            checked = trainer.spent
    trainer.save()
    print("held out:", check(trainer.network, words), flush=True)


def main() -> None:
    """Read the command line and train one network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=SHAPES)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"))
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.work.mkdir(parents=True, exist_ok=True)
    words = tokenizer.made(asked.work / "tokenizer.json", MAIN.n_vocab)
    run(SHAPES[asked.which], words, asked.work / f"{asked.which}.pt", asked.minutes)


if __name__ == "__main__":
    main()
