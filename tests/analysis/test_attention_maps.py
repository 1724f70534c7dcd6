import pytest
import torch
from several_modalities import MODALITIES, inputs, model
from torch import Tensor

from perceiver_lightning.analysis.attention.maps import Maps, attention_maps, maps_of, record
from perceiver_lightning.model import Perceiver
from perceiver_lightning.model import attention as attention_module


def dense_weights(perceiver: Perceiver, given: dict, monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """Logits and weights (B, H, N, M) of each cross-attend, as the dense attention has them."""
    seen = []
    attend = attention_module.attend

    def spy(q, k, v, mask=None):
        if k.shape[2] != q.shape[2]:  # not a self-attend
            logits = q @ k.mT * q.shape[-1] ** -0.5
            hidden = logits if mask is None else logits.masked_fill(~mask[:, None, None], -torch.inf)
            seen.append((logits, hidden.softmax(-1)))
        return attend(q, k, v, mask)

    monkeypatch.setattr(attention_module, "attend", spy)
    perceiver.attention = "dense"
    perceiver(given)
    return seen


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("positions", ["fourier", "learned", "learned_axes"])
@pytest.mark.parametrize("kind", ["dense", "separable"])
def test_maps_are_the_dense_attention_s_weights_and_their_parts_add_up_to_its_logits(
    number, positions, kind, monkeypatch
):
    perceiver, given = model(positions=positions, position_width=4), inputs()
    logits, weights = dense_weights(perceiver, given, monkeypatch)[number]
    perceiver.attention = kind
    maps = attention_maps(perceiver, given, number, latents=[3, 1])
    assert {name: tuple(of.weights.shape) for name, of in maps.items()} == {
        "image": (3, 2, 2, 6, 5), "sound": (3, 2, 2, 8), "points": (3, 2, 2, 7),
    }  # fmt: skip
    found = torch.cat([of.weights.flatten(3) for of in maps.values()], -1)
    torch.testing.assert_close(found, weights[:, :, [3, 1]])
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 2, 2, dtype=torch.float64))
    total = torch.cat([(of.content + of.position).flatten(3) for of in maps.values()], -1)
    torch.testing.assert_close(total, logits[:, :, [3, 1]])


@pytest.mark.parametrize("positions", ["fourier", "learned"])
def test_the_content_part_is_the_logit_of_the_normalised_content_alone(positions):
    """Everything else that the LayerNorm gives, keys' bias included, is the part of the position."""
    perceiver, given = model(positions=positions, position_width=4), inputs()
    seen = record(perceiver, given)
    cross, latents = seen.cross_attends[1]
    attention = cross.attention
    queries = attention.query(cross.norm_queries(latents)).unflatten(-1, (2, -1)).transpose(1, 2)
    for name, part in zip(seen.names, seen.array.parts, strict=True):
        elements = cross.norm_inputs(part.materialised())
        elements[..., part.content.shape[-1] :] = 0
        keys = (elements @ attention.key.weight.mT).unflatten(-1, (2, -1)).transpose(1, 2)
        expected = queries @ keys.mT * queries.shape[-1] ** -0.5
        torch.testing.assert_close(maps_of(seen, 1)[name].content.flatten(3), expected)


def test_each_part_alone_is_a_softmax_over_what_is_there():
    maps = attention_maps(model(), inputs())
    for share in ("content", "position"):
        alone = maps["sound"].alone(share)
        torch.testing.assert_close(alone[:2].sum(-1), torch.ones(2, 2, 5, dtype=torch.float64))
        assert alone[1, :, :, 5:].abs().max() == 0 == alone[2].abs().max()  # masked; nothing there
        image = maps["image"].alone(share)
        torch.testing.assert_close(image, getattr(maps["image"], share).flatten(3).softmax(-1).view_as(image))


def test_each_part_alone_counts_elements_whose_whole_weight_is_too_small_for_a_number():
    content, position = torch.tensor([5.0, 0.0]), torch.tensor([-200.0, 0.0])
    weights = (content + position).softmax(0)
    assert weights[0] == 0
    maps = Maps(*(x.view(1, 1, 1, 2) for x in (weights, content, position)))
    assert maps.alone("content")[0, 0, 0, 0] > 0.99


def test_positions_in_another_precision_than_the_content():
    perceiver = model({"points": {"channels": 0, "resolution": [9, 9, 9]}}).bfloat16()
    positions = torch.rand(2, 7, 3) * 2 - 1
    given = {"points": {"content": torch.empty(2, 7, 0, dtype=torch.bfloat16), "positions": positions}}
    weights = attention_maps(perceiver, given)["points"].weights
    torch.testing.assert_close(weights.float().sum(-1), torch.ones(2, 2, 5), atol=0.05, rtol=0)


def test_nothing_of_the_input_array_is_materialised(monkeypatch):
    monkeypatch.setattr("perceiver_lightning.model.inputs.Part.materialised", lambda part: pytest.fail("materialised"))
    attention_maps(model(attention="separable"), inputs())


def test_no_cross_attend_or_latent_of_that_number():
    with pytest.raises(ValueError, match="cross_attend is 3: expected 0 to 2, as the model has 3"):
        attention_maps(model(), inputs(), cross_attend=3)
    with pytest.raises(ValueError, match=r"latents is \[5\]: expected rows from 0 to 4"):
        attention_maps(model(), inputs(), latents=[5])


def test_the_model_stays_as_it_is():
    perceiver = model().train()
    attention_maps(perceiver, inputs())
    assert perceiver.training
    assert not any(module._forward_pre_hooks for module in perceiver.modules())


def test_chosen_heads_and_several_cross_attends_of_one_forward_pass():
    perceiver, given = model(), inputs()
    seen = record(perceiver, given)
    for number in (0, 2):
        both = attention_maps(perceiver, given, number)
        second = maps_of(seen, number, latents=[4, 0], heads=[1])
        for name in MODALITIES:
            for share in ("weights", "content", "position"):
                expected = getattr(both[name], share)[:, [1]][:, :, [4, 0]]
                torch.testing.assert_close(getattr(second[name], share), expected)
    with pytest.raises(ValueError, match=r"heads is \[2\]: expected rows from 0 to 1"):
        attention_maps(perceiver, given, heads=[2])


@pytest.mark.parametrize("decoder", ["mean", "query"])
def test_a_record_has_what_came_to_each_layer(decoder, monkeypatch):
    perceiver, given = model(decoder=decoder, decoder_heads=2), inputs()
    monkeypatch.setattr(perceiver, "_compiled_call_impl", lambda *given: pytest.fail("compiled, without its hooks"))
    seen = record(perceiver, given)
    assert [type(layer).__name__ for layer, _ in seen.layers] == [
        "CrossAttend", "SelfAttend", "CrossAttend", "CrossAttend", "SelfAttend",
    ]  # fmt: skip
    torch.testing.assert_close(seen.latents, perceiver.encode(given))
    (_, first), (layer, before_last) = seen.layers[0], seen.layers[-1]
    torch.testing.assert_close(first, perceiver.latents.expand(3, -1, -1))
    torch.testing.assert_close(layer(before_last), seen.latents)
    assert (seen.decoder is None) == (decoder == "mean")
    assert not any(module._forward_pre_hooks for module in perceiver.modules())
