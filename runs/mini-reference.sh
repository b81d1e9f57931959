#!/bin/sh
# mini's reference adapter on the backbone of runs/mini-backbone.sh. Resumes where it stopped.
#   runs/mini-reference.sh [cpu|gpu]    PHOTOS=folder VALIDATION=folder BACKBONE=file OUT=folder
set -eu
kind=${1:-cpu}
photos=${PHOTOS:-../shared/photos}
backbone=${BACKBONE:-trained/mini-backbone-$kind/mini-backbone.safetensors}
exec rasr train "mini-reference-$kind" --photos "$photos/train" \
    --validate-on "${VALIDATION:-$photos/extra}" --out "${OUT:-trained/mini-reference-$kind}" --resume \
    --set "model.weights.backbone=\"$(realpath "$backbone")\""
