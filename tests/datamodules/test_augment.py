"""What is done to images, against slow or independent versions of the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from datamodules.image.augment import crop_and_flip, example_transform, mix, permutation, resize


def images(*shape: int) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8)


def test_centre_crop_is_torchvisions_usual_evaluation():
    image = images(3, 300, 400)
    usual = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])(image)
    assert torch.equal(resize(image.permute(1, 2, 0), [224, 224], 0.875).permute(2, 0, 1), usual)


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.sampled_from([None, 0.5, 1.0])
)
def test_resize_gives_the_size_asked_for(height, width, to_height, to_width, centre_crop):
    assert resize(images(height, width, 3), [to_height, to_width], centre_crop).shape == (to_height, to_width, 3)


def test_resize_leaves_an_image_of_the_right_size_alone():
    image = images(5, 7, 3)
    assert torch.equal(resize(image, [5, 7], 1.0), image)
    assert torch.equal(resize(image, [5, 7], None), image)


def test_resize_cuts_the_centre_or_stretches():
    image = torch.zeros(4, 12, 1, dtype=torch.uint8)
    image[:, 4:8] = 200  # the middle third
    assert resize(image, [4, 4], 1.0).eq(200).all()
    stretched = resize(image, [4, 4], None)[0, :, 0]
    assert stretched[0] < 50 and stretched[3] < 50 and stretched[1] > 50


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2), st.booleans(), st.integers(0, 2**31))
def test_every_image_is_one_of_the_crops_of_its_padded_self(batch, height, width, padding, flip, seed):
    torch.manual_seed(seed)
    content = images(batch, height, width, 2)
    changed = crop_and_flip(content, padding, flip)
    assert changed.dtype == torch.uint8
    for image, new in zip(content, changed, strict=True):
        padded = torch.zeros(height + 2 * padding, width + 2 * padding, 2, dtype=torch.uint8)
        padded[padding : padding + height, padding : padding + width] = image
        shifts = [(row, column) for row in range(2 * padding + 1) for column in range(2 * padding + 1)]
        crops = [padded[row : row + height, column : column + width] for row, column in shifts]
        crops += [crop.flip(1) for crop in crops] if flip else []
        assert any(torch.equal(new, crop) for crop in crops)


def test_all_crops_and_flips_come_up_equally_often():
    torch.manual_seed(0)
    image = images(1, 3, 4, 1)
    changed = crop_and_flip(image.expand(9000, -1, -1, -1), 1, True)
    _, counts = changed.unique(dim=0, return_counts=True)
    assert len(counts) == 2 * 3 * 3
    assert counts.min() > 400 and counts.max() < 600  # 500 each


def test_a_padded_image_is_mirrored_in_its_own_width():
    torch.manual_seed(0)
    content, mask = torch.zeros(64, 2, 5, 1, dtype=torch.uint8), torch.zeros(64, 2, 5, dtype=torch.bool)
    content[:, 0, :3, 0] = torch.tensor([1, 2, 3])
    mask[:, :1, :3] = True
    changed = crop_and_flip(content, 0, True, mask)[..., 0]
    assert changed[:, 1].eq(0).all()
    assert {tuple(row.tolist()) for row in changed[:, 0]} == {(1, 2, 3, 0, 0), (3, 2, 1, 0, 0)}


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_mixup_is_the_blend_that_its_labels_say(batch, seed):
    torch.manual_seed(seed)
    content, labels = torch.randn(batch, 3, 4, 2), torch.arange(batch)
    mixed, soft = mix(content, labels, batch + 1, mixup=0.8, cutmix=0.0)
    torch.testing.assert_close(soft.sum(1), torch.ones(batch))
    share = soft[0, 0]
    torch.testing.assert_close(mixed, share * content + (1 - share) * content.roll(1, 0))
    torch.testing.assert_close(soft[:, :batch], share * torch.eye(batch) + (1 - share) * torch.eye(batch).roll(1, 0))


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_cutmix_pastes_the_share_that_its_labels_say(batch, seed):
    torch.manual_seed(seed)
    content, labels = torch.randn(batch, 6, 5, 1), torch.arange(batch)
    mixed, soft = mix(content, labels, batch, mixup=0.0, cutmix=1.0)
    own = mixed == content
    assert torch.equal(mixed[~own], content.roll(1, 0)[~own])
    torch.testing.assert_close(soft.sum(1), torch.ones(batch))
    torch.testing.assert_close(soft.diagonal(), own.float().mean((1, 2, 3)))


def test_with_both_each_batch_gets_one():
    torch.manual_seed(0)
    content, labels = torch.randn(2, 8, 8, 1), torch.arange(2)
    blended = [(mix(content, labels, 2, 1.0, 1.0)[0] != content).all().item() for _ in range(40)]
    assert 8 < sum(blended) < 32


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_a_permuted_pixel_keeps_its_position(height, width, seed):
    content = torch.randn(height, width, 3)
    order, positions = permutation([height, width], seed)
    assert sorted(order.tolist()) == list(range(height * width))
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    for pixel, (y, x) in zip(content.flatten(0, 1)[order], positions, strict=True):
        row, column = (rows - y).abs().argmin(), (columns - x).abs().argmin()
        assert (rows[row], columns[column]) == (y, x)
        assert torch.equal(pixel, content[row, column])


def test_the_permutation_is_fixed_by_its_seed_alone():
    torch.manual_seed(1)
    first = permutation([8, 8], 3)[0]
    torch.manual_seed(2)
    assert torch.equal(first, permutation([8, 8], 3)[0])
    assert not torch.equal(first, permutation([8, 8], 4)[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_transforms_of_one_image(channels):
    torch.manual_seed(0)
    assert example_transform([8, 8], None, None) is None
    image = images(12, 20, channels)
    crop = example_transform([8, 6], [0.1, 0.5], None)
    assert crop is not None and crop(image).shape == (8, 6, channels)
    assert not torch.equal(crop(image), crop(image))
    augment = example_transform(None, None, [2, 9])
    assert augment is not None
    changed = [augment(image) for _ in range(10)]
    assert all(new.shape == image.shape and new.dtype == torch.uint8 for new in changed)
    assert any(not torch.equal(new, image) for new in changed)
