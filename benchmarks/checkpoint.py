"""What a checkpoint costs: milliseconds of each part, and the share of training time it takes.

    python benchmarks/checkpoint.py [folder] [--mnist PATH] [--rounds N]

Medians, of the ratios too; each round has a fit of every kind, one after the other. The folder
decides about `fsync`, so give one on the disk that you train on."""
import argparse
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from torch import nn
from torch.nn import functional as F

from nntrain.checkpoint.checkpoint import CheckpointS
from nntrain.dataloaders import DataLoaders, TensorLoader
from nntrain.checkpoint.format import read_checkpoint, write_checkpoint
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


class TimedS(CheckpointS):
    "Measures what the training waits for, and what a thread does meanwhile."
    waited, n_saved, inside = 0, 0, False

    def measured(self, call, *args, **kwargs):
        if self.inside: return call(*args, **kwargs)
        self.inside, start = True, time.perf_counter()
        try: return call(*args, **kwargs)
        finally: self.inside, self.waited = False, self.waited + time.perf_counter() - start

    def save(self, *args, **kwargs): return self.measured(super().save, *args, **kwargs)
    def wait(self): return self.measured(super().wait)
    def _write(self, *args):
        super()._write(*args)
        self.n_saved += 1


def mnist(path):
    "The training images: of parquet files, or as many random numbers, which take as long."
    if path is None: return torch.rand(60_000, 784), torch.randint(0, 10, (60_000,))
    from datasets import load_dataset
    files = {'train': str(next(Path(path).glob('*train*.parquet')))}
    x, y = DataLoaders.from_hf_dd(load_dataset('parquet', data_files=files), 1024).train.tensors
    return x.float().view(len(x), -1) / x.max(), y


def share(folder, data, rounds, epochs=10, every=100):
    "Interleaved fits without checkpoints, with some that it waits for, and with some it does not."
    kinds = dict(none=None, waiting=False, background=True)
    seconds, cpu, parts = ({kind: [] for kind in kinds} for _ in range(3))
    ends = []
    for i in range(rounds):
        for kind, background in kinds.items():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
            dls = DataLoaders(TensorLoader(*data, batch_size=1024, shuffle=True))
            learn = Learner(model, dls, F.cross_entropy, torch.optim.SGD, 0.1)
            subs = () if background is None else TimedS(folder/f'{kind}{i}', every_steps=every,
                                                        background=background)
            start, worked = time.perf_counter(), time.process_time()
            learn.fit(epochs, subs=subs)
            seconds[kind].append(time.perf_counter() - start)
            cpu[kind].append(time.process_time() - worked)
            ends.append(learn.model[0].weight.detach())
            if not subs: continue
            parts[kind].append((subs.waited/subs.n_saved, subs.writer.seconds/subs.n_saved,
                                subs.waited/seconds[kind][-1]))
    assert all(torch.equal(ends[0], end) for end in ends)
    n = epochs*len(dls.train)
    print(f'\nMLP 784-50-10, {n} batches of 1,024, a checkpoint every {every} and one at the end: '
          f'{n//every + 1}; weights identical\n'
          'checkpoints       s   ratio  ratio of CPU   per checkpoint, ms: training waits, thread '
          'works   share waited')
    for kind in kinds:
        against = lambda times: statistics.median(
            a/b for a, b in zip(times[kind], times['none']))
        line = f'{kind:11} {statistics.median(seconds[kind]):7.3f} {against(seconds):7.3f}' \
               f' {against(cpu):13.3f}'
        if parts[kind]:
            waits, works, share = map(statistics.median, zip(*parts[kind]))
            line += f'{waits*1000:38.2f} {works*1000*(kind == "background"):14.2f} {share:14.2%}'
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', nargs='?', help='where to write')
    parser.add_argument('--mnist', help='folder with *train*.parquet; without, random numbers')
    parser.add_argument('--rounds', type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)  # steadier on a machine with other work
    with TemporaryDirectory(dir=args.folder) as folder:
        parts(Path(folder))
        share(Path(folder), mnist(args.mnist), args.rounds)


if __name__ == '__main__': main()
