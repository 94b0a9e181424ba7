"""A file on the hub, as one small value, and the text that names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bbcu_cli.errors import UsageError

SCHEME: Final = "hf://"
MODEL_FILE: Final = "model.safetensors"  # what a repository of one model calls its weights
_FORM: Final = "hf://user/repo[@revision]:file.safetensors"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHAPE: Final = re.compile(r"(?P<repo>[^@:]+)(?:@(?P<revision>[^@:]+))?(?::(?P<filename>[^:]+))?")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubRef:
    """One file of one repository.

    Attributes:
        repo: "user/name".
        revision: a branch, a tag, or a 40-hex commit, which never changes and so costs no request once cached.
        filename: path inside the repository, "/" between its parts.
    """

    repo: str
    revision: str = "main"
    filename: str = MODEL_FILE

    def __post_init__(self) -> None:
        """Refuse anything that could name a file outside the repository's own folder in the cache.

        Raises:
            UsageError: a part is empty, absolute, climbs out with "..", or holds other than letters, digits, "_.-".
        """
        for what, text, at_least, at_most in (
            ("repository", self.repo, 2, 2),
            ("revision", self.revision, 1, 8),
            ("file name", self.filename, 1, 8),
        ):
            parts = text.split("/")
            if not at_least <= len(parts) <= at_most or not all(_NAME.fullmatch(p) and ".." not in p for p in parts):
                raise UsageError(f"Hub {what} {text!r} is not allowed; write {_FORM}.")
        if not self.filename.endswith(".safetensors"):
            raise UsageError(
                f"Hub file {self.filename!r} is not a packed model (.safetensors); download a published "
                ".pth yourself and run `bbcu models convert` on it."
            )

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, so that its content can never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        """The text that `parse` reads back."""
        return f"{SCHEME}{self.repo}@{self.revision}:{self.filename}"


def parse(text: str) -> HubRef:
    """Read ``hf://user/repo[@revision]:file``; without a file it is ``model.safetensors``, without revision ``main``.

    Raises:
        UsageError: the text has another form, or a part that could escape from the cache.
    """
    match = _SHAPE.fullmatch(text.removeprefix(SCHEME))
    if match is None:
        raise UsageError(f"{text!r} names no file on the hub; write {_FORM}.")
    return HubRef(**{key: value for key, value in match.groupdict().items() if value is not None})


def for_model(pattern: str, name: str) -> HubRef:
    """The reference that ``--hub-repo`` means for a model: ``user/repo[@revision][:file]``, ``{name}`` filled in."""
    return parse(pattern.replace("{name}", name))
