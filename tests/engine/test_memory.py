"""Freed memory stays with the process, so that the next step finds its pages there."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from contrast3d.engine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for i in range(40):
    if i == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(10 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    """Of ten allocations of 40 MB (10,240 small pages), each freed before the next, after thirty like them."""
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns memory so eagerly")
def test_pages_are_faulted_in_once():
    assert page_faults("keep") < 10_240


def test_elsewhere_nothing_happens(monkeypatch):
    from contrast3d.engine.memory import keep_freed_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    keep_freed_memory.cache_clear()
    assert keep_freed_memory() is False
    keep_freed_memory.cache_clear()
