"""The catalogue: every model by its name, as data (``weights/catalogue.json``) and the values read from it.

The weights of model NAME that ship with the package are ``NAME.safetensors`` beside the catalogue. After a file of
weights was added, replaced or removed, ``python -m bbcu_cli.hub`` brings the catalogue up to date.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Final

from bbcu_cli.checkpoint.packed import PackedFile, read_packed
from bbcu_cli.errors import BbcuError, CheckpointError, UsageError
from bbcu_cli.files import write_whole
from bbcu_cli.hub.reference import HubRef
from bbcu_cli.spec import ModelSpec

SCHEMA: Final = 1
FILE: Final = "catalogue.json"
REFRESH: Final = "python -m bbcu_cli.hub"
OTHER_WAYS: Final = (
    "or convert a published checkpoint (`bbcu models convert FILE.pth`) and pass it as --weights FILE, or name a "
    "repository that has it (--hub-repo user/repo)"
)
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def weights_dir() -> Path:
    """The folder of the weights that ship with bbcu.

    ``BBCU_WEIGHTS_DIR`` if set, else inside the installed package, else beside the package in a source tree.
    """
    if chosen := os.environ.get("BBCU_WEIGHTS_DIR"):
        return Path(chosen)
    package = Path(__file__).resolve().parents[1]
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


@dataclass(frozen=True, slots=True)
class Serves:
    """The files that a network was made for, and is the best for; see `restoration.choice`.

    Attributes:
        quality: libjpeg qualities of lossy files, both ends included; where networks meet was measured on withheld
            pictures.
        sigma: noise levels of the lossy files that a denoiser serves, as `estimate_noise` finds them, in 8-bit units,
            both ends included; None for all.
        white, correlated: likewise of lossless files with white noise, and with that of a camera; None for none.
        full_step: of a network that deblocks: the quantisation step of a coefficient, in 8-bit units of the orthonormal
            DCT, from which on its changes are taken as they are; where steps are finer, in proportion. Measured on
            withheld pictures. None: results are not held against the steps of the file.
        untold: it also serves lossy files that do not tell their quality, whatever other networks are there.
    """

    quality: tuple[int, int]
    sigma: tuple[float, float] | None = None
    white: tuple[float, float] | None = None
    correlated: tuple[float, float] | None = None
    full_step: float | None = None
    untold: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no range.

        Raises:
            CheckpointError: the ends are out of order, or out of 1..100 (quality) or 0..255 (noise); `full_step` is
                not positive.
        """
        low, high = self.quality
        if not 1 <= low <= high <= 100:
            raise CheckpointError(f"quality is {low}..{high}, expected 1..100 in order")
        for name, levels in (("sigma", self.sigma), ("white", self.white), ("correlated", self.correlated)):
            if levels is not None and not 0 <= levels[0] <= levels[1] <= 255:
                raise CheckpointError(f"{name} is {levels[0]:g}..{levels[1]:g}, expected 0..255 in order")
        if self.full_step is not None and not 0 < self.full_step < math.inf:
            raise CheckpointError(f"full_step is {self.full_step:g}, expected more than 0")

    @property
    def of_noise(self) -> bool:
        """Whether the noise of a picture counts."""
        return any(levels is not None for levels in (self.sigma, self.white, self.correlated))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        fields = {part.name: getattr(self, part.name) for part in dataclass_fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in fields.items()
            if value not in (None, False)
        }

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Serves:
        """Inverse of `to_dict`; raises whatever malformed values raise, and CheckpointError."""
        known = {part.name for part in dataclass_fields(Serves)}
        if "quality" not in fields or set(fields) - known:
            raise CheckpointError(f"what it serves has the fields {', '.join(fields)}, known are {', '.join(known)}")
        low, high = fields["quality"]
        return Serves(
            (int(low), int(high)),
            sigma=_levels(fields.get("sigma")),
            white=_levels(fields.get("white")),
            correlated=_levels(fields.get("correlated")),
            full_step=None if fields.get("full_step") is None else float(fields["full_step"]),
            untold=bool(fields.get("untold", False)),
        )


