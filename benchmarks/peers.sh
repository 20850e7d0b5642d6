#!/usr/bin/env bash
# The engines that benchmarks/decode.py compares with, in an environment of their own: benchmarks/peers.sh [FOLDER]
# llama.cpp is compiled here for this CPU, so a compiler and cmake are needed. One that does not install is left
# out, and the benchmark's table says so.
set -u
folder=${1:-.venv-peers}
python3 -m venv "$folder"
pip=("$folder/bin/pip" install --quiet --disable-pip-version-check)
failed=()
install() { "${pip[@]}" "$@" || failed+=("${!#}"); }

"${pip[@]}" numpy safetensors gguf torch==2.13.0 || exit 1
install onnxruntime-genai onnx onnx-ir onnxruntime
install openvino openvino-genai openvino-tokenizers nncf optimum-intel
install transformers
# Without AMX: with it, llama-cpp-python 0.3.36 crashes at its first prompt of more than one token.
without_amx="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF" \
    CFLAGS="$without_amx" CXXFLAGS="$without_amx" install llama-cpp-python
if ((${#failed[@]})); then echo "not installed: ${failed[*]}" >&2; fi
