"""Official codes as the profiles meet them: the facts of their argument parsers, and what they do to sizes.

Read in the repositories at the commits named. An option is its flags and what ``add_argument`` is told besides help and
default. ``STAND_INS`` are scripts with those parsers that treat pictures as the official scripts do, without networks.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str}


@dataclass(frozen=True)
class Official:
    """A script of a repository, at a commit."""

    repository: str
    commit: str
    script: str
    options: dict[str, str]
    """Flags → type, ``flag`` for a switch, or ``any``; then ``required`` or ``optional`` (nargs ?)."""
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def parser(self) -> argparse.ArgumentParser:
        """The script's argument parser."""
        parser = argparse.ArgumentParser(self.script, exit_on_error=False)
        for flags, words in self.options.items():
            kind, *more = words.split()
            arguments: dict[str, Any] = {"action": "store_true"} if kind == "flag" else {}
            if kind in TYPES:
                arguments["type"] = TYPES[kind]
            if "required" in more:
                arguments["required"] = True
            if "optional" in more:
                arguments["nargs"] = "?"
            name = flags.split()[0]
            if name in self.choices:
                arguments["choices"] = [arguments.get("type", str)(choice) for choice in self.choices[name]]
            parser.add_argument(*flags.split(), **arguments)
        return parser


_MMSR = {"-opt": "str required", "--launcher": "any", "--local_rank": "int"}
_LAUNCHER = {"--launcher": ("none", "pytorch", "slurm")}
_ALIGN = ("wavelet", "adain", "nofix")
_SEESR = {
    "--seesr_model_path": "str", "--ram_ft_path": "str", "--pretrained_model_path": "str", "--prompt": "str",
    "--added_prompt": "str", "--negative_prompt": "str", "--image_path": "str", "--output_dir": "str",
    "--mixed_precision": "str", "--guidance_scale": "float", "--conditioning_scale": "float",
    "--blending_alpha": "float", "--num_inference_steps": "int", "--process_size": "int",
    "--vae_decoder_tiled_size": "int", "--vae_encoder_tiled_size": "int", "--latent_tiled_size": "int",
    "--latent_tiled_overlap": "int", "--upscale": "int", "--seed": "int", "--sample_times": "int",
    "--align_method": "str", "--start_steps": "int", "--start_point": "str", "--save_prompts": "flag",
}  # fmt: skip

