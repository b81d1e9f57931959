#!/bin/sh
# The paper's adapter on SD 2.1-base with OSEDiff's weights, on as many GPUs as there are. Resumes where it stopped.
#   runs/sd21-rasrnet.sh                LSDIR=folder VALIDATION=folder OUT=folder
set -eu
: "${LSDIR:?set LSDIR to the folder of LSDIR's training photos}"
exec accelerate launch -m rasr train sd21-rasrnet --photos "$LSDIR" \
    ${VALIDATION:+--validate-on "$VALIDATION"} --out "${OUT:-trained/sd21-rasrnet}" --resume
