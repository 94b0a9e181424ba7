"""Where training starts: a centred network passes on what varies, and no constants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bbcu_cli.errors import UsageError
from bbcu_cli.models.binary import BinaryUnit, _SignActivation, sign
from bbcu_cli.models.build import build_model
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train.checkpoint import CHECKPOINT, MODEL, read_checkpoint
from bbcu_cli.train.loop import Run, train
from bbcu_cli.train.recipes import Recipe
from bbcu_cli.train.start import centre

SR = ModelSpec(arch="bbcu-m", task="sr", scale=2, channels=3, features=32, blocks=8)
LARGE = replace(SR, arch="bbcu-l")
DEBLOCK = ModelSpec(arch="bbcu-dncnn", task="deblock", scale=1, channels=1, features=32, blocks=8, bias=True)


@pytest.fixture(params=[SR, LARGE, DEBLOCK], ids=lambda spec: spec.arch)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    """A small network of each kind."""
    found: ModelSpec = request.param
    return found


def built(spec: ModelSpec) -> nn.Module:
    """The network as it is initialised."""
    torch.manual_seed(0)
    return build_model(spec)


def batch(spec: ModelSpec) -> Tensor:
    """Bright patches with soft detail."""
    noise = torch.rand(4, spec.channels, 20, 20, generator=torch.Generator().manual_seed(1))
    return 0.5 + 0.4 * torch.nn.functional.avg_pool2d(noise, 3, 1, 1)


def outputs(model: nn.Module, modules: Iterable[nn.Module], source: Tensor) -> list[Tensor]:
    """What some modules of the network compute, (C, values) each."""
    seen: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda *call: seen.append(call[2].transpose(0, 1).flatten(1))) for m in modules]
    with torch.no_grad():
        model(source)
    for hook in hooks:
        hook.remove()
    return seen


def units(model: nn.Module) -> list[BinaryUnit]:
    """The binary units of a network."""
    return [module for module in model.modules() if isinstance(module, BinaryUnit)]


def test_every_unit_is_centred(spec: ModelSpec) -> None:
    """Over the batch each channel in front of a sign, and each that a unit adds, averages zero."""
    model, source = built(spec), batch(spec)
    centre(model, source)
    for parts in ([unit.move0 for unit in units(model)], [unit.relu for unit in units(model)]):
        values = outputs(model, parts, source)
        assert len(values) == len(units(model)) >= spec.blocks
        assert all(v.mean(1).abs().max() < 1e-3 * v.abs().max() for v in values)


def test_signs_that_never_change_are_gone(spec: ModelSpec) -> None:
    """As published, a good part of the channels has nearly one sign everywhere and tells nothing; centred, none has."""

    def silent(model: nn.Module) -> float:
        thresholds = outputs(model, [unit.move0 for unit in units(model)], batch(spec))
        return float(torch.stack([sign(v).mean(1).abs() > 0.95 for v in thresholds]).float().mean())

    model = built(spec)
    before = silent(model)
    centre(model, batch(spec))
    assert before > 0.1
    assert silent(model) < 0.01


def test_the_first_layer_of_a_centred_network_does_not_see_brightness(spec: ModelSpec) -> None:
    """Away from the border a flat patch of any brightness gives the bias."""
    model = built(spec)
    centre(model, batch(spec))
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        dark, bright = (first(torch.full((1, spec.channels, 5, 5), v))[..., 2, 2] for v in (0.1, 0.9))
    torch.testing.assert_close(dark, bright, rtol=0, atol=1e-6)


def test_training_starts_centred_unless_told_or_given_weights(pictures: Path, tmp_path: Path) -> None:
    """--start published and --init both leave the weights they are given."""
    recipe = Recipe(steps=1, batch=4, patch=8, rate=1e-9, warmup=0, ema=0.0)

    def trained(name: str, recipe: Recipe, init: Path | None = None) -> dict[str, Tensor]:
        train(Run(SR, recipe, pictures, tmp_path / name, init=init))
        state: dict[str, Tensor] = read_checkpoint(tmp_path / name / CHECKPOINT)["model"]
        return state

    def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
        return all(torch.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one)

    published = trained("published", replace(recipe, start="published"))
    assert close(published, built(SR).state_dict())
    centred = trained("centred", recipe)
    assert not close(centred, published)
    again = trained("again", recipe, tmp_path / "published" / CHECKPOINT)
    assert close(again, published)
    assert (tmp_path / "again" / MODEL).exists()
    with pytest.raises(UsageError, match="start is 'cold', expected centred or published"):
        replace(recipe, start="cold")  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [0.5, 1.0, 4.0])
def test_a_window_of_any_width_passes_the_same_gradient_in_all(window: float) -> None:
    """The sign's gradient integrates to its step from -1 to +1, is largest at 0, and ends at the window."""
    x = torch.linspace(-6, 6, 12001, dtype=torch.float64).requires_grad_()
    _SignActivation.apply(x, window).sum().backward()
    assert x.grad is not None
    assert float(x.grad.sum() * 0.001) == pytest.approx(2, rel=1e-3)
    assert float(x.grad.max()) == float(x.grad[6000]) == pytest.approx(2 / window)
    assert not x.grad[x.detach().abs() >= window].any()
