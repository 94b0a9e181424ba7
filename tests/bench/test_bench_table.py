"""The command that measures every model fills the README and the catalogue."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pictures import photo
from PIL import Image
from small import SMALL_SPECS, small_model

from bbcu_cli.bench import photo_table, table
from bbcu_cli.checkpoint.pack import pack
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.hub import Serves
from bbcu_cli.hub.catalogue import FILE, Catalogue
from bbcu_cli.models.build import build_model
from bbcu_cli.restoration.model import load_model
from bbcu_cli.restoration.pipeline import run_tiled
from bbcu_cli.score.trial import Trial, evaluate_trial
from bbcu_cli.spec import ModelSpec

WEIGHTS = Path(__file__).parents[2] / "weights"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder of weights with one tiny model, and a folder of test sets with one picture."""
    weights, sets = tmp_path / "weights", tmp_path / "sets"
    weights.mkdir()
    (sets / "Set5").mkdir(parents=True)
    Image.fromarray(photo(32, 40)).save(sets / "Set5" / "eye.png")
    spec = ModelSpec(arch="bbcu-m", task="sr", scale=2, channels=3, features=8, blocks=2)
    state = {name: tensor.numpy() for name, tensor in build_model(spec).state_dict().items()}
    (weights / "sr-m-x2.safetensors").write_bytes(to_bytes(pack(spec, state, {})))
    shutil.copy(WEIGHTS / FILE, weights)
    Catalogue.load(weights).refreshed(weights)[0].save(weights)
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(weights))
    return weights, sets


def test_the_table_has_the_evaluations_means(folders: tuple[Path, Path]) -> None:
    """The figure of README and catalogue is the evaluation's, models without weights are named as such."""
    weights, sets = folders
    readme = weights / table.README
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", encoding="utf-8")
    assert table.main([str(sets)]) == 0
    with load_model("sr-m-x2") as model:
        images = [sets / "Set5" / "eye.png"]
        (found,) = evaluate_trial(Trial("sr", scale=2), images, lambda x: run_tiled(model, x))
    text = readme.read_text(encoding="utf-8")
    before, after = found.row.baseline.psnr_y, found.row.scores.psnr_y
    assert f"| sr-m-x2 | Set5 | bicubic, x2 | {before:.2f} | **{after:.2f}** | {after - before:+.2f} |" in text
    assert "| denoise | not trained |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert Catalogue.load(weights)["sr-m-x2"].measured == {"Set5": round(after, 2)}


def test_the_table_of_photos_has_the_means_of_the_evaluation(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each input, with the figures of `bbcu eval`, the least gain of deblocking, and given pairs."""
    weights, sets = folders
    for name in ("deblock", "denoise"):
        (weights / f"{name}.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS[name])))
    entries = dict(Catalogue.load(weights).entries)
    entries["deblock"] = replace(entries["deblock"], serves=Serves((1, 90)))
    Catalogue(entries).refreshed(weights)[0].save(weights)
    for name in ("mean", "noisy"):
        shutil.copytree(sets / "Set5", sets / "CC15" / name)
    monkeypatch.setattr(photo_table, "SR_QUALITIES", (75,))
    monkeypatch.setattr(photo_table, "EVERY_QUALITY", (50, 95, 100))
    kept = [line for line in photo_table.trials() if line[2].scale < 3]  # the weights of that folder
    monkeypatch.setattr(photo_table, "trials", lambda: iter(kept))
    readme = weights / table.README
    readme.write_text(f"before\n{photo_table.BEGIN}\nold\n{photo_table.END}\nafter\n", encoding="utf-8")
    assert table.main([str(sets), "--photos"]) == 0, capsys.readouterr().err
    text = readme.read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines()[2:-2]]
    assert lines[0] == ["restored by", "input", "Set5", "CC15", "networks"]
    assert {len(line) for line in lines} == {5}
    found = {(command, given): cells for command, given, *cells in lines}
    assert found["`bbcu deblock`", "JPEG 95"][2] == "left as it is"
    assert found["`bbcu deblock`", "JPEG 95"][0].endswith("(+0.00)")
    assert found["`bbcu deblock`", "JPEG 50, 95, ... 100: the least gain"][0].startswith("-")
    assert found["`bbcu denoise`", "clean PNG"][0].startswith("inf, **")
    assert found["`bbcu denoise`", "camera noise"][0] == ""
    assert found["`bbcu denoise`", "camera noise"][1].startswith("inf, **")  # the same pictures twice
    with load_model("sr-m-x2") as model:
        trial = Trial("sr", scale=2)
        [one] = evaluate_trial(trial, [sets / "Set5" / "eye.png"], lambda x: run_tiled(model, x))
    before, after = one.row.baseline.psnr_y, one.row.scores.psnr_y
    expected = f"{before:.2f}, **{after:.2f}** ({after - before:+.2f})"
    assert found["`bbcu sr -s 2`", "clean PNG"] == [expected, "", "sr-m-x2"]
    assert found["`bbcu sr -s 2`", "JPEG 75"][2] == "deblock + sr-m-x2"
    assert (text[:7], text[-6:]) == ("before\n", "after\n")
    old = text.replace(expected, "spoiled").replace("(+0.00)", "(kept)")
    readme.write_text(old, encoding="utf-8")
    assert table.main([str(sets), "--photos", "--only", "sr -s 2"]) == 0, capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == old.replace("spoiled", expected)


def test_a_readme_without_a_place_is_left_alone(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the lines that are wanted, and nothing is written."""
    weights, sets = folders
    (weights / table.README).write_text("no marks", encoding="utf-8")
    assert table.main([str(sets)]) == 2
    assert table.BEGIN in capsys.readouterr().err
    assert (weights / table.README).read_text(encoding="utf-8") == "no marks"
