"""Whether two source trees give the same bytes: everything runs through ``rasr`` itself, so that internals may differ.

    python benchmarks/same_bytes.py --before ../old/src --python-before ../old/.venv/bin/python [--after src]
    python benchmarks/same_bytes.py --before ... --only restore degrade      some of the items
    python benchmarks/same_bytes.py --before ... --keep out                  keep the results in a folder

Compared: six pictures (with EXIF and a turn, gray, alpha, 16 bit, a Display P3 profile, and a photo that the gallery
knows) restored by every preset, without, with a picked and with a found reference, Stable Diffusion as a small model
with seeded weights and an adapter trained from them; what search and gallery answer; the results of an evaluation;
degraded pictures and manifests; a built dataset, also after being killed; trained weights. Both trees are reached by
the same link and work in the same folder, one after the other, on one thread, so paths need no change. Files are
compared byte by byte; where bytes differ, JSON, CSV and weights are compared again value by value, without the keys
below that hold times, sizes of memory and installed packages, and pages without those; the table says what was left
out of account. Exit 1 when anything differs. With --keep, what the first tree gave in an earlier run is taken from the
folder instead of made again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import html
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

from command_line import Tree, sample, save_photos, say_where

VOLATILE = frozenset(
    ("timings", "seconds", "memory_bytes", "memory", "date", "created", "updated", "added", "packages")
)
"""Keys (and columns) that may differ: times of the clock, memory, dates, what is installed."""
RETIRED = frozenset(
    ("reading", "text", "temperature", "dimension", "summaries", "window", "phases", "direct", "local_levels", "side")
)
"""Keys of weights' metadata that left with the attention branch and the autoencoder stage."""
PAGE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC|[\d.]+( \| |\n+)[\d.]+ MiB|rasr \d[^<\n]*|gallery\.(db|json)[^<\n]*")
"""What may differ in pages: dates, the columns of seconds and memory, lists of packages, a gallery's files."""

MARKUP = re.compile(r"<style.*?</style>|<script.*?</script>|<[^>]*>", re.DOTALL)
"""What is left out of HTML, whose words are compared."""

MODEL = """
import json, sys, warnings
from pathlib import Path
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel

folder = Path(sys.argv[1])
torch.manual_seed(0)
unet = UNet2DConditionModel(
    in_channels=4, out_channels=4, block_out_channels=[16, 32, 48, 48], layers_per_block=2, cross_attention_dim=24,
    attention_head_dim=[2, 4, 6, 6], norm_num_groups=8, use_linear_projection=True, sample_size=64)
vae = AutoencoderKL(
    block_out_channels=[8] * 4, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    latent_channels=4, layers_per_block=2, norm_num_groups=4, sample_size=512, scaling_factor=0.18215)
letters = [chr(code) for code in range(33, 127)]
tokens = ["!pad", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
count = len(tokens)
text = CLIPTextModel(CLIPTextConfig(
    vocab_size=count, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
    bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=0))
unet.save_pretrained(folder / "sd" / "unet")
vae.save_pretrained(folder / "sd" / "vae")
text.save_pretrained(folder / "sd" / "text_encoder")
place = folder / "sd" / "tokenizer"
place.mkdir()
special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1], "pad_token": "!pad"}
(place / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
(place / "merges.txt").write_text("#version: 0.2")
(place / "special_tokens_map.json").write_text(json.dumps(special))
(place / "tokenizer_config.json").write_text(
    json.dumps(special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))

# OSEDiff's file: LoRA on every layer whose name holds one of these, in three parts, and on the encoder of the VAE.
TARGETS = ("to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut", "conv_out")
MORE = ("proj_out", "proj_in", "ff.net.2", "ff.net.0.proj")

def layers(model, targets, wanted=lambda name: True):
    return sorted({name.removesuffix(".weight") for name, _ in model.named_parameters()
                   if "bias" not in name and "norm" not in name and wanted(name)
                   and any(target in name for target in targets)})

def adapt(model, modules, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_adapter(LoraConfig(r=4, init_lora_weights="gaussian", target_modules=modules), name)
    for key, parameter in model.named_parameters():
        if f"lora_B.{name}." in key:
            parameter.data.normal_(0, 0.02)

def part(name):
    if "down_blocks" in name or "conv_in" in name:
        return "encoder"
    return "decoder" if "up_blocks" in name or "conv_out" in name else "others"

parts = {p: layers(unet, TARGETS + MORE, lambda name: part(name) == p) for p in ("encoder", "decoder", "others")}
encoder = layers(vae, TARGETS, lambda n: ("encoder" in n or "quant_conv" in n) and "post_quant" not in n)
for name, modules in parts.items():
    adapt(unet, modules, f"default_{name}")
unet.set_adapters([f"default_{name}" for name in parts])
adapt(vae, encoder, "default_encoder")
torch.save({f"unet_lora_{name}_modules": modules for name, modules in parts.items()} | {
    "vae_lora_encoder_modules": encoder, "rank_unet": 4, "rank_vae": 4,
    "state_dict_unet": {k: v.clone() for k, v in unet.state_dict().items() if "lora" in k or "conv_in" in k},
    "state_dict_vae": {k: v.clone() for k, v in vae.state_dict().items() if "lora" in k},
}, folder / "osediff.pkl")
"""

