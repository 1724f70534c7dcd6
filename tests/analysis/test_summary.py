import json
import os
import subprocess
import sys
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from rich.console import Console

from perceiver_lightning.analysis.costs import (
    FusedAttention,
    LiveBytes,
    forward_flops,
    show,
    summarise,
    training_memory,
    write_json,
)
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Perceiver

IMAGENET = {"image": {"channels": 3, "resolution": [224, 224]}}


def facts(modalities, batch_size, **elements):
    return SimpleNamespace(modalities=modalities, batch_size=batch_size, elements=elements)


def task(modalities, outputs, **arguments):
    return SimpleNamespace(perceiver=Perceiver(modalities, outputs, **arguments))


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):
        return task(IMAGENET, 1000)


@pytest.mark.slow
def test_the_papers_model_costs_what_the_paper_says(paper):
    found = summarise(paper, facts(IMAGENET, 1))
    assert list(found) == ["parameters", "flops", "flops_executed", "modalities", "latents", "memory_bytes"]
    assert found["parameters"] == 44_912_254
    assert found["flops"] == pytest.approx(707.2e9, rel=0.005)
    # Without keys and values: less than half of the 8 cross-attends' share, which is 43 B each.
    assert 706e9 - 8 * 43e9 < found["flops_executed"] < 706e9 - 4 * 43e9
    assert found["modalities"] == {"image": {"elements": 50_176, "channels": 261}}
    assert found["latents"] == [512, 1024]
    # 4 arrays for each parameter, at least one input array, and nowhere near the N x M weights of 8 cross-attends.
    assert 4 * 4 * 44_912_254 + 4 * 50_176 * 261 < found["memory_bytes"] < 6e9


def test_one_cross_attend_and_48_self_attends_cost_what_the_paper_says():
    with torch.device("meta"):
        perceiver = Perceiver(IMAGENET, 1000, cross_attends=[1] + [0] * 7)
    assert forward_flops(perceiver, IMAGENET, attention="dense") == pytest.approx(404e9, rel=0.005)
    assert perceiver.attention == "auto"


def test_flops_of_a_linear_decoder_by_hand():
    modalities = {"x": {"channels": 2, "resolution": [5]}}
    model = {"num_latents": 4, "latent_width": 8, "bands": 1, "self_attends": 0, "cross_attends": [1]}
    n, m, d, c = 4, 5, 8, 5  # 5 channels: 2, the place, a sine, a cosine
    projections = n * d * c + 2 * m * c * c + n * c * d
    attention = 2 * n * m * 8  # 5 channels, filled up to 8
    mlp, decoder = 2 * n * d * d, d * 3
    perceiver = Perceiver(modalities, 3, **model)
    for batch_size in (1, 7):
        found = forward_flops(perceiver, modalities, attention="dense", batch_size=batch_size)
        assert found == 2 * (projections + attention + mlp + decoder)


def test_coordinates_are_priced_by_their_number_and_not_by_their_resolution():
    model = {"num_latents": 4, "latent_width": 8, "bands": 2, "cross_attends": [1]}
    cloud, image = {"channels": 0, "resolution": [2240] * 3}, {"channels": 0, "resolution": [5, 4, 5]}
    points, grid = (
        summarise(task({"p": of}, 2, **model), facts({"p": of}, 3, **elements))
        for of, elements in ((cloud, {"p": 100}), (image, {}))
    )
    assert points["modalities"] == {"p": {"elements": 100, "channels": 15}} == grid["modalities"]
    assert points["flops"] == grid["flops"]
    assert points["memory_bytes"] > grid["memory_bytes"]  # features of each example's own coordinates


@pytest.mark.slow
def test_modalities_share_the_common_width_and_the_model_stays_as_it_is():
    modalities = {
        "image": {"channels": 3, "resolution": [4, 6]},
        "sound": {"channels": 1, "resolution": [10]},
    }
    one = task(modalities, 2, num_latents=4, latent_width=8, bands=2)
    before = {name: tensor.clone() for name, tensor in one.perceiver.state_dict().items()}
    one.perceiver.eval()
    found = summarise(one, facts(modalities, 3))
    width = 3 + 2 * 5 + 4
    assert found["modalities"] == {
        "image": {"elements": 24, "channels": width},
        "sound": {"elements": 10, "channels": width},
    }
    assert not one.perceiver.training
    assert all(parameter.grad is None for parameter in one.perceiver.parameters())
    after = one.perceiver.state_dict()
    assert all(after[name].equal(tensor) for name, tensor in before.items())
    assert one.perceiver({"image": {"content": torch.zeros(1, 4, 6, 3)}}).isfinite().all()


def test_separable_attention_keeps_its_content_and_no_keys():
    modalities = {"image": {"channels": 3, "resolution": [512, 512]}}
    model = {"num_latents": 8, "latent_width": 8, "self_attends": 0, "cross_attends": [1]}
    dense, separable = (
        training_memory(Perceiver(modalities, 2, attention=kind, **model), modalities, 1)
        for kind in ("dense", "separable")
    )
    assert separable < dense / 20


def test_memory_grows_by_what_a_larger_batch_keeps():
    modalities = {"image": {"channels": 3, "resolution": [512, 512]}}  # many times the latents
    model = {"num_latents": 2, "latent_width": 8, "bands": 8, "self_attends": 0, "cross_attends": [1]}
    perceiver = Perceiver(modalities, 2, attention="dense", **model)
    one, two, three = (training_memory(perceiver, modalities, batch_size) for batch_size in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=0.01)
    # At least content, input array and its norm (37 channels), keys and values and those filled up to 40.
    assert two - one > 4 * 512 * 512 * (3 + 2 * 37 + 2 * 37 + 2 * 40)


