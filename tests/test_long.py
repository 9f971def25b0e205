"""What only shows after a while: two learners in two threads, 200 fits, 20,000 batches with every
subscriber. `make test-faults` runs the long ones."""
import gc
import os
import threading
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from test_faults import learner, same, trained

from nntrain.all import *
from nntrain.checkpoint.folder import checkpoints
from nntrain.inspect.timing import TimingS


def open_files():
    gc.collect()
    return sorted(filter(None, map(where, os.listdir('/proc/self/fd'))))


def where(number):
    try: return os.readlink(f'/proc/self/fd/{number}')
    except OSError: return None  # of the listing itself


def threads(): return sorted(thread.name for thread in threading.enumerate())


def resident():
    "Kilobytes in memory now."
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')//1024


# Threads share the generators of Python, NumPy and torch, so these learners draw nothing from them.

def drawn_nowhere(seed, subs=()):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 6, generator=generator)
    dls = DataLoaders(TensorLoader(x, (x.sum(1) > 0).long(), batch_size=8, shuffle=True, seed=seed),
                      TensorLoader(x, (x.sum(1) > 0).long(), batch_size=16))
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    for parameter in model.parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator) - .5
    return Learner(model, dls, F.cross_entropy, torch.optim.Adam, 0.01, [
        MetricsS(accuracy), RecorderS(), EMAS(0.9), GradientClipS(1.), GradientAccumulationS(2),
        ScheduleS(lr=linear(1., 0.1)), *subs])


def test_two_threads_give_what_each_gives_alone(tmp_path):
    def run(seed, place, found):
        learn = drawn_nowhere(seed)
        learn.fit(12, subs=CheckpointS(tmp_path/place/str(seed), every_steps=5, fsync=False))
        found[seed] = learn.state_dict(), [dict(row, seconds=0) for row in learn.history.rows]
    alone, together = {}, {}
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for seed in (1, 2): run(seed, 'alone', alone)
        work = [threading.Thread(target=run, args=[seed, 'together', together]) for seed in (1, 2)]
        for thread in work: thread.start()
        for thread in work: thread.join()
    for seed in (1, 2):
        for kind in ('objects', 'subs', 'loaders', 'clocks'):
            same(alone[seed][0][kind], together[seed][0][kind])
        same(alone[seed][1], together[seed][1])


def fits(folder, n):
    for i in range(n): trained(folder/str(i), n=1, learn=learner(num_workers=i % 2), fsync=False)


@pytest.mark.parametrize('n', [10, pytest.param(200, marks=pytest.mark.faults)])
def test_fits_leave_no_descriptor_and_no_thread(n, tmp_path, record_property):
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fits(tmp_path/'first', 2)
        before = open_files(), threads()
        fits(tmp_path/'more', n)
        after = open_files(), threads()
    assert checkpoints(tmp_path/'more'/f'{n-1}')
    assert after == before
    record_property('said', f'{n} fits: {len(after[0])} descriptors and {len(after[1])} threads, '
                    'as before')


@pytest.mark.faults
def test_200_fits_in_two_threads_leave_nothing(tmp_path):
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fits(tmp_path/'first', 2)
        before = len(open_files()), threads()
        work = [threading.Thread(target=fits, args=[tmp_path/name, 100]) for name in 'ab']
        for thread in work: thread.start()
        for thread in work: thread.join()
    assert all(checkpoints(tmp_path/name/'99') for name in 'ab')
    assert (len(open_files()), threads()) == before


class EveryBatch:
    "A loader of many small batches."
    def __init__(self, n):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        self.n, self.batch = n, (x, torch.arange(4) % 2)
    def __len__(self): return self.n
    def __iter__(self): return (self.batch for _ in range(self.n))


def every_subscriber(folder):
    "Those that go together in one fit on the CPU."
    more = [TensorBoardS(folder/'events', histograms=5)] if find_spec('tensorboard') else []
    return [DeviceS('cpu'), MetricsS(accuracy), SmoothLossS(), RecorderS(), ProgressS(), TimingS(),
            EMAS(0.99), GradientClipS(1.), ScheduleS(lr=linear(1., 0.1)), StopOnNaNS(),
            ActivationStatsS(), GradientStatsS(), StopAfterS(seconds=36000), KeepBestS(),
            EarlyStoppingS(patience=99), CSVLoggerS(folder/'rows.csv'),
            JSONLLoggerS(folder/'rows.jsonl'),
            CheckpointS(folder/'run', every_steps=250, fsync=False), *more]


@pytest.mark.faults
def test_memory_is_flat_over_20000_batches(tmp_path, record_property):
    found = {}
    def note(learn):
        if learn.training and learn.train_iter % 5000 == 0: found[learn.train_iter] = resident()
    learn = Learner(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
                    DataLoaders(EveryBatch(500), EveryBatch(5)), F.cross_entropy,
                    torch.optim.Adam, 1e-4)
    learn.on('after_batch', note)
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit(40, subs=every_subscriber(tmp_path))
    grown = found[20000] - found[5000]
    n = len(every_subscriber(tmp_path/'x'))
    record_property('said', f'20,000 batches with {n} subscribers: '
        f'{found[5000]/1024:.1f} MB after 5,000, {found[20000]/1024:.1f} MB after 20,000')
    assert grown < 30*1024, found
