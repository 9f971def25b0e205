"""What a checkpoint costs: milliseconds of each part, and the share of training time it takes.

    python benchmarks/checkpoint.py [folder]

Medians; the folder decides about `fsync`, so give one on the disk that you train on."""
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from torch import nn
from torch.nn import functional as F

from nntrain.checkpoint import CheckpointS
from nntrain.dataloaders import DataLoaders, TensorLoader
from nntrain.files import read_checkpoint, write_checkpoint
from nntrain.learner import Learner


def timed(function, n=7):
    "Milliseconds of `function`, the median of `n` calls."
    times = []
    for i in range(n):
        start = time.perf_counter()
        function(i)
        times.append((time.perf_counter()-start)*1000)
    return statistics.median(times)


def learner(width=50, optim_class=torch.optim.SGD, n=1024):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    data = torch.rand(n, 784), torch.randint(0, 10, (n,))
    dls = DataLoaders(TensorLoader(*data, batch_size=1024, shuffle=True))
    return Learner(model, dls, F.cross_entropy, optim_class, 0.1)


def parts(folder):
    print('parameters  optimizer   MB     state  write  +fsync   read   ms')
    for width, optim_class in ((50, torch.optim.SGD), (1000, torch.optim.Adam),
                               (10_000, torch.optim.Adam)):
        learn = learner(width, optim_class)
        learn.fit(1)
        state = learn.state_dict()
        write = lambda fsync: lambda i: write_checkpoint(folder/f'step-{i:08d}', state, {}, fsync)
        rows = [timed(lambda i: learn.state_dict()), timed(write(False)), timed(write(True)),
                timed(lambda i: read_checkpoint(folder/'step-00000000'))]
        size = sum(file.stat().st_size for file in (folder/'step-00000000').iterdir())/1e6
        n = sum(p.numel() for p in learn.model.parameters())
        print(f'{n:10,}  {optim_class.__name__:9} {size:6.1f}  '
              + '  '.join(f'{ms:6.1f}' for ms in rows))


def share(folder, rounds=4):
    "Interleaved fits of 200 batches with and without a checkpoint every 100."
    seconds, ends = {False: [], True: []}, []
    for i in range(2*rounds):
        learn, saves = learner(n=20_480), bool(i % 2)
        subs = CheckpointS(folder/f'run{i}', every_steps=100) if saves else ()
        start = time.perf_counter()
        learn.fit(10, subs=subs)
        seconds[saves].append(time.perf_counter()-start)
        ends.append(learn.model[0].weight.detach())
    assert all(torch.equal(ends[0], end) for end in ends)
    without, with_ = (statistics.median(seconds[key]) for key in (False, True))
    print(f'MLP 784-50-10, bs 1024, 200 batches: {without:.3f} s, with 2 checkpoints '
          f'{with_:.3f} s, ratio {with_/without:.3f}; weights identical')


def main():
    torch.set_num_threads(1)  # steadier on a machine with other work
    with TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as folder:
        parts(Path(folder))
        share(Path(folder))


if __name__ == '__main__': main()
