"""Stable Diffusion 2.1's real size with random weights: about 5 GB on disk, 10 GB of memory, minutes on two cores."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.large, pytest.mark.timeout(3600)]
