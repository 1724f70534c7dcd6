"""What all kinds of models tell of themselves, whatever Perceivers they are made of."""

import pytest
from torch import nn

from perceiver_lightning.model import Ensemble, LateFusion, Perceiver

FACTS = {"image": {"channels": 3, "resolution": [4, 5]}, "audio": {"channels": 2, "resolution": [6]}}
TINY = {"num_latents": 4, "latent_width": 8, "cross_attends": [1], "self_attends": 1, "self_heads": 2, "bands": 2}


def test_the_perceiver_that_reads_each_modality():
    early = Perceiver(FACTS, 3, **TINY)
    assert list(early.perceivers().items()) == [("image", early), ("audio", early)]
    late = LateFusion(FACTS, 3, **TINY)
    image, audio = late.perceivers().values()
    assert image is not audio and [*late.perceivers()] == ["image", "audio"]
    assert [list(one.inputs.channels) for one in (image, audio)] == [["image"], ["audio"]]
    several = Ensemble(2, FACTS, 3, **TINY)
    assert list(several.perceivers().items()) == [("image", several.members[0]), ("audio", several.members[0])]


@pytest.mark.parametrize("kind", [Perceiver, LateFusion])
def test_alone_a_model_is_its_only_member(kind):
    model = kind(FACTS, 3, **TINY)
    assert list(model.members) == [model]


def test_an_ensemble_has_as_many_members_as_it_was_made_of():
    members = Ensemble(3, FACTS, 3, **TINY).members
    assert len(members) == 3 and all(isinstance(member, Perceiver) for member in members)


def test_names_in_checkpoints():
    """They must not change: checkpoints of earlier versions keep loading."""
    names = {name.split(".")[0] for name in Perceiver(FACTS, 3, **TINY).state_dict()}
    assert names == {"latents", "inputs", "cross_attends", "stacks", "decoder"}
    late = LateFusion(FACTS, 3, **TINY).state_dict()
    assert {".".join(name.split(".")[:2]) for name in late} == {"perceivers.image", "perceivers.audio"}
    several = Ensemble(2, FACTS, 3, **TINY).state_dict()
    assert {".".join(name.split(".")[:2]) for name in several} == {"members.0", "members.1"}
    decoder = Perceiver(FACTS, 3, **TINY, decoder="query").decoder
    assert isinstance(decoder, nn.Module)
    assert {name.split(".")[0] for name in decoder.state_dict()} == {"queries", "cross_attend", "output"}
    assert decoder.state_dict()["queries"].shape == (1, 8)
    positions = Perceiver(FACTS, 3, **TINY, decoder="query", query_resolution=[3, 4]).decoder.state_dict()
    assert {name.split(".")[0] for name in positions} == {"cross_attend", "output"}
