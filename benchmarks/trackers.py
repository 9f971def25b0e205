"""What the trackers cost: time spent in their methods, for each batch and for each pass.

    python benchmarks/trackers.py [--batches 100] [--passes 10]

A small network on the digits, with MetricsS and RecorderS, is trained with one tracker at a time;
every method of the tracker that an event calls is timed by itself, so that the noise of the
training does not count. `start and end` is what `before_fit` and `cleanup_fit` take, once a fit.
Nothing leaves the machine: W&B runs offline, MLflow writes into a SQLite file."""
import argparse
import logging
import os
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

os.environ.update(WANDB_MODE='offline', WANDB_SILENT='true', WANDB_ERROR_REPORTING='false',
                  MLFLOW_DISABLE_TELEMETRY='true', DO_NOT_TRACK='true')

import torch
import torch.nn.functional as F
from torch import nn

from nntrain.learner import Learner
from nntrain.metrics import MetricsS, accuracy
from nntrain.tracking.mlflow import MLflowS
from nntrain.tracking.recorder import RecorderS
from nntrain.tracking.tensorboard import TensorBoardS
from nntrain.tracking.loggers import CSVLoggerS, JSONLLoggerS, TrackerS
from nntrain.tracking.wandb import WandbS

EVENTS = ('before_fit', 'before_epoch', 'before_step', 'after_batch', 'after_epoch',
          'after_full_epoch', 'cleanup_fit')
CLOCKS = time.process_time, time.perf_counter  # all threads of this process; what is waited for


class QuietMetricsS(MetricsS):
    shows_rows = True


def timed(sub, seconds):
    "Have the time that the methods of `sub` take added to `seconds`, by event."
    def wrap(event, method):
        def measured(learn):
            starts = [clock() for clock in CLOCKS]
            method(learn)
            for i, clock in enumerate(CLOCKS): seconds[event, i] += clock() - starts[i]
        return measured
    for event in EVENTS:
        if hasattr(sub, event): setattr(sub, event, wrap(event, getattr(sub, event)))
    return sub


def measure(sub, n_batches, n_epochs):
    "CPU time and waiting per batch in microseconds, seconds of waiting at start and end."
    torch.manual_seed(0)
    batches = [(torch.randn(32, 64), torch.randint(10, (32,))) for _ in range(n_batches)]
    dls = SimpleNamespace(train=batches, valid=batches[:5])
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    seconds = defaultdict(float)
    subs = QuietMetricsS(accuracy), RecorderS(), timed(sub, seconds)
    Learner(model, dls, F.cross_entropy, torch.optim.SGD, 0.1, subs).fit(n_epochs)
    once = [seconds['before_fit', i] + seconds['cleanup_fit', i] for i in (0, 1)]
    rest = [sum(v for (_, clock), v in seconds.items() if clock == i) - once[i] for i in (0, 1)]
    return *(value/n_epochs/n_batches*1e6 for value in rest), once[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batches', type=int, default=100, help='training batches of a pass')
    parser.add_argument('--passes', type=int, default=10, help='epochs')
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger('alembic').setLevel(logging.ERROR)
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update({f'WANDB_{kind}_DIR': name for kind in ('DATA', 'CACHE', 'CONFIG')})
        makes = {
            'the base alone': TrackerS,
            'CSVLoggerS': lambda: CSVLoggerS(folder/'a.csv'),
            'JSONLLoggerS': lambda: JSONLLoggerS(folder/'a.jsonl'),
            'TensorBoardS': lambda: TensorBoardS(folder/'a'),
            'TensorBoardS, histograms': lambda: TensorBoardS(folder/'b', histograms=1),
            'WandbS, offline': lambda: WandbS('p', folder=folder/'c'),
            'WandbS, histograms': lambda: WandbS('p', folder=folder/'d', histograms=1),
            'MLflowS, SQLite': lambda: MLflowS(f'sqlite:///{folder}/m.db'),
        }
        measure(TrackerS(), options.batches, 1)  # what is imported at the first use
        print('| tracker | CPU, us per batch | waiting, us per batch | start and end, s |')
        print('|---|---|---|---|')
        for name, make in makes.items():
            cpu, waiting, once = measure(make(), options.batches, options.passes)
            print(f'| {name} | {cpu:.1f} | {waiting:.1f} | {once:.2f} |', flush=True)


if __name__ == '__main__': main()
