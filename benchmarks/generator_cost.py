"""What a reference costs: seconds and peak memory of RefDSR without one, with a cached one, and with a new one.

    python benchmarks/generator_cost.py                       # SD 2.1-base's size, random weights (4 GB, temporary)
    python benchmarks/generator_cost.py --device cuda --side 512 1024 --batch 1 8

The three cases run in turn, several rounds in one process, and their ratios are medians over rounds: a busy machine
slows all three alike. Peak memory is of a process of its own (Linux: VmHWM; on a GPU torch's own count). Branches get
random weights: cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rasr.generator import GenerationSettings, ReferencePicture
from rasr.generator.adapter import save_adapter
from rasr.generator.config import read_model_config
from rasr.generator.diffusion import DiffusionGenerator
from rasr.generator.refdsr import RefDSR

CASES = ("no reference", "cached reference", "new reference")
SD21 = {
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "sample_size": 64,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}


def make_weights(folder: Path) -> None:
    """Random weights of the preset's size, and an adapter, where :func:`load` looks."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    UNet2DConditionModel(**SD21).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    model = _sd21(folder)
    model.attach_reference()
    with torch.no_grad():
        for parameter in model.reference_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    save_adapter(model, folder / "adapter.safetensors")


def _sd21(folder: Path) -> RefDSR:
    """Stable Diffusion without its text encoder, which runs once a prompt and is not held."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from rasr.generator.refdsr import AutoencoderCodec
    from rasr.generator.stable_diffusion import _from_folder

    unet, vae = _from_folder(UNet2DConditionModel, folder / "unet"), _from_folder(AutoencoderKL, folder / "vae")
    return RefDSR(read_model_config("sd21-pisasr"), unet, AutoencoderCodec(vae), torch.zeros(1, 77, 1024))


class _NoPrompts:
    def states(self, _prompt: str) -> None:
        return None


def load(folder: Path, options: argparse.Namespace, *, adapter: bool) -> DiffusionGenerator:
    """The generator under test."""
    path: Any = folder / "adapter.safetensors" if adapter else "none"
    place = {"device": options.device, "dtype": options.dtype}
    from rasr.generator.adapter import load_adapter

    generator = DiffusionGenerator("sd21-pisasr", adapter=path, **place)
    model = _sd21(folder)
    if adapter:
        load_adapter(model, path)
    chosen = generator._place
    generator._model = model.to(chosen.device, chosen.dtype).eval()
    generator._prompts = _NoPrompts()
    return generator


def photo(side: int, seed: int) -> np.ndarray:
    """A smooth random picture."""
    small = np.random.default_rng(seed).random((side // 8, side // 8, 3), np.float32)
    return np.ascontiguousarray(np.kron(small, np.ones((8, 8, 1), np.float32)))


def run(generator: DiffusionGenerator, case: str, side: int, batch: int, number: int) -> tuple[float, float]:
    """(wall, CPU) seconds of preparing and restoring ``batch`` tiles."""
    references = [] if case == CASES[0] else [ReferencePicture(photo(512, 0 if case == CASES[1] else number), 0.8)]
    tiles = np.stack([photo(side, 10_000 + index) for index in range(batch)])
    begun = time.perf_counter(), time.process_time()
    generator.generate(tiles, None, generator.prepare(tiles[0, ::4, ::4], references, GenerationSettings()))
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def measure_time(folder: Path, options: argparse.Namespace) -> None:
    """Print medians and ratios of the three cases."""
    generator = load(folder, options, adapter=True)
    for side in options.side:
        for batch in options.batch:
            seconds: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
            for case in CASES:
                run(generator, case, side, batch, 1)
            for number in range(options.rounds):
                for case in CASES:
                    seconds[case].append(run(generator, case, side, batch, 2 + number))
            for case in CASES:
                wall, cpu = (statistics.median(part) for part in zip(*seconds[case], strict=True))
                pairs = list(zip(seconds[case], seconds[CASES[0]], strict=True))
                ratio = [statistics.median(a[kind] / b[kind] for a, b in pairs) for kind in (0, 1)]
                print(
                    f"{side}² × {batch}  {case:17s} {wall:8.3f} s wall {cpu:8.3f} s CPU   "
                    f"{ratio[0]:5.2f} × wall {ratio[1]:5.2f} × CPU",
                    flush=True,
                )


def measure_memory(folder: Path, options: argparse.Namespace) -> None:
    """Print the peak of one process for each case."""
    for side in options.side:
        for case in CASES[:2]:
            arguments = json.dumps(vars(options) | {"folder": str(folder), "case": case, "side": side})
            done = subprocess.run(
                [sys.executable, __file__, "--child", arguments], capture_output=True, text=True, check=False
            )
            print(f"{side}²  {case:17s} peak {done.stdout.strip() or done.stderr[-300:]}")


def child(arguments: dict[str, Any]) -> None:
    """One restoration, or one tiled picture for sides above a tile; prints the peak."""
    options = argparse.Namespace(**arguments)
    generator = load(Path(options.folder), options, adapter=options.case != CASES[0])
    if options.side > generator.info.tile.default:
        from rasr.restoration.tiles import generate_tiled

        lq = photo(options.side // 4, 1)
        references = [] if options.case == CASES[0] else [ReferencePicture(photo(512, 0), 0.8)]
        conditioning = generator.prepare(lq, references, GenerationSettings())
        generate_tiled(generator, conditioning, lq, (options.side, options.side), tile=generator.info.tile.default)
    else:
        run(generator, options.case, options.side, 1, 1)
    if options.device.startswith("cuda"):
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU")
        return
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(f"{peak / 2**20:.2f} GiB")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--side", type=int, nargs="+", default=[512])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    what = f"{options.device} {options.dtype}"
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}, {what}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_weights(folder)
        if not options.no_memory:
            measure_memory(folder, options)
        measure_time(folder, options)


if __name__ == "__main__":
    main()
