"""What data in memory costs: the peak of a process that trains two epochs, and the ratio.

    python benchmarks/memory.py --mnist PATH

MNIST, MLP 784-50-10, batches of 1,024. Each entry is a process of its own, which loads the same
parquet files and reports the largest resident size that it had (`ru_maxrss`). `stacked` keeps the
training images as one float tensor, filled row by row, and loops by hand; `read` is `from_hf_dd`
with a budget of 0. Exits with 1 if decoding once takes more than 1.3 times `stacked`."""
import argparse
import os
import resource
import subprocess
import sys

ENTRIES = 'nothing', 'stacked', 'decoded once', 'read'


def stacked(dd):
    "The images of a split as floats, in memory once, and one picture at a time."
    import numpy as np
    import torch
    x = torch.empty(len(dd), 784)
    for i, row in enumerate(dd): x[i] = torch.from_numpy(np.array(row['image'])).flatten() / 255
    return x, torch.tensor(dd['label'][:])


def run(entry, path):
    "Train in this process, and print its peak in bytes."
    import torch
    from epoch import BATCH, ByHand, by_hand, nntrain, read_mnist
    from nntrain.dataloaders import DataLoaders
    torch.set_num_threads(1)
    dd = read_mnist(path)
    if entry == 'stacked': by_hand(ByHand(*stacked(dd['train'])), 2)
    if entry in ('decoded once', 'read'):
        how = dict(budget=0, num_workers=0) if entry == 'read' else {}
        nntrain(DataLoaders.from_hf_dd(dict(train=dd['train']), BATCH, **how).train, 2)
    unit = 1 if sys.platform == 'darwin' else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--mnist', help='folder with the parquet files of MNIST')
    parser.add_argument('--entry', choices=ENTRIES, help='measure this one, in this process')
    args = parser.parse_args()
    if not args.mnist: return print('skipped: no data; give --mnist PATH')
    if args.entry: return run(args.entry, args.mnist)
    peak = {}
    for entry in ENTRIES:
        command = [sys.executable, os.path.abspath(__file__), '--mnist', args.mnist]
        done = subprocess.run([*command, '--entry', entry], capture_output=True, text=True,
                              check=True)
        peak[entry] = int(done.stdout.split()[-1])
    print(f'{"":16}{"peak MB":>9}{"over stacked":>14}')
    for entry, n_bytes in peak.items():
        print(f'{entry:16}{n_bytes/1e6:9.0f}{n_bytes/peak["stacked"]:14.2f}')
    return int(peak['decoded once'] > 1.3 * peak['stacked'])


if __name__ == '__main__': sys.exit(main())
