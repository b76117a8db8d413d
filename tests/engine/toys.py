"""A model of one layer, and a Runner that trains it within milliseconds."""

from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import TensorDataset


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        return dict(loss=self.layer(torch.stack(x)).square().mean()) if mode == 'loss' else x


def loader_of(dataset: torch.utils.data.Dataset, batch_size: int) -> dict:
    return dict(
        dataset=dataset,
        batch_size=batch_size,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )


def toy_runner(folder: Path, kind: type[Runner] = Runner, **options) -> Runner:
    """A Runner without a log; options replace its own."""
    defaults = dict(
        model=Toy(),
        train_dataloader=loader_of(TensorDataset(torch.ones(6, 2)), batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        log_level='CRITICAL',
    )
    name = f'{folder.parent.name}-{folder.name}'
    number = len(list(folder.glob('*/vis_data')))  # each Runner of a process has its own name
    options = {**defaults, 'experiment_name': f'{name}-{number}-{kind.__name__}', **options}
    return kind(work_dir=str(folder), **options)
