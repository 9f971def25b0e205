"""What a training epoch costs: seconds of CPU, and the ratio to a hand-written loop over tensors.

    python benchmarks/epoch.py --mnist PATH [--rounds N] [--against fastai,lightning,...]
    python benchmarks/epoch.py --pictures N [--rounds N] [--against fastai,lightning,...]

MNIST, MLP 784-50-10, batches of 1,024, SGD, one thread, one process. PATH is a folder with
`*train*.parquet` and `*test*.parquet`, as the hub has them. Every entry trains for three epochs in
each round, all of them in turn; an epoch lasts from the first request of its loader to the first
request of the next epoch. Printed are the median, and the median of the ratios within a round.
Libraries named after `--against` do the same work if they are installed: images by the loader
their users write (a DataLoader with a collate function, each file opened in each epoch), tensors
by a DataLoader over a TensorDataset, and tensors by the loader of nntrain. `decode` is what
`from_hf_dd` takes before the first epoch. Exits with 1 if nntrain is not first or within 3% of
the first in a row, or above 1.1 times the hand-written loop from images.

`--pictures N` draws N JPEGs of 500x375 into a temporary folder instead (see pictures.py) and trains
a convolution with stride 8 on random crops of 224 pixels, with two processes or threads that load.
By hand, and with the libraries, that is a DataLoader over a class with `__getitem__`; nntrain
takes them by `PictureLoader` with a cache that is new in each round. Seconds by the wall, the
least of all rounds, first and later epochs apart. Exits with 1 if nntrain is slower than by hand.
"""
import argparse
import importlib
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nntrain.data.loaders import TensorLoader
from nntrain.dataloaders import DataLoaders
from nntrain.learner import Learner
from nntrain.data.collate import hf_ds_collate_fn

BATCH, LR, EPOCHS = 1024, 0.1, 3
PEERS = dict(fastai='fastai', lightning='lightning', ignite='pytorch-ignite', skorch='skorch',
             accelerate='accelerate')


class Timed:
    "A loader that notes when each pass begins and when the last one has ended."
    def __init__(self, loader, clock=time.process_time):
        self.loader, self.clock, self.times = loader, clock, []

    def __len__(self): return len(self.loader)
    def __getattr__(self, name): return getattr(self.__dict__['loader'], name)

    def __iter__(self):
        self.times.append(self.clock())
        yield from self.loader

    def epochs(self):
        "Seconds of the passes that another one followed."
        return [end - start for start, end in zip(self.times, self.times[1:])]


class ByHand:
    "Batches of stacked floats: the least that a shuffled pass can do."
    def __init__(self, x, y): self.x, self.y = x, y
    def __len__(self): return -(-len(self.x) // BATCH)

    def __iter__(self):
        for rows in torch.randperm(len(self.x)).split(BATCH):
            yield self.x.index_select(0, rows), self.y.index_select(0, rows)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))


def by_hand(loader, epochs, make=mlp):
    model = make()
    opt = torch.optim.SGD(model.parameters(), LR)
    for _ in range(epochs):
        model.train()
        for xb, yb in loader:
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
    return model


def nntrain(loader, epochs, make=mlp, subs=()):
    dls = SimpleNamespace(train=loader, valid=None)
    learn = Learner(make(), dls, F.cross_entropy, lr=LR, subs=subs)
    learn.fit(epochs)
    return learn.model


def fastai(loader, epochs, make=mlp):
    from fastai.data.core import DataLoaders as FastaiLoaders
    from fastai.learner import Learner as FastaiLearner
    from fastai.optimizer import OptimWrapper
    opt = partial(OptimWrapper, opt=torch.optim.SGD)
    learn = FastaiLearner(FastaiLoaders(loader, []), make(), loss_func=F.cross_entropy, lr=LR,
                          opt_func=opt)
    with learn.no_logging(): learn.fit(epochs)
    return learn.model


def lightning(loader, epochs, make=mlp):
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = make()

        def training_step(self, batch, i):
            xb, yb = batch
            return F.cross_entropy(self.model(xb), yb)

        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), LR)

    module = Module()
    quiet = dict.fromkeys(('logger', 'enable_checkpointing', 'enable_progress_bar',
                           'enable_model_summary'), False)
    L.Trainer(max_epochs=epochs, accelerator='cpu', **quiet).fit(module, loader)
    return module.model


