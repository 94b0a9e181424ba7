"""The one place that talks to the Hugging Face hub for reading: cache look-up, verified download, plain words.

Facts of the client that shape this file: its environment is read when it is imported; a refused connection is retried
for 23 s, so the hub is probed first; over plain HTTP it checks sizes but no SHA-256, so every caller brings a check;
a file cached under a commit costs no request.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from bbcu_cli.checkpoint.packed import MAX_FILE_BYTES, PackedFile
from bbcu_cli.errors import CheckpointError, OutputError, WeightsUnavailableError, hub_is_installed
from bbcu_cli.files import write_whole
from bbcu_cli.hub.reference import HubRef

_T = TypeVar("_T")
_TIMEOUT: Final = 3.0  # s that one answer of the hub may take
_DEADLINE: Final = 3.5  # s for a probe as a whole: name resolution and several addresses know no timeout
_OFFLINE: Final = ("BBCU_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def offline_variable() -> str | None:
    """The environment variable that forbids the network, if one is set."""
    on = ("1", "on", "yes", "true")
    return next((name for name in _OFFLINE if os.environ.get(name, "").lower() in on), None)


def endpoint() -> str:
    """Address of the hub, ``HF_ENDPOINT`` or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def cached(ref: HubRef) -> Path | None:
    """The file in the hub's cache, unverified; no request is made. Without the hub's client there is no cache."""
    if not hub_is_installed():
        return None
    from huggingface_hub import try_to_load_from_cache

    with plain_words(ref.repo, str(ref)):
        found = try_to_load_from_cache(ref.repo, ref.filename, revision=ref.revision)
    return Path(found) if isinstance(found, str) else None


def download(ref: HubRef, read: Callable[[Path], PackedFile], *, progress: bool = False) -> PackedFile:
    """Fetch a file into the hub's cache and read it; safe among processes that want the same file.

    Args:
        ref: the file. If its revision is a branch or a tag, the cache follows that name only once the file is good.
        read: raises CheckpointError if the file must not be used; then it is taken out of the cache again.
        progress: whether a bar may be drawn on stderr.

    Raises:
        WeightsUnavailableError: no network, no such file, no permission, no space, or what came is not what was
            expected; says what to do. An unreachable hub is found out in less than 5 s.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public, but imported lazily there

    lock = Path(constants.HF_HUB_CACHE) / ".locks" / f"bbcu--{ref.repo.replace('/', '--')}.lock"
    with plain_words(ref.repo, str(ref)), bars(shown=progress):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if ref.pinned and (file := _good(ref, read)):
                return file  # another process was quicker
            commit = HubRef(ref.repo, _probe(ref), ref.filename)
            file = _good(commit, read) or _fetch(commit, read)
            _follow(file.path, ref)
            return file


def _good(ref: HubRef, read: Callable[[Path], PackedFile]) -> PackedFile | None:
    """The cached file, if it can be read."""
    path = cached(ref)
    try:
        return None if path is None else read(path)
    except CheckpointError:
        return None


def _fetch(ref: HubRef, read: Callable[[Path], PackedFile]) -> PackedFile:
    """Download a file, in place of a damaged one if there is one, and keep it if it can be read."""
    from huggingface_hub import hf_hub_download

    if damaged := cached(ref):
        discard(damaged)
    path = Path(hf_hub_download(ref.repo, ref.filename, revision=ref.revision, etag_timeout=_TIMEOUT))
    try:
        return read(path)
    except CheckpointError as error:
        discard(path)
        raise WeightsUnavailableError(
            f"{ref}: what {endpoint()} sent was rejected and removed. {error} Try again; if it stays so, tell the "
            "owner of the repository, or use --weights FILE."
        ) from error


def discard(path: Path) -> None:
    """Take a file out of the cache: the entry of the snapshot and the blob behind it."""
    blob = path.parent / path.readlink() if path.is_symlink() else None
    path.unlink(missing_ok=True)
    if blob is not None:
        blob.unlink(missing_ok=True)


def _probe(ref: HubRef) -> str:
    """Ask the hub for the commit behind a reference, quickly, and refuse a file that can be no model by its size."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(ref.repo, ref.filename, revision=ref.revision)
    metadata = within(lambda: get_hf_file_metadata(url, timeout=_TIMEOUT))
    if metadata.commit_hash is None:
        raise WeightsUnavailableError(f"{endpoint()} does not answer like a hub (no commit); check HF_ENDPOINT.")
    if metadata.size is not None and metadata.size > MAX_FILE_BYTES:
        raise WeightsUnavailableError(
            f"{ref} has {metadata.size} bytes, more than any packed model ({MAX_FILE_BYTES}); it was not downloaded."
        )
    return metadata.commit_hash


