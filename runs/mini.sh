#!/bin/sh
# Weights of mini from photos. The backbone behind the published Real-ESRGAN; the copying branch on the frozen backbone;
# then Real-ESRGAN's last layers, and the backbone once more, from a last layer of zeros, behind them. Every stage resumes
# where it stopped. The tuned layers go into the package before the last stage reads them.
# The weights that ship came from this script as it was at commit cfe7214: there the last 280 of the backbone's first 1 030
# steps had an attention branch beside it, which was dropped afterwards and is no longer part of RASR.
#   runs/mini.sh     PHOTOS=folder OUT=folder
set -eu
photos=${PHOTOS:-../shared/photos}
out=${OUT:-trained/mini}
mkdir -p "$out"
train() { rasr train "$@" --photos "$photos/train" --photos "$photos/extra" --validate-on "$photos/extra" --resume; }
published='model.cleaner="realesrgan"'
train mini-backbone-cpu --set "$published" --set loop.steps=1030 --out "$out/backbone"
train mini-reference-cpu --set "$published" --set "model.weights.backbone=\"$(realpath "$out")/backbone/mini-backbone.safetensors\"" \
    --out "$out/reference"
tune() { python -m runs.realesrgan_tune --photos "$photos/train" --photos "$photos/extra" --validate-on "$photos/extra" --cache "$out/views" "$@"; }
tune --steps 300 --mse 4 --out "$out/tuned-first.safetensors"
tune --steps 1200 --mse 1 --warmup 20 --start "$out/tuned-first.safetensors" --out "$out/tuned.safetensors"
python -m runs.ship_mini "$out/tuned.safetensors"
train mini-backbone-cpu --set data.pool=752 --set seed=7 --set loss.mse=1 --set loss.perceptual=1 --set loss.gram=0 \
    --set optimizer.lr=1.5e-4 --set optimizer.warmup=20 --set optimizer.ema=0.98 --set loop.steps=240 --set model.zero_output=true \
    --set "model.weights.backbone=\"$(realpath "$out")/backbone/mini-backbone.safetensors\"" --out "$out/again"
python -m runs.ship_mini "$out/again/mini-backbone.safetensors" "$out/reference/mini-reference.safetensors" "$out/backbone/mini-backbone.safetensors"