def ignite(loader, epochs, make=mlp):
    from ignite.engine import create_supervised_trainer
    model = make()
    opt = torch.optim.SGD(model.parameters(), LR)
    create_supervised_trainer(model, opt, F.cross_entropy).run(loader, max_epochs=epochs)
    return model


def skorch(loader, epochs, make=mlp):
    from skorch import NeuralNet
    net = NeuralNet(make(), nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=LR, verbose=0,
                    max_epochs=epochs, batch_size=BATCH, train_split=None,
                    iterator_train=lambda dataset, **kwargs: loader)
    net.fit(TensorDataset(torch.zeros(len(loader) * BATCH, 1)), None)
    return net.module_


def accelerate(loader, epochs, make=mlp):
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=True)
    model = make()
    opt = torch.optim.SGD(model.parameters(), LR)
    model, opt = accelerator.prepare(model, opt)
    for _ in range(epochs):
        model.train()
        for xb, yb in loader:
            loss = F.cross_entropy(model(xb), yb)
            accelerator.backward(loss)
            opt.step()
            opt.zero_grad()
    return model


TRAIN = dict(fastai=fastai, lightning=lightning, ignite=ignite, skorch=skorch,
             accelerate=accelerate)


def read_mnist(path):
    "Train and test split of the parquet files in a folder, without a cache on the disk."
    from datasets import Dataset, DatasetDict
    from pyarrow import parquet
    files = {name: sorted(Path(path).rglob(f'*{name}*.parquet')) for name in ('train', 'test')}
    if not all(files.values()): raise SystemExit(
        f'--mnist: expected *train*.parquet and *test*.parquet in {path}')
    return DatasetDict({k: Dataset(parquet.read_table(v[0])) for k, v in files.items()})


def installed(names):
    "The libraries that can be measured; says why others cannot."
    for name in filter(None, names):
        if name not in PEERS: raise SystemExit(f'--against {name}: known are {", ".join(PEERS)}')
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                importlib.import_module(name)
            yield name
        except ImportError as error:
            print(f'{name}: skipped, not installed ({error}); pip install {PEERS[name]}')


def measure(entries, rounds):
    "Median seconds of an epoch and median ratio to the first entry in the same round, by name."
    seconds = {name: [] for name in entries}
    names = list(entries)
    for turn in range(rounds + 1):
        for name in names[::-1] if turn % 2 else names:
            train, make = entries[name]
            loader = Timed(make())
            train(loader, EPOCHS)
            if turn: seconds[name].append(statistics.mean(loader.epochs()))
    base = seconds[names[0]]
    ratios = {name: [v / b for v, b in zip(values, base)] for name, values in seconds.items()}
    return {name: (statistics.median(seconds[name]), statistics.median(ratios[name]))
            for name in entries}


def convolution():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, 2))


