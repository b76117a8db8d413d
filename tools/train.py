#!/usr/bin/env python
"""Train any config of the three tasks: classification, detection, segmentation.

The task follows from the config's default_scope; a run goes to work_dirs/<task>/<config stem>/.
"""

import argparse
import logging

from mmparc import tool


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tool.add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help="continue from CKPT, or from the work directory's latest checkpoint",
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
        help='train from scratch where the config names a pretrained checkpoint',
    )
    parser.add_argument(
        '--min-loaded',
        type=float,
        default=0.9,
        metavar='SHARE',
        help='the least share of a pretrained checkpoint that has to fit the model (0.9)',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    if not 0 <= args.min_loaded <= 1:
        raise tool.UserError(f'--min-loaded takes a share from 0 to 1, got {args.min_loaded}')
    from mmengine.logging import print_log
    from mmengine.runner import find_latest_checkpoint

    from mmparc import engine

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
            text = f'{cfg.work_dir} has no checkpoint to resume: a new run begins'
            print_log(text, 'current', logging.WARNING)
    elif args.resume:
        cfg.resume, cfg.load_from = True, args.resume

    engine.check_length(cfg)
    engine.check_types(cfg, 'train', 'val')
    engine.check_pretrained(cfg)
    engine.check_data(cfg, 'train_dataloader', 'val_dataloader')
    engine.check_gpu_operators(cfg)
    engine.build_model(cfg)  # its errors come before the run's log begins
    engine.use_default_collate(cfg)
    engine.allow_mmengine_checkpoints()
    engine.use_atomic_checkpoints(cfg)
    with engine.stops_in_one_line(cfg.work_dir):
        if cfg.get('resume'):
            engine.take_up_seed(cfg)
        runner = engine.ResumableRunner.for_training(cfg)
        if not cfg.get('resume'):
            with engine.building('the model with its pretrained weights'):
                engine.check_loaded_share(runner.model, cfg.get('load_from'), args.min_loaded)
        runner.register_hook(engine.StartHook(runner, engine.load_config(args.config)))
        runner.train()


if __name__ == '__main__':
    tool.run(make_parser(), main)
