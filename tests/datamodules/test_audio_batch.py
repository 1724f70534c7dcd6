"""Augmentation, log-mel spectrograms and patches of whole batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.transforms import MelSpectrogram

from datamodules.audio.augment import equalise, gain, mix, noise
from datamodules.audio.spectrogram import LogMel, normalise
from datamodules.common.collate import own_places
from datamodules.common.patches import patches


def test_gain_changes_loudness_alone():
    sound = torch.randn(200, 50, 2)
    decibels = 20 * (gain(sound, 6.0) / sound).log10()
    assert decibels.amax((1, 2)).sub(decibels.amin((1, 2))).max() < 1e-3  # one for each clip
    assert decibels.min() >= -6.001 and decibels.max() <= 6.001 and decibels.std() > 3


def test_the_equaliser_changes_bands_alone_and_smoothly():
    torch.manual_seed(0)
    content = torch.randn(300, 5, 13, 2)
    decibels = (equalise(content, 6.0) - content) * 10 / torch.tensor(10.0).log()
    torch.testing.assert_close(decibels, decibels[:, :1, :, :1].expand_as(decibels), atol=1e-4, rtol=0)
    curves = decibels[:, 0, :, 0]
    assert curves.abs().max() <= 6.001 and (curves[:, ::4].std(0) > 3).all()  # the four bands
    bends = curves.diff(n=2, dim=1).abs().amax(0)
    assert bends[[3, 7]].min() > 1 and bends[[0, 1, 2, 4, 5, 6, 8, 9, 10]].max() < 1e-3


def test_noise_has_the_ratio_asked_for_within_a_clips_own_length():
    torch.manual_seed(0)
    length = torch.tensor([4000, 1000])
    sound = torch.sin(torch.arange(4000) / 5)[None, :, None] * own_places(length, 4000)[..., None]
    for low, high in ((20.0, 20.0), (0.0, 10.0)):
        added = noise(sound, [low, high], length) - sound
        rows = zip(sound, added, length, strict=True)
        power = torch.stack([clip[:own].square().mean() / more[:own].square().mean() for clip, more, own in rows])
        assert (10 * power.log10() > low - 0.5).all() and (10 * power.log10() < high + 0.5).all()
    assert noise(torch.zeros(2, 10, 1), [0, 10], torch.tensor([10, 10])).eq(0).all()


def test_noise_is_white_and_no_clip_or_batch_has_another_s_at_the_same_place():
    torch.manual_seed(0)
    sound = torch.ones(12, 4000, 2)  # more clips than eighths
    both = torch.cat([noise(sound, [0, 0], torch.full((12,), 4000)) - sound for _ in range(2)])
    rows = both.transpose(1, 2).flatten(0, 1)  # clips and channels
    assert (torch.corrcoef(rows) - torch.eye(48)).abs().max() < 0.1
    assert torch.corrcoef(torch.stack([rows[0].roll(shift) for shift in range(20)]))[0, 1:].abs().max() < 0.1


@pytest.mark.parametrize("soft", [True, False])
def test_mix_adds_the_clip_before(soft):
    torch.manual_seed(0)
    sound, labels, length = torch.randn(3, 6, 1), torch.tensor([0, 2, 1]), torch.tensor([6, 2, 4])
    given_labels = torch.eye(4)[labels] if soft else labels
    mixed, shares, longest = mix(sound, given_labels, length, 4, 0.5)
    share = shares[0, 0].item()
    assert 0 < share < 1 and shares[0].tolist() == pytest.approx([share, 1 - share, 0, 0])
    torch.testing.assert_close(mixed, share * sound + (1 - share) * sound[[2, 0, 1]])
    assert longest.tolist() == [6, 6, 4]


@pytest.mark.parametrize("window, hop, samples", [(400, 160, 16000), (256, 80, 1000), (256, 64, 65), (512, 160, 30)])
def test_log_mel_is_torchaudios_mel_spectrogram(window, hop, samples):
    sound = torch.randn(2, samples, 2)
    mel = LogMel(16000, 20, window, hop, [50.0, 7000.0])
    theirs = MelSpectrogram(16000, window, hop_length=hop, f_min=50, f_max=7000, n_mels=20, pad_mode="constant")
    expected = (theirs(sound.transpose(1, 2)) + 1e-6).log().permute(0, 3, 2, 1)
    found = mel(sound)
    assert found.shape == (2, mel.frames(samples), 20, 2)
    torch.testing.assert_close(found, expected[:, : found.shape[1]], atol=1e-4, rtol=1e-4)
    assert expected.shape[1] - found.shape[1] in (0, 1)  # the last frame of theirs may lie on the end


def test_a_tone_is_in_its_band():
    time = torch.arange(8000) / 8000
    sound = torch.stack([torch.sin(2 * torch.pi * pitch * time) for pitch in (300, 1000, 3000)])[..., None]
    loudest = LogMel(8000, 40, 512, 80, [0.0, 4000.0])(sound)[:, 20].squeeze(-1).argmax(1)
    mels = 2595 * np.log10(1 + np.array([300, 1000, 3000]) / 700)
    expected = mels / (2595 * np.log10(1 + 4000 / 700)) * 41 - 1  # bands at even steps of mel
    assert np.abs(loudest.numpy() - expected).max() <= 1


@given(st.integers(1, 500), st.integers(0, 300), st.sampled_from([(64, 16), (100, 40), (64, 99)]))
def test_own_frames_do_not_know_of_the_padding(samples, padding, form):
    mel = LogMel(8000, 8, *form, [0.0, 4000.0])
    sound = torch.randn(1, samples, 1)
    padded = torch.nn.functional.pad(sound, (0, 0, 0, padding))
    own = mel.frames(samples)
    torch.testing.assert_close(mel(padded)[:, :own], mel(sound), atol=1e-4, rtol=1e-5)
    assert mel.frames(torch.tensor([samples])).tolist() == [own]


def test_normalise_by_each_clips_own():
    content, length = torch.randn(2, 7, 3, 2) * 4 + 1, torch.tensor([7, 4])
    there = own_places(length, 7)
    own = normalise(content, there)
    for row, count in enumerate(length):
        values = content[row, :count].numpy()
        expected = (values - values.mean()) / values.std()
        np.testing.assert_allclose(own[row, :count].numpy(), expected, atol=1e-5)
    assert own[1, 4:].eq(0).all()
    assert normalise(torch.full((1, 5, 2), 3.0), torch.ones(1, 5, dtype=torch.bool)).abs().max() < 1e-2


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 3)), min_size=1, max_size=3),
    st.integers(1, 2),
)
def test_patches_hold_their_places_as_channels(axes, channels):
    grid, size = [places for places, _ in axes], [own for _, own in axes]
    content = torch.randn(2, *grid, channels)
    found = patches(content, size)
    count = [-(-places // own) for places, own in axes]
    assert found.shape == (2, *count, int(np.prod(size)) * channels)
    for place in np.ndindex(*count):
        slices = [slice(p * own, (p + 1) * own) for p, own in zip(place, size, strict=True)]
        inside = content[:, *slices]
        filled = torch.zeros(2, *size, channels)
        filled[:, *[slice(length) for length in inside.shape[1:-1]]] = inside
        assert torch.equal(found[:, *place], filled.flatten(1))
