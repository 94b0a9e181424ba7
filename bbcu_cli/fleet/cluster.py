"""Ray: a cluster is reached or started, its nodes are looked at, and pieces are done on them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Generic, Literal

from bbcu_cli.cores import default_threads, usable_cpus
from bbcu_cli.errors import BbcuError, EngineError, UsageError
from bbcu_cli.fleet.driver import Outcome, Told
from bbcu_cli.fleet.nodes import Here, Node, difference, here, probe
from bbcu_cli.fleet.plan import Asked, Piece, Plan
from bbcu_cli.fleet.stores import EXTRA
from bbcu_cli.fleet.worker import Refused

Work = Callable[[Plan, Piece[Asked]], "tuple[Told, ...] | Refused | BbcuError"]
_REACH: Final = 10.0  # seconds for a connection to the head of a cluster
_PATIENCE: Final = "2"  # tries of Ray to talk with the head; each takes half a minute where something else listens
_PROBE: Final = 120.0  # seconds for a node to start a process and tell what it has
_FRESH: Final = 5.0  # seconds that the list of nodes is believed
_SILENCE: Final = 300.0  # seconds without any piece that ends, after which a person is told; then twice as long
_GRACE: Final = 3.0  # seconds for what is under way to end by itself
_STOP: Final = 15.0  # seconds for workers to stop in good order
_MOST_THREADS: Final = 8  # of a worker where none were asked for: more pictures at a time do more than more threads
_LESS: Final = "Fewer --threads and less --memory take less."
_OBJECTS: Final = 100 << 20  # bytes of Ray's object store where we start it: rows are small


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[Any]:
    """Ray, connected to a cluster, or to one that is started here and ends with this.

    Args:
        address: "local", "auto", or "HOST:PORT" of the head of a cluster that this machine is a node of.
        cpus: of a cluster that is started here; None: those that this process may use.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here: nothing is sent
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a worker without a GPU of its own sees none
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--cluster needs Ray, {EXTRA}.") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        quiet |= {
            "num_cpus": cpus or max(usable_cpus(), default_threads()),
            "include_dashboard": False,
            "object_store_memory": _OBJECTS,
        }
    else:
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", _PATIENCE)
        if address != "auto":
            _require_reachable(address)
    try:
        ray.init(address=address, **quiet)
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".")
        if "connect to Ray cluster" in text and "RAY_AUTH_MODE" not in os.environ:  # which Ray sets for its own address
            text += "; if this is its head and asks for a token, set RAY_AUTH_MODE=token"
        raise UsageError(f"The cluster {address!r} cannot be used: {text}.") from error
    _silence()
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Raise a UsageError if nobody listens there; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise UsageError(f"--cluster {address}: run bbcu on a node of the cluster, with auto or HOST:PORT of its head.")
    if not host or not port.isdigit():
        raise UsageError(f"--cluster {address} is no address; give local, auto or HOST:PORT, for example head:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"The cluster {address} cannot be reached: {error}.") from error


def _silence() -> None:
    """Keep Ray's own reports of dead workers off the terminal: a row tells what they meant."""
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private import worker

        worker.print_to_stdstream = lambda *_, **__: None


def nodes_of(ray: Any, version: str, digests: dict[str, str], schemes: Sequence[str] = ()) -> list[Node]:
    """The nodes that are alive, each asked what it has; arguments as of `difference`."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    look = ray.remote(num_cpus=0, max_retries=0)(probe())
    asked = [look.options(label_selector=_only(node["NodeID"])).remote() for node in alive]
    ray.wait(asked, num_returns=len(asked), timeout=_PROBE)
    found = []
    for node, reference in zip(alive, asked, strict=True):
        resources = node["Resources"]
        try:
            seen = Here(**ray.get(reference, timeout=0))
            trouble = difference(version, digests, seen, schemes)
        except Exception as error:  # noqa: BLE001 - a node that fails in whatever way is not asked to work
            seen = Here("", {}, "none", ())
            trouble = f"it does not answer ({type(error).__name__})"
        size = (resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0))
        found.append(Node(node["NodeID"], _called(node), *size, seen, trouble))
    return found


def _called(node: dict[str, Any]) -> str:
    """A node by its name, for a person."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def survey(address: str) -> list[Node]:
    """The nodes of a cluster, each with what it lacks to make the same bytes as this machine.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached.
    """
    own = here()
    with connected(address) as ray:
        return nodes_of(ray, own.version, own.digests)


def _only(node: str) -> dict[str, str]:
    return {"ray.io/node-id": node}


def fitted(plan: Plan, address: str, nodes: list[Node]) -> Plan:
    """The plan with what a worker takes, where it was not asked for: the same device everywhere, and threads.

    Args:
        address: of the cluster.
        nodes: that may work.
    """
    device = {"auto": "cpu"}.get(plan.loading.device, plan.loading.device)
    device = "cuda" if device.startswith("cuda") else device  # a worker sees one GPU, whatever its number
    usual = min((_share(node, plan, gpu=device == "cuda") for node in nodes if node.cpus >= 1), default=1)
    threads = plan.loading.threads or (min(usual, default_threads()) if address == "local" else usual)
    loading = replace(plan.loading, threads=threads, device=device)
    return replace(plan, loading=loading, settings=replace(plan.settings, threads=threads))


def _share(node: Node, plan: Plan, *, gpu: bool) -> int:
    """Threads of a worker, so that a node takes one for each GPU; or two at the least, where the memory allows it.

    Of two, one computes while the other begins or ends a piece.
    """
    cpus = int(node.cpus)
    if gpu:
        return max(1, min(_MOST_THREADS, cpus // max(1, int(node.gpus))))
    workers = min(max(2, math.ceil(cpus / _MOST_THREADS)), int(node.memory // plan.memory))
    return max(1, cpus // max(1, workers))


class RayPieces(Generic[Asked, Told]):
    """The executor of `drive`: each piece is a task; `with` cancels those that are under way at the end.

    Attributes:
        threads: of a worker.
        nodes: that work.
    """

    def __init__(
        self,
        ray: Any,
        address: str,
        plan: Plan,
        refused: list[Node],
        note: Callable[[str], None],
        work: Work[Asked, Told],
    ) -> None:
        """Start nothing yet.

        Args:
            address: of the cluster.
            refused: nodes that must not work.
            note: tells a person.
            work: what is done with a piece on a node.
        """
        self._ray, self._note = ray, note
        self._refused = {node.id for node in refused}
        self.threads = plan.loading.threads or 1
        self._gpus = 1 if plan.loading.device.startswith("cuda") else 0
        self._memory = plan.memory
        self._plan = ray.put(plan)
        resources = {"num_cpus": self.threads, "num_gpus": self._gpus, "memory": self._memory}
        self._task = ray.remote(max_retries=0, **resources)(_on_node(work))
        self._under_way: dict[Any, Piece[Asked]] = {}
        self._looked, self._slots, self.nodes = 0.0, 1, 0
        self._grows = address != "local"
        self._waits = False

    def __enter__(self) -> RayPieces[Asked, Told]:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what is under way: what is not soon done in good order, or else by force."""
        if self._under_way:
            # When a task that runs makes room, Ray hands the next one out, and dies itself (seen in 2.60) if that one
            # is cancelled in the same moment. So short ones end by themselves, and of others the youngest go first.
            _, left = self._ray.wait([*self._under_way], num_returns=len(self._under_way), timeout=_GRACE)
            for reference in reversed(left):
                self._ray.cancel(reference)
            _, stuck = self._ray.wait(left, num_returns=len(left), timeout=_STOP) if left else ([], [])
            for reference in stuck:
                self._ray.cancel(reference, force=True)

    def room(self) -> int:
        """Two pieces for every worker that fits: one waits while one is done, and an autoscaler sees that more wait.

        Raises:
            UsageError: none fits, and no other node can come.
        """
        if time.monotonic() > self._looked + _FRESH or not self._looked:
            self._look()
        return 2 * max(1, self._slots)

    def _look(self) -> None:
        self._looked = time.monotonic()
        slots = [
            self._fits(node) for node in self._ray.nodes() if node["Alive"] and node["NodeID"] not in self._refused
        ]
        self.nodes, self._slots = sum(map(bool, slots)), sum(slots)
        if not self._slots and not self._waits:
            gpus = f", {self._gpus} GPU" if self._gpus else ""
            takes = f"{self.threads} CPUs{gpus}, {self._memory >> 20} MB"
            if not self._grows:
                raise UsageError(f"This machine has not what a worker takes ({takes}). {_LESS}")
            self._note(f"no node has what a worker takes ({takes}); waiting for one. {_LESS}")
        self._waits = not self._slots

    def _fits(self, node: dict[str, Any]) -> int:
        """How many workers a node takes."""
        has = node["Resources"]
        shares = [has.get("CPU", 0) // self.threads, has.get("memory", 0) // self._memory]
        return int(min([*shares, *([has.get("GPU", 0) // self._gpus] if self._gpus else [])]))

    def submit(self, piece: Piece[Asked]) -> None:
        """Hand a piece to Ray."""
        task = self._task
        if self._refused:
            task = task.options(label_selector={"ray.io/node-id": f"!in({','.join(sorted(self._refused))})"})
        self._under_way[task.remote(self._plan, piece)] = piece

    def wait(self) -> list[Outcome[Asked, Told]]:
        """What has ended.

        Raises:
            BbcuError: a worker says that the run cannot go on.
        """
        started, silence = time.monotonic(), _SILENCE
        while True:
            ready, _ = self._ray.wait(list(self._under_way), timeout=1.0)
            outcomes = [self._outcome(reference, self._under_way.pop(reference)) for reference in ready]
            if ended := [outcome for outcome in outcomes if outcome]:
                return ended
            self.room()  # tells when no node is left
            if time.monotonic() > started + silence:
                self._note(
                    f"no piece has ended for {silence / 60:.0f} minutes; {len(self._under_way)} are under way or wait "
                    f"for room on {self.nodes} nodes. `ray status` shows what is in use there."
                )
                silence *= 2

    def _outcome(self, reference: Any, piece: Piece[Asked]) -> Outcome[Asked, Told] | None:
        """What became of a piece; None when it is on its way again, since its node was refused."""
        errors = self._ray.exceptions
        deadly = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError)
        try:
            node, told = self._ray.get(reference)
        except deadly as error:
            return Outcome(piece, None, _DEATHS.get(type(error).__name__, "its process ended"))
        except errors.RayError as error:
            [*_, last] = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"The cluster failed: {last}") from error
        if isinstance(told, Refused):
            if node not in self._refused:
                self._refused.add(node)
                name = next((_called(known) for known in self._ray.nodes() if known["NodeID"] == node), node)
                self._note(f"node {name} is refused: {told.reason}")
            self.submit(piece)
            return None
        if isinstance(told, BbcuError):
            raise told
        return Outcome(piece, told)


_DEATHS: Final[dict[str, Literal["its node was lost", "its machine was out of memory"]]] = {
    "NodeDiedError": "its node was lost",
    "ObjectLostError": "its node was lost",
    "OutOfMemoryError": "its machine was out of memory",
}


def _on_node(work: Work[Asked, Told]) -> Callable[[Plan, Piece[Asked]], tuple[str, Any]]:
    def on_node(plan: Plan, piece: Piece[Asked]) -> tuple[str, Any]:
        import ray

        return ray.get_runtime_context().get_node_id(), work(plan, piece)

    return on_node


@contextmanager
def pieces_on(
    address: str, plan: Plan, note: Callable[[str], None], work: Work[Asked, Told], *, cpus: int | None = None
) -> Iterator[RayPieces[Asked, Told]]:
    """An executor on the nodes of a cluster that have the same bbcu and weights; the others are named.

    Args:
        note: tells a person.
        work: what is done with a piece on a node.
        cpus: of a cluster that is started here; None: those that this process may use, and enough for a worker.

    Raises:
        UsageError: the cluster cannot be reached, or no node may work.
    """
    with connected(address, cpus or max(usable_cpus(), plan.loading.threads or default_threads())) as ray:
        nodes = nodes_of(ray, plan.version, dict(plan.digests), plan.schemes)
        refused = [node for node in nodes if node.trouble]
        able = [node for node in nodes if not node.trouble]
        if not able:
            raise UsageError(f"No node of the cluster {address} may work: of {refused[0].name}, {refused[0].trouble}.")
        for node in refused:
            note(f"node {node.name} is refused: {node.trouble}")
        with RayPieces(ray, address, fitted(plan, address, able), refused, note, work) as executor:
            yield executor
