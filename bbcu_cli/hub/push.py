"""A packed model as a repository of the hub: ``model.safetensors``, ``config.json``, ``README.md``; and its upload."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bbcu_cli.checkpoint.packed import FORMAT, VERSION, PackedModel
from bbcu_cli.errors import OutputError, UsageError, require_hub
from bbcu_cli.files import write_whole
from bbcu_cli.hub import client
from bbcu_cli.hub.reference import MODEL_FILE, HubRef

LIBRARY: Final = "bbcu"
_TASK_TAGS: Final = {"sr": "super-resolution", "denoise": "image-denoising", "deblock": "jpeg-artifact-removal"}
_CARD: Final = """
# {name}

{summary}. A binarized network (BBCU, ICLR 2023): the signs of its weights are packed to bits, so that the file has
{size} bytes. It runs on any CPU with [bbcu](https://pypi.org/project/bbcu/):

```
{command}
```

The SHA-256 of `{file}` is `{sha256}`.
{figures}
## Where the weights come from

{provenance}
"""


@dataclass(frozen=True, slots=True)
class Description:
    """What the card says beyond the file itself.

    Attributes:
        name: of the model.
        summary: a few words.
        license: an identifier of the hub, such as "apache-2.0"; "other" if it is not known.
        datasets: identifiers of training sets on the hub.
        metric: what the numbers of `measured` are.
        measured: test set -> PSNR in dB.
    """

    name: str
    summary: str
    license: str = "other"
    datasets: Sequence[str] = ()
    metric: str = "PSNR (Y)"
    measured: Mapping[str, float] = field(default_factory=dict)


def layout(content: bytes, model: PackedModel, about: Description, repo: str | None = None) -> dict[str, bytes]:
    """The files of a model's repository by their names.

    Args:
        content: the packed file, which has been verified.
        model: what is in it.
        about: for the card.
        repo: "user/name" if it is known where the files go, for the command that the card shows.

    Raises:
        WeightsUnavailableError: the hub's client, which writes the card, is not installed.
    """
    require_hub("A model card")
    digest = hashlib.sha256(content).hexdigest()
    config = {
        "library_name": LIBRARY,
        "model_type": LIBRARY,
        "architectures": [model.spec.arch],
        "format": FORMAT,
        "format_version": VERSION,
        **model.spec.to_dict(),
        "sha256": digest,
        "size": len(content),
    }
    return {
        MODEL_FILE: content,
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "README.md": _card(model, about, digest, len(content), repo).encode(errors="backslashreplace"),
    }


def write(files: Mapping[str, bytes], folder: Path, *, overwrite: bool = False) -> None:
    """Write the files of a repository into a folder.

    Raises:
        UsageError: one of the files exists and `overwrite` is not set.
        OutputError: the folder cannot be made or a file cannot be written; it is then what it was.
    """
    if not overwrite and (taken := [name for name in files if (folder / name).exists()]):
        raise UsageError(f"{folder / taken[0]} exists; give another folder or --overwrite.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error
    for name, content in files.items():
        write_whole(folder / name, content, overwrite=overwrite)


def push(
    files: Mapping[str, bytes], repo: str, *, private: bool = False, message: str, progress: bool = False
) -> HubRef:
    """Upload the files of a model in one commit, into a repository that is made if it is not there.

    Returns:
        The place of the weights, pinned to the new commit.

    Raises:
        WeightsUnavailableError: no token, no permission, no network; says what to do.
        UsageError: the name of the repository is malformed.
    """
    target = HubRef(repo)
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name=LIBRARY)
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    with client.plain_words(target.repo, f"hf://{target.repo}"), client.bars(shown=progress):
        client.within(api.whoami)
        api.create_repo(target.repo, private=private, exist_ok=True)
        commit = api.create_commit(target.repo, operations, commit_message=message)
        return HubRef(target.repo, commit.oid, MODEL_FILE)


def _card(model: PackedModel, about: Description, digest: str, size: int, repo: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    spec = model.spec
    scale = [f"x{spec.scale}"] if spec.task == "sr" else []
    results = [
        EvalResult(
            task_type="image-to-image",
            task_name=about.summary,
            dataset_type=label.lower(),
            dataset_name=label,
            metric_type="psnr",
            metric_name=about.metric,
            metric_value=value,
        )
        for label, value in about.measured.items()
    ]
    data = ModelCardData(
        license=about.license,
        library_name=LIBRARY,
        pipeline_tag="image-to-image",
        tags=[LIBRARY, "binary-neural-network", _TASK_TAGS[spec.task], *scale],
        datasets=list(about.datasets) or None,
        metrics=["psnr"] if results else None,
        model_name=about.name,
        eval_results=results or None,
    )
    weights = f"hf://{repo}" if repo else MODEL_FILE
    option = f" --scale {spec.scale}" if spec.task == "sr" else ""
    figures = "".join(f"- {label}: {value:.2f}\n" for label, value in about.measured.items())
    body = _CARD.format(
        name=about.name,
        summary=about.summary[:1].upper() + about.summary[1:],
        size=size,
        command=f"bbcu {spec.task} photo.jpg{option} --weights {weights}",
        file=MODEL_FILE,
        sha256=digest,
        figures=f"\n## Measured\n\n{about.metric} in dB:\n\n{figures}" if figures else "",
        provenance="".join(f"- {_line(key)}: {_line(value)}\n" for key, value in sorted(model.provenance.items()))
        or "Unknown.",
    )
    return f"---\n{data.to_yaml()}\n---\n{body.rstrip()}\n"


def _line(text: Any) -> str:
    """Free text as one line of Markdown that cannot end its list."""
    return " ".join(str(text).split())
