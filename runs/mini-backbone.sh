#!/bin/sh
# mini's backbone from scratch. Resumes where it stopped.
#   runs/mini-backbone.sh [cpu|gpu]     PHOTOS=folder VALIDATION=folder OUT=folder
set -eu
kind=${1:-cpu}
photos=${PHOTOS:-../shared/photos}
exec rasr train "mini-backbone-$kind" --photos "$photos/train" \
    --validate-on "${VALIDATION:-$photos/extra}" --out "${OUT:-trained/mini-backbone-$kind}" --resume
