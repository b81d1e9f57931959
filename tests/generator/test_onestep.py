"""The closed-form step against diffusers' scheduler, where that still works."""

import pytest
import torch
from diffusers import DDPMScheduler

from rasr.generator.config import read_model_config
from rasr.generator.onestep import ALPHA_BAR_999, one_step


@pytest.fixture
def scheduler() -> DDPMScheduler:
    """Stable Diffusion 2.1-base's scheduler_config.json."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        prediction_type="epsilon",
    )


def test_alpha_bar_is_the_schedules(scheduler: DDPMScheduler) -> None:
    assert float(scheduler.alphas_cumprod[999]) == pytest.approx(ALPHA_BAR_999, rel=1e-5)
    assert read_model_config("sd21-osediff").alpha_bar == ALPHA_BAR_999


def test_eps_rule_equals_the_schedulers_prediction_of_the_clean_latent(scheduler: DDPMScheduler) -> None:
    z, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(1000)  # with one step, which is what is meant, diffusers >= 0.32 raises IndexError
    expected = scheduler.step(eps, 999, z).pred_original_sample
    torch.testing.assert_close(one_step("eps", z, eps, ALPHA_BAR_999), expected, rtol=1e-4, atol=1e-4)


def test_eps_rule_undoes_the_noising(scheduler: DDPMScheduler) -> None:
    clean, eps = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    noisy = scheduler.add_noise(clean, eps, torch.tensor([999]))
    torch.testing.assert_close(one_step("eps", noisy, eps, ALPHA_BAR_999), clean, rtol=1e-3, atol=1e-3)


def test_residual_rule_subtracts() -> None:
    z, prediction = torch.randn(2, 1, 4, 8, 8)
    assert torch.equal(one_step("residual", z, prediction, 1.0), z - prediction)
