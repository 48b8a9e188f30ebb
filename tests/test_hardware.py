"""What the machine has, by construction: affinity, quotas, files of drivers and variables, good and bad, and what is refused."""

import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pgolf.config.compose import rehearse
from pgolf.errors import ConfigError, RefusedError
from pgolf.machine import Device, Machine, hardware, needs
from pgolf.machine.kernels import PlainKernels
from tests.ranks import ONE_NODE

OPEN = Machine(
    ranks=None,
    device=Device.AUTO,
    threads=None,
    micro_batch_tokens=None,
    compile=False,
    kernels=PlainKernels(),
    **ONE_NODE,
)


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    """Answers are kept by the process, and a person's variables are theirs."""
    for name in {name for names in hardware.HIDING.values() for name in names}:
        monkeypatch.delenv(name, raising=False)
    for asked in (hardware.torch_build, hardware.nvidia_gpus, hardware.amd_gpus):
        asked.cache_clear()
    yield
    for asked in (hardware.torch_build, hardware.nvidia_gpus, hardware.amd_gpus):
        if hasattr(asked, "cache_clear"):
            asked.cache_clear()


def system(root: Path, files: dict[str, str]) -> Path:
    """A machine's file system, as far as it is read."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 2.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            1.5,
        ),
        ({"proc/self/cgroup": "0::/../../host/path\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        (
            {
                "proc/self/cgroup": "2:cpu,cpuacct:/docker/x\n1:pids:/\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "garbage\n"}, math.inf),
    ],
)
def test_a_quota_is_the_least_of_the_groups_that_hold(tmp_path, files, expected):
    assert hardware.quota(system(tmp_path, files)) == expected
    assert 1 <= hardware.cores(tmp_path) <= max(1, min(hardware.affinity(), expected))


def test_a_limit_of_memory_is_read_by_both_versions(tmp_path):
    assert hardware.memory_limit(tmp_path) == math.inf
    two = system(tmp_path / "2", {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1024\n"})
    assert hardware.memory_limit(two) == 1024
    one = {"proc/self/cgroup": "4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "2048\n"}
    assert hardware.memory_limit(system(tmp_path / "1", one)) == 2048


def test_a_mac_has_cores_without_affinity_and_composes(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(hardware, "quota", lambda root: math.inf)
    assert hardware.cores() == 10
    assert rehearse([], sweep=False)[0].recipe.machine.threads == 10
    assert rehearse(["machine.ranks=2"], sweep=False)[0].recipe.machine.threads == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert hardware.cores() == 1


def test_half_a_core_is_one_thread(monkeypatch):
    monkeypatch.setattr(hardware, "quota", lambda root: 0.5)
    assert rehearse([], sweep=False)[0].recipe.machine.threads == 1
    assert rehearse(["machine.threads=3"], sweep=False)[0].recipe.machine.threads == 3, "a person's word holds"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        *((None, 4), ("", 0), ("0", 1), ("3,1", 2), ("0,7", 1), ("7,0", 0), ("-1", 0), ("0,-1,1", 1), ("none", 0)),
        *(("GPU-8f6c2a", 1), ("MIG-1/2", 1), (" 0 , 1 ", 2), ("1,1", 0), ("0,1,2,3,4,5", 4)),
    ],
)
def test_a_variable_hides_gpus_and_makes_none(monkeypatch, tmp_path, visible, expected):
    files = {f"dev/nvidia{name}": "" for name in ("0", "1", "2", "3", "ctl", "-uvm")}
    count = hardware.nvidia_gpus(system(tmp_path, files))
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: count)
    assert hardware.gpus_present({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == expected
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: 0)
    assert hardware.gpus_present({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == 0


class Nvml:
    """NVIDIA's library where the driver has no files: under WSL2."""

    def __init__(self, count, fault=0):
        self.count, self.fault = count, fault

    def nvmlInit_v2(self):  # noqa: N802
        return self.fault

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = self.count

    def nvmlShutdown(self):  # noqa: N802
        pass


@pytest.mark.parametrize(("library", "expected"), [(Nvml(2), 2), (Nvml(2, fault=9), 0), (SimpleNamespace(), 0)])
def test_wsl2_is_asked_by_the_library(monkeypatch, tmp_path, library, expected):
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: library)
    assert hardware.nvidia_gpus(tmp_path) == expected


def test_rocm_is_counted_by_its_nodes_where_torch_is_built_for_it(monkeypatch, tmp_path):
    nodes = "sys/class/kfd/kfd/topology/nodes"
    files = {f"{nodes}/{i}/properties": f"cpu_cores_count 1\nsimd_count {n}\n" for i, n in enumerate((0, 304, 304))}
    count = hardware.amd_gpus(system(tmp_path, files))
    assert count == 2
    monkeypatch.setattr(hardware, "amd_gpus", lambda: count)
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: 0)
    monkeypatch.setattr(hardware, "torch_build", lambda: "hip")
    assert hardware.gpus_present({}) == 2
    assert hardware.gpus_present({"HIP_VISIBLE_DEVICES": "1"}) == 1
    assert hardware.gpus_present({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0,1"}) == 1
    monkeypatch.setattr(hardware, "torch_build", lambda: "cuda")
    assert hardware.gpus_present({}) == 0, "graphics of the processor are nothing for this torch"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "cuda"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n", "hip"),
        ("cuda = None\nhip = None\n", ""),
        ("cuda = '11.8'\n", "cuda"),
    ],
)
def test_what_torch_is_built_for_is_read_without_importing_it(monkeypatch, tmp_path, text, expected):
    (tmp_path / "version.py").write_text(text)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(hardware, "find_spec", lambda name: found)
    assert hardware.torch_build() == expected


