"""MNIST from a cold start: seconds from the start of Python, and the share of test digits right.

    python benchmarks/mnist.py [DATA] [--epochs 5 8] [--seeds 0 1 2]

DATA is a folder with MNIST or a name on the Hugging Face hub. Each run is a process of its own that
imports, reads, decodes, trains and tests, with all cores of the machine. The page
nbs/examples/01_mnist.ipynb explains the functions."""
import argparse
import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from nntrain.data.images import read_dataset
from nntrain.data.transforms import BatchTransformS, Normalize
from nntrain.dataloaders import DataLoaders
from nntrain.learner import Learner
from nntrain.metrics import MetricsS, accuracy
from nntrain.training.precision import ChannelsLastS, MixedPrecisionS, fused

ROOT = Path(__file__).resolve().parent.parent
CODE = ("import sys; from mnist import train_mnist; data, epochs, seed = sys.argv[1:]; "
        "found = train_mnist(data, int(epochs), seed=int(seed)); print(found['accuracy'])")


def small_cnn(
    width:int=32,     # Channels of the first two layers; the next two have twice as many
    n_channels:int=1, # Of the images, whose sides must be even
    n_classes:int=10, # Of the labels
):                    # A model of `(n, n_channels, h, w)` that returns `(n, n_classes)`
    "Four convolutions on images folded to half their sides; about 70,000 parameters at width 32."
    def conv(n_in, n_out):
        return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),nn.BatchNorm2d(n_out),nn.ReLU()
    return nn.Sequential(
        nn.PixelUnshuffle(2), *conv(4*n_channels, width), *conv(width, width), nn.MaxPool2d(2),
        *conv(width, 2*width), *conv(2*width, 2*width), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(2*width, n_classes))


def squares(
    x, # Grey images as rows of numbers, `(n, side*side)`
):     # `(n, 1, side, side)`
    "Rows of pixels as square images of one channel."
    side = math.isqrt(x[0].numel())
    return x.unflatten(1, (1, side, side))


class RandomShift:
    "Move a batch of images, all by the same random number of pixels; zeros come in at the edge."
    def __init__(self,
        pixels:int=2, # The furthest, in each direction
    ): self.pixels = pixels
    def __call__(self, x):
        n = self.pixels
        down,right = torch.randint(0, 2*n+1, (2,)).tolist()
        return F.pad(x, (n,)*4)[...,down:down+x.shape[-2],right:right+x.shape[-1]]


def mnist_learner(
    dls,          # Loaders of images and labels
    width:int=32, # As for `small_cnn`
    pixels:int=2, # As for `RandomShift`
    subs=(),      # Further subscribers
):                # A `Learner`
    "The network, loss, optimizer and subscribers of this page."
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    opt = partial(fused(torch.optim.AdamW), weight_decay=0.02)
    return Learner(small_cnn(width), dls, loss_fn, opt, lr=0.01, subs=[
        BatchTransformS(squares), BatchTransformS(RandomShift(pixels), train_only=True),
        BatchTransformS(Normalize(0.1307, 0.3081)),  # mean and deviation of MNIST
        ChannelsLastS(), MixedPrecisionS('bf16'), MetricsS(accuracy), *subs])


def train_mnist(
    data:str='ylecun/mnist', # As for `read_dataset`: a name on the hub, a folder or a file
    epochs:int=8,            # 5 are enough for 99.3 %
    width:int=32,            # As for `small_cnn`
    pixels:int=2,            # As for `RandomShift`
    seed:int=0,              # Of weights, order and shifts
    batch_size:int=256,      # Of training; rates are chosen for this one
)->dict:                     # `accuracy` on the test set in [0, 1], `seconds`, the `learn`er
    "Load, train with one cycle, test."
    start = time.perf_counter()
    torch.manual_seed(seed)
    dls = DataLoaders.from_hf_dd(read_dataset(data), batch_size=batch_size)
    learn = mnist_learner(dls, width, pixels)
    learn.fit_one_cycle(epochs, 0.01, pct_start=0.25)
    return dict(accuracy=learn.row['accuracy'], seconds=time.perf_counter()-start, learn=learn)

def cold(data, epochs, seed):
    "Accuracy, and seconds of wall clock from before Python starts until it has ended."
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT/'benchmarks')]))
    env.pop('OMP_NUM_THREADS', None)  # all cores
    start = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', CODE, data, str(epochs), str(seed)], env=env,
                          capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return float(done.stdout.split()[-1]), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='?', default='ylecun/mnist')
    parser.add_argument('--epochs', type=int, nargs='+', default=[5, 8])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    print(f'{os.cpu_count()} cores\nepochs  seed  accuracy  seconds')
    for epochs in args.epochs:
        for seed in args.seeds:
            accuracy, seconds = cold(args.data, epochs, seed)
            print(f'{epochs:6}{seed:6}{accuracy:10.4f}{seconds:9.1f}', flush=True)


if __name__ == '__main__': main()
