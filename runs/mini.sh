#!/bin/sh
# Weights of mini from photos: the last layers of Real-ESRGAN, in two rounds, and a third, on MSE alone, for the smooth
# end of its dial. Resumes where it stopped.
#   runs/mini.sh     PHOTOS=folder OUT=folder
set -eu
photos=${PHOTOS:-../shared/photos}
out=${OUT:-trained/mini}
mkdir -p "$out"
tune() { python -m runs.realesrgan_tune --photos "$photos/train" --photos "$photos/extra" --validate-on "$photos/extra" --cache "$out/views" "$@"; }
tune --steps 300 --mse 4 --out "$out/tuned-first.safetensors"
tune --steps 1200 --mse 1 --warmup 20 --start "$out/tuned-first.safetensors" --out "$out/tuned.safetensors"
tune --views 216 --steps 120 --mse 1 --perceptual 0 --warmup 20 --start "$out/tuned.safetensors" --out "$out/smooth.safetensors"
python -m runs.ship_mini "$out/tuned.safetensors" --smooth "$out/smooth.safetensors"
