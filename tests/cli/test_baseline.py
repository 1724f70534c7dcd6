"""`baseline`: features, models and metrics against scikit-learn's own, and what `compare` shows of them."""

import csv

import numpy as np
import pytest
import torch
from command_line import fails
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datamodules import Digits
from perceiver_lightning.analysis.pooling import joined, pooled
from perceiver_lightning.cli import main
from perceiver_lightning.cli.baseline import STRENGTHS, run_baselines
from perceiver_lightning.compare import main as compare
from perceiver_lightning.tasks import ClassificationTask, RegressionTask

SMALL = {"num_latents": 2, "latent_width": 8, "cross_attends": [1], "self_attends": 1, "self_heads": 2, "bands": 2}
IMAGE = {"image": {"channels": 1, "resolution": [8, 8]}}


def results(folder) -> dict[str, dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return {row.pop("model"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def test_they_are_scikit_learn_s_on_the_very_splits(tmp_path):
    data = Digits()
    run_baselines(ClassificationTask(**data.facts, modalities=data.modalities, **SMALL), data, tmp_path, {})
    found = results(tmp_path)
    assert list(found) == ["majority", "nearest neighbour", "ridge"]

    def arrays(split):
        batches = [data.finish(batch, training=False) for batch in data.loader(split)]
        content = torch.cat([batch["inputs"]["image"]["content"] for batch in batches])
        return content.flatten(1).double().numpy(), torch.cat([batch["labels"] for batch in batches]).numpy()

    (x, y), (test_x, test_y) = arrays("train"), arrays("test")
    features = [np.hstack([each, each.std(1)[:, None], each.max(1)[:, None]]) for each in (x, test_x)]
    oracles = {
        "majority": DummyClassifier(),
        "nearest neighbour": make_pipeline(StandardScaler(), KNeighborsClassifier(1)),
        "ridge": make_pipeline(StandardScaler(), RidgeClassifierCV(STRENGTHS)),
    }
    for name, oracle in oracles.items():
        expected = oracle.fit(features[0], y).predict(features[1])
        assert found[name]["test/accuracy"] == pytest.approx((expected == test_y).mean(), abs=0.004)
        assert found[name]["test/f1"] == pytest.approx(f1_score(test_y, expected, average="macro"), abs=0.004)


class Rows:
    """A datamodule of one number each, whose targets are given."""

    def __init__(self, key: str, targets: torch.Tensor):
        self.key, self.targets = key, targets
        self.train_set = list(range(len(targets)))
        self.content = targets

    def prepare_data(self):
        """Nothing."""

    def setup(self, stage):
        """Nothing."""

    def loader(self, split):
        content = self.content[:, :1, None, None].expand(-1, 8, 8, 1)
        return [{"inputs": {"image": {"content": content.float()}}, self.key: self.targets}]

    def finish(self, batch, training):
        assert not training
        return batch


def test_numbers_and_several_labels(tmp_path):
    numbers = torch.linspace(-5, 40, 10)[:, None]
    task = RegressionTask(IMAGE, target_mean=[3.0], target_std=[2.0], **SMALL)
    run_baselines(task, Rows("targets", numbers), tmp_path / "numbers", {})
    found = results(tmp_path / "numbers")
    assert list(found) == ["mean", "nearest neighbour", "ridge"]
    assert found["mean"]["val/rmse"] == pytest.approx(numbers.std(correction=0).item(), rel=1e-5)
    assert found["mean"]["test/r2"] == pytest.approx(0, abs=1e-5)
    assert found["nearest neighbour"]["test/mae"] == 0 and found["ridge"]["test/r2"] > 0.999
    far = 1e9 + torch.arange(10.0, dtype=torch.float64)[:, None]  # float32 has steps of 64 there
    task = RegressionTask(IMAGE, target_mean=[1e9 + 4.5], target_std=[3.0], **SMALL)
    data = Rows("targets", far)
    data.content = (far - 1e9).float()
    run_baselines(task, data, tmp_path / "far", {})
    assert results(tmp_path / "far")["ridge"]["test/mae"] < 0.1
    labels = torch.tensor([[1.0, 1], [0, 1], [1, 1], [0, 0]])
    task = ClassificationTask(IMAGE, 2, ["a", "b"], multilabel=True, **SMALL)
    run_baselines(task, Rows("labels", labels), tmp_path / "labels", {})
    found = results(tmp_path / "labels")
    assert found["majority"]["test/accuracy"] == (2 + 3) / 8  # never a, always b
    assert found["nearest neighbour"]["test/accuracy"] == 7 / 8  # a alone shows in the content


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 99))
def test_what_is_masked_around_a_grid_changes_nothing(sizes, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(1, *sizes, channels, generator=generator)
    padded = torch.full((1, *(size + 3 for size in sizes), channels), float("nan"))
    mask = torch.zeros(padded.shape[:-1], dtype=torch.bool)
    inside = (slice(None), *(slice(1, size + 1) for size in sizes))
    padded[inside], mask[inside] = content, True
    alone, among = pooled({"x": {"content": content}})["x"], pooled({"x": {"content": padded, "mask": mask}})["x"]
    torch.testing.assert_close(alone, among)
    assert alone.isfinite().all() and alone.std() > 0


@given(st.integers(1, 40), st.integers(0, 3), st.booleans(), st.integers(0, 99))
def test_clouds_and_tokens_have_features_of_what_is_there(count, channels, several, seed):
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(1, count, 3, generator=generator) * 2 - 1
    content = torch.randn(1, count, channels, generator=generator)
    more = {"content": torch.cat([content, content + 9], 1), "mask": torch.arange(2 * count)[None] < count}
    alone = pooled({"points": {"content": content, "positions": places if several else places[0]}})["points"]
    places = torch.cat([places, places / 2], 1)
    among = pooled({"points": {**more, "positions": places if several else places[0]}})["points"]
    torch.testing.assert_close(alone, among)
    histograms = alone[0, : 16 * 5].view(5, 16)
    torch.testing.assert_close(histograms.sum(1), torch.ones(5))
    tokens = torch.randint(0, 7, (2, count), generator=generator)
    counts = pooled({"text": {"content": tokens}})["text"]
    torch.testing.assert_close(counts.sum(1), torch.ones(2))
    assert counts[0, 3] == (tokens[0] == 3).float().mean()


def test_an_example_without_a_modality_has_zeros():
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert pooled({"x": {"content": torch.ones(1, 2, 2, 3), "mask": nothing}})["x"].count_nonzero() == 0
    cloud = {"content": torch.ones(1, 4, 1), "positions": torch.ones(4, 2), "mask": nothing.view(1, 4)}
    assert pooled({"x": cloud})["x"].count_nonzero() == 0
    batches = [{"a": torch.ones(2, 3)}, {"b": torch.ones(1, 2)}, {"a": torch.ones(1, 3), "b": torch.ones(1, 2)}]
    expected = [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1]]
    assert joined(batches, {"a": 3, "b": 2}).tolist() == expected


def test_compare_shows_them_beside_the_runs_of_their_name(run, capsys):
    main(["baseline", "--config=tiny.yaml"])
    assert "results  runs/baseline/tiny/metrics.csv" in capsys.readouterr().out
    compare([str(run), "--html=page.html", "--output=curves.png"])
    said = capsys.readouterr().out
    assert "baseline:" in said and "ridge" in said and "test/accuracy" in said
    page = (run.parents[2] / "page.html").read_text()
    assert "baseline: nearest neighbour" in page and page.count("tiny/version_0") >= 1
    kept = run.parents[1] / "baseline" / "tiny" / "config.yaml"
    whole = kept.read_text()
    kept.write_text(whole.replace("datamodules.Digits", "datamodules.ImageFolder"))  # of other data
    compare([str(run), "--output=curves.png"])
    assert "baseline" not in capsys.readouterr().out
    kept.write_text(whole)
    (run.parents[1] / "baseline" / "tiny" / "metrics.csv").write_text("model,test/accuracy\nridge,much\n")
    with pytest.raises(SystemExit):
        compare([str(run)])
    assert "runs/baseline/tiny/metrics.csv: expected what `baseline` writes" in capsys.readouterr().err


def test_without_data_it_says_so(here, capsys):
    said = fails(capsys, "baseline", "--config=tiny.yaml", "--data=ImageFolder", "--data.init_args.root=pets")
    assert "no folder" in said
