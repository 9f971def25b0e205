"""A program as a user writes it, with types, for test_types.py: it runs, and a checker agrees."""
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import nntrain as nt
from nntrain import DataLoaders, GradientClipS, Learner, MetricsS, RecorderS, Subscriber
from nntrain.checkpoint import CheckpointS
from nntrain.data.collate import load_digits
from nntrain.metrics import accuracy
from nntrain.pubsub import MEASURE, CancelFitException
from nntrain.tracking.history import History, compare
from nntrain.training.schedule import ScheduleS


class StopAtS(Subscriber):
    "End the fit at a loss."
    order = MEASURE + 1

    def __init__(self, loss: float):
        self.loss = loss

    def after_epoch(self, learn: Learner) -> None:
        if not learn.training and learn.row['loss'] < self.loss: raise CancelFitException


class SmoothLearner(Learner):
    "Smooths the labels."
    def get_loss(self) -> None:
        self.loss = nn.functional.cross_entropy(self.preds, self.y, label_smoothing=0.1)


def make_model(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def train(cls: type[Learner], subs: Sequence[Subscriber], epochs: int = 2) -> Learner:
    dls = DataLoaders.from_hf_dd(load_digits(), batch_size=128)
    optim_class = partial(torch.optim.SGD, momentum=0.9)
    learn = cls(make_model(32), dls, nn.CrossEntropyLoss(), optim_class, lr=0.1, subs=subs)
    learn.fit(epochs, subs=GradientClipS(1.0))
    return learn


def main(folder: Path) -> Tensor:
    plain = train(Learner, nt.usual(accuracy, device='cpu'))
    smooth = train(SmoothLearner, [MetricsS(accuracy, show=False), RecorderS(), StopAtS(0.1)])
    histories: list[History] = [plain.history, smooth.history]
    best = max(history['valid', 'accuracy'][-1] for history in histories)
    compare(*histories, column='accuracy', labels=['plain', 'smooth'])
    curve = plain.lr_find(n_batches=20)
    print(f'{best:.3f}', curve, plain.history.to_df().shape, len(plain.subs), plain.opt)
    plain.fit_one_cycle(1, max_lr=0.2, subs=[ScheduleS(), CheckpointS(folder/'run')])
    handle = plain.on('after_batch', lambda learn: None, every=10)
    with plain.rehearse(): plain.fit(1, valid=False, lr=0.01)
    handle.remove()
    plain.save(folder/'model.safetensors')
    print(plain.summary(), plain.check(n_steps=5).passed, plain.hypers.lr, plain.n_steps)
    preds, _ = plain.get_preds()
    return preds


if __name__ == '__main__':
    with TemporaryDirectory() as name: print(main(Path(name)).shape)
