#!/usr/bin/env bash
# Makes docs/results/report.png, the picture in docs/report.md: the top of the page of RESULTS.
#   docs/results/report.sh RESULTS...
set -euo pipefail
picture=$(realpath "$(dirname "${BASH_SOURCE[0]}")/report.png")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

normkernels report "$@" -o "$work/report.html"
chromium --headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run \
    --hide-scrollbars --user-data-dir="$work/profile" --window-size=1200,1750 \
    --screenshot="$work/report.png" "file://$work/report.html" 2> "$work/log" || { cat "$work/log"; exit 1; }
# 128 colours are enough for flat ones, and take less than half the size
python -c "
import sys
from PIL import Image
Image.open(sys.argv[1]).convert('RGB').quantize(128, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)
" "$work/report.png" "$picture"
