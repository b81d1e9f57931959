"""Codecs: shapes, round trips, and the form the residual needs."""

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from rasr.generator.codec import AutoencoderCodec, Codec, PatchCodec

KL = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
}


def kl_codec() -> AutoencoderCodec:
    return AutoencoderCodec(AutoencoderKL(**KL)).eval()


def tiny_codec() -> AutoencoderCodec:
    return AutoencoderCodec(AutoencoderTiny()).eval()


@pytest.mark.parametrize("make", [lambda: PatchCodec(4), kl_codec, tiny_codec], ids=["patch", "kl", "tiny"])
@torch.inference_mode()
def test_every_kind_keeps_the_promised_grid_and_is_deterministic(make: Callable[[], Codec]) -> None:
    codec = make()
    pictures = torch.rand(2, 3, 32, 64) * 2 - 1
    latents = codec.encode(pictures)
    assert latents.shape == (2, codec.channels, 32 // codec.stride, 64 // codec.stride)
    assert torch.equal(latents, codec.encode(pictures))
    assert codec.decode(latents).shape == pictures.shape
    assert torch.count_nonzero(codec.decode_change(latents, latents)) == 0


def test_the_patch_codec_loses_nothing_and_is_linear() -> None:
    codec = PatchCodec(4)
    a, b = torch.rand(2, 1, 3, 16, 24)
    assert torch.equal(codec.decode(codec.encode(a)), a)
    torch.testing.assert_close(codec.decode_change(codec.encode(a), codec.encode(b)), a - b)


@torch.inference_mode()
def test_the_kl_latent_is_the_scaled_mode() -> None:
    codec = kl_codec()
    picture = torch.rand(1, 3, 32, 32)
    mode = codec.model.encode(picture).latent_dist.mode()
    torch.testing.assert_close(codec.encode(picture), mode * 0.18215)
    torch.testing.assert_close(codec.decode(mode * 0.18215), codec.model.decode(mode).sample)


@torch.inference_mode()
def test_large_pictures_pass_the_autoencoder_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasr.generator.codec.TILE_ABOVE", 48 * 48)
    codec = kl_codec()
    codec.model.tile_sample_min_size, codec.model.tile_latent_min_size = 32, 4
    picture = torch.rand(1, 3, 64, 64)
    latents = codec.encode(picture)
    assert latents.shape == (1, 4, 8, 8)
    assert codec.decode(latents).shape == picture.shape
    tiled = codec.model.use_tiling
    codec.encode(picture[:, :, :32, :32])
    assert (tiled, codec.model.use_tiling) == (True, False)
