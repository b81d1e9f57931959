#!/bin/sh
# The weights of mini that ship with the package, from photos: backbone, backbone with an attention branch beside it (which
# is dropped), then the copying branch on the frozen backbone. Every stage resumes where it stopped.
#   runs/mini.sh     PHOTOS=folder OUT=folder
set -eu
photos=${PHOTOS:-../shared/photos}
out=${OUT:-trained/mini}
train() { rasr train "$@" --photos "$photos/train" --photos "$photos/extra" --validate-on "$photos/extra" --resume; }
train mini-backbone-cpu --set loop.steps=750 --out "$out/backbone"
train mini-joint-cpu --set loop.steps=280 --set "model.weights.backbone=\"$(realpath "$out")/backbone/mini-backbone.safetensors\"" \
    --out "$out/joint"
train mini-reference-cpu --set "model.weights.backbone=\"$(realpath "$out")/joint/mini.safetensors\"" --out "$out/reference"
python benchmarks/ship_mini.py "$out/joint/mini.safetensors" "$out/reference/mini-reference.safetensors"