OFFICIAL = {
    "adarefsr": Official(
        "vivoCameraResearch/AdaRefSR",
        "7673620c8cc7c5244b0f7d708fa98b86ab135212",
        "main_code/test/bird/validation_reference.py",
        {
            "--base_config": "str", "--tracker_project_name": "str", "--revision": "str", "--variant": "str",
            "--tokenizer_name": "str", "--lora_rank_unet": "int", "--lora_rank_vae": "int", "--scale": "int",
            "--chop_size": "int", "--chop_stride": "int", "--padding_offset": "int", "--vae_decoder_tiled_size": "int",
            "--vae_encoder_tiled_size": "int", "--latent_tiled_size": "int", "--latent_tiled_overlap": "int",
            "--align_method": "str", "--pos_prompt": "str", "--neg_prompt": "str", "--output_dir": "str",
            "--cache_dir": "any", "--seed": "int", "--resolution": "int", "--checkpointing_steps": "int",
            "--gradient_accumulation_steps": "int", "--gradient_checkpointing": "flag",
            "--dataloader_num_workers": "int", "--allow_tf32": "flag", "--report_to": "str", "--mixed_precision": "str",
            "--enable_xformers_memory_efficient_attention": "flag", "--set_grads_to_none": "flag",
            "--world_size": "int", "--local_rank": "int", "--dist_url": "any", "--is_image": "any",
            "--fusion_blocks": "any", "--save_lr_pred_ref": "any", "--sd_path": "any", "--de_net_path": "str",
            "--pretrained_backbone_path": "str", "--pretrained_ref_gen_path": "str", "--dape_path": "str",
            "--ram_path": "str", "--proj_name": "any", "--exp_name": "any", "--deg_file_path": "str",
            "--num_references": "int", "--learnable_tokens": "int", "--test_resolution": "int",
            "--test_warmup_step": "int",
        },
        {"--chop_size": ("512", "256", "128"), "--mixed_precision": ("no", "fp16", "bf16")},
    ),
    "c2-matching": Official(
        "yumingj/C2-Matching", "3d0d45178dd75c722938b3a549f8ea732185104c", "mmsr/test.py", _MMSR, _LAUNCHER
    ),
    "datsr": Official(
        "caojiezhang/DATSR", "157d67e3e6e549ddffc69dca7bbae9cf0f99506f", "datsr/test.py", _MMSR, _LAUNCHER
    ),
    "mrefsr": Official(
        "wdmwhh/MRefSR", "136f14f878ceecb7a2aa39c4628ab4fdecc16cbe", "mmsr/test.py", _MMSR, _LAUNCHER
    ),
    "diffbir": Official(
        "XPixelGroup/DiffBIR",
        "3f2a8c36824f0d47f177515c722504dc347185f5",
        "inference.py",
        {
            "--task": "str", "--upscale": "float", "--version": "str", "--sampler": "str", "--steps": "int",
            "--start_point_type": "str", "--cleaner_tiled": "flag", "--cleaner_tile_size": "int",
            "--cleaner_tile_stride": "int", "--vae_encoder_tiled": "flag", "--vae_encoder_tile_size": "int",
            "--vae_decoder_tiled": "flag", "--vae_decoder_tile_size": "int", "--cldm_tiled": "flag",
            "--cldm_tile_size": "int", "--cldm_tile_stride": "int", "--captioner": "str", "--pos_prompt": "str",
            "--neg_prompt": "str", "--cfg_scale": "float", "--rescale_cfg": "flag", "--noise_aug": "int",
            "--s_churn": "float", "--s_tmin": "float", "--s_tmax": "float", "--s_noise": "float", "--eta": "float",
            "--order": "int", "--strength": "float", "--batch_size": "int", "--guidance": "flag", "--g_loss": "str",
            "--g_scale": "float", "--input": "str required", "--n_samples": "int", "--output": "str required",
            "--seed": "int", "--device": "str", "--precision": "str", "--llava_bit": "str",
        },
        {
            "--task": ("sr", "face", "denoise", "unaligned_face"),
            "--version": ("v1", "v2", "v2.1"),
            "--sampler": (
                "dpm++_m2", "spaced", "ddim", "edm_euler", "edm_euler_a", "edm_heun", "edm_dpm_2", "edm_dpm_2_a",
                "edm_lms", "edm_dpm++_2s_a", "edm_dpm++_sde", "edm_dpm++_2m", "edm_dpm++_2m_sde", "edm_dpm++_3m_sde",
            ),
            "--start_point_type": ("noise", "cond"),
            "--captioner": ("none", "llava", "ram"),
            "--g_loss": ("mse", "w_mse"),
            "--device": ("cpu", "cuda", "mps"),
            "--precision": ("fp32", "fp16", "bf16"),
            "--llava_bit": ("16", "8", "4"),
        },
    ),
    "osediff-official": Official(
        "cswry/OSEDiff",
        "64fdb14a7d2e554b9fd2c9d97b5215d2491368a5",
        "test_osediff.py",
        {
            "--input_image -i": "str", "--output_dir -o": "str", "--pretrained_model_name_or_path": "str",
            "--seed": "int", "--process_size": "int", "--upscale": "int", "--align_method": "str",
            "--osediff_path": "str", "--prompt": "str", "--ram_path": "str", "--ram_ft_path": "str",
            "--save_prompts": "any", "--mixed_precision": "str", "--merge_and_unload_lora": "any",
            "--vae_decoder_tiled_size": "int", "--vae_encoder_tiled_size": "int", "--latent_tiled_size": "int",
            "--latent_tiled_overlap": "int",
        },
        {"--align_method": _ALIGN, "--mixed_precision": ("fp16", "fp32")},
    ),
    "pasd": Official(
        "yangxy/PASD",
        "092c50d755b634f23487a8c36c3dd5f482b92ffa",
        "test_pasd.py",
        {
            "--pretrained_model_path": "str", "--pasd_model_path": "str", "--personalized_model_path": "str",
            "--control_type": "any optional", "--high_level_info": "any optional", "--prompt": "str",
            "--added_prompt": "str", "--negative_prompt": "str", "--image_path": "str", "--output_dir": "str",
            "--mixed_precision": "str", "--guidance_scale": "float", "--conditioning_scale": "float",
            "--num_inference_steps": "int", "--process_size": "int", "--vae_tiled_size": "int", "--upscale": "int",
            "--use_personalized_model": "flag", "--use_pasd_light": "flag", "--seed": "int",
        },
        {"--control_type": ("realisr", "grayscale"), "--high_level_info": ("class", "detection", "caption")},
    ),
    "seesr": Official(
        "cswry/SeeSR",
        "628bb3705d4cf060f9275b37d02db4bcbf677df5",
        "test_seesr.py",
        _SEESR,
        {"--align_method": _ALIGN, "--start_point": ("lr", "noise")},
    ),
    "refir": Official(
        "csguoh/ReFIR",
        "01c146683c45200e33da4fd0b27509daa5bffd00",
        "seesr/test_real.py",
        {**_SEESR, "--refir_scale": "float"},
        {"--align_method": _ALIGN, "--start_point": ("lr", "noise")},
    ),
    "stablesr": Official(
        "IceClear/StableSR",
        "077e7f1f581ed584cb60e470d56d216bb5d80659",
        "scripts/sr_val_ddpm_text_T_vqganfin_old.py",
        {
            "--init-img": "str optional", "--outdir": "str optional", "--ddpm_steps": "int", "--C": "int", "--f": "int",
            "--n_samples": "int", "--config": "str", "--ckpt": "str", "--vqgan_ckpt": "str", "--seed": "int",
            "--precision": "str", "--input_size": "int", "--dec_w": "float", "--colorfix_type": "str",
        },
        {"--precision": ("full", "autocast")},
    ),
}  # fmt: skip

