"""What the tests of samplers written in Python choose from."""

from __future__ import annotations

import numpy as np
import pytest
from written_samplers import rows


@pytest.fixture
def logits() -> np.ndarray:
    """Return one row of logits."""
    return rows(1)[0]
