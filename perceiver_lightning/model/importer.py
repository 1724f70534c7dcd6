"""The way in for DeepMind's published Perceiver IO weights, under the names that Hugging Face transformers gives them.

    perceiver = Perceiver(
        {"image": {"channels": 3, "resolution": [224, 224]}}, 1000, cross_attends=[1] + [0] * 7, decoder="query"
    )
    load_published(perceiver, weights)      # the state_dict of a PerceiverForImageClassificationFourier

Shapes are checked, all of them; what shapes do not show (number of blocks, heads, resolution) is the caller's to build
as the published model has it: what stands above is deepmind/vision-perceiver-fourier.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from perceiver_lightning.model.decoders import QueryDecoder
from perceiver_lightning.model.perceiver import Perceiver
from perceiver_lightning.model.positions import FourierPositions

# Ours, as a regular expression, and theirs. Another published model is a few more lines here.
NAMES = {
    r"^latents$": "embeddings.latents",
    r"^cross_attends\.0\.": "encoder.cross_attention.",
    r"^stacks\.0\.(\d+)\.": r"encoder.self_attends.\1.",
    r"^decoder\.queries$": "decoder.decoder.output_position_encodings.position_embeddings",
    r"^decoder\.cross_attend\.": "decoder.decoder.decoding_cross_attention.",
    r"^decoder\.output\.": "decoder.decoder.final_layer.",
    r"\.norm(_queries)?\.": ".attention.self.layernorm1.",
    r"\.norm_inputs\.": ".attention.self.layernorm2.",
    r"\.norm_mlp\.": ".layernorm.",
    r"\.attention\.(query|key|value)\.": r".attention.self.\1.",
    r"\.attention\.output\.": ".attention.output.dense.",
    r"\.mlp\.0\.": ".mlp.dense1.",
    r"\.mlp\.2\.": ".mlp.dense2.",
}

# What has the channels of the input array as its last axis.
READS_INPUT = re.compile(r"^cross_attends\.0\.(norm_inputs\.(weight|bias)|attention\.(key|value)\.weight)$")


def load_published(perceiver: Perceiver, weights: Mapping[str, Tensor]) -> None:
    """Fills a Perceiver with the weights of transformers' `PerceiverForImageClassificationFourier`.

    Args:
        perceiver: of one modality with Fourier positions, one cross-attend at the start, one shared stack, and one
            learned query with its residual. Its dtype and device stay.
        weights: the state_dict, with or without the prefix `perceiver.`.

    Raises:
        ValueError: when the Perceiver is built otherwise, or names or shapes differ; it names them, and nothing has
            been changed by then.
    """
    crosses = [len(crosses) for crosses, _ in perceiver.order]
    if crosses != [1] + [0] * (len(crosses) - 1) or len(perceiver.stacks) != 1:
        raise ValueError(
            "cross_attends: expected a single one, at the start, and one stack of weights, shared, found "
            f"{crosses} and {len(perceiver.stacks)} stacks"
        )
    encodings = list(perceiver.inputs.positions.values())
    if len(encodings) != 1 or not isinstance(encodings[0], FourierPositions):
        found = [type(encoding).__name__ for encoding in encodings]
        raise ValueError(f"modalities: expected one, with Fourier positions, found {', '.join(found)}")
    if not isinstance(perceiver.decoder, QueryDecoder) or not perceiver.decoder.cross_attend.residual:
        kind = "query without it" if isinstance(perceiver.decoder, QueryDecoder) else "mean"
        raise ValueError(f"decoder: expected query, with query_residual, found {kind}")

    given = {name.removeprefix("perceiver."): tensor for name, tensor in weights.items()}
    ours = perceiver.state_dict()
    theirs = {name: their_name(name) for name in ours}
    missing = [name for name in theirs.values() if name not in given]
    unused = [name for name in given if name not in theirs.values()]
    if missing or unused:
        raise ValueError(f"weights: expected those of such a Perceiver, found missing {missing}, left over {unused}")
    wrong = [
        f"{their}: expected {tuple(ours[name].shape)}, found {tuple(given[their].shape)}"
        for name, their in theirs.items()
        if given[their].shape != ours[name].shape
    ]
    if wrong:
        raise ValueError(f"the weights have other shapes than the Perceiver: {'; '.join(wrong)}")

    (channels,) = perceiver.inputs.channels.values()
    order = channel_order(channels, len(encodings[0].highest), encodings[0].bands)
    perceiver.load_state_dict(
        {
            name: given[their][..., order.to(given[their].device)] if READS_INPUT.match(name) else given[their]
            for name, their in theirs.items()
        }
    )


def their_name(name: str) -> str:
    """The name in transformers, without `perceiver.`, of a parameter of ours."""
    for ours, theirs in NAMES.items():
        name = re.sub(ours, theirs, name)
    return name


def channel_order(channels: int, axes: int, bands: int) -> Tensor:
    """For each channel of our input array the index of theirs.

    Ours: content, then axis by axis its place, sines, cosines. Theirs: content, places, all sines, all cosines.
    """
    places = torch.arange(axes)[:, None] + channels
    sines = torch.arange(axes * bands).view(axes, bands) + channels + axes
    cosines = sines + axes * bands
    return torch.cat([torch.arange(channels), torch.cat([places, sines, cosines], 1).flatten()])
