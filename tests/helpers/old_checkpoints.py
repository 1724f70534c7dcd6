"""Made-up data, and how each of the checkpoints in `tests/old_checkpoints/` was trained on it.

They were written by commit e9c7b51, the last with one flat folder of datamodules; their configurations are as that
commit has them. `expected.json` beside them holds what that commit found in `test` and after one more epoch.
"""

from pathlib import Path
from typing import Any

import sound_files
import video_clips
from image_files import write_images
from point_clouds import write_arrays

MODEL: dict[str, Any] = {
    "num_latents": 3,
    "latent_width": 8,
    "cross_attends": [1, 1],
    "sharing": "all",
    "self_attends": 1,
    "self_heads": 2,
    "bands": 2,
    "cross_qk_width": 8,
}


def write_photos(folder: Path) -> None:
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for name, grey in (("cat", 10), ("dog", 200)):
            write_images(folder / split / name, count, grey + 3 * count)


def write_clouds(folder: Path) -> None:
    write_arrays(folder / "train.npz", scale=[1.0 + k for k in range(12)])
    write_arrays(folder / "test.npz", count=6, scale=[2.0 + k for k in range(6)])


# What is written into the working folder, the data's class with its arguments, and what else differs.
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "digits": (
        lambda: None,
        {"class_path": "Digits", "init_args": {"batch_size": 32, "random_crop": 1, "num_workers": 0}},
        {"trainer.limit_train_batches": 3},
    ),
    "image": (
        lambda: write_photos(Path("photos")),
        {
            "class_path": "ImageFolder",
            "init_args": {
                "root": "photos",
                "size": 6,
                "batch_size": 4,
                "random_resized_crop": [0.5, 1.0],
                "horizontal_flip": True,
                "mixup": 0.2,
                "mixup_off_epoch": 1,
                "ten_crop": 0.8,
                "balanced_sampling": True,
                "cache": True,
            },
        },
        {},
    ),
    "audio": (
        lambda: sound_files.write_fsdd(Path("sounds")),
        {
            "class_path": "FSDD",
            "init_args": {
                "root": "sounds",
                "val_fraction": 0.25,
                "batch_size": 32,
                "mels": 8,
                "window": 64,
                "hop": 32,
                "patch": [2, 4],
                "time_shift": 0.01,
                "speed": 0.1,
                "gain": 6,
                "spec_augment": [1, 2, 1, 2],
                "cache": "memory",
            },
        },
        {
            "trainer.callbacks": [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}}],
            "trainer.logger": [{"class_path": "TensorBoard"}],
            "trainer.limit_train_batches": 2,
        },
    ),
    "points": (
        lambda: write_clouds(Path("clouds")),
        {
            "class_path": "PointArrays",
            "init_args": {
                "root": "clouds",
                "num_classes": 2,
                "val_fraction": 0.25,
                "batch_size": 4,
                "num_points": 16,
                "eval_points": 20,
                "normalise": "box",
                "scale": "scale",
                "log_size": [1.0, 0.5],
                "neighbours": [4],
                "shape_context": [6],
                "resolution": 8,
                "mirror": True,
                "eval_mirrors": True,
                "stretch": [0.8, 1.25],
                "drop_points": 0.2,
                "cutmix": 0.5,
                "cache": "memory",
            },
        },
        {"model.members": 2, "model.bands": 1},
    ),
    "video": (
        lambda: video_clips.write_folder(Path("clips"), count=5, sound=False),
        {
            "class_path": "VideoFolder",
            "init_args": {
                "root": "clips",
                "test_fraction": 0.2,
                "val_fraction": 0.25,
                "frames": 4,
                "seconds": 0.8,
                "size": [8, 8],
                "patch": [2, 4, 4],
                "time_shift": 0.1,
                "horizontal_flip": True,
                "brightness": 0.2,
                "eval_clips": 2,
                "batch_size": 2,
                "cache": "memory",
            },
        },
        {},
    ),
    "audio_visual": (
        lambda: video_clips.write_grid(Path("grid")),
        {
            "class_path": "GRID",
            "init_args": {
                "root": "grid",
                "label": "color",
                "centred": True,
                "seconds": 0.4,
                "val_fraction": 0.25,
                "batch_size": 4,
                "modality_dropout": {"video": 0.3},
                "noise": {"audio": 1.0},
                "video": {"frames": 4, "size": [8, 8], "channels": 1, "patch": [2, 4, 4], "random_crop": 1},
                "audio": {
                    "mels": 8,
                    "window": 256,
                    "hop": 160,
                    "patch": [4, 4],
                    "gain": 6,
                    "spec_augment": [1, 4, 1, 2],
                },
                "cache": "memory",
            },
        },
        {"model.fusion": "late"},
    ),
    "multimodal": (
        lambda: sound_files.write_fsdd(Path("sounds")),
        {
            "class_path": "Paired",
            "init_args": {
                "batch_size": 64,
                "modality_dropout": {"image": 0.2, "audio": 0.2},
                "noise": {"image": 1.0},
                "members": {
                    "image": {"class_path": "Digits", "init_args": {"random_crop": 1}},
                    "sound": {
                        "class_path": "FSDD",
                        "init_args": {
                            "root": "sounds",
                            "val_fraction": 0.25,
                            "mels": 8,
                            "window": 64,
                            "hop": 32,
                            "patch": [2, 4],
                            "gain": 6,
                            "cache": "memory",
                        },
                    },
                },
            },
        },
        {"trainer.limit_train_batches": 3},
    ),
    "synthetic": (
        lambda: None,
        {
            "class_path": "Tones",
            "init_args": {"sizes": [32, 8, 16], "batch_size": 8, "patch": [2, 4], "noise": [10, 30]},
        },
        {},
    ),
}


def config_of(kind: str) -> dict[str, Any]:
    """The configuration that a kind was trained with."""
    _, data, more = KINDS[kind]
    trainer = {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1}
    trainer |= {key.removeprefix("trainer."): value for key, value in more.items() if key.startswith("trainer.")}
    model = MODEL | {key.removeprefix("model."): v for key, v in more.items() if key.startswith("model.")}
    return {
        "name": kind,
        "trainer": trainer,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {**model, "learning_rate": 0.01, "label_smoothing": 0.1},
        },
        "data": data,
    }
