"""A folder on a Ray cluster and without it, in turns: what the way through the cluster costs after its start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bbcu_cli.batch.jobs import plan_jobs
from bbcu_cli.batch.run import run
from bbcu_cli.batch.settings import Row, Settings
from bbcu_cli.bench.folder import MAX_PIXELS
from bbcu_cli.cores import checked_threads
from bbcu_cli.errors import UsageError
from bbcu_cli.fleet.cluster import RayPieces, pieces_on
from bbcu_cli.fleet.driver import drive
from bbcu_cli.fleet.listing import Naming, list_inputs
from bbcu_cli.fleet.plan import Ask, Loading, Plan, network_digests
from bbcu_cli.fleet.shop import Shop
from bbcu_cli.fleet.worker import restore_piece
from bbcu_cli.hub import Catalogue
from bbcu_cli.image import EncodeOptions
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Options


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What `bench_cluster` measured; times in seconds, from the first file opened to the last one in place.

    Attributes:
        megapixels: of the inputs together, in millions.
        threads: of the one process without a cluster, and of all workers of a cluster that is started here.
        worker_threads: of each worker.
        nodes: of the cluster.
        alone: each run without the cluster.
        cluster: each run on it, in turns with those.
    """

    model: str
    images: int
    megapixels: float
    threads: int
    worker_threads: int
    nodes: int
    alone: tuple[float, ...]
    cluster: tuple[float, ...]

    @property
    def overhead(self) -> float:
        """How much longer the cluster takes, as a share: median to median."""
        return median(self.cluster) / median(self.alone) - 1

    @property
    def images_per_core_hour(self) -> float:
        """Pictures that a thread without a cluster restores in an hour."""
        return self.images / median(self.alone) / self.threads * 3600

    @property
    def megapixels_per_core_hour(self) -> float:
        """Input pixels in millions that a thread without a cluster restores in an hour."""
        return self.megapixels / median(self.alone) / self.threads * 3600

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        derived = ("overhead", "images_per_core_hour", "megapixels_per_core_hour")
        return {"schema": 1, **asdict(self), **{name: getattr(self, name) for name in derived}}


def bench_cluster(
    folder: Path, model: str, address: str, *, threads: int | None, runs: int, note: Callable[[str], None]
) -> ClusterReport:
    """Restore the images of a folder by turns without and with a cluster.

    Args:
        model: a name of the catalogue.
        threads: of the process without a cluster, and of a cluster that is started here; of each worker of a cluster
            that is there; None: `default_threads()`.
        note: tells a person of nodes that are refused.

    Raises:
        UsageError: there is no image, one fails, or the cluster cannot be used.
    """
    count = checked_threads(threads)
    spec, catalogue = Catalogue.load()[model].spec, Catalogue.load()
    wish = Wish(spec.task, spec.scale)
    settings = Settings(Options(), EncodeOptions(), "PNG", MAX_PIXELS, existing="overwrite", threads=count)
    loading = Loading(model, threads=None if address == "local" else count)
    digests = tuple(pair for pair in network_digests(wish.task, wish.scale, catalogue) if pair[0] == model)
    plan = Plan(wish, settings, loading, digests, str(Path.cwd()))
    with (
        TemporaryDirectory(prefix="bbcu-bench-") as place,
        pieces_on(address, plan, note, restore_piece, cpus=count) as executor,
    ):
        for _ in drive(_asks(folder, f"{place}/first"), executor, Ask.failed, 1):
            pass  # processes start, networks are opened
        alone, cluster = [], []
        with Shop(replace(plan, loading=Loading(model, threads=count))) as shop:
            jobs = plan_jobs([str(folder)], f"{place}/a", tag="", suffix=None, extension=None, recursive=False).jobs
            for _ in range(runs):
                started = time.perf_counter()
                rows = list(run(jobs, shop.model, shop.settings, shop.manifest))
                alone.append(time.perf_counter() - started)
                cluster.append(_timed(folder, f"{place}/b", executor))
        if failed := [row for row in rows if row.status != "done"]:
            raise UsageError(f"{failed[0].source} cannot be restored: {failed[0].error}")
        sizes = [row.size_in for row in rows if row.size_in]
        megapixels = sum(height * width for height, width in sizes) / 1e6
        return ClusterReport(
            model, len(rows), megapixels, count, executor.threads, executor.nodes, tuple(alone), tuple(cluster)
        )


def _timed(folder: Path, output: str, executor: RayPieces[Ask, Row]) -> float:
    started = time.perf_counter()
    for _ in drive(_asks(folder, output), executor, Ask.failed):
        pass
    return time.perf_counter() - started


def _asks(folder: Path, output: str) -> Any:
    return list_inputs([str(folder)], output, Naming("", None, ".png", recursive=False), refuse_existing=False).asks
