"""Files under URLs: object stores and web servers, through fsspec; what goes wrong there is one sentence.

Credentials, profiles and endpoints are those of fsspec and its file systems (environment, configuration files).
"""

from __future__ import annotations

import errno
import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeVar
from urllib.parse import unquote

from bbcu_cli.errors import StoreError, UsageError

_T = TypeVar("_T")
EXTRA: Final = "which is not installed; run: pip install 'bbcu-cli[fleet]'"
PACKAGES: Final = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp", "https": "aiohttp",
}  # fmt: skip
"""What fsspec needs beside itself for the usual kinds of URLs."""
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+)://")
_WEB: Final = ("http", "https")
# Behind the retries of the store's own client, which take a second or two.
_PAUSES: Final = (0.5, 2.0, 5.0)
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_ERRNO: Final = frozenset({errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EBUSY)})  # as s3fs has 503 and 500


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a store.

    Attributes:
        url: where it is.
        size: bytes; -1 where the store does not tell.
        version: changes with the content: the store's ETag or checksum, else the modification time; may be empty.
        modified: seconds since 1970; None where the store does not tell.
    """

    url: str
    size: int
    version: str
    modified: float | None = None


def is_url(text: str) -> bool:
    """Whether a typed input or output is a URL and not a path."""
    return _URL.match(text) is not None


def scheme_of(url: str) -> str:
    """The kind of a URL, "s3" for example; empty for a path."""
    match = _URL.match(url)
    return match[1] if match else ""


def openable() -> tuple[str, ...]:
    """Which of the usual kinds of URLs can be opened on this machine."""
    if importlib.util.find_spec("fsspec") is None:
        return ()
    return tuple(scheme for scheme, package in PACKAGES.items() if importlib.util.find_spec(package))


def is_web(url: str) -> bool:
    """Whether a URL is one of a web server: read only, one picture each."""
    return scheme_of(url) in _WEB


def name_of(url: str) -> str:
    """The name of the file, as it would be called on a disk."""
    path = url.partition("://")[2]
    if is_web(url):
        path = unquote(re.split(r"[?#]", path, maxsplit=1)[0])
    return PurePosixPath(path).name


def join(folder: str, name: str) -> str:
    """The URL of a name below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def open_store(url: str) -> None:
    """Raise an error now if this kind of URL cannot be served here.

    Raises:
        UsageError: fsspec or the file system for this scheme is not installed, or there is none.
    """
    _system(url)


def look(url: str) -> Entry | None:
    """What is known of a file; None where there is none.

    Raises:
        StoreError: the store refused, or cannot be reached.
    """
    system, path = _system(url)
    try:
        info = _asked(url, "looked at", lambda: system.info(path))
    except FileNotFoundError:
        return None
    return None if info.get("type") == "directory" else _entry(url, info)


def kind(url: str) -> Literal["file", "folder"] | None:
    """Whether something is there, and what; errors as of `look`."""
    system, path = _system(url)
    if url.endswith("/"):
        return "folder"
    try:
        info = _asked(url, "looked at", lambda: system.info(path))
    except FileNotFoundError:
        return None
    return "folder" if info.get("type") == "directory" else "file"


def entries(folder: str, *, recursive: bool) -> Iterator[Entry]:
    """The files below a folder, each directory in name order, as the store lists them.

    Of S3 a page of 1,000 names is held at a time, of other stores the names of one directory.

    Raises:
        StoreError: the folder is not there, the store refused, or cannot be reached.
    """
    if is_web(folder):
        raise UsageError(f"{folder} is a page of a web server, which lists nothing; give the URL of each picture.")
    system, path = _system(folder)
    listing = _s3_pages if hasattr(system, "call_s3") else _walk
    try:
        yield from listing(system, folder, path, recursive)
    except FileNotFoundError as error:
        raise StoreError(f"{folder} does not exist.") from error


def fetch(url: str, path: Path) -> None:
    """Copy a file of a store to a path. Raises a StoreError if it cannot be read."""
    system, there = _system(url)
    try:
        _asked(url, "read", lambda: system.get_file(there, str(path)))
    except FileNotFoundError as error:
        raise StoreError(f"{url} does not exist.") from error


def publish(path: Path, url: str) -> Entry:
    """Put a file into a store in one step: `url` is what it was before or the whole new file, at every moment.

    Returns:
        What the store says of it.

    Raises:
        StoreError: the store refused, or cannot be reached.
    """
    _require_writable(url)
    system, there = _system(url)
    _put(url, lambda: system.put_file(str(path), there))
    found = look(url)
    if found is None:
        raise StoreError(f"{url} was written and is not there; is something removing it?")
    return found


def read(url: str) -> bytes | None:
    """The content of a small file; None where there is none. Raises a StoreError if it cannot be read."""
    system, there = _system(url)
    try:
        content: bytes = _asked(url, "read", lambda: system.cat_file(there))
    except FileNotFoundError:
        return None
    return content


def write(url: str, content: bytes) -> None:
    """Put a small file into a store in one step; errors as of `publish`."""
    _require_writable(url)
    system, there = _system(url)
    _put(url, lambda: system.pipe_file(there, content))