DATASET = """
name = "samples"
[splits]
train = 4
test = 2
reference = 6
by_photographer = true
related_similarity = 0.97
[filters]
min_short_side = 64
max_blur = 0.9
max_blockiness = 3.0
duplicate_similarity = 0.99
[lq]
crop = 64
[[source]]
kind = "folder"
path = "museum"
credits = "credits.csv"
"""

OWN_FILES = ("gallery.json", "photos-*.lance", "gallery.db*", "gallery.lock", ".gallery*", ".build")
"""Files of a gallery and of a build under way: the times in them are their own."""
SD21 = [
    "data.crop=64", "data.workers=0", 'data.layout="folder"', "references.phases=[{mix = {warped = 1.0}}]",
    "loop.steps=2", "loop.batch=1", "loop.accumulation=1", 'loop.precision="fp32"', "loop.log_every=1",
    "loop.gradient_checkpointing=false", "optimizer.lr=0.01", "optimizer.warmup=0", "optimizer.ema=0",
    "loss.perceptual=0", "loss.gram=0", "loss.gan=0",
]  # fmt: skip


def train_once(tree: Tree, work: Path, changes: Sequence[str]) -> Path:
    """Train in ``work`` by the shipped configuration with changes; returns the weights that came out."""
    shutil.rmtree(work / "run", ignore_errors=True)
    # Paths in a configuration are relative to it.
    here = [f'model.weights.base="{work / "sd"}"', f'model.weights.checkpoint="{work / "osediff.pkl"}"']
    sets = [word for change in (*here, *changes) for word in ("--set", change)]
    tree.run("train", "sd21-rasrnet", "--photos", "photos", "--out", "run", *sets, cwd=work)
    return next((work / "run").glob("*.safetensors"))


