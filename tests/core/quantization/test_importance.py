"""Importance matrices as objects and files; what is in them is in test_imatrix.py."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from pyllama import ImportanceMatrix
from pyllama.errors import LoadError

SUMS = {"blk.0.attn_q.weight": [[1.0, 2, 3]], "blk.0.ffn_up_exps.weight": [[4.0, 8], [0, 0]]}
COUNTS = {"blk.0.attn_q.weight": [10], "blk.0.ffn_up_exps.weight": [4, 0]}


@pytest.fixture
def matrix() -> ImportanceMatrix:
    """Make one with a dense weight, and one with experts."""
    return ImportanceMatrix(SUMS, COUNTS, chunk_size=5, datasets=["a.txt"])


def same(one: ImportanceMatrix, other: ImportanceMatrix) -> bool:
    """Return whether two hold the same."""
    return (
        one.sums.keys() == other.sums.keys()
        and all(np.array_equal(one.sums[name], other.sums[name]) for name in one.sums)
        and all(np.array_equal(one.counts[name], other.counts[name]) for name in one.sums)
        and (one.chunk_size, one.datasets) == (other.chunk_size, other.datasets)
    )


def test_the_mean_is_one_where_nothing_was_counted(matrix):
    """As llama-quantize has it: an expert that was never chosen has no preference."""
    np.testing.assert_array_equal(matrix.mean("blk.0.ffn_up_exps.weight"), [1, 2, 1, 1])
    assert matrix.mean("blk.0.attn_q.weight").dtype == np.float32


def test_chunks_are_counted_by_the_largest_count(matrix):
    """It is not stored apart."""
    assert matrix.n_chunks == 2


def test_a_sum_of_two_is_what_both_texts_gave(matrix):
    """Weights that only one has seen are in it too."""
    other = ImportanceMatrix({"x": [[1.0]]}, {"x": [1]}, datasets=["a.txt", "b.txt"])
    merged = matrix + matrix + other
    np.testing.assert_array_equal(merged.sums["blk.0.attn_q.weight"], [[2, 4, 6]])
    np.testing.assert_array_equal(merged.counts["blk.0.ffn_up_exps.weight"], [8, 0])
    assert merged.sums["x"] == 1
    assert (merged.chunk_size, merged.datasets) == (5, ("a.txt", "b.txt"))


def test_matrices_of_different_models_are_not_added(matrix):
    """The shapes tell."""
    other = ImportanceMatrix({"blk.0.attn_q.weight": [[1.0]]}, {"blk.0.attn_q.weight": [1]})
    with pytest.raises(ValueError, match=r"blk\.0\.attn_q"):
        matrix + other


def test_only_matrices_are_added(matrix):
    """As Python says it."""
    with pytest.raises(TypeError):
        matrix + 1


def test_a_file_gives_back_what_was_saved(matrix, tmp_path):
    """Sums are stored in float32."""
    matrix.save(tmp_path / "imatrix.gguf")
    assert same(ImportanceMatrix.load(tmp_path / "imatrix.gguf"), matrix)


def test_the_file_is_laid_out_as_llama_imatrix_does(matrix, tmp_path):
    """Keys, names, types and shapes, read by gguf-py."""
    matrix.save(tmp_path / "imatrix.gguf")
    reader = gguf.GGUFReader(tmp_path / "imatrix.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "imatrix"
    assert fields["imatrix.datasets"] == ["a.txt"]
    assert (fields["imatrix.chunk_count"], fields["imatrix.chunk_size"]) == (2, 5)
    assert [(each.name, each.tensor_type.name, each.data.shape) for each in reader.tensors] == [
        ("blk.0.attn_q.weight.in_sum2", "F32", (1, 3)),
        ("blk.0.attn_q.weight.counts", "F32", (1, 1)),
        ("blk.0.ffn_up_exps.weight.in_sum2", "F32", (2, 2)),
        ("blk.0.ffn_up_exps.weight.counts", "F32", (2, 1)),
    ]


def test_rows_that_gguf_flattened_are_read(tmp_path):
    """ggml drops a last dimension of one, as llama-imatrix's files do."""
    writer = gguf.GGUFWriter(tmp_path / "flat.gguf", "")
    writer.add_string("general.type", "imatrix")
    writer.add_uint32("imatrix.chunk_size", 7)
    writer.add_tensor("w.in_sum2", np.float32([1, 2, 3]))
    writer.add_tensor("w.counts", np.float32([9]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = ImportanceMatrix.load(tmp_path / "flat.gguf")
    np.testing.assert_array_equal(loaded.sums["w"], [[1, 2, 3]])
    assert (loaded.counts["w"].tolist(), loaded.chunk_size, loaded.datasets) == ([9], 7, ())


def test_a_model_is_no_importance_matrix(tiny_path):
    """Its general.type tells."""
    with pytest.raises(LoadError, match="no importance matrix"):
        ImportanceMatrix.load(tiny_path)


def test_sums_without_counts_are_refused(tmp_path):
    """They belong together."""
    writer = gguf.GGUFWriter(tmp_path / "half.gguf", "")
    writer.add_string("general.type", "imatrix")
    writer.add_tensor("w.in_sum2", np.float32([1, 2, 3]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LoadError, match="same weights"):
        ImportanceMatrix.load(tmp_path / "half.gguf")


@pytest.mark.parametrize(
    ("sums", "counts", "error"),
    [
        (None, {}, TypeError),
        ({}, {}, ValueError),
        ({"a": [1.0]}, {"b": [1]}, ValueError),
        ({1: [1.0]}, {1: [1]}, TypeError),
        ({"": [1.0]}, {"": [1]}, ValueError),
        ({"a" * 60: [1.0]}, {"a" * 60: [1]}, ValueError),
        ({"a": "x"}, {"a": [1]}, TypeError),
        ({"a": [-1.0]}, {"a": [1]}, ValueError),
        ({"a": [np.nan]}, {"a": [1]}, ValueError),
        ({"a": []}, {"a": [1]}, ValueError),
        ({"a": [[[1.0]]]}, {"a": [1]}, ValueError),
        ({"a": [1.0]}, {"a": [1, 1]}, ValueError),
        ({"a": [1.0]}, {"a": [-1]}, ValueError),
        ({"a": [1.0]}, {"a": [0.5]}, TypeError),
    ],
)
def test_what_does_not_fit_together_is_refused(sums, counts, error):
    """When it is made, not when it is used."""
    with pytest.raises(error):
        ImportanceMatrix(sums, counts)


@pytest.mark.parametrize("datasets", ["wiki.txt", [1], None])
def test_datasets_are_several_strings(datasets):
    """One string is not a sequence of letters here."""
    with pytest.raises(TypeError, match="datasets must"):
        ImportanceMatrix({"w": [[1.0]]}, {"w": [1]}, datasets=datasets)


def test_an_older_file_stays_when_the_new_one_cannot_be_written(matrix, tmp_path):
    """It is written beside it first."""
    with pytest.raises(IsADirectoryError):
        matrix.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
