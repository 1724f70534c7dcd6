"""Every config runs: one batch of training and of validation, on made-up files in the formats of the real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from image_files import write_images, write_mnist
from point_clouds import write_arrays, write_boxes
from sound_files import SOUND, write_fsdd, write_sounds
from video_clips import write_grid

from datamodules.points.modelnet import MODELNET40
from perceiver_lightning.cli import main

CONFIGS = sorted(Path("configs").rglob("*.yaml"))
OVERLAYS = [path for path in CONFIGS if path.parent.name == "overlays"]
SWEEPS = [path for path in CONFIGS if path.parent.name == "sweeps"]
RECIPES = [path for path in CONFIGS if path not in OVERLAYS + SWEEPS]
OWN = [path for path in RECIPES if path.stem in ("folder", "table")]  # `test_own_data` runs them
# One of each kind; the others are slow tests.
QUICK = [
    *("image/digits", "audio/fsdd", "points/ldraw", "points/ldraw_size", "video/grid_color"),
    *("multimodal/av_digits", "synthetic/moving"),
]
SOME_SLOW = [
    pytest.param(path, marks=[] if str(path.relative_to("configs").with_suffix("")) in QUICK else pytest.mark.slow)
    for path in RECIPES
    if path not in OWN
]


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def made_up(tmp_path):
    """Arguments that put made-up data into the place of a config's own, in small."""
    for split in ("train", "val"):
        for name, grey in (("cat", 10), ("dog", 200)):
            write_images(tmp_path / "photos" / split / name, 4, grey)
    write_mnist(tmp_path)

    def arguments(config: dict) -> list[str]:
        given: dict = {"batch_size": 2}
        own = config["data"]["init_args"]
        if config["data"]["class_path"] == "ImageFolder":
            given |= {"root": tmp_path / "photos", "num_classes": 2, "size": min(32, own["size"])}
        elif config["data"]["class_path"] == "TorchvisionImages":
            given |= {"root": tmp_path, "val_fraction": 0.3}
        elif config["data"]["class_path"] in ("PointArrays", "PointTargets"):
            numbers = {name: np.arange(1, 13) for name in [*own.get("targets", []), own.get("scale")] if name}
            write_arrays(tmp_path / "clouds" / "train.npz", points=40, **numbers)
            given |= {"root": tmp_path / "clouds", "num_points": 32, "val_fraction": 0.3}
            given |= {} if "targets" in own else {"num_classes": 2}
        elif config["data"]["class_path"] == "ModelNet":
            for name in MODELNET40:
                write_boxes(tmp_path / "meshes" / name / "train", 2)
            given |= {"root": tmp_path / "meshes", "num_points": 32, "mesh_samples": 40, "val_fraction": 0.5}
            given |= {"cache_dir": tmp_path / "cache"}
        elif config["data"]["class_path"] in SOUND:
            given |= {**write_sounds(config, tmp_path / "sounds"), "cache_dir": tmp_path / "cache"}
        elif config["data"]["class_path"] in ("Shapes", "Tones", "Solids", "Moving"):
            given |= {"sizes": [8, 4, 4]}
        elif config["data"]["class_path"] == "Paired":
            write_fsdd(tmp_path / "sounds")
            sound = {"root": tmp_path / "sounds", "val_fraction": 0.25}
            given |= {f"members.sound.init_args.{key}": value for key, value in sound.items()}
        elif config["data"]["class_path"] == "GRID":
            write_grid(tmp_path / "grid", own["label"], count=2)
            given |= {"root": tmp_path / "grid", "val_fraction": 0.5, "cache_dir": tmp_path / "cache"}
        if "num_workers" in own:
            given |= {"num_workers": 0}
        return [f"--data.init_args.{key}={value}" for key, value in given.items()]

    return arguments


@pytest.mark.parametrize("path", SOME_SLOW, ids=str)
def test_a_recipe_runs(path, made_up):
    # The papers' models are large: a step of so few latents takes seconds. Their cost is tested elsewhere.
    fewer = ["--model.init_args.num_latents=16"] if path.parent.name == "paper" else []
    run = main(["fit", f"--config={path}", *made_up(load(path)), *fewer, "--trainer.fast_dev_run=1"])
    assert run.trainer.global_step == 1
    best = run.trainer.checkpoint_callback
    assert best is None or best.monitor in run.trainer.callback_metrics
    assert torch.isfinite(run.trainer.callback_metrics["val/loss"])
    assert not Path("checkpoints").exists()  # a trial leaves nothing


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_a_header_says_command_and_result(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"python -m perceiver_lightning fit --config {path.as_posix()}" in line for line in header)
    assert any("not measured" in line for line in header) != any(
        ("test " in line and "±" in line) or "test accuracy" in line for line in header
    )


def test_the_papers_recipes_name_the_papers_epochs():
    perceiver, io = (load(Path(f"configs/paper/{name}.yaml")) for name in ("imagenet", "imagenet_io"))
    step = perceiver["model"]["init_args"]
    assert [round(part * perceiver["trainer"]["max_epochs"]) for part in step["milestones"]] == [84, 102, 114]
    assert io["model"]["init_args"]["flat"] * io["trainer"]["max_epochs"] == 55


@pytest.mark.parametrize("path", OVERLAYS, ids=str)
def test_an_overlay_composes(path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=configs/image/digits.yaml", f"--config={path}", "--print_config"])
    assert stop.value.code == 0
    whole = yaml.safe_load(capsys.readouterr().out)
    for part, values in load(path).items():
        if isinstance(values, dict):
            found = whole[part].get("init_args", whole[part])
            wanted = values.get("init_args", values)
            for appended in [key for key in wanted if key.endswith("+")]:
                item = found[appended.removesuffix("+")][-1]
                class_path = wanted[appended]["class_path"]
                assert item["class_path"].split(".")[-1] == class_path
                assert wanted[appended].get("init_args", {}).items() <= item.get("init_args", {}).items()
            wanted = {key: value for key, value in wanted.items() if not key.endswith("+")}
            assert {key: found[key] for key in wanted} == wanted
        else:
            assert whole[part] == values


@pytest.mark.slow
def test_debug_and_bfloat16_run(tmp_path):
    overlays = [f"--config=configs/overlays/{name}.yaml" for name in ("debug", "bf16")]
    clipped = "--trainer.gradient_clip_val=1"  # as most recipes have it; Lightning will not clip for every optimiser
    run = main(["fit", "--config=configs/image/digits.yaml", *overlays, clipped, f"--runs_dir={tmp_path}"])
    assert run.trainer.global_step == 8
    assert run.trainer.precision == "bf16-mixed"
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_the_price_is_told_without_data(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PERCEIVER_DATA", str(tmp_path / "nothing"))
    unknown = [f"--data.init_args.{'root' if path.stem == 'folder' else 'table'}=x", "--data.init_args.num_classes=5"]
    main(["summary", f"--config={path}", f"--json={tmp_path / 'price.json'}", *(unknown if path in OWN else [])])
    price = json.loads((tmp_path / "price.json").read_text())
    assert f"{price['parameters']:,}" in capsys.readouterr().out
    assert price["flops"] > 2 * price["parameters"]  # every weight is used, on more than one element
    expected = {"configs/paper/imagenet.yaml": 44_912_254, "configs/paper/imagenet_io.yaml": 48_440_627}
    assert price["parameters"] == expected.get(path.as_posix(), price["parameters"])
    assert not (tmp_path / "runs").exists()
