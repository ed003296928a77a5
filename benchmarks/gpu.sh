#!/usr/bin/env bash
# Features of frozen networks on a CUDA machine: installation and figures in about eight minutes.
#
#   bash benchmarks/gpu.sh [FOLDER]        from a clone; needs Python 3.11 or later and a CUDA driver
#
# Model only, from memory: eager in float32 and TF32, and headstart's engines in float32, TF32 and
# bfloat16, in turn. Then from JPEG: decoding alone, the network alone and both, with Pillow in
# threads and with nvJPEG, and with all GPUs where there are several. The tables go to FOLDER/gpu.md
# (default: the working directory). Without a CUDA device the same runs on the CPU with one network,
# which shows that the script works.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-.}
mkdir -p "$out"
python=${PYTHON:-python3}
if [ -z "${HEADSTART_BENCH_NO_INSTALL:-}" ]; then
  "$python" -m venv "$out/.gpu-venv"
  python="$out/.gpu-venv/bin/python"
  "$python" -m pip install -q --disable-pip-version-check torch torchvision timm
  "$python" -m pip install -q --disable-pip-version-check -e '.[nvjpeg]'
fi
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
  device=cuda models="resnet18 resnet50 vit-s dinov3-s" limit=240
else
  echo "no CUDA device: a run on the CPU, to show that the script works" >&2
  device=cpu models=resnet18 limit=120
fi
# shellcheck disable=SC2086  # several names
timeout "$limit" "$python" benchmarks/extract.py --device "$device" --models $models --rounds 5 \
  --json "$out/gpu.json" | tee "$out/gpu.md"
jpegs() {
  echo "JPEG, $*" | tee -a "$out/gpu.md"
  timeout 60 "$python" benchmarks/extract_files.py stages made --model resnet50 --rounds 2 \
    --precision bfloat16 --batch-size 128 --items "$items" "$@" | tee -a "$out/gpu.md"
}
if [ "$device" = cuda ]; then
  items=4096
  jpegs --device cuda --decoder pillow
  jpegs --device cuda --decoder nvjpeg
  if "$python" -c 'import sys, torch; sys.exit(torch.cuda.device_count() < 2)'; then
    jpegs --device cuda:all --decoder nvjpeg
  fi
else
  items=128
  jpegs --device cpu --decoder pillow
fi
