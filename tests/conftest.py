"""Fixtures that several rooms share: the folder of data beside the checkout, and a folder to train on."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from commands import bbcu  # noqa: F401 - a fixture
from hypothesis import settings
from PIL import Image

import bbcu_cli

# No deadline: a busy machine is not a failure.
settings.register_profile("bbcu", deadline=None, max_examples=60)
settings.load_profile("bbcu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach a real hub
# Processes that tests start run the package that is tested, wherever they start: an installed one is not to be hidden
# by the source tree, which has no compiled module.
_PACKAGES = str(Path(bbcu_cli.__file__).parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join([_PACKAGES, *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["PYTHONSAFEPATH"] = "1"
# A shell starts what it runs in the background with Ctrl-C ignored, and every process below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Where PyTorch is not published, a file of tests that imports it is skipped."""
    report = yield
    if report.failed and "No module named 'torch'" in str(report.longrepr):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, "Skipped: needs PyTorch")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """So is a test that imports it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        pytest.skip("needs PyTorch")


SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test sets and awkward photos; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the test pictures in ../shared, which are not part of the project")
    return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
    """Fixed randomness."""
    return np.random.default_rng(20230501)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to train on: two photographs, one of them deeper down, and a file that is no image."""
    from skimage.data import astronaut, chelsea

    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deeper").mkdir()
    Image.fromarray(chelsea()[:120, :160]).save(folder / "cat.png")
    Image.fromarray(astronaut()[:100, :90]).save(folder / "deeper" / "face.png")
    (folder / "notes.txt").write_text("no image")
    return folder
