"""Kill ranks of real torchrun runs and compare what is trained in the end: `make test-faults`.

Each run trains 2 ranks for 3 epochs of 13 rounds on 101 samples, with dropout, shuffling, a
schedule, EMA and a checkpoint every 4 batches. One rank is killed by SIGKILL at a random round, at
a random event; torchrun starts both again. Weights, rows and steps must be those of the run that
nobody killed, to the last bit. At the end an exception on one rank, with no restarts left: torchrun
ends, with a code that is not 0 and the message."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parent.parent
N_KILLS = int(os.environ.get('NNTRAIN_RANK_KILLS', 10))
EVENTS = ['before_batch', 'after_predict', 'after_backward', 'after_step', 'after_batch']


def train(folder, rank, event, at, raises):
    "What each rank runs; `rank` kills itself, or raises, at `event` of round `at`, the first time."
    import torch
    from safetensors.torch import save_file
    from torch import nn
    from nntrain.training.weight_averaging import EMAS
    from nntrain.data.loaders import TensorLoader
    from nntrain.checkpoint.checkpoint import CheckpointS
    from nntrain.training.curves import one_cycle
    from nntrain.dataloaders import DataLoaders
    from nntrain.distributed.distributed import DistributedS
    from nntrain.training.gradients import GradientAccumulationS
    from nntrain.learner import Learner
    from nntrain.metrics import MetricsS, accuracy
    from nntrain.distributed.comm import end_ranks, my_place
    from nntrain.tracking.recorder import RecorderS
    from nntrain.training.schedule import ScheduleS
    torch.set_num_threads(1)
    torch.manual_seed(7)
    x = torch.randn(101, 6)
    y = (x.sum(1) > 0).long()
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 2))
    dls = DataLoaders(TensorLoader(x, y, batch_size=4, shuffle=True, seed=1),
                      TensorLoader(x[:21], y[:21], batch_size=4))
    recorder, here = RecorderS(), my_place().rank
    learn = Learner(model, dls, nn.functional.cross_entropy, torch.optim.Adam, 0.02, [
        DistributedS(timeout=60), MetricsS(accuracy), recorder, EMAS(0.9), GradientAccumulationS(2),
        ScheduleS(lr=one_cycle(0.05)), CheckpointS(Path(folder)/'run', every_steps=4, fsync=False)])

    def die(learn):
        first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'
        if first and here == rank and learn.training and 0 <= at <= learn.train_iter:
            if raises: raise RuntimeError(f'no data for rank {rank}')
            os.kill(os.getpid(), signal.SIGKILL)

    learn.on(event, die)
    learn.fit(3, resume=True)
    rows = torch.tensor([[row['loss'], row['accuracy']] for row in recorder.history.rows]).double()
    series = recorder.history.series('loss')
    found = dict(model.state_dict(), rows=rows, series=series, steps=torch.tensor(learn.n_steps))
    save_file(found, Path(folder)/f'rank-{here}.safetensors')
    end_ranks()


def torchrun(*words, restarts=3, seconds=300, n=2):
    "Run torchrun on this machine; returns exit code and what it printed."
    env = dict(os.environ, TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1', PYTHONPATH=str(ROOT),
               OMP_NUM_THREADS='1')
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', str(n),
               '--rdzv-backend', 'c10d', '--rdzv-endpoint', 'localhost:0',
               '--max-restarts', str(restarts), *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds)
    return done.returncode, done.stdout + done.stderr


def one_run(rank=-1, event='after_batch', at=-1):
    "Weights and rows of both ranks, exit code, and seconds."
    import torch
    from safetensors.torch import load_file
    begin = time.perf_counter()
    with TemporaryDirectory() as folder:
        code, said = torchrun(__file__, '--work', folder, rank, event, at)
        if code: return None, said, time.perf_counter() - begin
        both = [load_file(Path(folder)/f'rank-{i}.safetensors') for i in range(2)]
    for k, v in both[0].items():
        if not torch.equal(v, both[1][k]): return None, f'the ranks differ in {k}', 0
    return both[0], said, time.perf_counter() - begin


def fails(rank):
    "Exit code, what torchrun printed, and seconds, of a run in which `rank` raises."
    begin = time.perf_counter()
    with TemporaryDirectory() as folder:
        code, said = torchrun(__file__, '--work', folder, rank, 'after_batch', 5, 'raises',
                              restarts=0)
    return code, said, time.perf_counter() - begin


@pytest.fixture(scope='module')
def whole():
    "The run in which no rank is killed."
    found, said, _ = one_run()
    assert found is not None, said
    return found


@pytest.mark.faults
@pytest.mark.parametrize('i', range(N_KILLS))
def test_kill(whole, i, record_property):
    import torch
    draw = random.Random(i)
    rank, event, at = draw.randrange(2), draw.choice(EVENTS), draw.randrange(1, 38)
    found, said, _ = one_run(rank, event, at)
    assert found is not None, f'rank {rank} killed in {event} of round {at}: {said[-2000:]}'
    different = [name for name, value in whole.items() if not torch.equal(value, found[name])]
    assert not different, f'rank {rank} killed in {event} of round {at}: {different} differ'
    record_property('said', 'torchrun: 1 kill, 1 identical end')


@pytest.mark.faults
@pytest.mark.parametrize('rank', range(2))
def test_exception_on_one_rank_ends_torchrun(rank):
    code, said, _ = fails(rank)
    assert code != 0 and f'no data for rank {rank}' in said


if __name__ == '__main__':  # what torchrun starts
    folder, rank, event, at, *raises = sys.argv[2:]
    train(folder, int(rank), event, int(at), raises)
