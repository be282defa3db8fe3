"""A model cannot be closed while something is made of it, be it by another thread."""

from __future__ import annotations

import pytest
import random_model

from pyllama import Context, Model, Projector
from pyllama.core.media import projector
from pyllama.errors import BusyError


def test_a_context_is_read_before_its_model_closes(tiny_path):
    """Its sizes are asked of C once, when it is made."""
    refused = []

    class Watched(Context):
        def _keep_numbers(self, pointer):
            with pytest.raises(BusyError) as raised:
                self.model.close()
            refused.append(raised)
            super()._keep_numbers(pointer)

    with Model(tiny_path) as model, Watched(model, n_ctx=256) as context:
        assert context.n_ctx == 256
    assert len(refused) == 1


def test_a_projector_is_known_to_its_model_before_that_closes(tiny_path, tmp_path, monkeypatch):
    """Else it would outlive the model that it points at."""
    path = random_model.write_projector(tmp_path / "projector.gguf")
    load = projector.load

    def watched(*arguments):
        pointer = load(*arguments)
        with pytest.raises(BusyError):
            model.close()
        return pointer

    monkeypatch.setattr(projector, "load", watched)
    with Model(tiny_path) as model, Projector(model, path, n_threads=1) as made:
        assert made.supports_vision
        assert len(model._record.children) == 1
