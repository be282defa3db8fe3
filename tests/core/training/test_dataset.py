"""A text cut into windows."""

from __future__ import annotations

import numpy as np
import pytest

from pyllama import Dataset


def test_windows_follow_the_stride():
    """The labels are the tokens one further; the text is a copy."""
    tokens = np.arange(11)
    dataset = Dataset(tokens, 4, stride=3)
    tokens[:] = 0
    assert [(data.tolist(), labels.tolist()) for data, labels in dataset] == [
        ([0, 1, 2, 3], [1, 2, 3, 4]),
        ([3, 4, 5, 6], [4, 5, 6, 7]),
        ([6, 7, 8, 9], [7, 8, 9, 10]),
    ]
    assert (len(dataset), dataset.n_ctx, dataset.stride, dataset.n_tokens) == (3, 4, 3, 11)
    assert dataset[-1][0].tolist() == [6, 7, 8, 9]
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(ValueError, match="read-only"):
        dataset[0][0][0] = 1


@pytest.mark.parametrize(
    ("error", "match", "arguments", "options"),
    [
        (ValueError, "do not fill one window", (range(4), 4), {}),
        (ValueError, "0 tokens", ([], 4), {}),
        (TypeError, "whole numbers", ([0.5] * 9, 4), {}),
        (ValueError, "1 dimension", ([[1, 2], [3, 4]], 1), {}),
        (ValueError, "n_ctx=0", (range(9), 0), {}),
        (ValueError, "stride=0", (range(9), 4), {"stride": 0}),
        (TypeError, "stride", (range(9), 4), {"stride": 1.5}),
    ],
)
def test_a_text_that_cannot_be_cut_is_refused(error, match, arguments, options):
    """Before any window is made."""
    with pytest.raises(error, match=match):
        Dataset(*arguments, **options)
