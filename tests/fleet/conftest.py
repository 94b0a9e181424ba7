"""One S3 service for all tests: the file systems of fsspec are kept for the life of the process, with their address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loopback_store import Store, loopback_store


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """The service, found by the environment, which Ray's processes inherit."""
    with pytest.MonkeyPatch.context() as patch, loopback_store() as found:
        for name, value in {**found.environment(), "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        yield found