def _levels(field: Sequence[float] | None) -> tuple[float, float] | None:
    if field is None:
        return None
    weakest, strongest = field
    return float(weakest), float(strongest)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        name: what ``bbcu models`` calls it, such as "sr-m-x4".
        spec: the network.
        summary: a few words for people.
        sha256, size: of its file, 64 hex digits and bytes; None while nobody has trained it.
        hub: where the file is when it does not ship with the package, pinned to a commit.
        measured: test set (and condition) -> PSNR in dB, on Y or, for denoising, on RGB; of exactly this file.
        serves: the lossy files that it serves; None for a network that only lossless files and options ask for.
    """

    name: str
    spec: ModelSpec
    summary: str
    sha256: str | None = None
    size: int | None = None
    hub: HubRef | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    serves: Serves | None = None

    def __post_init__(self) -> None:
        """Refuse an entry that pins nothing.

        Raises:
            CheckpointError: a field is malformed, or a hub file has no hash or no fixed commit.
        """
        for holds, complaint in (
            (_NAME.fullmatch(self.name), "names are lower-case words joined by '-'"),
            (self.sha256 is None or _SHA256.fullmatch(self.sha256), "sha256 must be 64 hex digits"),
            ((self.sha256 is None) == (self.size is None), "sha256 and size come together"),
            (self.spec.task != "sr" or self.serves is None, "a network for super-resolution serves clean pictures"),
            (self.spec.task == "denoise" or not (self.serves and self.serves.of_noise), "only denoisers serve noise"),
            (
                self.spec.task == "deblock" or not (self.serves and self.serves.full_step),
                "only deblocking has a full_step",
            ),
            (self.hub is None or (self.sha256 and self.hub.pinned), "a hub file needs a 40-hex revision and a sha256"),
        ):
            if not holds:
                raise CheckpointError(f"Catalogue entry {self.name!r}: {complaint}.")

    @property
    def file(self) -> Path:
        """Where its weights are if they ship with the package; the file need not exist."""
        return weights_dir() / f"{self.name}.safetensors"

    @property
    def embedded(self) -> bool:
        """Whether its weights ship with this bbcu."""
        return self.file.exists()

    @property
    def metric(self) -> str:
        """What the numbers of `measured` are."""
        return metric(self.spec)

    def read(self, path: Path) -> PackedFile:
        """Read a file that claims to be this model: its SHA-256 against the pinned one, then its format.

        Raises:
            CheckpointError: one of the two is wrong; the file must not be used.
        """
        return read_packed(path, sha256=self.sha256)

    def require_network(self, got: ModelSpec, where: object) -> None:
        """Refuse a sound file of another network than this model is.

        Raises:
            CheckpointError: architecture, task, scale or channels differ.
        """
        wanted = self.spec
        if (got.arch, got.task, got.scale, got.channels) != (wanted.arch, wanted.task, wanted.scale, wanted.channels):
            raise CheckpointError(
                f"Weights {where}: a {got.arch} for {got.task} x{got.scale}, but {self.name} is a {wanted.arch} for "
                f"{wanted.task} x{wanted.scale}."
            )

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain JSON values."""
        hub = self.hub and {"repo": self.hub.repo, "revision": self.hub.revision, "filename": self.hub.filename}
        return {
            "summary": self.summary,
            "spec": self.spec.to_dict(),
            "sha256": self.sha256,
            "size": self.size,
            "hub": hub,
            "measured": dict(self.measured),
            "serves": self.serves and self.serves.to_dict(),
        }

    @staticmethod
    def from_dict(name: str, fields: Mapping[str, Any]) -> Entry:
        """Inverse of `to_dict`.

        Raises:
            CheckpointError: a field is missing, unknown or malformed.
        """
        try:
            fields = {"serves": None, **fields}
            if odd := set(fields) ^ _FIELDS:
                raise CheckpointError(f"missing or unknown field(s) {', '.join(sorted(odd))}")
            spec = ModelSpec.from_dict(fields["spec"])
            hub = fields["hub"] and HubRef(**fields["hub"])
            measured = {str(label): float(value) for label, value in fields["measured"].items()}
            serves = fields["serves"] and Serves.from_dict(fields["serves"])
        except (TypeError, ValueError, AttributeError, BbcuError) as error:
            raise CheckpointError(f"Catalogue entry {name!r} is malformed: {error}") from error
        return Entry(name, **{**fields, "spec": spec, "hub": hub, "measured": measured, "serves": serves})


