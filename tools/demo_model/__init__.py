"""Make the models that ship with pyllama: corpus, tokenizer, networks, GGUF files, measurement."""

import os

# torch's threads spin while they wait for each other. Beside a compiler on 2 cores that cost
# five sixths of the speed, so they sleep instead; this must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
