"""What runs on the nodes: one opened network a process, and the same code that restores on one machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bbcu_cli.batch.settings import Row
from bbcu_cli.errors import BbcuError
from bbcu_cli.fleet.evaluate import Answer, Exam, Question, evaluate
from bbcu_cli.fleet.nodes import difference, here
from bbcu_cli.fleet.plan import Ask, Piece, Plan
from bbcu_cli.fleet.restore import restore
from bbcu_cli.fleet.shop import Shop


@dataclass(frozen=True, slots=True)
class Refused:
    """A node must not work, since its results might differ; `reason` is a clause."""

    reason: str


def restore_piece(plan: Plan, piece: Piece[Ask]) -> tuple[Row, ...] | Refused | BbcuError:
    """Restore the pictures of a piece.

    Returns:
        A row for each; or why this node may not do it; or the error that ends the run.
    """
    try:
        shop = _opened(plan)
        if isinstance(shop, Refused):
            return shop
        return tuple(restore(piece.asks, shop, again=piece.deaths > 0))
    except BbcuError as error:
        return error


def evaluate_piece(exam: Exam, plan: Plan, piece: Piece[Question]) -> tuple[Answer, ...] | Refused | BbcuError:
    """Restore and score the pictures of a piece; returns as `restore_piece`."""
    try:
        shop = _opened(plan)
        return shop if isinstance(shop, Refused) else tuple(evaluate(piece.asks, shop, exam))
    except BbcuError as error:
        return error


@lru_cache(maxsize=1)
def _opened(plan: Plan) -> Shop | Refused:
    """The networks of a plan, if they are the same as elsewhere; a process serves one plan, and keeps them."""
    if reason := difference(plan.version, dict(plan.digests), here(), plan.schemes):
        return Refused(reason)
    shop = Shop(plan)
    if plan.loading.weights and shop.model.sha256 != plan.digests[0][1]:
        shop.close()
        return Refused(f"its {plan.loading.weights} is another file")
    return shop
