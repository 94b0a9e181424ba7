"""What the C library does with large blocks that are freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of fifty blocks of 8 MB that are written to and freed again, one after the other.
COUNT = """
import ctypes, resource
from bbcu_cli.cli.heap import {how}

{how}()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    block = c.malloc(8 << 20)
    ctypes.memset(block, 1, 8 << 20)
    c.free(block)

use()
before = faults()
for _ in range(50):
    use()
print((faults() - before) // 50)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such limit")
@pytest.mark.parametrize(("how", "kept"), [("return_large_blocks", False), ("keep_large_blocks", True)])
def test_large_blocks_go_back_or_stay(how: str, *, kept: bool) -> None:
    """A restoration gets new pages for each large block, a training the same pages again."""
    code = COUNT.format(how=how)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 2) is kept
