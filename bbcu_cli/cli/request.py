"""From the options of a command to the values that run: one way for one machine and for many."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbcu_cli.batch.settings import Settings
    from bbcu_cli.cli.options import EngineOptions, FileOptions, TalkOptions
    from bbcu_cli.fleet.plan import Plan
    from bbcu_cli.restoration.choice import Wish
    from bbcu_cli.restoration.planes import Chroma
    from bbcu_cli.restoration.size import Target


@dataclass(frozen=True, slots=True)
class Request:
    """What tells `sr`, `denoise` and `deblock` apart."""

    wish: Wish
    tag: str
    chroma: Chroma = "restore"
    strength: float = 1
    target: Target | None = None

    def plan(
        self,
        form: str,
        files: FileOptions,
        engine: EngineOptions,
        talk: TalkOptions,
        places: Iterable[str] | None = None,
    ) -> Plan:
        """What is asked of every machine.

        Args:
            form: name of the output format.
            places: the inputs and the output, paths or URLs; None: files of this machine, which does it alone.

        Raises:
            BbcuError: as `plan_of`.
        """
        from bbcu_cli.batch.settings import Settings

        settings = Settings(
            options=engine.options(self.chroma, self.strength),
            encoding=files.encoding(),
            format=form,
            max_pixels=files.max_pixels,
            existing="skip" if files.skip_existing else "overwrite" if files.overwrite else "refuse",
            fail_fast=files.fail_fast,
            preserve_times=files.preserve_times,
            frames=files.frames.value,
            compare=talk.compare,
            threads=engine.threads,
            levels=files.levels(),
        )
        return plan_of(self.wish, settings, engine, places, self.target)


def plan_of(
    wish: Wish, settings: Settings, engine: EngineOptions, places: Iterable[str] | None, target: Target | None = None
) -> Plan:
    """A plan for the networks that the options name, and for the places of pictures; errors as of `hub.locate`.

    A machine that works alone on its files (no `places`) needs no digest: it reads its weights once, to open them.
    """
    from bbcu_cli.fleet.plan import Loading, Plan, network_digests
    from bbcu_cli.fleet.stores import scheme_of
    from bbcu_cli.hub import Catalogue, locate

    file: str | None = None
    digests: tuple[tuple[str, str], ...] = ()
    if not engine.weights:
        digests = network_digests(wish.task, None if target else wish.scale, Catalogue.load())
    elif places is not None:
        draws = sys.stderr.isatty()
        found = locate(engine.weights, hub_repo=engine.hub_repo, offline=engine.offline, progress=draws)
        file = str(Path(engine.weights).resolve()) if found.source == "file" else None
        digests = (("--weights", found.file.sha256),)
    loading = Loading(
        engine.weights, file, engine.engine.value, engine.device, engine.threads, engine.hub_repo, engine.offline
    )
    schemes = tuple(sorted(set(filter(None, map(scheme_of, places or ())))))
    return Plan(wish, settings, loading, digests, str(Path.cwd()), target, schemes)