def within(call: Callable[[], _T], seconds: float = _DEADLINE) -> _T:
    """Run a call in a thread that may be left behind; TimeoutError when it takes longer."""
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # handed to the caller, who raises it
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except concurrent.futures.TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} s") from error


def _follow(path: Path, ref: HubRef) -> None:
    """Note in the cache which commit a branch or tag stands for (``refs/NAME``, as the client does it)."""
    if ref.pinned:
        return
    snapshot = path.parents[ref.filename.count("/")]
    note = snapshot.parents[1] / "refs" / ref.revision
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, snapshot.name.encode())


@contextlib.contextmanager
def bars(*, shown: bool) -> Iterator[None]:
    """With or without the client's progress bars on stderr; leaves its setting as it was."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


@contextlib.contextmanager
def plain_words(repo: str, what: str) -> Iterator[None]:
    """Turn what the client raises about a repository into a WeightsUnavailableError that begins with `what`."""
    from huggingface_hub.errors import HfHubHTTPError

    # All errors of the client's HTTP backend, whichever that is, share the first base of the client's own.
    backend: type[BaseException] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except (backend, OSError, OutputError, ValueError, RuntimeError) as error:
        raise WeightsUnavailableError(_explain(error, repo, what)) from error


def _explain(error: BaseException, repo: str, what: str) -> str:
    """A sentence for a failure of the hub client, and the next step."""
    from huggingface_hub import constants, errors

    # The client wraps the reason of a failed look-up or upload.
    if isinstance(error, (errors.LocalEntryNotFoundError, RuntimeError)) and error.__cause__ is not None:
        error = error.__cause__
    site, cache = endpoint(), constants.HF_HUB_CACHE
    access = "set HF_TOKEN to a token of an account that may use it, or run `hf auth login`"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    no_file = isinstance(error, errors.EntryNotFoundError) and status is not None
    # Those of the network come wrapped by the backend.
    local = isinstance(error, OutputError) or (isinstance(error, OSError) and error.errno is not None)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    cases = (
        (isinstance(error, errors.HFValidationError), f"is no name that the hub allows ({lines[0][:160]})"),
        (isinstance(error, errors.GatedRepoError), f"is gated; accept its terms at {site}/{repo} and {access}"),
        (isinstance(error, errors.RevisionNotFoundError), f"has no such revision; see {site}/{repo}/commits"),
        (no_file, f"has no such file; see {site}/{repo}/tree/main"),
        (isinstance(error, errors.RepositoryNotFoundError), f"is unknown to {site}, or private; check it, or {access}"),
        (status in (401, 403), f"may not be accessed ({site} answers {status}); {access}"),
        (status is not None, f"is not available now ({site} answers {status}); try again later, or use --weights FILE"),
        (isinstance(error, errors.LocalTokenNotFoundError), f"needs a token to be written; {access}"),
        (isinstance(error, errors.OfflineModeIsEnabled), "needs the network, which HF_HUB_OFFLINE forbids"),
        (local, f"cannot be kept in the cache {cache} ({lines[0][:160]}); set HF_HOME to another folder"),
    )
    other = (
        f"cannot be reached at {site} ({lines[0][:160]}); check the network and the proxy, set HF_ENDPOINT to a mirror"
    )
    return f"{what} {next((text for holds, text in cases if holds), f'{other}, or use --weights FILE')}."