def _require_writable(url: str) -> None:
    if is_web(url):
        raise UsageError(f"{url} cannot be written: bbcu only reads from web servers; give another --output.")


def _put(url: str, action: Callable[[], Any]) -> None:
    try:
        _asked(url, "written", action)
    except FileNotFoundError as error:
        raise StoreError(f"{url} cannot be written: there is no such bucket.") from error


def _system(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, without a memory of listings, and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{url} needs fsspec, {EXTRA}.") from error
    if scheme_of(url) in {"file", "local"}:
        raise UsageError(f"{url} is on this machine; give it as a path.")
    try:
        # As `url_to_fs` does it, but that takes "::" in a name for a chain of file systems.
        kind = fsspec.get_filesystem_class(scheme_of(url))
        told = kind._get_kwargs_from_urls(url)  # noqa: SLF001
        system, path = fsspec.filesystem(scheme_of(url), use_listings_cache=False, **told), kind._strip_protocol(url)  # noqa: SLF001
    except ImportError as error:  # fsspec's sentence names the package
        raise UsageError(f"{url} cannot be opened: {str(error).rstrip('.')}.") from error
    except ValueError as error:
        raise UsageError(f"{url} cannot be opened: {str(error).rstrip('.')}.") from error
    return system, path


def _asked(url: str, what: str, action: Callable[[], _T]) -> _T:
    """Ask the store; what passes is tried again.

    Raises:
        FileNotFoundError: it says that the file, the folder or the bucket is not there.
        StoreError: anything else, in a sentence.
    """
    for pause in (*_PAUSES, None):
        try:
            return action()
        except Exception as error:
            reason = _reason(error)
            if isinstance(reason, FileNotFoundError):
                raise reason from error
            if pause is None or not _passes(reason):
                raise StoreError(f"{url} cannot be {what}: {_sentence(reason)}.") from error
            time.sleep(pause)
    raise AssertionError  # the last pause is None


def _reason(error: Exception) -> Exception:
    """What lies behind fsspec's error of a web server: it calls every one a missing file."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and _status(cause) not in (None, 404, 410):
        return cause
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, OSError) and cause.errno else error


def _status(error: Exception) -> int | None:
    """The HTTP status that an error of some client carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return None


def _passes(error: Exception) -> bool:
    """Whether it may go well a little later."""
    if isinstance(error, (TimeoutError, ConnectionResetError)):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNO:
        return True
    return any(_status(one) in _PASSING for one in (error, error.__cause__) if isinstance(one, Exception))


def _sentence(error: Exception) -> str:
    """Why, without a full stop."""
    kinds = {base.__name__ for base in type(error).__mro__}
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if "NoCredentialsError" in kinds or "Unable to locate credentials" in text:
        return "no credentials were found; set them as for the store's own tools"
    if isinstance(error, PermissionError) or _status(error) in {401, 403}:
        return f"access is denied ({text}); check the credentials and the rights"
    if _passes(error):
        return f"the store did not serve it in {len(_PAUSES) + 1} tries ({text})"
    if kinds & {"EndpointConnectionError", "ClientConnectorError", "ConnectionRefusedError"}:
        return f"the store cannot be reached ({text})"
    return text


def _entry(url: str, info: dict[str, Any]) -> Entry:
    size, modified = info.get("size"), _seconds(info)
    tags = (info.get(name) for name in ("ETag", "etag", "md5Hash", "content_settings_md5", "Content-MD5", "checksum"))
    version = next((str(tag).strip('"') for tag in tags if tag), "" if modified is None else repr(modified))
    return Entry(url, -1 if size is None else int(size), version, modified)


def _seconds(info: dict[str, Any]) -> float | None:
    """The modification time, under whatever name and of whatever type a file system has it."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "modified", "created", "Last-Modified"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str):
            for parse in (datetime.fromisoformat, parsedate_to_datetime):
                try:
                    return parse(value).timestamp()
                except ValueError:
                    continue
    return None


def _s3_pages(system: Any, folder: str, path: str, recursive: bool) -> Iterator[Entry]:  # noqa: FBT001
    """Of S3, page by page; s3fs itself would gather a whole folder first."""
    bucket, _, key = path.partition("/")
    request = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else "", **system.req_kw}
    if not recursive:
        request["Delimiter"] = "/"
    scheme = scheme_of(folder)
    while True:
        page = _asked(folder, "listed", lambda: system.call_s3("list_objects_v2", **request))
        for found in page.get("Contents", []):
            if not found["Key"].endswith("/"):  # what some tools put for a folder
                yield _entry(f"{scheme}://{bucket}/{found['Key']}", {**found, "size": found["Size"]})
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _walk(system: Any, folder: str, path: str, recursive: bool) -> Iterator[Entry]:  # noqa: FBT001
    """Of any other store, directory by directory."""
    found = _asked(folder, "listed", lambda: system.ls(path, detail=True))
    below = []
    for info in sorted(found, key=lambda info: str(info["name"])):
        name = str(info["name"]).rstrip("/")
        if name == path.rstrip("/"):
            continue
        url = join(folder, PurePosixPath(name).name)
        if info.get("type") == "directory":
            below.append((url, name))
        else:
            yield _entry(url, info)
    if recursive:
        for url, name in below:
            yield from _walk(system, url, name, recursive)
