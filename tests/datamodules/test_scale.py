"""Mean and deviation that are taken out: given, or measured on the train split, kept in checkpoints."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import write_images
from PIL import Image

from datamodules import AudioFolder, ImageFolder, Paired, PointFolder
from datamodules.common.scale import Scale, measure, recorded
from perceiver_lightning.checkpoint import open_checkpoint
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError

MODEL = ["--model=ClassificationTask", "--model.num_latents=2", "--model.latent_width=8", "--model.self_heads=2",
         "--model.cross_attends=[1]", "--model.self_attends=1", "--model.bands=2", "--trainer.max_epochs=1",
         "--trainer.accelerator=cpu"]  # fmt: skip


def test_numbers_are_taken_out_of_each_channel():
    content = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    expected = torch.tensor([[[[-1.0, 3.0], [1.0, -1.0]]]])
    scale = Scale([0.5, 0.25], [0.5, 0.25], 2)
    torch.testing.assert_close(scale(content), expected)
    assert scale(content, torch.tensor([[[True, False]]]))[0, 0, 1].eq(0).all()
    torch.testing.assert_close(Scale(0.5, 2, 2)(content), (content - 0.5) / 2)


@pytest.mark.parametrize(
    "mean, std, found",
    [
        ([0.5], 1.0, r"mean: expected one number, or 2 \(channels\), found \[0.5\]"),
        (0.5, [1.0, 0.0], r"std: expected one number above 0, or 2 \(channels\), found \[1.0, 0.0\]"),
        ("train", 0.5, "std: expected train, as mean is, or numbers for both, found 0.5"),
        (0.5, "train", "std: expected train, as mean is, or numbers for both, found train"),
    ],
)
def test_what_does_not_fit_is_refused(mean, std, found):
    with pytest.raises(InputError, match=found):
        Scale(mean, std, 2)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([1, 3]),
    st.integers(0, 99),
)
def test_the_train_split_s_are_numpy_s_over_all_that_is_there(shapes, channels, seed):
    scale, generator, rows, sums = Scale("train", "train", channels), np.random.default_rng(seed), [], []
    with pytest.raises(InputError, match="mean: expected a training, or its checkpoint"):
        scale(torch.zeros(1, 2, 2, channels))
    for height, width, masked in shapes:
        values = generator.normal(3, 2, (1, height, width, 3))
        mask = generator.random((1, height, width)) < 0.7 if masked else np.ones((1, height, width), bool)
        rows.append(values[mask].reshape(-1, channels))
        with recorded() as found:
            content = torch.from_numpy(values)
            assert scale(content, torch.from_numpy(mask) if masked else None) is content
        sums.append(found)
    measure([scale], sums)
    every = np.concatenate(rows)
    if len(every) > 1:
        np.testing.assert_allclose(scale.mean, every.mean(0), rtol=1e-5)
        np.testing.assert_allclose(scale.std, np.where(every.std(0) > 1e-6, every.std(0), 1), rtol=1e-4)
    assert scale(torch.zeros(1, 2, 2, 3)).isfinite().all()


def test_images_keep_those_of_train_in_test_and_predict(here):
    for split, least in (("train", 0), ("test", 100)):  # the test split is brighter
        for i, name in enumerate(("cat", "dog")):
            (here / "pets" / split / name).mkdir(parents=True)
            for k in range(10):
                pixels = np.random.default_rng(k).integers(least, least + 50 * (i + 1), (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(here / "pets" / split / name / f"{k}.png")
    data = ["--data=ImageFolder", "--data.root=pets", "--data.size=8", "--data.mean=train", "--data.std=train"]
    fit = main(["fit", *data, *MODEL])
    train = fit.datamodule.train_set
    pixels = np.stack([train[row]["inputs"]["image"]["content"] for row in range(len(train))]) / 255
    scale = fit.datamodule.scales["image"]
    np.testing.assert_allclose(scale.mean, pixels.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(scale.std, pixels.std((0, 1, 2)), rtol=1e-4)
    best = f"{fit.run}/checkpoints/best.ckpt"
    test = main(["test", f"--ckpt_path={best}"])
    opened = open_checkpoint(best).datamodule
    for later in (test.datamodule, opened):
        assert (later.scales["image"].mean, later.scales["image"].std) == (scale.mean, scale.std)


def test_sound_and_points_and_pairs(tmp_path):
    for i, name in enumerate(("low", "high")):
        for k in range(10):
            tone = np.sin(np.arange(800) * (i + 1) * (k + 1) / 40) * (0.1 + 0.05 * k)
            for kind in ("sounds", "clouds"):
                (tmp_path / kind / "train" / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "sounds" / "train" / name / f"{k}.wav", tone, 8000)
            rows = np.random.default_rng(k).normal(i, 1, (6, 4))
            text = "\n".join(" ".join(map(str, row)) for row in rows)
            (tmp_path / "clouds" / "train" / name / f"{k}.txt").write_text(f"x y z heat\n{text}\n")
    sound = AudioFolder(root=str(tmp_path / "sounds"), seconds=0.1, sample_rate=8000, scale="train", cache="memory")
    sound.setup("fit")
    batches = [sound.finish(batch, training=False) for batch in sound.loader("train")]
    content = torch.cat([batch["inputs"]["audio"]["content"] for batch in batches])
    assert content.mean().abs() < 1e-4 and (content.std() - 1).abs() < 1e-3
    options = {"feature_mean": "train", "feature_std": "train"}
    points = PointFolder(root=str(tmp_path / "clouds"), features=["heat"], **options)
    points.setup("fit")
    content = torch.cat(
        [points.finish(b, training=False)["inputs"]["points"]["content"] for b in points.loader("train")]
    )
    assert content.mean().abs() < 1e-4 and (content.std(correction=0) - 1).abs() < 1e-3
    pair = Paired({"sound": sound, "points": points})
    other = Paired(
        {
            "sound": AudioFolder(root=str(tmp_path / "sounds"), seconds=0.1, sample_rate=8000, scale="train"),
            "points": PointFolder(root=str(tmp_path / "clouds"), features=["heat"], **options),
        }
    )
    other.load_state_dict(pair.state_dict())
    assert other.datamodules["sound"].scale.mean == sound.scale.mean
    assert other.datamodules["points"].feature_scale.std == points.feature_scale.std


def test_numbers_of_the_config_win_over_a_checkpoint_s(tmp_path):
    write_images(tmp_path / "pets" / "a", 5)
    write_images(tmp_path / "pets" / "b", 5)
    data = ImageFolder(root=str(tmp_path / "pets"), mean=0.25, std=0.5)
    data.load_state_dict({"scales": {"image": [[9.0] * 3, [9.0] * 3]}})
    assert data.scale.mean == [0.25] * 3