def test_live_bytes_count_storages_once_and_until_they_are_gone():
    mebi = 2**20
    with LiveBytes() as memory:
        x = torch.empty(64 * mebi, device="meta")  # 256 MiB
        y = x.view(2, -1)[0]
        assert memory.now == 256 * mebi
        z = x + 1
        del z
        assert (memory.now, memory.most) == (256 * mebi, 512 * mebi)
        del x
        assert memory.now == 256 * mebi
        del y
        assert memory.now == 0
        small = torch.empty(mebi, device="meta")
        assert memory.now == 4 * mebi
        memory.add([small])
        assert memory.now == 4 * mebi


def test_attention_keeps_no_weights():
    q, k = (torch.empty(1, 1, rows, 8, device="meta", requires_grad=True) for rows in (2**10, 2**16))
    with LiveBytes() as memory, FusedAttention():
        torch.nn.functional.scaled_dot_product_attention(q, k, k, scale=0.5).sum().backward()
    assert 0 < memory.most < 4 * 2**26 / 20  # the weights alone would be 256 MiB


@pytest.mark.slow
def test_json_and_table_say_the_same(tmp_path, paper):
    found = summarise(paper, facts(IMAGENET, 32))
    write_json(found, tmp_path / "cost.json")
    assert json.loads((tmp_path / "cost.json").read_text()) == found
    screen = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    show(found, 32, screen)
    screen.file.close()
    text = screen.export_text()
    for words in ("44,912,254", f"{found['flops'] / 1e9:.3f} G", "50,176 x 261", "512 x 1,024", "batch 32"):
        assert words in text
    assert f"{found['memory_bytes'] / 1e6:,.0f} MB" in text and "in use" in text


@pytest.mark.slow
def test_another_attention_s_flops_stand_beside_the_dense_ones(paper):
    found = summarise(paper, facts(IMAGENET, 1))
    for executed, beside in ((123 * 10**9, True), (found["flops"], False)):
        with open(os.devnull, "w") as nowhere:
            screen = Console(record=True, width=100, file=nowhere)
            show(found | {"flops_executed": executed}, 1, screen)
        text = screen.export_text()
        assert ("123.000 G" in text) == ("in use" in text) == ("dense" in text) == beside


def test_json_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--json .*nowhere/cost.json: expected a file that can be written, found No"):
        write_json({}, tmp_path / "nowhere" / "cost.json")


def recipe(name: str, modalities: dict, classes: int) -> tuple:
    config = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    of, known = config["model"]["init_args"], signature(Perceiver).parameters
    arguments = {key: value for key, value in of.items() if key in known}
    batch_size = config["data"]["init_args"]["batch_size"]
    return modalities, classes, arguments, batch_size, of.get("optimizer", "adamw")


# Modalities, classes, arguments, batch size, optimiser.
MEASURED = {
    "clothing": recipe("image/clothing", {"image": {"channels": 3, "resolution": [64, 64]}}, 10),
    "224 x 224": (
        {"image": {"channels": 3, "resolution": [224, 224]}}, 1000,
        {"num_latents": 128, "latent_width": 256, "cross_attends": [1], "self_attends": 3}, 2, "lamb",
    ),
    "nothing shared": (
        {"image": {"channels": 3, "resolution": [48, 48]}}, 10,
        {"num_latents": 128, "latent_width": 256, "cross_attends": [1, 1, 1], "self_attends": 2, "bands": 32,
         "sharing": "none"}, 8, "adamw",
    ),
    "query decoder, two modalities": (
        {"image": {"channels": 3, "resolution": [32, 32]}, "sound": {"channels": 1, "resolution": [2000]}}, 10,
        {"num_latents": 64, "latent_width": 256, "cross_attends": [1, 0], "self_attends": 4, "positions": "learned",
         "decoder": "query"}, 16, "lamb",
    ),
}  # fmt: skip

# The peak of a process's memory over some steps, less what it had before: after imports and steps of a tiny model.
MEASURE = """
import gc, json, sys
import torch
from perceiver_lightning.model import Perceiver
from perceiver_lightning.training.optim import make_optimizer

def train(modalities, outputs, arguments, batch_size, optimizer, steps):
    perceiver = Perceiver(modalities, outputs, **arguments)
    optimizer = make_optimizer(perceiver, optimizer, 1e-3, 0.1)
    for _ in range(steps):
        inputs = {name: {"content": torch.randn(batch_size, *of["resolution"], of["channels"])}
                  for name, of in modalities.items()}
        loss = perceiver(inputs).logsumexp(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

def status(key):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])

torch.set_num_threads(1)
arguments = json.loads(sys.argv[1])
tiny = {"num_latents": 2, "latent_width": 8, "bands": 2, "cross_attends": [1]}
train({"x": {"channels": 1, "resolution": [4, 4]}}, 2, tiny, 2, arguments[-1], 2)
gc.collect()
open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
before = status("VmRSS")
train(*arguments, steps=2)
print(status("VmHWM") - before)
"""


@pytest.mark.xdist_group("memory")
@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measures memory through Linux's /proc")
@pytest.mark.parametrize("name", MEASURED)
def test_memory_is_within_a_fifth_of_the_measured_peak_without_the_heap_s_gaps(name):
    modalities, outputs, arguments, batch_size, _ = MEASURED[name]
    # So that freed memory is given back, and the peak is not that of the gaps in glibc's heap: see `training_memory`.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(MEASURED[name])],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    measured = int(done.stdout)
    estimate = training_memory(Perceiver(modalities, outputs, **arguments), modalities, batch_size)
    print(f"{name}: measured {measured / 1e6:.0f} MB, estimated {estimate / 1e6:.0f} MB")
    assert estimate == pytest.approx(measured, rel=0.2)
