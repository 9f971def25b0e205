"""What data costs without a model: seconds of CPU for a shuffled pass, by the way it is loaded.

    python benchmarks/data.py --mnist PATH [--rounds N] [--against fastai]

MNIST, batches of 1,024, one thread, medians of passes taken in turn, with the ratio to stacked
floats picked by hand. Seconds are of the wall clock for what runs in worker processes, of the CPU
for the rest. Of the libraries named after `--against` only fastai has a loader of its own; the
others use PyTorch's, which is here in any case. Below, the seconds that a program waits for
`from_hf_dd` at its start, by the wall clock: decoding, decoding and keeping, reading what was
kept."""
import argparse
import statistics
import sys
import tempfile
import time
import warnings

import torch
from epoch import BATCH, ByHand, installed, read_mnist
from torch.utils.data import DataLoader, TensorDataset

from nntrain.data.loaders import FetchLoader, TensorLoader
from nntrain.dataloaders import DataLoaders
from nntrain.data.collate import hf_ds_collate_fn


def seconds(loader, clock):
    start = clock()
    for batch in loader: pass
    return clock() - start


def measure(loaders, rounds, clock=time.process_time):
    "Median seconds of a pass by name; the first pass of each, which may build caches, is dropped."
    taken = {name: [] for name in loaders}
    for turn in range(rounds + 1):
        for name, loader in loaders.items(): taken[name].append(seconds(loader, clock))
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def readers(split):
    "Batched fetch here and in one or two worker processes that stay."
    for n in range(3):
        options = dict(num_workers=n, persistent_workers=n > 0)
        yield f'FetchLoader, {n} workers', FetchLoader(split, BATCH, shuffle=True, options=options)


def starts(dd, rounds):
    "Median seconds of `from_hf_dd` by what it does about the disk, in turn."
    taken = {'decoded': [], 'decoded and kept': [], 'kept before': []}
    for turn in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, cache in zip(taken, (None, folder, folder)):
                start = time.perf_counter()
                DataLoaders.from_hf_dd(dd, BATCH, cache=cache)
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--mnist', help='folder with the parquet files of MNIST')
    parser.add_argument('--rounds', type=int, default=7, help='passes that are measured')
    parser.add_argument('--against', default='', help='fastai')
    args = parser.parse_args()
    if not args.mnist: return print('skipped: no data; give --mnist PATH')
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    dd = read_mnist(args.mnist)
    decoded = DataLoaders.from_hf_dd(dd, BATCH).train
    x, y = map(torch.cat, zip(*TensorLoader(*decoded.tensors, batch_size=BATCH,
                                            transform=decoded.transform)))
    fast = {'by hand': ByHand(x, y), 'from_hf_dd, decoded once': decoded,
            'TensorLoader, floats': TensorLoader(x, y, batch_size=BATCH, shuffle=True),
            'DataLoader, TensorDataset': DataLoader(TensorDataset(x, y), BATCH, shuffle=True)}
    if 'fastai' in installed(name for name in args.against.split(',') if name == 'fastai'):
        from fastai.data.core import TfmdDL
        fast['fastai TfmdDL'] = TfmdDL(TensorDataset(x, y), bs=BATCH, shuffle=True, num_workers=0)
    workers = dict(readers(dd['train']))
    slow = {'FetchLoader, 0 workers': workers.pop('FetchLoader, 0 workers')}
    slow['DataLoader, row by row'] = DataLoader(dd['train'], BATCH, shuffle=True,
                                                collate_fn=hf_ds_collate_fn)
    times = measure(fast, args.rounds)
    base = times['by hand']
    times.update(measure(slow, min(args.rounds, 2)))
    times.update(measure(workers, min(args.rounds, 2), time.perf_counter))
    print(f'{"":28}{"s/pass":>9}{"ratio":>8}')
    for name, value in times.items(): print(f'{name:28}{value:9.3f}{value/base:8.2f}')
    print(f'\n{"from_hf_dd, at the start":28}{"s":>9}{"ratio":>8}')
    waits = starts(dd, min(args.rounds, 3))
    for name, value in waits.items(): print(f'{name:28}{value:9.2f}{value/waits["decoded"]:8.2f}')


if __name__ == '__main__': sys.exit(main())
