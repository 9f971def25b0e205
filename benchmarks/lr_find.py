"""Are the suggestions of `learn.lr_find()` right? Twenty runs against the best of a grid of rates.

    NNTRAIN_MNIST=folder python benchmarks/lr_find.py

The digits, shapes, MNIST, regressions and a text; large and small batches, clean and noisy labels;
SGD, momentum and Adam. Each net is trained for three epochs with each suggestion and with rates
from 3e-5 to 10, two to a decade. A suggestion is right if its accuracy, or its squared error, is
within 5 % of the best of them, with the mean of two seeds. Without MNIST (the parquet files of
ylecun/mnist in a folder) its four runs use the digits. Takes about three minutes."""
import math
import os
import textwrap
from functools import partial
from glob import glob
from statistics import mean

import torch
from torch import nn
from torch.nn import functional as F

from nntrain.data.collate import hf_ds_collate_fn, load_digits
from nntrain.data.loaders import TensorLoader
from nntrain.dataloaders import DataLoaders
from nntrain.learner import Learner
from nntrain.lrfind import Suggestions

SEEDS = 0, 1
RATES = [10**(k/2) for k in range(-9, 3)]
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
MOMENTUM = partial(SGD, momentum=.9)


# --- data: (x, y) to train on, (x, y) to validate on ----------------------------------------------

def digits(flat=True):
    return [hf_ds_collate_fn(list(split), flatten=flat) for split in load_digits().values()]


def mnist(n=6000):
    files = sorted(glob(f"{os.environ.get('NNTRAIN_MNIST', '?')}/**/*train*.parquet",
                        recursive=True))
    if not files: return digits()
    from datasets import load_dataset
    rows = load_dataset('parquet', data_files=files, split='train').select(range(n+1500))
    x, y = hf_ds_collate_fn(list(rows))
    return (x[:n], y[:n]), (x[n:], y[n:])


def shapes(n=1500):
    "Discs, squares and diamonds on noise."
    draw = torch.Generator().manual_seed(5)
    x, y = torch.zeros(n+500, 1, 16, 16), torch.randint(3, (n+500,), generator=draw)
    rows, columns = torch.meshgrid(torch.arange(16.), torch.arange(16.), indexing='ij')
    for i, kind in enumerate(y.tolist()):
        row, column = torch.rand(2, generator=draw)*6 + 5
        size = torch.rand(1, generator=draw)*2 + 2.5
        down, right = (rows-row).abs(), (columns-column).abs()
        x[i, 0] = [(down**2 + right**2).sqrt() < size, torch.maximum(down, right) < size,
                   down + right < 1.3*size][kind]
    x += .1*torch.randn(x.shape, generator=draw)
    return (x[:n], y[:n]), (x[n:], y[n:])


def regression(noise, n=2000):
    draw = torch.Generator().manual_seed(6)
    x, w = torch.randn(n+500, 10, generator=draw), torch.randn(10, generator=draw)
    y = torch.sin(x@w) + .5*x[:, 0]*x[:, 1] + .3*x[:, 2]
    y = (y + noise*torch.randn(n+500, generator=draw))[:, None]
    return (x[:n], y[:n]), (x[n:], y[n:])


def text(n=3000, length=24):
    "The next letter in a page of Python."
    source = open(textwrap.__file__).read()
    source = (source*4)[:12*n + length + 1]
    letters = sorted({*source})
    places = torch.tensor([letters.index(letter) for letter in source])
    x = torch.stack([places[i:i+length] for i in range(0, 12*n, 12)])
    y = torch.stack([places[i+1:i+length+1] for i in range(0, 12*n, 12)])
    return (x[:-500], y[:-500]), (x[-500:], y[-500:])


def noisy(data, share=.3):
    (x, y), valid = data
    draw = torch.Generator().manual_seed(1)
    wrong, y = torch.rand(len(y), generator=draw) < share, y.clone()
    y[wrong] = torch.randint(int(y.max())+1, (int(wrong.sum()),), generator=draw)
    return (x, y), valid


# --- nets -----------------------------------------------------------------------------------------

def perceptron(n_in, n_out, n=50):
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, n), nn.ReLU(), nn.Linear(n, n_out))


def linear(n_in, n_out): return nn.Sequential(nn.Flatten(), nn.Linear(n_in, n_out))


def deep(n_in, n_out, n=64):
    layer = lambda a: [nn.Linear(a, n), nn.BatchNorm1d(n), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layer(n_in), *layer(n), nn.Linear(n, n_out))


