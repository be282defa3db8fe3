"""Measure how late a call ends that has a deadline, or that another thread aborts.

    python bench/deadlines.py

Each call is stopped at moments spread over the time that it takes by itself. A decode can end
between two nodes of its graph, so it should be much less late than a micro-batch takes.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable

from peers import model_file

from pyllama import Batch, Context, Model
from pyllama.errors import AbortedError

TEXT = "\u4e2d" * 80_000  # the vocabulary has no such token: time grows with the square
ONE = {"n_threads": 1, "n_threads_batch": 1}

Stop = Callable[[float], float]  # stops a call after so many seconds; returns how long it took


def main() -> None:
    """Print a line for each kind of call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="times each call is stopped (15)")
    options = parser.parse_args()
    print("call                 takes  late: median   worst", flush=True)
    with Model(model_file("deadlines", "write_llama", n_embd=512, n_layer=4, n_ff=2048)) as model:
        with model.context(n_ctx=1024, n_batch=512, **ONE) as context:
            batch = Batch([7] * 512)
            usual = seconds(lambda: decode(context, batch, None))
            show(
                "decode(timeout=)", usual, options.rounds, lambda s: timed_decode(context, batch, s)
            )
            show("abort()", usual, options.rounds, lambda s: aborted_decode(context, batch, s))
        usual = seconds(lambda: model.vocab.tokenize(TEXT))
        show("tokenize(timeout=)", usual, options.rounds, lambda s: timed_tokenize(model, s))
    path = model_file("large", "write_tinyllama")
    usual = seconds(lambda: Model(path, load_mode="none").close())
    show("Model(timeout=)", usual, options.rounds, lambda s: timed_load(path, s))


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes: the shortest of three times."""
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def show(name: str, usual: float, rounds: int, stop: Stop) -> None:
    """Stop a call at several moments, and print by how many milliseconds it was late."""
    late = []
    for n in range(rounds):
        after = usual * (n + 1) / (rounds + 5)
        late.append(1000 * (stop(after) - after))
    median, worst = statistics.median(late), max(late)
    print(f"{name:19}{1000 * usual:5.0f} ms {median:12.0f} ms {worst:5.0f} ms", flush=True)


def decode(context: Context, batch: Batch, timeout: float | None) -> None:
    """Compute one micro-batch in an empty memory."""
    context.memory.clear()
    context.decode(batch, timeout=timeout)


def stopped(call: Callable[[], object], error: type[Exception]) -> float:
    """Return how long a call takes that must end with *error*."""
    begin = time.perf_counter()
    try:
        call()
    except error:
        return time.perf_counter() - begin
    raise SystemExit(f"the call ended before its {error.__name__}: run it on a quiet machine")


def timed_decode(context: Context, batch: Batch, after: float) -> float:
    """Decode with a timeout."""
    return stopped(lambda: decode(context, batch, after), TimeoutError)


def aborted_decode(context: Context, batch: Batch, after: float) -> float:
    """Decode until a timer in another thread aborts."""
    timer = threading.Timer(after, context.abort)
    timer.start()
    try:
        return stopped(lambda: decode(context, batch, None), AbortedError)
    finally:
        timer.join()


def timed_tokenize(model: Model, after: float) -> float:
    """Tokenize with a timeout, and wait until libllama has finished what was given up."""
    taken = stopped(lambda: model.vocab.tokenize(TEXT, timeout=after), TimeoutError)
    while model._record.users:
        time.sleep(0.01)
    return taken


def timed_load(path: object, after: float) -> float:
    """Load with a timeout."""
    return stopped(lambda: Model(path, load_mode="none", timeout=after), TimeoutError)


if __name__ == "__main__":
    main()