def make_inputs(folder: Path) -> None:
    """The six pictures, the gallery's photos, the evaluation's and the dataset's; all of scikit-image's samples."""
    inputs = folder / "inputs"
    inputs.mkdir()
    sample("motorcycle_left.png", (0, 0, 480, 480), 120).save(inputs / "known.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2019:05:04 03:02:01"
    sample("astronaut.png", side=97).resize((97, 72)).save(inputs / "turned.jpg", quality=90, exif=exif)
    sample("chelsea.png", side=64).convert("L").save(inputs / "gray.png")
    alpha = sample("coffee.png", side=72)
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    alpha.save(inputs / "alpha.png")
    deep = np.asarray(sample("rocket.jpg", side=80), np.uint16) * 257
    (inputs / "deep.png").write_bytes(imagecodecs.png_encode(deep + np.arange(80, dtype=np.uint16)[:, None] % 200))
    wide = {"whitepoint": [0.3127, 0.329, 1], "primaries": [0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1], "gamma": 2.2}
    profile = bytearray(imagecodecs.cms_profile("rgb", **wide))
    profile[24:36] = bytes(12)  # the time it was made
    sample("ihc.png", (100, 100, 170, 170)).save(inputs / "p3.png", icc_profile=bytes(profile))

    save_photos(folder / "photos")
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "ihc.png")
    for number, name in enumerate(names):
        category = ("cat", "dog", "owl")[number % 3]
        left, top = 10, 20 + 7 * number
        for place, box in (("test", (left, top, left + 96, top + 96)), ("references", (230, 120, 410, 290))):
            if place == "test" and number > 2:
                continue
            path = folder / place / category / f"p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            sample(name, box).save(path)
    (folder / "large").mkdir()
    sample("coffee.png", (100, 50, 340, 290)).save(folder / "large" / "cup.png")
    rows = ["photo,author,licence"]
    for category, photos in (("pets", ("chelsea.png", "astronaut.png")), ("things", ("coffee.png", "rocket.jpg"))):
        (folder / "museum" / category).mkdir(parents=True)
        for photo in photos:
            stem = Path(photo).stem
            for index in range(8):
                left, top = 60 * (index % 4), 40 * (index // 4)
                turned = sample(photo, (left, top, left + 200, top + 200)).rotate(90 * (index % 4))
                turned.save(folder / "museum" / category / f"{stem}{index}.png")
                rows.append(f"{stem}{index},Photographer {stem} {index // 2},CC0")
    (folder / "credits.csv").write_text("\n".join(rows))
    (folder / "museum.toml").write_text(DATASET)


# Each item runs the command in the folder ``work`` and leaves what is compared in the folder ``out``.


def restore(tree: Tree, work: Path, out: Path) -> None:
    """Pictures and the JSON that goes with them, per preset and reference."""
    common = ["inputs", "--scale", "2", "--device", "cpu", "--json"]
    sd21 = ["--preset", "sd21", "--base", "sd", "--adapter", "adapter.safetensors"]
    picked = ["--reference", "photos/motorcycle_right.png"]
    for name, more in {
        "bicubic": ["--preset", "bicubic"],
        "realesrgan": ["--preset", "realesrgan"],
        "mini, none": ["--preset", "mini", "--reference", "none"],
        "mini, picked": ["--preset", "mini", *picked],
        "mini, found": ["--preset", "mini", "-g", "gallery"],
        "sd21, none": [*sd21, "--reference", "none"],
        "sd21, picked": [*sd21, *picked],
    }.items():
        done = tree.run("restore", *common, *more, "-o", out / name, cwd=work)
        (out / name / "stdout.jsonl").write_text(done.stdout)


def gallery(tree: Tree, work: Path, out: Path) -> None:
    """What search and list say."""
    for picture in ("known.png", "gray.png", "alpha.png"):
        done = tree.run("search", "gallery", Path("inputs", picture), "--json", cwd=work)
        (out / f"search {picture}.json").write_text(done.stdout)
    (out / "list.json").write_text(tree.run("gallery", "list", "gallery", "--json", cwd=work).stdout)


def evaluate(tree: Tree, work: Path, out: Path) -> None:
    """Tables, rows and pictures: references under every policy, and a metric that needs larger pictures."""
    common = ["--scale", "2", "--device", "cpu", "--method", "bicubic"]
    policies = ["-g", "references", "--references", "retrieved,none,random,oracle", "--method", "mini"]
    tree.run("evaluate", "test", *common, *policies, "--metrics", "psnr,ssim", "-o", "table", cwd=work)
    tree.run("evaluate", "large", *common, "--references", "none", "--metrics", "niqe", "-o", "niqe", cwd=work)
    for name in ("table", "niqe"):
        shutil.move(work / name, out / name)


def degrade(tree: Tree, work: Path, out: Path) -> None:
    """Pictures and manifests of both presets and two seeds."""
    for preset in ("realesrgan", "light"):
        for seed in (1, 2):
            place = out / f"{preset} {seed}"
            tree.run("degrade", "photos", place / "lq", "--seed", seed, "--preset", preset, "--crop", 256,
                     "--hr-out", place / "hr", "--manifest", place / "set.json", cwd=work)  # fmt: skip


def dataset(tree: Tree, work: Path, out: Path) -> None:
    """A dataset built at once, and one whose build was killed twice; of its gallery, what it lists."""
    build = ["dataset", "build", "museum.toml", "-o", "built"]
    begun = time.monotonic()
    tree.run(*build, cwd=work)
    seconds = time.monotonic() - begun
    for title in ("at once", "after two kills"):
        if title != "at once":
            for part in (0.5, 0.8):
                child = subprocess.Popen(
                    tree.command(build), cwd=work, env=tree.environment(),
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                time.sleep(part * seconds)
                child.send_signal(signal.SIGKILL)
                child.wait()
            tree.run(*build, cwd=work)
        listed = tree.run("gallery", "list", "built", "--json", cwd=work).stdout
        for file in OWN_FILES:
            for path in (work / "built").glob(file):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (work / "built" / "gallery list.json").write_text(listed)
        shutil.move(work / "built", out / title)


def train(tree: Tree, work: Path, out: Path) -> None:
    """Weights after two steps."""
    shutil.move(train_once(tree, work, SD21), out)


ITEMS: dict[str, Callable[[Tree, Path, Path], None]] = {
    one.__name__: one for one in (restore, gallery, evaluate, degrade, dataset, train)
}


def read_weights(data: bytes) -> dict[str, Any]:
    """Metadata, read where it is JSON, and a hash of every tensor with its type and shape, of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    body = memoryview(data)[8 + size :]
    metadata = header.pop("__metadata__", {})
    found = {key: json.loads(text) if text[:1] in "{[" else text for key, text in metadata.items()}
    for name, tensor in header.items():
        start, end = tensor["data_offsets"]
        found[name] = [tensor["dtype"], tensor["shape"], hashlib.sha256(body[start:end]).hexdigest()[:16]]
    return found


def read_page(text: str) -> list[str]:
    """Lines that say something, without what may differ."""
    return [line.strip() for line in PAGE.sub("", text).splitlines() if line.strip()]


READERS: dict[str, Callable[[bytes], Any]] = {
    ".json": json.loads,
    ".jsonl": lambda data: [json.loads(line) for line in data.splitlines()],
    ".csv": lambda data: list(csv.DictReader(io.StringIO(data.decode()))),
    ".md": lambda data: read_page(data.decode()),
    ".html": lambda data: read_page(html.unescape(MARKUP.sub("\n", data.decode()))),
    ".safetensors": read_weights,
}
"""Files whose values can be compared one by one."""


def describe(before: Path, after: Path) -> tuple[bool, str]:
    """Whether two files are equal, and what was left out of account or how they differ."""
    if not before.exists() or not after.exists():
        return False, "only " + ("before" if before.exists() else "after")
    old, new = before.read_bytes(), after.read_bytes()
    if old == new:
        return True, ""
    if after.suffix in READERS:
        found = list(differences(*map(READERS[after.suffix], (old, new))))
        other = [place for place, volatile in found if not volatile]
        left_out = {place.rpartition("/")[2] for place, volatile in found if volatile}
        if other:
            return False, f"{len(other)} values differ: {', '.join(other[:4])}"
        dates = "dates, seconds, MiB, packages" if after.suffix in {".md", ".html"} else "the order of keys"
        return True, f"but {', '.join(sorted(left_out)) or dates}"
    if after.suffix in {".png", ".jpg"}:
        return False, _pictures(before, after)
    return False, f"{len(old)} bytes, now {len(new)}, first difference at {_first(old, new)}"


def _pictures(before: Path, after: Path) -> str:
    """How two picture files differ."""
    with Image.open(before) as a, Image.open(after) as b:
        if a.size != b.size or a.mode != b.mode:
            return f"{a.size} {a.mode}, now {b.size} {b.mode}"
        largest = np.abs(np.asarray(a, np.int64) - np.asarray(b, np.int64)).max()
    return f"pixels differ by up to {largest}" if largest else "same pixels, other bytes"


def _first(old: bytes, new: bytes) -> int:
    pairs = enumerate(zip(old, new, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(old), len(new)))


def differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, bool]]:
    """Places where two JSON values differ, and whether the key there is one that may."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            if key in VOLATILE:
                if old.get(key) != new.get(key):
                    yield f"{place}/{key}", True
            elif key in RETIRED and key not in new:
                yield f"{place}/{key} (retired)", True
            elif key not in old or key not in new:
                yield f"{place}/{key} ({'gone' if key in old else 'new'})", False
            else:
                yield from differences(old[key], new[key], f"{place}/{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place} ({len(old)} entries, now {len(new)})", False
        for number, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, f"{place}/{number}")
    elif old != new:
        yield f"{place} ({old!r:.60}, now {new!r:.60})", False


def produce(tree: Tree, root: Path, result: Path, names: Sequence[str]) -> None:
    """Run one tree's items in ``root/work``, filled from ``root/material``; what is compared goes to ``result``."""
    work, link = root / "work", root / "tree"
    for folder in (work, tree.home):
        shutil.rmtree(folder, ignore_errors=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tree.source)
    tree = replace(tree, source=link)
    result.mkdir(exist_ok=True)
    shutil.copytree(root / "material", work)
    (tree.home / "models").mkdir(parents=True)
    shutil.copy(work / "osediff.pkl", tree.home / "models")
    tree.run("gallery", "add", "gallery", "photos", cwd=work)
    for name in names:
        begun = time.monotonic()
        shutil.rmtree(result / name, ignore_errors=True)
        (work / "out").mkdir()
        ITEMS[name](tree, work, work / "out")
        shutil.move(work / "out", result / name)
        print(f"  {link.readlink()}: {name}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    shutil.rmtree(work)


def compare(root: Path, names: Sequence[str]) -> int:
    """Print a line a group of files, and one for every file that differs; returns their number."""
    differing = 0
    groups: dict[Path, set[Path]] = {}
    for side in ("before", "after"):
        for name in names:
            for path in (root / side / name).rglob("*"):
                if path.is_file():
                    file = path.relative_to(root / side)
                    groups.setdefault(Path(*file.parts[:-1][:2]), set()).add(file)
    for group, files in sorted(groups.items()):
        found = {file: describe(root / "before" / file, root / "after" / file) for file in sorted(files)}
        wrong = {file: how for file, (equal, how) in found.items() if not equal}
        notes = sorted({how for equal, how in found.values() if equal and how})
        differing += len(wrong)
        state = f"{len(wrong)} of {len(files)} DIFFER" if wrong else f"{len(files)} equal"
        print(f"{group!s:<30} {state:<16} {'; '.join(notes)}".rstrip())
        for file, how in wrong.items():
            print(f"    {file.relative_to(group)}: {how}")
    return differing


def main() -> int:
    """Run both trees, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="source folder of the one tree")
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parent.parent / "src")
    parser.add_argument("--python-before", default=sys.executable, help="its interpreter  [this one]")
    parser.add_argument("--python-after", default=sys.executable)
    parser.add_argument("--only", nargs="+", choices=list(ITEMS), default=list(ITEMS))
    parser.add_argument("--keep", type=Path, help="work in this folder, and take from it what lies there already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) if options.keep is None else options.keep.resolve()
        before = Tree(options.before.resolve(), options.python_before, root / "home")
        after = Tree(options.after.resolve(), options.python_after, root / "home")
        material = root / "material"
        if not (material / "adapter.safetensors").exists():
            shutil.rmtree(material, ignore_errors=True)
            material.mkdir(parents=True)
            make_inputs(material)
            before.run(material, cwd=root, script=MODEL)
            shutil.move(train_once(before, material, "sd21-rasrnet", SD21), material / "adapter.safetensors")
            shutil.rmtree(material / "run")
        if missing := [item for item in options.only if not (root / "before" / item).exists()]:
            produce(before, root, root / "before", missing)
        produce(after, root, root / "after", options.only)
        print(f"before: {before.source}\nafter:  {after.source}\n")
        differing = compare(root, options.only)
    say_where(packages=("numpy", "torch", "pillow", "diffusers"))
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
