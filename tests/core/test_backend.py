"""libllama as a whole: start, devices, build, system information, NUMA, a missing GPU."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

import pyllama
from pyllama.core import backend, build
from pyllama.errors import LoadError, StateError, UnsupportedError

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NUMA is for Linux")


def fresh(code: str) -> str:
    """Run *code* in a process of its own, where libllama was never started."""
    lines = f"import pyllama\nfrom pyllama.core import backend\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", lines], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def has_gpu() -> bool:
    """Tell whether this machine and build have a GPU."""
    return any(device.is_gpu for device in pyllama.devices())


def test_import_does_not_start_libllama():
    """Backends look for devices, which takes time, so they wait for the first use."""
    assert fresh("print(backend._state.started)") == "False"


def test_many_threads_start_once():
    """Whichever thread comes first starts libllama; the others wait and see the same devices."""
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(len(set(pool.map(lambda _: pyllama.devices(), range(64)))))"
    )
    assert fresh(code) == "1"


def test_devices_hold_the_cpu():
    """A device says what it is and how much memory it has, in bytes."""
    cpu = next(each for each in pyllama.devices() if each.type is pyllama.DeviceType.CPU)
    assert (cpu.name, cpu.backend, cpu.is_gpu) == ("CPU", "CPU", False)
    assert cpu.description
    assert 2**28 < cpu.memory_free <= cpu.memory_total


def test_devices_are_numbered_in_order():
    """The index is the place in the tuple."""
    assert [each.index for each in pyllama.devices()] == list(range(len(pyllama.devices())))


def test_device_cannot_be_changed():
    """A device is a record of what was found."""
    with pytest.raises(AttributeError):
        pyllama.devices()[0].name = "other"  # type: ignore[misc]


def test_build_info_names_the_commit():
    """The commit is that of llama.cpp, whole."""
    info = pyllama.build_info()
    assert len(info.llama_commit) == 40
    assert info.llama_version[0].isdigit()
    assert info.ggml_version[0].isdigit()


def test_build_info_names_the_backends():
    """What started is named as libllama names it; what is installed as its file is named."""
    info = pyllama.build_info()
    assert "CPU" in info.backends
    assert any(name.partition("-")[0] == "cpu" for name in info.libraries)
    assert "base" not in info.libraries
    assert {device.backend for device in pyllama.devices()} <= set(info.backends)


def test_build_info_agrees_with_the_devices():
    """Offloading is possible exactly where there is a GPU or a connection to one."""
    info = pyllama.build_info()
    assert info.supports_gpu_offload == (has_gpu() or info.supports_rpc)
    assert info.supports_rpc == ("RPC" in info.backends)


def test_build_info_tells_how_many_there_can_be(model, tiny_path):
    """One sequence or one device more is refused."""
    info = pyllama.build_info()
    with pytest.raises(ValueError, match=f"from 1 to {info.max_parallel_sequences}"):
        model.context(n_seq_max=info.max_parallel_sequences + 1)
    with pytest.raises(ValueError, match=f"up to {info.max_devices} numbers"):
        pyllama.Model(tiny_path, tensor_split=[1.0] * (info.max_devices + 1))


def test_system_info_has_the_features_of_each_backend():
    """Features are text under the name of the backend that uses them."""
    features = pyllama.system_info()["CPU"]
    assert features
    assert all(name.isidentifier() and value for name, value in features.items())


def test_system_info_is_whole_in_many_threads():
    """C keeps it in one static string; each thread gets all of it."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: pyllama.system_info(), range(200)))
    assert all(answer == answers[0] for answer in answers)


def test_system_info_of_several_backends():
    """One backend's features end where the name of the next one stands."""
    text = "CUDA : ARCHS = 800,900 | USE_GRAPHS = 1 | CPU : AVX = 1 | SVE_CNT = 16 | "
    assert build._parse_system_info(text) == {
        "CUDA": {"ARCHS": "800,900", "USE_GRAPHS": "1"},
        "CPU": {"AVX": "1", "SVE_CNT": "16"},
    }


def test_time_goes_on():
    """The clock of libllama's time stamps never goes back."""
    before = backend.time_us()
    assert backend.time_us() >= before > 0


def test_numa_refuses_what_ggml_lacks():
    """ggml.h names a strategy that no code stands behind."""
    with pytest.raises(UnsupportedError, match=r"'mirror'\) does nothing"):
        pyllama.numa("mirror")


@pytest.mark.parametrize(("wrong", "error"), [("near", ValueError), (2.0, TypeError)])
def test_numa_refuses_no_strategy(wrong, error):
    """A wrong argument is named together with those that exist."""
    with pytest.raises(error, match="distribute, isolate, numactl"):
        pyllama.numa(wrong)


@linux_only
def test_numa_can_be_chosen_once():
    """A second choice would be ignored, with a line on the terminal."""
    code = (
        "pyllama.numa('distribute')\n"
        "try: pyllama.numa('isolate')\n"
        "except pyllama.errors.StateError as error: print(error.actual, '|', error)"
    )
    assert fresh(code).startswith("distribute | numa() was called before")


def test_numa_comes_before_the_first_model():
    """A model is placed when it is loaded, so a later choice would be half of one."""
    backend.init()
    with pytest.raises(StateError, match="before the first model"):
        pyllama.numa("disabled")


def test_no_backend_is_an_error(monkeypatch, tmp_path):
    """Where none can be loaded libllama would look in the working directory."""

    class Library:
        """A build that loads backends at run time and finds none."""

        pyllama_backend_dl = staticmethod(lambda: True)
        ggml_backend_load_all_from_path = staticmethod(lambda directory: None)
        ggml_backend_reg_count = staticmethod(lambda: 0)

    monkeypatch.setattr(backend, "lib", Library)
    monkeypatch.setattr(backend, "_directory", lambda: tmp_path)
    with pytest.raises(LoadError, match=f"{tmp_path}; install pyllama again"):
        backend._load_backends()


def test_gpu_layers_without_a_gpu_warn():
    """One sentence says that they change nothing, and what to type."""
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.warns(RuntimeWarning, match="n_gpu_layers=33 has no effect") as caught:
        backend.require_gpu(33)
    assert len(caught) == 1
    if all(name.startswith("cpu") for name in pyllama.build_info().libraries):
        assert 'CMAKE_ARGS="-DGGML_CUDA=on" pip install .' in str(caught[0].message)


def test_idle_gpu_backend_points_to_the_driver(monkeypatch):
    """Where the backend is there and finds nothing, building again would not help."""
    monkeypatch.setattr(backend, "library_names", lambda: ("cpu-haswell", "cuda", "rpc"))
    message = backend._why_no_gpu()
    assert "has the backend cuda, but it finds no GPU" in message
    assert "driver" in message
    assert "pip install" not in message


@pytest.mark.parametrize("n_gpu_layers", [None, 0])
def test_no_warning_where_no_gpu_was_asked_for(n_gpu_layers):
    """The default and an explicit zero are fine on any machine."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        backend.require_gpu(n_gpu_layers)
    assert seen == []


def test_main_gpu_beyond_the_last_is_refused():
    """Any number is accepted by libllama where it does not need it."""
    with pytest.raises(ValueError, match=r"main_gpu=99, but libllama finds \d+ GPUs"):
        backend.require_gpu(None, 99)
