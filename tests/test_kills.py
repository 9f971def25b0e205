"""Random SIGKILLs over kinds of runs: `make test-faults`.

`NNTRAIN_KILLS=1000 python -m pytest -m faults tests/test_kills.py` kills a thousand times and
prints the count at its end. Two ranks are two copies of this process here, which is fast; those
that torchrun starts are killed in test_ranks.py."""
import multiprocessing
import os
import random
import shutil
import socket
import warnings
from contextlib import nullcontext
from importlib import import_module
from multiprocessing.connection import wait

import pytest
import torch
from safetensors.torch import load_file

import test_ranks

from test_faults import Keyed, in_background, learner

from nntrain.checkpoint.verify import check_resume
from nntrain.training.gradients import GradientAccumulationS
from nntrain.training.weight_averaging import EMAS

N_KILLS = int(os.environ.get('NNTRAIN_KILLS', 100))
KINDS = dict(plain=learner, accumulation=lambda: learner(GradientAccumulationS(3)),
             averages=lambda: learner(EMAS(0.9)), background=learner,
             workers=lambda: learner(dataset=Keyed, num_workers=1))
# Event, and how often it comes in a run of two epochs of six batches.
EVENTS = dict(before_batch=14, after_predict=14, after_loss=14, after_backward=12, after_batch=14,
              after_epoch=4, cleanup_batch=14, before_validate=2, rename=6, fsync=12)


N_EACH = -(-N_KILLS//(len(KINDS) + 1))  # two ranks are a kind too


@pytest.mark.faults
@pytest.mark.parametrize('kind', KINDS)
def test_random_kills(kind, record_property):
    draw, n = random.Random(kind), N_EACH
    at = [(event, draw.randint(1, EVENTS[event])) for event in draw.choices([*EVENTS], k=n)]
    with in_background() if kind == 'background' else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        rows = check_resume(KINDS[kind], at=at)
    assert len(rows) == n
    record_property('said', f'{kind}: {n} kills, {n} identical ends')


def one_rank(place, port, again, folder, *moment):
    log = open(folder/f'{place}-{again}.log', 'w', 1)
    for handle in (1, 2): os.dup2(log.fileno(), handle)
    os.environ.update(RANK=str(place), LOCAL_RANK=str(place), WORLD_SIZE='2', MASTER_PORT=str(port),
                      MASTER_ADDR='127.0.0.1', TORCHELASTIC_RESTART_COUNT=str(again))
    test_ranks.train(folder, *moment, False)


def two_ranks(folder, again=0, rank=-1, event='after_batch', at=-1):
    "Train on two ranks, as torchrun starts them: one that fails ends both. The exit codes."
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context('fork')
    both = [fork.Process(target=one_rank, args=(place, port, again, folder, rank, event, at))
            for place in range(2)]
    for process in both: process.start()
    while running := [process.sentinel for process in both if process.exitcode is None]:
        wait(running, 120)
        if any(process.exitcode for process in both):
            for process in both: process.kill()
    for process in both: process.join()
    return [process.exitcode for process in both]


@pytest.mark.faults
def test_random_kills_of_two_ranks(tmp_path, record_property):
    import_module('torch._dynamo')  # once, and not in every copy
    def ends(folder): return [load_file(folder/f'rank-{place}.safetensors') for place in range(2)]
    draw, n = random.Random(0), 0
    assert two_ranks(tmp_path/'whole') == [0, 0]
    whole = ends(tmp_path/'whole')
    for i in range(N_EACH):
        moment = draw.randrange(2), draw.choice(test_ranks.EVENTS), draw.randrange(1, 38)
        assert two_ranks(tmp_path/'run', 0, *moment)[moment[0]] == -9, moment
        assert two_ranks(tmp_path/'run', 1) == [0, 0], moment
        for mine, before in zip(ends(tmp_path/'run'), whole):
            different = [name for name in before if not torch.equal(mine[name], before[name])]
            assert not different, f'{moment}: {different} differ'
        shutil.rmtree(tmp_path/'run')
        n += 1
    record_property('said', f'two ranks: {n} kills, {n} identical ends')
