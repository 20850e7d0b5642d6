#!/bin/sh
# An environment of their own for the servers that serving.py compares with: `install.sh FOLDER`.
# Not in ours: MLServer pins what BentoML cannot work with. BentoML itself is the one that we use.
set -eu
folder=${1:?"name the folder of the environment to make"}
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet "litserve>=0.2.17" "mlserver>=1.7" onnxruntime httptools uvloop
