#!/usr/bin/env bash
# From nothing to a trained ParC detector: data, training, evaluation, predictions, curves.
# `make demo` calls it in the environment; SEED (0 by default) is the seed of data and training.
# Arguments are handed to tools/train.py.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
SEED=${SEED:-0}
CONFIG=configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py
[ "$SEED" = 0 ] && DATA=data/toy || DATA=data/toy-seed$SEED
RUN=work_dirs/demo/$(date +%Y%m%d_%H%M%S)
# Threads that wait for each other asleep: spinning, they take 9 times as long on two cores as soon
# as anything else wants one of them.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

echo "== data"
"$PYTHON" tools/make_toy_data.py --out "$DATA" --tasks det --seed "$SEED"
echo "== training, into $RUN"
"$PYTHON" tools/train.py "$CONFIG" --work-dir "$RUN" "$@" \
    --cfg-options data_root="$DATA/det" randomness.seed="$SEED"
CHECKPOINT=$(cat "$RUN/last_checkpoint")
echo "== evaluation of $CHECKPOINT"
"$PYTHON" tools/test.py "$CONFIG" "$CHECKPOINT" --work-dir "$RUN/test" \
    --show-dir "$RUN/predictions" --cfg-options data_root="$DATA/det"
"$PYTHON" tools/analysis/plot.py curves "$RUN" > /dev/null

cat <<END

box AP50      $("$PYTHON" -c "import json, pathlib, sys
print(json.loads(max(pathlib.Path(sys.argv[1]).glob('*/*.json')).read_text())['coco/bbox_mAP_50'])" "$RUN/test")
checkpoint    $CHECKPOINT
predictions   $RUN/predictions/ (left: annotated, right: predicted)
curves        $RUN/curves.png
data          $DATA/det/preview.png
END