_RESIZE_UP = """
def enlarged(path, upscale, process_size, always_back):
    \"\"\"As OSEDiff, SeeSR and PASD: at least process_size, then multiples of 8, then perhaps back.\"\"\"
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    small = min(width, height) < process_size // upscale
    if small:
        factor = (process_size // upscale) / min(width, height)
        picture = picture.resize((int(factor * width), int(factor * height)))
    picture = picture.resize((picture.width * upscale, picture.height * upscale))
    picture = picture.resize((picture.width // 8 * 8, picture.height // 8 * 8))
    back = small if always_back is None else always_back
    return picture.resize((width * upscale, height * upscale)) if back else picture
"""

_MMSR_SIZES = """
import yaml
options = yaml.safe_load(open(args.opt))
assert options["scale"] == 4 and options["gpu_ids"] == [0], options
assert CHECKOUT in os.environ.get("PYTHONPATH", "").split(os.pathsep), "ModuleNotFoundError: No module named 'mmsr'"
for key in ("pretrain_model_g", "pretrain_model_feature_extractor"):
    assert pathlib.Path(options["path"][key]).is_file(), key
(data,) = options["datasets"].values()
root = pathlib.Path(options["path"].get("root", CHECKOUT), "results", options["name"], "visualization", data["name"])

def restore(path, references, name, multiple=4):
    picture = Image.open(path)
    assert picture.width % multiple == picture.height % multiple == 0, f"{picture.size} is no multiple of {multiple}"
    assert references and all(Image.open(one).size == picture.size for one in references)
    root.mkdir(parents=True, exist_ok=True)
    low = picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.BICUBIC)
    low.resize(picture.size, Image.Resampling.BICUBIC).save(root / f"{name}_{options['name']}.png")
"""

