#!/usr/bin/env bash
# Makes the environment: a virtual environment and one pinned `pip install`. `make env` calls it.
# MMPARC_VENV names the folder, MMPARC_CONSTRAINTS the pinned versions, PYTHON the interpreter.
# It uses pip, not uv, which does not read the mirrors and certificates of pip's configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${MMPARC_VENV:-.venv} CONSTRAINTS=${MMPARC_CONSTRAINTS:-requirements/constraints.txt}
LOG=$VENV/make_env.log STAMP=$VENV/make_env.stamp
OFFLINE='connection broken by.*[)]|(Connect|Read)Timeout|ConnectionError|IncompleteRead|not a trusted'
NO_INDEX='No matching distribution|Could not find a version|OSError: [^[]' # what OFFLINE explains
DISK="too little disk: $VENV needs 5.6 GB, and TMPDIR and pip's cache need 3 GB each for downloads"
fail() { echo "error: $*" >&2; exit 1; }
trap 'echo "error: interrupted; run this again to continue" >&2; exit 130' INT
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null; }
installed() { compgen -G "$VENV/lib/python*/site-packages/$1-[0-9]*.dist-info" > /dev/null; }
fingerprint() { # what the environment was made from; the stamp holds it
    sed '/^\[tool\./,$d' pyproject.toml | cat - "$CONSTRAINTS" tools/make_env.sh "$VENV/pyvenv.cfg"
    echo "$PWD $VENV"
}

[ -r "$CONSTRAINTS" ] || fail "MMPARC_CONSTRAINTS: $CONSTRAINTS cannot be read"
read -r first last < <(sed -nE 's/.*Python 3\.([0-9]+) to 3\.([0-9]+).*/\1 \2/p' "$CONSTRAINTS") ||
    fail "MMPARC_CONSTRAINTS: no line 'Python 3.11 to 3.13' in $CONSTRAINTS"
pythons=("$VENV/bin/python" python3.11 python3.12 python3.13 python3)
for python in "${PYTHON:-${pythons[@]}}"; do
    found=$(version "$python") && break
done || fail "there is no ${PYTHON:-python3} that runs: install it (sudo apt-get install -y python3" \
    "python3-venv), or choose another (make env PYTHON=python3.$first)"
[[ $found == 3.* ]] && ((first <= ${found#3.} && ${found#3.} <= last)) ||
    fail "$python is Python $found, but the packages need 3.$first to 3.$last: choose another (make" \
        "env PYTHON=python3.$first); if $VENV uses this one, remove $VENV first"
[ ! -L "$VENV/bin/python" ] || [ "$found" = "$(version "$VENV/bin/python")" ] ||
    fail "$VENV was made with another Python than $found: remove it, or choose another MMPARC_VENV"
[ ! -e "$VENV/bin/activate" ] || grep -qF "$(cd "$VENV" && pwd -P)" "$VENV/bin/activate" ||
    fail "$VENV was made in another folder than this one: remove it (make clean)"
extra=mm others='mmcv onedl_mmcv' # what installs the same folders as this extra's packages
! grep -q '^onedl-mmcv' "$CONSTRAINTS" || extra=onedl others='mmcv mmcv_lite'
for other in $others; do
    ! installed "$other" || fail "$VENV holds $other, which mmparc[$extra] overwrites: remove $VENV"
done
[ ! -e "$STAMP" ] || [ "$(fingerprint)" != "$(< "$STAMP")" ] || exit 0
missing=$("$python" -c 'import ensurepip' 2> /dev/null || echo "python$found-venv")
for library in GL.so.1:libgl1 gthread-2.0.so.0:libglib2.0-0 xcb.so.1:libxcb1; do # for OpenCV
    "$python" -c "import ctypes; ctypes.CDLL('lib${library%:*}')" 2> /dev/null ||
        missing+=" ${library#*:}"
done
[ -z "$missing" ] ||
    fail "system packages are missing: sudo apt-get update && sudo apt-get install -y" $missing
mkdir -p "$VENV" && rm -f "$STAMP"
free=$(df -Pm "$VENV" | awk 'NR == 2 {print $4}')
installed torch || ((free > 5600)) || fail "$DISK; $free MB are free"
echo "making $VENV: mmparc[$extra,dev] and what it needs, 3 GB to download"
[ -e "$VENV/bin/pip" ] || "$python" -m venv "$VENV" > "$LOG" 2>&1 ||
    fail "the virtual environment cannot be made: $(tail -n 1 "$LOG") (all of it: $LOG)"
# Of the downloads `.{4,} MB` selects those of 10.0 MB or more.
"$VENV/bin/python" -m pip install --disable-pip-version-check --no-compile \
    -c "$CONSTRAINTS" -e ".[$extra,dev]" 2>&1 | tee "$LOG" |
    sed -unE 's/^ *(Downloading|Using cached) (.*\/)?([^-]+-[^-]+)-.*\((.{4,} MB)\)$/  \3, \4/p
        s/^(Installing) collected.*/  \1/p' || {
    status=${PIPESTATUS[0]} error=$(grep -om1 'ERROR: .*' "$LOG" | grep -v 'ERROR: Exception') ||
        error=$(tail -n 1 "$LOG") # killed, or the end of a traceback
    ! grep -q 'No space left' "$LOG" || fail "$DISK"
    [[ $error == ERROR:* && ! $error =~ $NO_INDEX ]] || ! cause=$(grep -oEm1 "$OFFLINE" "$LOG") ||
        fail "the package index could not be reached, ${cause/<*>: /}: check network, proxy and" \
            "PIP_INDEX_URL (the output of pip: $LOG)"
    fail "pip failed with exit status $status: $error (the output of pip: $LOG)"
}
env -u PYTHONDONTWRITEBYTECODE "$VENV/bin/python" -c 'import mmparc, torch, torchvision, mmcv.ops
import mmengine.runner, mmpretrain.apis, mmdet.apis, mmseg.apis, tensorboard, pytest' \
    >> "$LOG" 2>&1 || fail "the environment does not work: $(tail -n 1 "$LOG") (all of it: $LOG)"
fingerprint > "$STAMP"
echo "ready after $SECONDS s; \`. $VENV/bin/activate\` enters it"
