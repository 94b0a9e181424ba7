"""A plan that was opened on one machine: its networks, and what is kept from piece to piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from bbcu_cli.batch.manifest import Manifest
from bbcu_cli.batch.settings import Settings, options_key
from bbcu_cli.files import parts_folder, remove_stale_parts
from bbcu_cli.fleet.plan import Plan
from bbcu_cli.fleet.record import Record
from bbcu_cli.hub import Catalogue
from bbcu_cli.restoration.choice import preferred
from bbcu_cli.restoration.model import Model, Shelf
from bbcu_cli.restoration.serving import server


class Shop:
    """The opened networks of a plan; `with` closes them.

    Attributes:
        model: the one that is preferred.
        settings: those of the plan, with the networks that serve.
        record: of the outputs in stores.
        manifest: of the outputs in folders.
    """

    def __init__(self, plan: Plan, note: Callable[[str], None] | None = None) -> None:
        """Open the preferred network. Errors as of `load_model`.

        Args:
            note: tells a person where weights were found, and why a faster engine does not serve.
        """
        wish, catalogue = plan.wish, Catalogue.load()
        self.plan = plan
        self._note = note
        self._shelf = Shelf(self._open)
        self.model: Model = self._shelf[preferred(wish, catalogue)]
        weights = self.model if plan.loading.weights else None
        levels = plan.settings.levels
        chosen = server(wish, catalogue, self._shelf, weights=weights, target=plan.target, levels=levels)
        self.settings: Settings = replace(plan.settings, serve=chosen)
        self.record = Record(plan.key, plan.run)
        self.manifest = Manifest(options_key(plan.settings))
        self._tidied: set[Path] = set()

    def _open(self, name: str) -> Model:
        wish = self.plan.wish
        model = self.plan.loading.open(name, wish.task, None if self.plan.target else wish.scale)
        if self._note:
            for line in model.notes:
                self._note(line)
        return model

    def __enter__(self) -> Shop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the engines hold."""
        self._shelf.close()

    def tidy(self, output: Path) -> None:
        """Remove what killed runs left in the folder of an output, when it is first seen."""
        folder = parts_folder(output)
        if folder in self._tidied:
            return
        self._tidied.add(folder)
        if folder.is_dir():
            remove_stale_parts(folder)
