"""Files: an error names the path and the cause; a safetensors file is known whatever the length of its header."""

import errno
import fcntl
import os

import pytest
import torch

from contrastive_dp import ProjectionHead
from contrastive_dp.files import not_the_file, read_safetensors, write_checkpoint, write_safetensors, write_whole


@pytest.mark.parametrize("write", [write_safetensors, lambda path, content, _about: write_checkpoint(path, content)])
def test_a_folder_that_is_not_there_is_no_full_disk(tmp_path, write):
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "none" / "a.bin", {"x": torch.zeros(2)}, {})
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(tmp_path / "none" / "a.bin")
    with pytest.raises(FileNotFoundError):
        ProjectionHead(2).save(tmp_path / "none" / "head.safetensors")


def test_a_path_that_is_a_folder_keeps_its_error(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "a", lambda temporary: temporary.write_text("x"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_file_that_is_flushed_is_open_for_writing(tmp_path, monkeypatch):
    """Windows refuses to flush one that is open for reading."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE))
    write_safetensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)}, {})
    assert flushed == [os.O_RDWR]


@pytest.mark.parametrize("length", [0x7B20, 0x5B20, 0x7B0A])
def test_a_header_whose_length_reads_as_text(tmp_path, length):
    """0x7B20 bytes are stored as " {": once that was called an error message in place of the file."""
    tensors = {"x": torch.arange(3.0)}
    bare = write_safetensors(tmp_path / "a.safetensors", tensors, {"note": ""})
    start = int.from_bytes(bare.read_bytes()[:8], "little")
    for filling in range(length - start - 8, length - start + 1):  # headers are padded to whole words
        path = write_safetensors(tmp_path / "b.safetensors", tensors, {"note": "n" * filling})
        if int.from_bytes(path.read_bytes()[:8], "little") in (length, length - length % 8):
            break
    content = path.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + header + content[-12:])
    assert not_the_file(path) is None
    assert torch.equal(read_safetensors(path)[0]["x"], tensors["x"])


def test_text_is_still_known_as_text(tmp_path):
    for text, what in (('{"error": "no"}', "is text"), ("  [1]", "is text"), ("<html>", "web page"), ("", "is empty")):
        (tmp_path / "a").write_text(text)
        assert what in (not_the_file(tmp_path / "a") or "")
    torch.save({}, tmp_path / "c")
    assert not_the_file(tmp_path / "c") is None
