#!/bin/sh
# mini from scratch: backbone and reference branch together, as shipped. Resumes where it stopped.
#   runs/mini.sh [cpu|gpu]     PHOTOS=folder OUT=folder
set -eu
kind=${1:-cpu}
photos=${PHOTOS:-../shared/photos}
out=${OUT:-trained/mini-$kind}
rasr train "mini-joint-$kind" --photos "$photos/train" --photos "$photos/extra" \
    --validate-on "$photos/extra" --out "$out" --resume
