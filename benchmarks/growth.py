"""What grows with a run, and what does not: time per batch and memory as everything gets larger.

    python benchmarks/growth.py [--quick]

Batches, epochs, subscribers, parameters, rows of a history, validation sets, bytes of a
checkpoint: each row has the same quantity at growing sizes, and the ratio of the last to the first.
Ratios are taken in one process, microseconds and megabytes are printed beside them."""
import argparse
import contextlib
import os
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
from loop import Stub

from nntrain.checkpoint.files import clear
from nntrain.checkpoint.format import write_checkpoint
from nntrain.learner import Learner
from nntrain.metrics import MetricsS
from nntrain.pubsub import Subscriber
from nntrain.tracking.recorder import RecorderS


class Listener(Subscriber):
    "Hears one event of each batch."
    def after_batch(self, learn): pass


class Batches:
    "The same batch `n` times, without a list of them."
    def __init__(self, n, batch): self.n, self.batch = n, batch
    def __len__(self): return self.n
    def __iter__(self): return (self.batch for _ in range(self.n))


BATCH = torch.ones(4, 2), torch.zeros(4, dtype=torch.long)


def fit(n_epochs=1, n_batches=1000, subs=(), model=None, **dls):
    "Seconds of CPU of a fit; without a model everything is stubbed."
    loss = Stub()
    make = (lambda preds, targets: loss) if model is None else F.cross_entropy
    optim = Stub if model is None else torch.optim.SGD
    dls = SimpleNamespace(**{'train': Batches(n_batches, BATCH), 'valid': None, **dls})
    learn = Learner(model or Stub(), dls, make, optim, .01, list(subs))
    start = time.process_time()
    with open(os.devnull, 'w') as out, contextlib.redirect_stdout(out): learn.fit(n_epochs)
    return time.process_time() - start


def megabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


def row(what, unit, sizes, measure):
    "One line of the table: the quantity at each size, and how much it grew."
    found = [measure(size) for size in sizes]
    cells = ''.join(f'{size:>11,}: {value:9.2f}' for size, value in zip(sizes, found))
    print(f'{what:44}{cells}   {unit}, last/first {found[-1]/max(found[0], 1e-9):.2f}', flush=True)


def loss_rows(n_epochs):
    "Megabytes that a recorder adds over `n_epochs` of one batch."
    before, recorder = megabytes(), RecorderS()
    fit(n_epochs, 1, [MetricsS(show=False), recorder], nn.Linear(2, 2))
    return max(megabytes() - before, .01)



class Big(nn.Module):
    "Two parameters in use, and `n` that are there."
    def __init__(self, n):
        super().__init__()
        self.used, self.rest = nn.Linear(2, 2), nn.Parameter(torch.zeros(n), requires_grad=False)
    def forward(self, x): return self.used(x)


def checkpoint_ratio(folder):
    "Seconds of a checkpoint of `mb` megabytes over those of `torch.save` of the same tensors."
    def measure(mb):
        state = {f'w{i}': torch.rand(mb*250_000//4) for i in range(4)}
        best = {}
        for _ in range(5):
            for who in ('ours', 'torch'):
                start = time.perf_counter()
                if who == 'ours': write_checkpoint(folder/'step-00000001', state, {}, False)
                else: torch.save(state, folder/'torch.pt')
                best[who] = min(best.get(who, 1e9), time.perf_counter()-start)
                for path in folder.iterdir(): clear(path)   # each begins on the same disk
        return best['ours']/best['torch']
    return measure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='sizes of seconds, not minutes')
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    fit(1, 1000)
    cut = lambda sizes: sizes[:-1] if quick else sizes
    row('batches of a pass, stubbed', 'us a batch', cut([1000, 10_000, 100_000, 1_000_000]),
        lambda n: fit(1, n)/n*1e6)
    row('epochs of one batch', 'us an epoch', cut([10, 100, 1000, 10_000]),
        lambda n: fit(n, 1)/n*1e6)
    row('subscribers to after_batch', 'us a batch', [0, 1, 4, 16, 64],
        lambda n: fit(1, 20_000, [Listener() for _ in range(n)])/20_000*1e6)
    row('parameters that are not trained', 'us a batch', cut([10**4, 10**6, 10**8]),
        lambda n: fit(1, 500, model=Big(n))/500*1e6)
    row('validation sets of one batch', 'us a pass', [1, 4, 16, 64], lambda n: fit(
        20, 1, valid={f'set{i}': [BATCH] for i in range(n)})/(20*n)*1e6)
    row('rows of a history', 'us a row', cut([100, 1000, 10_000]), lambda n: fit(
        n, 1, [MetricsS(show=False), RecorderS()], nn.Linear(2, 2))/n*1e6)
    row("a recorder's memory over epochs", 'MB more', cut([1000, 10_000]), loss_rows)
    with TemporaryDirectory() as folder:
        row('checkpoint / torch.save', 'ratio', cut([10, 100, 1000]),
            checkpoint_ratio(Path(folder)))


if __name__ == '__main__': main()
