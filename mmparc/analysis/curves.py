"""Draw a run's curves: losses, learning rate and validation metrics, from mmengine's own logs."""

import argparse

from mmparc.analysis import figures
from mmparc.analysis.figures import plt
from mmparc.analysis.logs import TIMINGS, read_scalars
from mmparc.errors import UserError


def run(args: argparse.Namespace) -> None:
    """Read every <work_dir>/<time>/vis_data/scalars.json, so that a resumed run is one curve."""
    try:
        train, val = read_scalars(args.work_dir)
    except ValueError as error:  # a damaged log
        raise UserError(str(error)) from None
    if not train:
        raise UserError(
            f"'{args.work_dir}' holds no training log (*/vis_data/scalars.json): pass the work "
            'directory of a training run with the LocalVisBackend'
        )
    figure, panels = plt.subplots(1, 3, figsize=(15, 4.5), layout='constrained')
    steps = [r['iter'] for r in train]
    for key in sorted({k for r in train for k in r if 'loss' in k}):
        panels[0].plot(steps, [r.get(key) for r in train], label=key)
    panels[0].set(title='training loss', xlabel='iteration')
    panels[1].plot(steps, [r['lr'] for r in train])
    panels[1].set(title='learning rate', xlabel='iteration')
    for key in sorted({k for r in val for k in r} - TIMINGS):
        values = [r.get(key) for r in val]
        # COCO gives -1 where a size class has no object.
        if all(isinstance(v, int | float) and v >= 0 for v in values):
            panels[2].plot([r['step'] for r in val], values, marker='o', label=key)
    by_epoch = any('epoch' in r for r in train)
    panels[2].set(title='validation', xlabel='epoch' if by_epoch else 'iteration')
    for panel in panels:
        panel.set_ylim(0, None)
        panel.grid(alpha=0.3)
    for panel in (panels[0], panels[2]):
        panel.legend(fontsize='small')
    figure.suptitle(args.work_dir.name)
    out = args.out or args.work_dir / 'curves.png'
    figures.save(figure, out, dpi=120)
    print(out)