def conv(n_out):
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten(), nn.Linear(64, n_out))


class Letters(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.embed, self.out = nn.Embedding(n, 32), nn.Linear(64, n)
        self.layer = nn.GRU(32, 64, batch_first=True)
    def forward(self, x): return self.out(self.layer(self.embed(x))[0]).transpose(1, 2)


def runs():
    "Name -> data, function that makes a net, optimizer, batch size."
    d, pictures, m, s, r, t = digits(), digits(False), mnist(), shapes(), regression(.1), text()
    n = m[0][0].flatten(1).shape[1]
    small, large = partial(perceptron, 64, 10), partial(perceptron, n, 10)
    fit = partial(perceptron, 10, 1, 64)
    return {
        'digits, perceptron, SGD, 64': (d, small, SGD, 64),
        'digits, perceptron, SGD, 8': (d, small, SGD, 8),
        'digits, perceptron, momentum, 256': (d, small, MOMENTUM, 256),
        'digits, perceptron, Adam, 16': (d, small, ADAM, 16),
        'digits, conv, Adam, 64': (pictures, partial(conv, 10), ADAM, 64),
        'digits, conv, momentum, 32': (pictures, partial(conv, 10), MOMENTUM, 32),
        'digits, linear, SGD, 32': (d, partial(linear, 64, 10), SGD, 32),
        'digits, batch norm, Adam, 64': (d, partial(deep, 64, 10), ADAM, 64),
        'noisy digits, perceptron, SGD, 16': (noisy(d), small, SGD, 16),
        'noisy digits, batch norm, Adam, 128': (noisy(d), partial(deep, 64, 10), ADAM, 128),
        'MNIST, perceptron, SGD, 64': (m, large, SGD, 64),
        'MNIST, perceptron, momentum, 512': (m, large, MOMENTUM, 512),
        'MNIST, perceptron, Adam, 128': (m, large, ADAM, 128),
        'noisy MNIST, perceptron, Adam, 32': (noisy(m), large, ADAM, 32),
        'shapes, conv, Adam, 64': (s, partial(conv, 3), ADAM, 64),
        'shapes, conv, momentum, 16': (s, partial(conv, 3), MOMENTUM, 16),
        'regression, perceptron, Adam, 32': (r, fit, ADAM, 32),
        'regression, perceptron, SGD, 64': (r, fit, SGD, 64),
        'noisy regression, momentum, 128': (regression(.8), fit, MOMENTUM, 128),
        'text, GRU, Adam, 32': (t, partial(Letters, int(t[0][0].max())+1), ADAM, 32)}


def learner(run, seed):
    (train, _), make, opt, size = run
    torch.manual_seed(seed)
    loss_fn = F.mse_loss if train[1].is_floating_point() else F.cross_entropy
    loader = TensorLoader(*train, batch_size=size, shuffle=True, seed=seed)
    return Learner(make(), DataLoaders(loader, None), loss_fn, opt)


def badness(run, lr, seed):
    "Of three epochs: the squared error, or minus the accuracy."
    learn, (x, y) = learner(run, seed), run[0][1]
    learn.fit(3, lr=lr)
    with torch.no_grad(): preds = learn.model.eval()(x)
    if y.is_floating_point(): bad = F.mse_loss(preds, y).item()
    else: bad = -(preds.argmax(1) == y).float().mean().item()
    return bad if math.isfinite(bad) else 1e9


def main():
    right = dict.fromkeys(Suggestions._fields, 0)
    print(f"{'run':36} {'best of grid':>18}", *(f'{name:>22}' for name in right))
    table = runs()
    for name, run in table.items():
        scored = lambda lr: mean(badness(run, lr, seed) for seed in SEEDS)
        best, at = min((scored(lr), lr) for lr in RATES)
        line = f'{name:36} {abs(best):8.3f} at {at:6.0e}'
        try: found = learner(run, SEEDS[0]).lr_find().suggestions._asdict()
        except ValueError as error: found, line = {}, line + f'   none: {str(error)[:50]}...'
        for kind, lr in found.items():
            bad = scored(lr)
            good = bad <= best + .05*abs(best)
            right[kind] += good
            line += f'{abs(bad):9.3f} at {lr:7.1e} {"ok" if good else "- "}'
        print(line, flush=True)
    print('within 5 % of the best: ' + ', '.join(
        f'{kind} {n} of {len(table)}' for kind, n in right.items()))


if __name__ == '__main__': main()
