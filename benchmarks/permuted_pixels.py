"""The paper's invariance, trained: a Perceiver and a ResNet-18 on CIFAR-10, raw and with all pixels shuffled.

    python -m benchmarks.permuted_pixels [--epochs 3] [--resnet-epochs 4] [--jobs 2] [--out FILE]

Perceiver, table 2: 78.0 raw and 78.0 permuted for the Perceiver, 73.5 and 39.4 for a ResNet-50 with Fourier inputs.
Here the Perceiver is that of configs/image/cifar10.yaml, trained twice from one seed for the same number of steps, for
less long, so without mixing images, and evaluated on one crop of each; the ResNet-18 is torchvision's, trained on the
very tensors that the Perceiver gets. One shuffle for all images, after augmentation; only the Perceiver is told where
each pixel came from, by its positions. Each arm runs in a process of its own, `--jobs` of them side by side with the
cores shared out. Then the trained raw Perceiver is asked about one batch three ways: raw, shuffled with positions,
shuffled without.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from perceiver_lightning.checkpoint import Opened
from perceiver_lightning.cli import main as run

CONFIG = "configs/image/cifar10.yaml"
SHUFFLE = 0  # seed of the one permutation
CHANGES = [
    "augment.mixup=0",
    "augment.cutmix=0",
    "augment.mixup_off_epoch=null",
    "ten_crop=null",
]  # of the config's data
WAYS = {"raw": None, "permuted": SHUFFLE}


def data_arguments(way: str) -> list[str]:
    """Arguments of the command line that make the config's data raw or permuted."""
    given = [*CHANGES, f"permute_pixels={json.dumps(WAYS[way])}"]
    return [f"--config={CONFIG}", *(f"--data.init_args.{change}" for change in given)]


def perceiver(way: str, epochs: int, runs_dir: str) -> dict[str, Any]:
    """Train the config's Perceiver and test its last weights: no choice is made, so both arms take the same steps."""
    start = time.monotonic()
    shared = [f"--runs_dir={runs_dir}", f"--trainer.max_epochs={epochs}", f"--name=cifar10_{way}"]
    fit = run(["fit", *data_arguments(way), *shared])
    seconds = time.monotonic() - start
    steps, last = fit.trainer.global_step, fit.run / "checkpoints" / "last.ckpt"
    test = run(["test", f"--ckpt_path={last}"])
    accuracy = float(test.trainer.callback_metrics["test/accuracy"])
    return {
        "model": "perceiver",
        "pixels": way,
        "steps": steps,
        "seconds": seconds,
        "accuracy": accuracy,
        "ckpt": str(last),
    }


def resnet(way: str, epochs: int, runs_dir: str) -> dict[str, Any]:
    """Train torchvision's resnet18 on the same batches, laid back into a grid, and test its last weights."""
    torch.manual_seed(0)
    data = data_of(way)
    data.setup("fit")
    data.setup("test")
    model = torchvision.models.resnet18(num_classes=data.num_classes)
    loader = data.train_dataloader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=epochs * len(loader))
    start = time.monotonic()
    for epoch in range(epochs):
        for batch in loader:
            batch = data.finish(batch, training=True)
            loss = F.cross_entropy(model(as_grid(batch)), batch["labels"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(
            f"resnet18 {way} epoch {epoch + 1}/{epochs}  {time.monotonic() - start:.0f} s  loss {loss:.3f}", flush=True
        )
    seconds = time.monotonic() - start
    model.eval()
    right = count = 0
    with torch.inference_mode():
        for batch in data.test_dataloader():
            batch = data.finish(batch, training=False)
            right += int((model(as_grid(batch)).argmax(-1) == batch["labels"]).sum())
            count += len(batch["labels"])
    return {
        "model": "resnet18",
        "pixels": way,
        "steps": epochs * len(loader),
        "seconds": seconds,
        "accuracy": right / count,
    }


def data_of(way: str) -> Any:
    """The config's datamodule, raw or permuted."""
    return Opened(["fit", *data_arguments(way)]).datamodule


def as_grid(batch: dict[str, Any]) -> torch.Tensor:
    """Content, a grid or a list of pixels, as torchvision's models take it: (B, C, H, W)."""
    content = batch["inputs"]["image"]["content"]
    return content.reshape(len(content), 32, 32, 3).permute(0, 3, 1, 2)


def one_batch(checkpoint: str) -> dict[str, float]:
    """Largest differences between the trained model's logits on one raw test batch and on its shuffled versions."""
    from perceiver_lightning.tasks.classification import ClassificationTask

    task = ClassificationTask.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    inputs = {}
    for way in WAYS:
        data = data_of(way)
        data.setup("test")
        inputs[way] = data.finish(next(iter(data.test_dataloader())), training=False)["inputs"]
    grid = as_grid({"inputs": inputs["permuted"]}).permute(0, 2, 3, 1)
    with torch.inference_mode():
        raw, shuffled, lost = (task(x) for x in (inputs["raw"], inputs["permuted"], {"image": {"content": grid}}))
    return {
        "largest_logit": float(raw.abs().max()),
        "with_positions": float((raw - shuffled).abs().max()),
        "without_positions": float((raw - lost).abs().max()),
    }


def arm(job: tuple[str, str, int, str, int]) -> dict[str, Any]:
    """One training, in a process of its own."""
    model, way, epochs, runs_dir, threads = job
    torch.set_num_threads(threads)
    return {"perceiver": perceiver, "resnet18": resnet}[model](way, epochs, runs_dir)


def main() -> None:
    """Train all arms, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="of each Perceiver")
    parser.add_argument("--resnet-epochs", type=int, default=4, help="of each ResNet-18")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/permuted_pixels.json"))
    args = parser.parse_args()
    threads = max(1, torch.get_num_threads() // args.jobs)
    jobs = [
        (model, way, epochs, args.runs_dir, threads)
        for model, epochs in (("perceiver", args.epochs), ("resnet18", args.resnet_epochs))
        for way in WAYS
    ]
    result: dict[str, Any] = {"rows": [], "threads": threads, "jobs": args.jobs, **machine()}
    rows = result["rows"]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for row in pool.map(arm, jobs):
            checkpoint = row.pop("ckpt", None)
            rows.append(row)
            if row["pixels"] == "raw" and checkpoint:
                result["one_batch"] = one_batch(checkpoint)
            args.out.write_text(json.dumps(result, indent=2) + "\n")  # after each arm: nothing is lost on Ctrl-C
    table = Table("model", "pixels", "steps", "minutes", "test accuracy")
    for row in rows:
        table.add_row(
            row["model"], row["pixels"], str(row["steps"]), f"{row['seconds'] / 60:.1f}", f"{row['accuracy']:.4f}"
        )
    Console().print(table)
    print("largest difference of logits from the raw batch's:", result["one_batch"])


if __name__ == "__main__":
    main()
