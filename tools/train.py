#!/usr/bin/env python
"""Train any config of the three tasks: classification, detection, segmentation.

The task follows from the config's default_scope; a run goes to work_dirs/<task>/<config stem>/.
"""

import argparse
import os

try:
    from mmengine.logging import print_log
    from mmengine.runner import find_latest_checkpoint

    from mmparc import engine
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None
except KeyboardInterrupt:  # the packages take seconds
    raise SystemExit(130) from None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    engine.add_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help="go on from CKPT, or from the work directory's latest checkpoint",
    )
    parser.add_argument(
        '--amp',
        action=argparse.BooleanOptionalAction,
        help="mixed precision on or off, instead of the config's choice",
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the actual batch size',
    )
    parser.add_argument(
        '--no-pretrained',
        action='store_true',
        help='start from random weights where the config names a pretrained checkpoint',
    )
    parser.add_argument(
        '--min-loaded',
        type=float,
        default=0.9,
        metavar='SHARE',
        help='the least share of a pretrained checkpoint that has to fit the model (0.9)',
    )
    return parser.parse_args()


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    if not 0 <= args.min_loaded <= 1:
        raise engine.UserError(f'--min-loaded takes a share from 0 to 1, got {args.min_loaded}')
    cfg = engine.config_of(args)
    engine.set_amp(cfg, args.amp)
    if args.auto_scale_lr:
        engine.enable_auto_scale_lr(cfg)
    if args.no_pretrained:
        engine.drop_pretrained(cfg)
    if args.resume == 'auto':
        cfg.resume = find_latest_checkpoint(cfg.work_dir) is not None
        if cfg.resume:
            cfg.load_from = None  # the work directory's latest
        else:
            print_log(f'{cfg.work_dir} has no checkpoint to resume: a new run', 'current')
    elif args.resume:
        cfg.resume, cfg.load_from = True, args.resume

    engine.check_length(cfg)
    engine.check_model_types(cfg)
    engine.check_pretrained(cfg)
    engine.check_data(cfg, 'train_dataloader', 'val_dataloader')
    if cfg.get('load_from') and '://' not in cfg.load_from and not os.path.isfile(cfg.load_from):
        raise engine.UserError(
            f"there is no checkpoint '{cfg.load_from}' to load: name another one, or leave "
            f'{"--resume" if cfg.get("resume") else "load_from"} out to start anew'
        )

    engine.build_model(cfg)  # what it refuses is said before a log is begun
    engine.check_coco_files(cfg)
    engine.use_default_collate(cfg)
    engine.allow_mmengine_checkpoints()
    engine.use_atomic_checkpoints(cfg)
    engine.stop_on_non_finite(cfg)
    engine.avoid_missing_cuda_ops(cfg)
    engine.meet_on_cpu(cfg)
    with engine.stops_in_one_line(cfg.work_dir):
        if cfg.get('resume'):
            engine.take_up_seed(cfg)
        runner = engine.ResumableRunner.from_cfg(cfg)
        if not cfg.get('resume'):
            engine.check_loaded_share(runner.model, cfg.get('load_from'), args.min_loaded)
        engine.note_start(runner, engine.load_config(args.config))
        runner.train()


if __name__ == '__main__':
    main()