def test_this_torch_is_what_its_own_words_say():
    import torch

    assert hardware.torch_build() == ("cuda" if torch.version.cuda else "hip" if torch.version.hip else "")
    assert hardware.seen_by_torch() == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_what_is_open_is_answered_once_and_by_numbers():
    assert OPEN.settled(8, 0) == Machine(**vars(OPEN) | {"ranks": 1, "device": Device.CPU, "threads": 8})
    four = OPEN.settled(8, 4)
    assert (four.world_size, four.on_gpu, four.threads) == (4, True, 2)
    assert four.settled(1, 0) == four, "what is answered stays"
    many = Machine(**vars(OPEN) | {"ranks": 2}).settled(8, 1)
    assert (many.world_size, many.on_gpu) == (2, False)


@pytest.mark.parametrize("word", ["CUDA", "cuda", "CPU", "cpu", "AUTO", "auto"])
def test_devices_go_by_capitals_and_small_letters(word):
    machine = rehearse([f"machine.device={word}", "machine.ranks=1"], sweep=False)[0].recipe.machine
    assert machine.on_gpu == (word.lower() == "cuda" or (word.lower() == "auto" and hardware.gpus_present() > 0))


@pytest.mark.parametrize(("word", "near"), [("cude", "CUDA"), ("gpus", "CPU"), ("Cuda", "CUDA")])
def test_another_device_is_one_message_with_the_nearest(word, near):
    with pytest.raises(ConfigError, match=rf"machine\.device='{word}': must be one of AUTO, CPU, CUDA\..*'{near}'"):
        rehearse([f"machine.device={word}"], sweep=False)


PLANNED = Machine(**vars(OPEN) | {"ranks": 2, "device": Device.CUDA, "threads": 1})


def test_gpus_that_torch_cannot_use_are_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(needs, "gpus_present", lambda: 2)
    needs.require(PLANNED)
    monkeypatch.setattr(hardware, "torch_build", lambda: "")
    with pytest.raises(
        RefusedError, match=r"machine\.ranks=2: .*has 0 that torch can use, of 2: torch is built for the CPU"
    ):
        needs.require_seen(PLANNED)
    monkeypatch.setattr(hardware, "torch_build", lambda: "cuda")
    monkeypatch.setattr(needs, "seen_by_torch", lambda: 1)
    with pytest.raises(RefusedError, match=r"has 1 that torch can use, of 2: .*newer than the driver.*device=cpu"):
        needs.require_seen(PLANNED)
    monkeypatch.setattr(needs, "seen_by_torch", lambda: 2)
    needs.require_seen(PLANNED)


def test_gpus_that_are_not_there_are_refused_without_torch(monkeypatch):
    monkeypatch.setattr(needs, "gpus_present", lambda: 0)
    with pytest.raises(ConfigError, match=r"machine\.ranks=2: needs a GPU for every rank, and this machine has 0;"):
        needs.require(PLANNED)
    needs.require(OPEN.settled(2, 0))


def compiler(folder: Path, text: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_is_one_that_answers(tmp_path):
    assert needs.compiler_missing(False, {"CXX": compiler(tmp_path, "echo version 1")}) == ""
    assert needs.compiler_missing(False, {"CXX": f"{compiler(tmp_path, 'echo version 1')} -m64"}) == ""
    for bad in (compiler(tmp_path, "exit 1"), str(tmp_path / "none"), " "):
        assert "a C++ compiler" in needs.compiler_missing(False, {"CXX": bad})


def test_compile_without_a_compiler_is_refused_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    compiled = Machine(**vars(OPEN) | {"compile": True}).settled(1, 0)
    usual = "clang" if sys.platform == "darwin" else r"g\+\+"
    with pytest.raises(
        ConfigError, match=rf"machine\.compile=True: needs a C\+\+ compiler.*{usual}.*machine\.compile=false"
    ):
        needs.require(compiled)
    needs.require(OPEN.settled(1, 0))


def test_a_gpu_needs_triton_and_a_c_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(needs, "find_spec", lambda name: None)
    assert "pip install" in needs.compiler_missing(True)
    monkeypatch.setattr(needs, "find_spec", lambda name: "there")
    assert needs.compiler_missing(True, {"CC": compiler(tmp_path, "echo 1")}) == ""
    assert "a C compiler" in needs.compiler_missing(True, {"CC": str(tmp_path / "none")})


def test_a_disk_without_room_is_refused_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: SimpleNamespace(free=100 << 20))
    needs.require_disk(tmp_path / "to" / "come", {"artifact": 16_000_000})
    with pytest.raises(RefusedError, match=r"104,857,600 bytes are free .*checkpoints 90,000,000 .*hydra\.run\.dir"):
        needs.require_disk(tmp_path, {"artifact": 16_000_000, "checkpoints": 90_000_000})