_FIELDS: Final = {part.name for part in dataclass_fields(Entry)} - {"name"}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models by name, in the order in which they are listed."""

    entries: Mapping[str, Entry]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def __getitem__(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            UsageError: there is none; the nearest name is suggested.
        """
        if name in self.entries:
            return self.entries[name]
        near = difflib.get_close_matches(name, self.entries, n=1)
        hint = f"did you mean {near[0]}?" if near else f"`bbcu models list` shows them ({', '.join(self.entries)})."
        raise UsageError(f"No model is called {name!r}; {hint}")

    @staticmethod
    def load(folder: Path | None = None) -> Catalogue:
        """Read the catalogue of a folder of weights, by default the one that ships with bbcu.

        Raises:
            CheckpointError: it is missing or malformed.
        """
        path = (folder or weights_dir()) / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise CheckpointError(f"Catalogue {path} has schema {content['schema']!r}, not {SCHEMA}; update bbcu.")
            return Catalogue({name: Entry.from_dict(name, fields) for name, fields in content["models"].items()})
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(f"Catalogue {path}: cannot be read ({reason}); reinstall bbcu.") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"Catalogue {path} is damaged ({error}); reinstall bbcu.") from error

    def save(self, folder: Path) -> None:
        """Write ``catalogue.json`` into a folder.

        Raises:
            OutputError: it cannot be written.
        """
        content = {"schema": SCHEMA, "models": {entry.name: entry.to_dict() for entry in self}}
        write_whole(folder / FILE, (json.dumps(content, indent=2) + "\n").encode())

    def refreshed(self, folder: Path) -> tuple[Catalogue, list[str]]:
        """The catalogue that fits the files of a folder, and a line for every change.

        A new or replaced file is validated and its spec, SHA-256 and size taken; figures measured on the file that it
        replaces are dropped. An entry whose file is gone stays, as a model that nobody has trained yet. A hub model
        stays as it is unless a file of its name is in the folder.

        Raises:
            CheckpointError: a file is not a valid packed model, or of another network than its entry.
        """
        entries, changes = dict(self.entries), []
        files = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
        for name, path in files.items():
            old = entries.get(name)
            file = read_packed(path)
            digest, size, spec = file.sha256, len(file.content), file.model.spec
            if old is not None and (old.sha256, old.hub) == (digest, None):
                continue
            if old is not None:
                old.require_network(spec, path)
            summary, serves = (old.summary, old.serves) if old else (describe(spec), None)
            entries[name] = Entry(name, spec, summary, digest, size, serves=serves)
            dropped = f", drops its measured figures ({', '.join(old.measured)})" if old and old.measured else ""
            changes.append(f"{name}: {'replaced' if old and old.sha256 else 'added'}, {size} bytes, {digest}{dropped}")
        for entry in self:
            if entry.name not in files and entry.sha256 and not entry.hub:
                entries[entry.name] = replace(entry, sha256=None, size=None, measured={})
                changes.append(f"{entry.name}: its file is gone")
        return Catalogue(entries), changes


def metric(spec: ModelSpec) -> str:
    """The figure by which the paper compares networks of that task."""
    return "PSNR (RGB)" if spec.task == "denoise" or (spec.task, spec.channels) == ("deblock", 3) else "PSNR (Y)"


def describe(spec: ModelSpec) -> str:
    """A few words for a network that nobody has described."""
    return f"super-resolution x{spec.scale}, {spec.arch}" if spec.task == "sr" else f"{spec.task}, {spec.arch}"


def train_command(entry: Entry) -> str:
    """The command that trains a model of that kind."""
    spec = entry.spec
    network = f" --scale {spec.scale} --model {spec.arch[-1]}" if spec.task == "sr" else ""
    return f"bbcu train --task {spec.task}{network}"


def remedy(entry: Entry) -> str:
    """What a user does about a model that is neither in the package nor on a hub."""
    return f"train it (`{train_command(entry)}`), {OTHER_WAYS}"


def denoise_model(sigma: float | None, catalogue: Catalogue | None = None) -> str:
    """Name of the denoising model for a noise level in 8-bit units.

    A model specialised at a level serves noise within a tenth of it, if its weights ship with bbcu and measured better
    there than the blind model on every set that both were measured on; the blind model serves everything else, and an
    unknown level.
    """
    if sigma is None:
        return "denoise"
    catalogue = catalogue or Catalogue.load()
    levels = {
        int(entry.name.removeprefix("denoise-")): entry
        for entry in catalogue
        if re.fullmatch(r"denoise-\d+", entry.name) and entry.embedded
    }
    nearest = min(levels, key=lambda level: abs(level - sigma), default=None)
    if nearest is None or abs(nearest - sigma) > 0.1 * nearest:
        return "denoise"
    blind = catalogue["denoise"].measured
    gains = [
        psnr - blind[label]
        for label, psnr in levels[nearest].measured.items()
        if label in blind and label.endswith(f" sigma {nearest}")
    ]
    return levels[nearest].name if gains and min(gains) > 0 else "denoise"