def from_pictures(n, rounds, peers):
    "Print the first and the later epochs from a folder of JPEGs; whether nntrain is the slower."
    from nntrain.data.pictures import PictureFiles, PictureLoader
    from nntrain.data.transforms import BatchTransformS, Normalize
    from pictures import BATCH as FEW, MEAN, STD, ByHand as FromFolder, draw
    normalize = BatchTransformS(Normalize([255*m for m in MEAN], [255*s for s in STD]))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        jobs = [(folder/'pictures'/'ab'[i % 2]/f'{i:06}.jpg', i) for i in range(n)]
        for path, _ in jobs[:2]: path.parent.mkdir(parents=True)
        with multiprocessing.get_context('fork').Pool(2) as pool: pool.map(draw, jobs)
        files = PictureFiles([str(path) for path, _ in jobs], [i % 2 for _, i in jobs], ['a', 'b'])
        caches = iter(range(rounds))
        usual = lambda: DataLoader(FromFolder(files.files, files.targets), FEW, shuffle=True,
                                   num_workers=2)
        ours = lambda: PictureLoader(files, FEW, shuffle=True, n_workers=2,
                                     cache=folder/f'cache{next(caches)}')
        entries = {'by hand': (by_hand, usual), **{k: (v, usual) for k, v in peers.items()},
                   'nntrain': (partial(nntrain, subs=[normalize]), ours)}
        found = {name: [] for name in entries}
        for _ in range(rounds):
            for name, (train, make) in entries.items():
                loader = Timed(make(), time.perf_counter)
                train(loader, EPOCHS, make=convolution)
                found[name].append(loader.epochs())
    print(f'{n} JPEGs{"":6}{"first epoch, s":>16}{"ratio":>8}{"later epochs, s":>17}{"ratio":>8}')
    least = {name: [min(e[0] for e in epochs), min(min(e[1:]) for e in epochs)]
             for name, epochs in found.items()}
    for name, (first, later) in least.items():
        first_ratio, later_ratio = (a/b for a, b in zip((first, later), least['by hand']))
        print(f'{name:18}{first:14.2f}{first_ratio:8.2f}{later:17.2f}{later_ratio:8.2f}')
    return any(a > b for a, b in zip(least['nntrain'], least['by hand']))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--mnist', help='folder with the parquet files of MNIST')
    parser.add_argument('--rounds', type=int, default=5, help='three epochs of every entry each')
    parser.add_argument('--against', default='', help=f'libraries, of {",".join(PEERS)}')
    parser.add_argument('--fast', action='store_true', help='leave out peers that decode images')
    parser.add_argument('--pictures', type=int, help='JPEGs to draw, instead of MNIST')
    args = parser.parse_args()
    if not args.mnist and not args.pictures: return print(
        'skipped: no data; give --mnist PATH or --pictures N')
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)  # lightning tells what it found, three times a round
    peers = {name: TRAIN[name] for name in installed(args.against.split(','))}
    if args.pictures: return int(from_pictures(args.pictures, args.rounds, peers))
    dd = read_mnist(args.mnist)
    start = time.perf_counter()  # other processes may help
    dls = DataLoaders.from_hf_dd(dd, BATCH)
    decode = time.perf_counter() - start
    n_bytes = sum(tensor.nbytes for tensor in dls.train.tensors)
    print(f'{dls}\ndecode: {decode:.2f} s for both splits, {n_bytes/1e6:.0f} MB for train')
    x, y = map(torch.cat, zip(*TensorLoader(*dls.train.tensors, batch_size=BATCH,
                                            transform=dls.train.transform)))
    usual = lambda: DataLoader(TensorDataset(x, y), BATCH, shuffle=True)
    stacked = lambda: TensorLoader(x, y, batch_size=BATCH, shuffle=True)
    images = lambda: DataLoader(dd['train'], BATCH, shuffle=True, collate_fn=hf_ds_collate_fn)
    limit = {'by hand': (by_hand, lambda: ByHand(x, y))}
    rows = {
        'from images': {**limit, 'nntrain': (nntrain, lambda: dls.train)},
        'from tensors': {**limit, 'nntrain': (nntrain, stacked),
                         **{name: (train, usual) for name, train in peers.items()}},
        'the same loader': {**limit, 'nntrain': (nntrain, stacked),
                            **{name: (train, stacked) for name, train in peers.items()}}}
    print(f'\n{"":18}{"":12}{"s/epoch":>9}{"ratio":>8}')
    slow = {name: (train, images) for name, train in peers.items()}
    failed = False
    for row, entries in rows.items():
        found = measure(entries, args.rounds)
        if row == 'from images' and peers and not args.fast:
            for name, (seconds, ratio) in measure({**limit, **slow}, 1).items():
                if name in peers: found[name] = seconds, ratio
        for i, (name, (seconds, ratio)) in enumerate(found.items()):
            print(f'{"" if i else row:18}{name:12}{seconds:9.3f}{ratio:8.2f}', flush=True)
        first = min(ratio for name, (_, ratio) in found.items() if name != 'by hand')
        failed |= found['nntrain'][1] > 1.03 * first
        failed |= row == 'from images' and found['nntrain'][1] > 1.1
    return int(failed)


if __name__ == '__main__': sys.exit(main())
