"""The command ``pyllama info``, and how the command line begins and ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import pyllama
from pyllama.cli.__main__ import main


def test_info_names_what_was_built(capsys):
    """Version, commit and backends are those that the library reports."""
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    build = pyllama.build_info()
    assert pyllama.__version__ in text
    assert build.llama_commit in text
    assert ", ".join(build.backends) in text


def test_info_lists_the_devices(capsys):
    """Each device has a line with its name and memory."""
    main(["info"])
    text = capsys.readouterr().out
    for device in pyllama.devices():
        assert device.name in text
        assert device.description in text
    assert "GiB" in text


def test_info_lists_the_cpu_features(capsys):
    """What the CPU backend was compiled with can be read off."""
    main(["info"])
    words = capsys.readouterr().out.split()
    for name, value in pyllama.system_info()["CPU"].items():
        assert (name if value == "1" else f"{name}={value}") in words


def test_info_lists_the_models(capsys):
    """The models that ship are shown with their paths."""
    main(["info"])
    text = capsys.readouterr().out
    assert pyllama.demo_model() in text
    assert pyllama.demo_draft_model() in text


def test_package_can_be_run():
    """``python -m pyllama`` is the command."""
    command = [sys.executable, "-m", "pyllama", "info"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"pyllama    {pyllama.__version__}")
    assert done.stderr == ""


def test_version(capsys):
    """``--version`` says the version and ends."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"pyllama {pyllama.__version__}\n"


def test_command_is_required(capsys):
    """Without a command the usage is shown."""
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: pyllama" in capsys.readouterr().err


def test_reader_may_leave():
    """A pipe that closes early is no error worth a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pyllama", "info"]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_output_may_be_closed():
    """Then nothing is shown, and that is no error either."""
    command = f"{sys.executable} -m pyllama info >&-"
    done = subprocess.run(["sh", "-c", command], check=False, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
