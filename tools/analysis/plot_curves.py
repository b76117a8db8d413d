#!/usr/bin/env python
"""Draw a run's curves: losses, learning rate and validation metrics, from mmengine's own logs.

Reads every <work_dir>/<time>/vis_data/scalars.json, so that a resumed run is one curve.
"""

import argparse
from pathlib import Path

try:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    from mmparc.analysis.logs import TIMINGS, read_scalars
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None


def plot(train: list[dict], val: list[dict], title: str, out: Path) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(15, 4.5), layout='constrained')
    steps = [r['iter'] for r in train]
    for key in sorted({k for r in train for k in r if 'loss' in k}):
        panels[0].plot(steps, [r.get(key) for r in train], label=key)
    panels[0].set(title='training loss', xlabel='iteration', ylim=(0, None))
    panels[1].plot(steps, [r['lr'] for r in train])
    panels[1].set(title='learning rate', xlabel='iteration', ylim=(0, None))
    for key in sorted({k for r in val for k in r} - TIMINGS):
        values = [r.get(key) for r in val]
        # COCO gives -1 where a size class has no object.
        if all(isinstance(v, int | float) and v >= 0 for v in values):
            panels[2].plot([r['step'] for r in val], values, marker='o', label=key)
    by_epoch = any('epoch' in r for r in train)
    panels[2].set(title='validation', xlabel='epoch' if by_epoch else 'iteration', ylim=(0, None))
    for panel in (panels[0], panels[2]):
        panel.legend(fontsize='small')
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('work_dir', type=Path, help="a run's directory")
    parser.add_argument('--out', type=Path, help='the picture; by default WORK_DIR/curves.png')
    args = parser.parse_args()
    train, val = read_scalars(args.work_dir)
    if not train:
        raise SystemExit(
            f"error: '{args.work_dir}' holds no training log (*/vis_data/scalars.json): "
            'pass the work directory of a training run with the LocalVisBackend'
        )
    out = args.out or args.work_dir / 'curves.png'
    plot(train, val, args.work_dir.name, out)
    print(out)


if __name__ == '__main__':
    main()