_PAIRS = """
for line in open(data["ann_file"]):
    path, reference = line.split()
    restore(pathlib.Path(data["dataroot_in"]) / path, [pathlib.Path(data["dataroot_ref"]) / reference],
            pathlib.Path(reference).stem, MULTIPLE)
"""

STAND_INS = {
    "c2-matching": _MMSR_SIZES + _PAIRS.replace("MULTIPLE", "4"),
    "datsr": _MMSR_SIZES + 'assert "root" in options["path"]\n' + _PAIRS.replace("MULTIPLE", "32"),
    "mrefsr": _MMSR_SIZES
    + """
for path in sorted(pathlib.Path(data["dataroot_in"], "Sun_Hays_SR_groundtruth").glob("*.jpg")):
    folder = pathlib.Path(data["dataroot_ref"], "Sun_Hays_SR_scenematches", path.name)
    restore(path, sorted(folder.glob("*.jpg"))[::20 // data["num_ref"]], path.stem + "_mrsr")
""",
    "adarefsr": """
import yaml
data = yaml.safe_load(open(args.base_config))["dataset"]
side = data["crop_size"]
assert data["io_backend"]["type"] == "disk"
target = pathlib.Path(args.output_dir, args.exp_name, "pred_images")
target.mkdir(parents=True, exist_ok=True)
for line in open(data["data_dir"]):
    item = json.loads(line)
    low, reference, truth = (Image.open(item[key]).convert("RGB") for key in ("lq_path", "ref_path", "gt_path"))
    assert reference.width == reference.height, "squashed"
    result = low.resize((side, side)).crop((0, 0, min(side, truth.width), min(side, truth.height)))
    result.resize(truth.size, Image.Resampling.BICUBIC).save(target / pathlib.Path(item["lq_path"]).name)
""",
    "osediff-official": _RESIZE_UP
    + """
for path in inputs(args.input_image):
    enlarged(path, args.upscale, args.process_size, False).save(made(args.output_dir) / path.name)
""",
    "pasd": _RESIZE_UP
    + """
for path in inputs(args.image_path):
    enlarged(path, args.upscale, args.process_size or 768, None).save(made(args.output_dir) / path.name)
""",
    "seesr": _RESIZE_UP
    + """
for path in inputs(args.image_path):
    enlarged(path, args.upscale, args.process_size, True).save(made(args.output_dir + "/sample00") / path.name)
""",
    "refir": _RESIZE_UP
    + """
assert "CUFED5" not in args.image_path and "WR" in args.image_path
for path in inputs(args.image_path):
    Image.open(str(path).replace("Real_Deg/LR", "ref").replace("_LR.png", "_ref.png"))
    enlarged(path, args.upscale, args.process_size or 512, True).save(made(args.output_dir + "/sample00") / path.name)
""",
    "diffbir": """
for path in inputs(args.input):
    picture = Image.open(path)
    size = tuple(int(side * args.upscale) for side in picture.size)
    picture.resize(size).save(made(args.output) / path.name)
""",
    "stablesr": """
assert CHECKOUT in os.environ.get("PYTHONPATH", "").split(os.pathsep)
side, batch = args.input_size or 512, set()
for path in inputs(args.init_img):
    picture = Image.open(path).convert("RGB")
    picture = picture.resize(tuple(length - length % 32 for length in picture.size), Image.Resampling.LANCZOS)
    factor = side / min(picture.size)
    picture = picture.resize(tuple(int(length * factor) for length in picture.size), Image.Resampling.BILINEAR)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture.crop((left, top, left + side, top + side)).save(made(args.outdir) / path.name)
""",
}
"""What each script does to sizes, and the files, branches and variables it cannot do without."""

PRELUDE = """
import json, os, pathlib, sys
sys.path.insert(0, {tests!r})
from PIL import Image
from tests.evaluation.methods.official import OFFICIAL
CHECKOUT = {checkout!r}
args = OFFICIAL[{name!r}].parser().parse_args()
def inputs(folder):
    return sorted(pathlib.Path(folder).glob("*.png"))
def made(folder):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    return pathlib.Path(folder)
"""
