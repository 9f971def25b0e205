"""Break checkpoints in every way we know of: `make test-faults`, or `pytest -m faults -k A1`.

Kills are SIGKILLs of child processes. The letters and numbers are those of the list of checks that
the project is held to: A kill and resume, B atomic writes, C contents, D data, E stops,
F bad input, G numbers, H files."""
import gc
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import nntrain.checkpoint.format
import nntrain.checkpoint.verify
from nntrain.data.loaders import FetchLoader
from nntrain.checkpoint.checkpoint import CheckpointS
from nntrain.dataloaders import TensorLoader
from nntrain.checkpoint.format import CheckpointError, read_checkpoint, read_manifest, write_checkpoint
from nntrain.checkpoint.folder import FolderLock, checkpoints, resume
from nntrain.training.nans import StopOnNaNS
from nntrain.inspect.hooks import ActivationStatsS
from nntrain.learner import Learner
from nntrain.metrics import MetricsS
from nntrain.checkpoint.format import difference
from nntrain.training.precision import MixedPrecisionS
from nntrain.progress import ProgressS
from nntrain.checkpoint.verify import check_resume, in_child
from nntrain.pubsub import (DECIDE, CancelBatchException, CancelEpochException, CancelException,
                            CancelFitException, Subscriber)
from nntrain.tracking.recorder import RecorderS
from nntrain.training.schedule import TorchScheduleS
from nntrain.state import copied, get_generators
from nntrain.data.transforms import KeyedDataset

X, Y = torch.randn(44, 6, generator=torch.Generator().manual_seed(0)), torch.arange(44) % 3
CHECKS = {}


def check(name, title):
    def add(function):
        CHECKS[name] = title, function
        return function
    return add


class Noisy(Dataset):
    def __len__(self): return 44
    def __getitem__(self, i):
        return X[i] + 0.1*torch.randn(6)*np.random.rand()*random.random(), Y[i]


class Keyed(Noisy):
    "Noise that depends on the sample alone, whichever worker draws it."
    def __getitem__(self, i):
        return X[i] + 0.1*torch.randn(6, generator=torch.Generator().manual_seed(i)), Y[i]


def learner(*subs, train=None, seed=None, dataset=Noisy, cls=Learner, schedule=True, **kwargs):
    if seed is not None: seed_all(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    train = train or DataLoader(dataset(), 8, shuffle=True, **kwargs)
    one_cycle = TorchScheduleS(lambda opt: torch.optim.lr_scheduler.OneCycleLR(
        opt, 0.1, total_steps=99))
    return cls(model, SimpleNamespace(train=train, valid=[(X, Y)]), F.cross_entropy,
               torch.optim.Adam, 0.01, [*[one_cycle]*schedule, MetricsS(), RecorderS(), *subs])


def seed_all(n):
    for seed in (random.seed, np.random.seed, torch.manual_seed): seed(n)


def fails(error, text, act):
    try: act()
    except error as found:
        said = ' '.join([str(found), *getattr(found, '__notes__', ())])
        assert text in said, f'{said!r} lacks {text!r}'
        return found
    raise AssertionError(f'no {error.__name__} with {text!r}')


def quiet(act):
    "Warnings of `act`, and what it returned."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        result = act()
    return [str(w.message) for w in caught], result


def trained(folder, n=2, seed=1, every_steps=3, goes_on=True, subs=(), learn=None, **kwargs):
    "A learner after a fit, and its state just then."
    learn = learn or learner(*subs, seed=seed)
    learn.fit(n, subs=CheckpointS(folder, every_steps, **kwargs), resume=goes_on or None)
    return learn.state_dict()


def same(a, b): assert not (wrong := difference(a, b, skip=('seconds',))), wrong


# --- A: kill and resume ---------------------------------------------------------------------------

@check('A1', 'killed at every kind of event, 3 random steps each')
def every_event(folder):
    draw, at = random.Random(0), []
    counts = dict(fit=1, full_epoch=2, epoch=4, train=2, validate=2, batch=14, predict=14, loss=14,
                  backward=12, step=12)
    for phase, most in counts.items():
        for kind in ('before', 'after', 'cleanup'):
            at += [(f'{kind}_{phase}', n) for n in {draw.randint(1, most) for _ in range(3)}]
    return f'{len(check_resume(learner, at=at))} kills'


@check('A2', 'killed inside the write: half of each file, before fsync, rename, retention')
def inside_the_write(folder):
    arm, write, remove = nntrain.checkpoint.verify._arm, nntrain.checkpoint.format.write_file, shutil.rmtree
    def half(n, *suffix):
        calls = iter(range(1, 10**6))
        def wrote(path, data, fsync):
            if not str(path).endswith(suffix) or next(calls) != n: return write(path, data, fsync)
            data = b''.join(data) if isinstance(data, list) else data
            write(path, data[:len(data)//2], fsync)
            os.kill(os.getpid(), 9)
        nntrain.checkpoint.format.write_file = wrote
    def deletes(n):
        calls = iter(range(1, 10**6))
        def removed(path, *args, **kwargs):
            if '.trash-' in str(path) and Path(path).exists() and next(calls) == n:
                next(Path(path).iterdir()).unlink()
                os.kill(os.getpid(), 9)
            return remove(path, *args, **kwargs)
        shutil.rmtree = removed
    def armed(learn, event, n):
        if event in ('.safetensors', 'state.json', 'MANIFEST.json'): half(n, event)
        elif event == 'rmtree': deletes(n)
        else: arm(learn, event, n)
    kinds = {'.safetensors': 4, 'state.json': 4, 'MANIFEST.json': 4, 'fsync': 17, 'rename': 6,
             'rmtree': 2}
    at = [(kind, n) for kind, most in kinds.items() for n in range(1, most, 2)]
    with patch('nntrain.checkpoint.verify._arm', armed): rows = check_resume(learner, at=at)
    trained(folder/'a')
    assert not [p for p in (folder/'a').iterdir() if p.name.startswith(('.tmp', '.trash'))]
    return f'{len(rows)} kills'


def in_background():
    return patch('nntrain.checkpoint.verify.CheckpointS',
                 lambda *args, **kwargs: CheckpointS(*args, **{**kwargs, 'background': True}))


@check('A2b', 'the same while the training goes on: killed in the write, and anywhere')
def inside_the_background(folder):
    at = [(kind, n) for kind in ('fsync', 'rename') for n in (1, 2, 4, 6)]
    at += [(f'after_{phase}', n) for phase in ('batch', 'step', 'backward') for n in (4, 7, 10)]
    with in_background(): rows = check_resume(learner, at=at + [('cleanup_fit', 1)])
    with in_background():
        check_resume(lambda: learner(num_workers=2), at=[('after_step', 9)], every_steps=1)
        check_resume(learner, epochs=4, at=[('after_backward', 3)], times=10, every_steps=1)
    return f'{len(rows)} kills'


@check('A3', 'killed in validation and exactly at the end of an epoch')
def at_the_end(folder):
    at = [('before_validate', 1), ('after_validate', 2), ('after_epoch', 1), ('after_epoch', 2),
          ('before_epoch', 3), ('cleanup_epoch', 2), ('after_full_epoch', 1)]
    return f'{len(check_resume(learner, at=at))} kills'


@check('A4', 'killed twice, and ten times, in one run')
def again_and_again(folder):
    check_resume(learner, at=[('after_loss', 4)], times=2)
    check_resume(learner, epochs=4, at=[('after_backward', 3)], times=10)


@check('A5', 'gradient accumulation: 3 batches to a step, killed between')
def accumulation(folder):
    from nntrain.training.gradients import GradientAccumulationS
    at = [('after_batch', n) for n in (3, 4, 5)]
    check_resume(lambda: learner(GradientAccumulationS(3)), at=at)


@check('A5b', 'bf16')
def bf16(folder):
    from nntrain.training.precision import MixedPrecisionS
    at = [('after_batch', 5), ('after_step', 8)]
    check_resume(lambda: learner(MixedPrecisionS('bf16')), at=at)


@check('A5c', 'a run that a subscriber ended early')
def ended_early(folder):
    class StopS(Subscriber):
        order = DECIDE
        def after_full_epoch(self, learn):
            if learn.epoch == 1: raise CancelFitException
    check_resume(lambda: learner(StopS()), epochs=5, at=[
        ('after_batch', 9), ('after_full_epoch', 2), ('cleanup_full_epoch', 2), ('rename', 8)])


@check('A5d', 'EMA, mixup, a plateau, early stopping')
def techniques(folder):
    from nntrain.training.weight_averaging import EMAS
    from nntrain.data.mixup import MixUpS
    from nntrain.training.early_stopping import EarlyStoppingS, ReduceLROnPlateauS
    def make(): return learner(EMAS(0.9), MixUpS(), ReduceLROnPlateauS(patience=1),
                               EarlyStoppingS(patience=2), schedule=False)
    at = [('after_batch', 9), ('before_validate', 2), ('after_full_epoch', 3), ('after_step', 15)]
    return f'{len(check_resume(make, epochs=6, at=at))} kills'


class Forgetful(Learner):
    part = None
    def do_fit(self):
        state = self.resuming
        if state:
            fresh = self.state_dict()
            if self.part == 'opt': state['objects']['opt']['state'] = {}  # Adam's two averages
            else:
                for kind in ('objects', 'subs', 'generators'):
                    if state[kind].pop(self.part, None) is None: continue
                    mine = fresh[kind].get(self.part)  # a schedule is made later
                    if mine is not None: state[kind][self.part] = mine
            if self.part == 'clocks': state[self.part] = fresh[self.part]
            if self.part == 'pass_generators': state[self.part] = fresh['generators']
            if self.part in state['loaders'].get('train', ()):
                state['loaders']['train'][self.part] = fresh['loaders']['train'][self.part]
        return super().do_fit()


@check('A6', 'negative controls: one part of the state left out, the comparison fails')
def left_out(folder):
    parts = ('model opt TorchScheduleS MetricsS RecorderS clocks pass_generators python numpy '
             'torch').split()
    loader = ['seed', 'epoch', 'position']  # of a TensorLoader: which rows come next
    half = ['scaler', 'MixedPrecisionS']
    for part in parts + loader + half + [None]:
        def make():
            train = TensorLoader(X, Y, batch_size=8, shuffle=True) if part in loader else None
            # overflows in the first steps; what the scaler has learned from them is its state
            subs = [MixedPrecisionS('fp16', init_scale=2.**24)] if part in half else ()
            learn = learner(*subs, cls=Forgetful, train=train)
            learn.part = part
            return learn
        # the whole state: no difference; without a part: one
        if part is None: check_resume(make, at=[('after_backward', 9)])
        else:
            try: check_resume(make, at=[('after_backward', 9)])
            except RuntimeError as error: assert 'continued from step-' in str(error), error
            else: raise AssertionError(f'left out {part}: no difference')
    return f'{len(parts + loader + half)} parts'


@check('A7', 'resume of a finished run trains nothing; more epochs go on, with a warning')
def finished(folder):
    a = trained(folder)
    with redirect_stdout(StringIO()) as told:
        same(a['objects'], trained(folder, seed=2)['objects'])
    assert 'already complete: 2 of 2 epochs' in told.getvalue()
    said, more = quiet(lambda: trained(folder, n=3, seed=3))
    assert more['clocks']['n_steps'] == 18 and 'is of a fit of 2 epochs' in said[0], said


@check('A8', 'SIGTERM: batch finished, saved, exit 143; twice; not in other threads')
def sigterm(folder):
    whole = trained(folder/'whole')
    def work():
        learn = learner(seed=1)
        learn.on('after_loss', lambda learn: learn.train_iter == 7 and [
            os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
        try: learn.fit(2, subs=CheckpointS(folder/'a', 3))
        except SystemExit as error: os._exit(error.code)
    assert (code := in_child(work, folder/'log')) == 143, code
    assert checkpoints(folder/'a')[-1].name == 'step-00000008'
    same(whole, trained(folder/'a', seed=5))
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=trained, args=[folder/'b'])
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before and checkpoints(folder/'b')


# --- B: atomic writes and retention ---------------------------------------------------------------

@check('B9', 'files and folder are synced before the rename, the run folder after it')
def order(folder):
    calls, real = [], {name: getattr(os, name) for name in ('fsync', 'rename')}
    def noted(name): return lambda *args: (calls.append(name), real[name](*args))
    with patch('os.fsync', noted('fsync')), patch('os.rename', noted('rename')):
        write_checkpoint(folder/'step-00000001', {})
    assert calls == ['fsync']*4 + ['rename', 'fsync'], calls


def limited(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@check('B10', 'keep=k leaves k and the best; keep=1 leaves the old one if writing fails')
def retention(folder):
    values = iter([0.5, 0.2, 0.9, 0.8, 0.7])
    def value(learn):
        if not learn.training: learn.row['error'] = next(values)
    learn = learner(seed=1)
    learn.on('after_epoch', value)
    trained(folder/'a', n=5, learn=learn, every_steps=6, keep=2, best='error')
    assert [p.name for p in checkpoints(folder/'a')] == ['step-00000012-end', 'step-00000030',
                                                        'step-00000030-end']
    def work():
        learn = learner(seed=1)
        learn.on('after_batch', lambda learn: learn.train_iter == 5 and limited(2000))
        fails(OSError, 'File too large', lambda: learn.fit(2, subs=CheckpointS(
            folder/'b', 3, keep=1, background=False)))
        Path(folder/'ok').touch()
    in_child(work, folder/'log')
    assert (folder/'ok').exists(), (folder/'log').read_text()[-800:]
    assert [p.name for p in checkpoints(folder/'b')] == ['step-00000003']
    read_checkpoint(folder/'b'/'step-00000003')


@check('B11', 'a checkpoint that is half deleted, or half written, is no candidate')
def half_deleted(folder):
    whole = trained(folder/'whole')
    trained(folder/'a', n=1, keep=9)
    for name, was in (('.trash-', checkpoints(folder/'a')[-1]), ('.tmp-', None)):
        was = was or checkpoints(folder/'a')[-1]
        (was/'state.json').unlink()
        was.rename(was.with_name(name + was.name))
    assert [p.name for p in checkpoints(folder/'a')] == ['step-00000003']
    said, state = quiet(lambda: trained(folder/'a', seed=2))
    same(whole, state)
    assert not [p for p in (folder/'a').iterdir() if p.name.startswith(('.trash', '.tmp'))], said


@check('B12', 'newest truncated, a bit flipped, a file missing: named, or passed over')
def damaged(folder):
    whole = trained(folder/'a', keep=9)
    names, n = ('tensors.safetensors', 'state.json', 'MANIFEST.json'), 0
    for name in names:
        for change in ('cut', 'flip', 'missing'):
            shutil.copytree(folder/'a', folder/'b')
            target = checkpoints(folder/'b')[-1]
            data = bytearray((target/name).read_bytes())
            data[len(data)//2] ^= 1
            if change == 'missing': (target/name).unlink()
            else: (target/name).write_bytes(data if change == 'flip' else data[:-1])
            fails(CheckpointError, name, lambda: read_checkpoint(target))
            said, state = quiet(lambda: trained(folder/'b', seed=6))
            assert 'falling back' in said[0] and name in said[0], said
            same(whole, state)
            shutil.rmtree(folder/'b')
            n += 1
    for path in checkpoints(folder/'a'): (path/'state.json').unlink()
    quiet(lambda: fails(CheckpointError, 'none of its', lambda: trained(folder/'a')))
    return f'{n} kinds of damage'


@check('B13', 'disk full: both numbers, nothing left under a real name, usable afterwards')
def disk_full(folder):
    whole = trained(folder/'whole')
    def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    def work():
        for background in (False, True):
            for path, n in ((folder/f'a{background}', 0), (folder/f'b{background}', 1)):
                if n: trained(path, n=1, keep=9)  # two good ones
                before, learn = len(checkpoints(path)) if n else 0, learner(seed=1)
                limit(2000)
                said = str(fails(OSError, 'bytes, ', lambda: quiet(lambda: trained(
                    path, learn=learn, background=background))))
                assert 'File too large: this checkpoint needs' in said and 'were free' in said
                assert str(path/'step-') in said, said
                assert len(checkpoints(path)) == before and not [*path.glob('.tmp*')]
                for good in checkpoints(path): read_checkpoint(good)
                limit(resource.RLIM_INFINITY)  # there is room again
                state = quiet(lambda: trained(path, learn=learn))[1]
                if n: same(whole, state)
            limit(2000)
            said, _ = quiet(lambda: trained(folder/f'c{background}', on_save_error='warn',
                                            background=background))
            assert 'training goes on without a checkpoint' in said[0]
            limit(resource.RLIM_INFINITY)
        (folder/'ok').write_bytes(b'')
    in_child(work, folder/'log')
    assert (folder/'ok').exists(), (folder/'log').read_text()[-800:]


@check('B14', 'read-only folder, folder is a file: told before the first batch')
def not_writable(folder):
    (folder/'file').touch()
    (folder/'ro').mkdir(mode=0o555)
    def work():
        if os.getuid() == 0: os.setuid(65534)
        for name in ('file', 'ro', 'ro/new'):
            learn = learner(seed=1)
            fails(OSError, 'cannot write into its folder',
                  lambda: learn.fit(1, subs=CheckpointS(folder/name)))
            assert learn.train_iter == 0
        os._exit(17)
    folder.chmod(0o755)
    assert (code := in_child(work, folder/'log')) == 17, (folder/'log').read_text()[-800:] or code


@check('B15', 'two runs, one folder: refused with pid and host; free after SIGKILL')
def two_runs(folder):
    reader, writer = os.pipe()
    (folder/'a').mkdir()
    pid = os.fork()
    if not pid:
        lock = FolderLock(folder/'a').__enter__()  # a name: without one it would be freed
        assert lock
        os.write(writer, b'x')
        time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    fails(RuntimeError, f'is in use by pid {pid} on host', lambda: trained(folder/'a'))
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    trained(folder/'a')


# --- C: contents ----------------------------------------------------------------------------------

@check('C16', 'the manifest lists what is in it')
def inventory(folder):
    trained(folder)
    contents = read_manifest(checkpoints(folder)[-1])['info']['contents']
    assert {'model', 'opt'} <= {*contents['objects']}, contents
    assert {'RecorderS', 'TorchScheduleS'} <= {*contents['subs']}, contents
    assert {'python', 'numpy', 'torch'} <= {*contents['generators']}
    trained(folder/'b', learn=learner(train=TensorLoader(X, Y, batch_size=8), seed=1))
    manifest = read_manifest(checkpoints(folder/'b')[-1])
    assert manifest['info']['contents']['loaders'] == ['train'] and manifest['versions']['torch']
    half = learner(MixedPrecisionS('fp16'), train=TensorLoader(X, Y, batch_size=8), seed=1)
    trained(folder/'c', learn=half)
    contents = read_manifest(checkpoints(folder/'c')[-1])['info']['contents']
    assert {'model', 'opt', 'scaler'} <= {*contents['objects']}, contents
    state, n = resume(folder/'c'), 0
    for kind in ('objects', 'loaders', 'subs', 'layout'):  # each part alone, in and out
        for name in state[kind]:
            kept = {**state, kind: {k: v for k, v in state[kind].items() if k != name}}
            more = {**state, kind: {**state[kind], f'{name}2': state[kind][name]}}
            if kind in ('objects', 'loaders'):
                fails(ValueError, f"the state lacks the {kind} ['{name}'] of this",
                      lambda: half.load_state_dict(kept))
            if kind != 'layout':
                fails(ValueError, f"['{name}2']", lambda: half.load_state_dict(more))
            n += 1
    for name in state['subs']:
        if not isinstance(state['subs'][name], dict): continue
        wrong = {**state, 'subs': {**state['subs'], name: {'x': 1}}}
        fails((ValueError, KeyError), '', lambda: half.load_state_dict(wrong))
    half.load_state_dict(state)
    same({**state, 'path': 0, 'run': 0}, {**half.state_dict(), 'path': 0, 'run': 0})
    return f'{n} parts'


class CountS(Subscriber):
    state_names = 'n',
    def __init__(self, by): self.by, self.n = by, 0
    def before_fit(self, learn): self.n = 0
    def after_batch(self, learn): self.n += self.by


@check('C17', 'two of a class by name; one missing is an error, a new one a warning')
def stateful_subscribers(folder):
    one, two = CountS(1), CountS(100)
    trained(folder, subs=(one, two))
    again = CountS(1), CountS(100)
    trained(folder, subs=again)
    assert [c.n for c in again] == [one.n, two.n] == [14, 1400]
    fails(ValueError, "['CountS#2'], which this learner lacks",
          lambda: trained(folder, subs=[CountS(1)]))
    said, _ = quiet(lambda: trained(folder, subs=[CountS(1), CountS(1), CountS(1)]))
    assert any("['CountS#3']: they start afresh" in text for text in said), said
    class OtherS(Subscriber): pass
    again = CountS(1), CountS(100)
    trained(folder, subs=(OtherS(), *again, OtherS()))  # other places in the list
    assert [c.n for c in again] == [14, 1400]
    last = CountS(1)
    said, _ = quiet(lambda: trained(folder, subs=[last], strict=False))
    assert "the subscribers ['CountS#2'] is left out" in said[0] and last.n == 14, said


@check('C19', 'metrics: an interrupted epoch has the loss and accuracy of a whole one')
def accumulators(folder):
    def accuracy(preds, y): return (preds.argmax(1) == y).float().mean()
    def made(seed): return learner(MetricsS(accuracy=accuracy), seed=seed)
    whole = made(1)
    trained(folder/'whole', learn=whole)
    for stop in (2, 4, 5, 10):
        def kill():
            learn = made(1)
            learn.on('after_loss', lambda learn: learn.train_iter == stop and os.kill(
                os.getpid(), 9))
            trained(folder/f'{stop}', learn=learn, every_steps=1, background=False)
        assert in_child(kill, folder/'log') == -9
        again = made(stop)
        quiet(lambda: trained(folder/f'{stop}', learn=again))
        rows = [[{k: v for k, v in row.items() if k != 'seconds'} for row in recorded(learn)]
                for learn in (whole, again)]
        same(*rows)
        assert len(rows[0]) == 4 and {'accuracy', 'loss'} <= {*rows[0][0]}


def recorded(learn): return next(s for s in learn.subs if isinstance(s, RecorderS)).history.rows


@check('C18', 'what cannot be saved is named')
def unsaveable(folder):
    sub = CountS(1)
    sub.state_names, sub.f = ('n', 'f'), print
    fails(TypeError, "CountS.state_dict()['f'] is a builtin_function_or_method; use tensors",
          lambda: trained(folder, subs=[sub]))


@check('C20', 'another optimizer or architecture: refused; weights, generators unchanged')
def guard(folder):
    trained(folder/'end')
    trained(folder/'mid', n=1, keep=9)
    for path in checkpoints(folder/'mid')[1:]: shutil.rmtree(path)  # leaves step 3 of 6
    for change, text in ((lambda l: setattr(l, 'optim_class', torch.optim.SGD), 'expected SGD'),
                         (lambda l: setattr(l, 'model', nn.Linear(6, 3)), 'another architecture')):
        for at in ('end', 'mid'):
            learn = learner(seed=9)
            change(learn)
            learn.make_opt()
            keep = lambda: copied([learn.model.state_dict(), learn.opt.state_dict(),
                                   get_generators()])
            before = keep()
            fails(ValueError, text, lambda: learn.load_state_dict(resume(folder/at)))
            same(before, keep())
            fails(ValueError, text, lambda: trained(folder/at, learn=learn))
            after = keep()
            same([before[0], before[2]], [after[0], after[2]])
            assert not after[1]['state']  # the fit has made an optimizer, and loaded nothing
    groups = lambda ps, lr: torch.optim.Adam([dict(params=[p]) for p in ps], lr)
    mirrored = lambda ps, lr: torch.optim.Adam([*ps][::-1], lr)
    for optim_class in (groups, mirrored):
        learn = learner(seed=9)
        learn.optim_class = optim_class
        before = copied(learn.model.state_dict()), get_generators()
        fails(ValueError, 'is another optimizer or has its parameters in another order',
              lambda: learn.load_state_dict(resume(folder/'end')))
        same(before, (copied(learn.model.state_dict()), get_generators()))
    class Plain:
        def __init__(self, params, lr): self.param_groups = [dict(params=[*params], lr=lr)]
        def step(self): pass
        def zero_grad(self): pass
    learn = learner(seed=9)
    learn.optim_class, learn.subs[0].factory = Plain, lambda opt: SimpleNamespace(optimizer=opt,
        step=print, state_dict=dict)
    said, _ = quiet(lambda: trained(folder/'plain', learn=learn))
    assert '`opt` (Plain) has no `state_dict`' in said[0], said


@check('C21', 'fp16: scale, growth and skipped steps restored; no schedule steps on a skipped one')
def scaler(folder):
    def made(seed=None):
        steps = TorchScheduleS(lambda opt: torch.optim.lr_scheduler.StepLR(opt, 3))
        return learner(steps, MixedPrecisionS('fp16', init_scale=2.**21), seed=seed,
                       schedule=False)
    rows = check_resume(made, at=[('after_batch', n) for n in (2, 5, 9)] + [('after_backward', 4)])
    learn = made(1)
    state = trained(folder, learn=learn)
    steps, fp16 = (next(s for s in learn.subs if isinstance(s, kind))
                   for kind in (TorchScheduleS, MixedPrecisionS))
    assert fp16.n_skipped > 2 and learn.n_steps + fp16.n_skipped == 12, fp16.n_skipped
    assert steps.scheduler.last_epoch == learn.n_steps, learn.n_steps
    kept = state['objects']['scaler']
    assert kept['scale'] == learn.scaler.get_scale() < 2.**21 and kept['_growth_tracker'] > 0, kept
    return f'{len(rows)} kills, {fp16.n_skipped} of 12 steps skipped'


@check('C22', 'a subscriber that draws numbers in before_fit changes nothing')
def draws(folder):
    class DrawS(Subscriber):
        def before_fit(self, learn): torch.rand(7), random.random(), np.random.rand()
        before_epoch = before_fit
    check_resume(lambda: learner(DrawS()), at=[('after_predict', 5), ('before_validate', 1)])
    def masks(seed):
        learn, seen = learner(DrawS(), seed=seed), []
        def note(module, x, y): seen.extend([y == 0]*module.training)
        learn.model[2].register_forward_hook(note)
        trained(folder, learn=learn, keep=9)
        return seen
    whole = masks(1)
    for path in checkpoints(folder)[1:]: shutil.rmtree(path)  # leaves step 3
    assert torch.equal(masks(8)[0], whole[3]), 'the first mask is another'


@check('C23', 'saving after every batch, or never: the same')
def with_and_without(folder):
    learn = learner(seed=1)
    learn.fit(2)
    same(learn.state_dict(), trained(folder, every_steps=1))


# --- D: data --------------------------------------------------------------------------------------

@check('D24', '0, 1, 2 workers, keyed and ordinary randomness; persistent ones are warned of')
def workers(folder):
    at, n = [('after_step', 9)], 0
    for dataset, kwargs in ((Keyed, {}), (Keyed, dict(num_workers=1)), (Keyed, dict(num_workers=2)),
                            (Noisy, dict(num_workers=1)), (Noisy, dict(num_workers=2))):
        try: n += len(check_resume(lambda: learner(dataset=dataset, **kwargs), at=at))
        except RuntimeError as error: raise AssertionError(dataset.__name__, kwargs) from error
    def made(seed): return learner(dataset=Keyed, num_workers=1, persistent_workers=True, seed=seed)
    trained(folder, n=1, learn=made(1))
    said, _ = quiet(lambda: trained(folder, learn=made(2)))
    assert any('persistent workers' in text for text in said), said
    return f'{n} loaders'


@check('D24b', 'keyed augmentation: the same with 0, 1, 2 and persistent workers, and after a kill')
def keyed(folder):
    rows = [dict(x=x, y=y) for x, y in zip(X, Y)]
    def noisy(row): return dict(x=row['x'] + 0.1*torch.randn(6)*random.random(), y=row['y'])
    def stack(rows): return torch.stack([r['x'] for r in rows]), torch.stack([r['y'] for r in rows])
    def make(**options):
        train = FetchLoader(KeyedDataset(rows, noisy), 8, stack, options=options, shuffle=True,
                            seed=7)
        return learner(train=train, seed=1)
    ends = []
    for i, options in enumerate(({}, dict(num_workers=1), dict(num_workers=2),
                                 dict(num_workers=2, persistent_workers=True))):
        check_resume(lambda: make(**options), at=[('after_step', 3), ('after_step', 9)])
        ends.append(trained(folder/str(i), learn=make(**options))['objects']['model'])
    for end in ends[1:]: same(ends[0], end)
    return f'{len(ends)} loaders'


class Draws(Dataset):
    "What each of the three generators gives, with the number of the row and of the process."
    def __len__(self): return 40
    def __getitem__(self, i): return self.draw(i)
    def draw(self, i):
        drawn = random.random(), float(np.random.rand()), float(torch.rand((), dtype=torch.float64))
        return torch.tensor([*drawn, i, os.getpid()], dtype=torch.float64)


@check('D25', 'seeds in workers: 2 workers, 2 epochs, 3 generators, no number drawn twice')
def seeds_in_workers(folder):
    rows = Draws()
    for name, dataset in (('ordinary', rows), ('keyed', KeyedDataset(range(40), rows.draw))):
        for stay in (False, True):
            loader = FetchLoader(dataset, 4, torch.stack, shuffle=True, seed=3,
                                 options=dict(num_workers=2, persistent_workers=stay))
            seen = torch.cat([batch for epoch in range(2) for batch in loader])
            assert len(seen) == 80 and len(seen[:, 4].unique()) == (2 if stay else 4)
            n_different = [len(seen[:, column].unique()) for column in range(3)]
            assert n_different == [80, 80, 80], (name, stay, n_different)
            loader._kept = None


@check('D26', 'loaders with a position, and lists')
def loaders(folder):
    for train in (lambda: TensorLoader(X, Y, batch_size=8, shuffle=True), lambda: [(X, Y)]*6):
        check_resume(lambda: learner(train=train()), at=[('after_step', 3), ('after_step', 9)])


@check('D27', 'a loader without a state: says how many batches it replays, ends the same')
def replayed(folder):
    whole = trained(folder/'whole')
    trained(folder/'a', n=1, keep=9)
    for path in checkpoints(folder/'a')[1:]: shutil.rmtree(path)
    shutil.copytree(folder/'a', folder/'b')
    with redirect_stdout(StringIO()) as said: _, state = quiet(lambda: trained(folder/'a', seed=2))
    assert 'it cannot be repositioned: replaying 3 batches' in said.getvalue(), said.getvalue()
    same(whole, state)
    for path in (folder/'b', folder/'new'):
        learn = learner(seed=2)
        fails(ValueError, 'the train loader has no `state_dict`: it cannot be repositioned',
              lambda: quiet(lambda: trained(path, learn=learn, exact=True)))
        assert learn.train_iter == 0
    train = lambda: TensorLoader(X, Y, batch_size=8)
    learn = learner(train=train(), seed=1)
    learn.dls.valid = train()
    trained(folder/'good', learn=learn, exact=True)


class Breaks(Dataset):
    "Fails at one row while `bad` is set."
    bad = 13
    def __len__(self): return 44
    def __getitem__(self, i):
        if i == self.bad: raise OSError('planted: cannot read the image')
        return X[i], Y[i]


@check('D28', 'an error in a worker or in __getitem__: message, row, no process left, next fit')
def broken_row(folder):
    def stack(rows): return tuple(map(torch.stack, zip(*rows)))
    n = 0
    for options in ({}, dict(num_workers=2), dict(num_workers=2, persistent_workers=True)):
        for kind in ('fetch', 'keyed', 'torch'):
            if kind == 'torch' and len(options) == 2: continue  # these live as long as the loader
            rows = Breaks()
            if kind == 'torch': train = DataLoader(rows, 8, **options)
            else: train = FetchLoader(rows if kind == 'fetch' else KeyedDataset(
                range(44), rows.__getitem__), 8, stack, options=options, shuffle=True, seed=1)
            learn, before = learner(train=train, seed=1), {*multiprocessing.active_children()}
            text = 'planted: cannot read the image'
            said = fails(OSError, text, lambda: learn.fit(2))
            said = ' '.join([str(said), *getattr(said, '__notes__', ())])
            assert kind == 'torch' or 'row 13 of split' in said, said
            if kind == 'torch': gc.collect()  # ends its workers, 5 seconds for each
            left = {*multiprocessing.active_children()} - before
            assert not left, (kind, options, left)
            rows.bad = None
            learn.fit(2)
            assert learn.n_steps >= 12
            n += 1
            del learn, train
            gc.collect()
    assert not multiprocessing.active_children()
    return f'{n} loaders'


@check('D29', 'the data changed: refused')
def data_changed(folder):
    def made(n): return learner(train=TensorLoader(X[:n], Y[:n], batch_size=8), seed=1)
    trained(folder, learn=made(44))
    fails(ValueError, 'taken with n=44, this loader has n=40',
          lambda: trained(folder, learn=made(40)))


# --- E: stops -------------------------------------------------------------------------------------

@check('E34', "Ctrl-C with on_error='save': the batch is finished; twice in the write")
def ctrl_c(folder):
    whole, calls = trained(folder/'whole'), []
    def press(learn): learn.train_iter == 7 and os.kill(os.getpid(), signal.SIGINT)
    learn = learner(seed=1)
    learn.on('after_loss', press)
    fails(KeyboardInterrupt, '', lambda: trained(folder/'a', learn=learn, on_error='save'))
    assert checkpoints(folder/'a')[-1].name == 'step-00000008'
    same(whole, trained(folder/'a', seed=4))
    real = os.fsync
    def interrupted(handle):
        calls.append(0)
        if len(calls) == 6: raise KeyboardInterrupt
        real(handle)
    with patch('os.fsync', interrupted):
        fails(KeyboardInterrupt, '', lambda: trained(folder/'b'))
    same(whole, trained(folder/'b', seed=4))


class RaiseS(Subscriber):
    "Raises `what` the second time that `event` comes, and keeps a list of its own turns."
    def __init__(self, log, name, event=None, what=None):
        self.log, self.name, self.n = log, name, 0
        if event: setattr(self, event, lambda learn: self.count(what))
    def count(self, what):
        self.n += 1
        if self.n == 2: raise what
    def before_fit(self, learn): self.log.append(self.name)
    def cleanup_fit(self, learn): self.log.append(f'-{self.name}')


ENDS = (RuntimeError, KeyboardInterrupt, SystemExit, StopIteration, CancelBatchException,
        CancelEpochException, CancelFitException)


@check('E30', 'raised in subscribers, forward, loss, loader: all is as before, a second fit equal')
def cleanup_matrix(folder):
    def whole():
        learn = learner(seed=1)
        learn.fit(2)
        return learn.state_dict()['objects']
    expected, n, state = whole(), 0, lambda: (torch.is_grad_enabled(),
                                               torch.is_autocast_enabled('cpu'))
    events = [f'{kind}_{phase}' for phase in ('full_epoch', 'epoch', 'train', 'validate', 'batch',
        'predict', 'loss', 'backward', 'step') for kind in ('before', 'after', 'cleanup')]
    for place in (*events, 'forward', 'loss_fn', 'loader'):
        for kind in ENDS:
            if (place, kind) == ('loader', StopIteration): continue  # the end of its data
            what, log, calls, n = kind('planted'), [], [], n+1
            def bad(value, *rest):
                calls.append(0)
                if len(calls) == 3: raise what
                return value
            seed_all(1)
            data = [(x, y) for x, y in zip(X.split(8), Y.split(8))]
            learn = learner(RaiseS(log, 'a', place if place in events else None, what), train=data)
            if place == 'forward': learn.model[1].register_forward_hook(lambda m, x, y: bad(y))
            if place == 'loss_fn': learn.loss_fn = lambda p, y: bad(F.cross_entropy(p, y))
            if place == 'loader': learn.dls.train = Loader(data, bad)
            learn.model[2].eval()
            before = learn.subs, state(), [m.training for m in learn.model.modules()]
            hooks = lambda: sum(len(m._forward_hooks) for m in learn.model.modules())
            n_hooks = hooks()
            temporary = [RaiseS(log, 'b'), MixedPrecisionS('bf16'), ActivationStatsS(every=1),
                         ProgressS()]
            try: learn.fit(2, subs=temporary)
            except BaseException as error:
                assert error is what or 'was running there' in str(error), (place, kind, error)
            else: assert issubclass(kind, CancelException), (place, kind)
            assert before == (learn.subs, state(), [m.training for m in learn.model.modules()])
            assert hooks() == n_hooks and temporary[-1].screen is None, (place, kind)
            assert log == ['a', 'b', '-b', '-a'], (place, kind, log)
            learn.fit(1)
    seed_all(1)
    same(expected, whole())
    return f'{n} ways'


class Loader:
    "A list of batches that goes through a function."
    def __init__(self, batches, act): self.batches, self.act = batches, act
    def __len__(self): return len(self.batches)
    def __iter__(self): return map(self.act, self.batches)


@check('E31', 'an error in a cleanup: the first one is raised, the other noted, all cleanups run')
def error_in_cleanup(folder):
    log = []
    class BadS(RaiseS):
        def cleanup_fit(self, learn):
            super().cleanup_fit(learn)
            raise OSError(f'cleanup of {self.name}')
    subs = [BadS(log, 'a'), BadS(log, 'b'), RaiseS(log, 'c', 'after_batch', ValueError('planted'))]
    learn = learner(*subs, seed=1)
    error = fails(ValueError, 'planted', lambda: learn.fit(1))
    notes = ' '.join(error.__notes__)
    assert 'OSError: cleanup of a' in notes and 'OSError: cleanup of b' in notes, notes
    assert log == ['a', 'b', 'c', '-c', '-b', '-a'] and learn.subs[3:] == tuple(subs)


@check('E32', 'a fit that cannot begin leaves nothing behind')
def cannot_begin(folder):
    log = []
    def picky(params, lr): raise ValueError('Invalid learning rate')
    learn = learner(seed=1)
    good, learn.optim_class = learn.optim_class, picky
    before = learn.subs
    fails(ValueError, 'Invalid learning rate', lambda: learn.fit(1, subs=RaiseS(log, 'a')))
    assert learn.subs == before and not log and not learn.fitting
    learn.optim_class = good
    learn.fit(1)


@check('E33', 'an exception keeps its type and traceback, and is told where it came from')
def where_from(folder):
    class Odd(Exception): pass
    for what in (Odd('planted'), StopIteration('planted')):
        learn = learner(RaiseS([], 'oddS', 'after_loss', what), seed=1)
        try: learn.fit(1)
        except type(what) as error:
            assert error is what, error
            place = 'in oddS.after_loss, epoch 0, batch 1 of 6, training'
            assert error.__notes__[0] == place, error.__notes__
            frames = traceback.extract_tb(error.__traceback__)
            assert frames[-1].name == 'count' and len(frames) < 20
        else: raise AssertionError('swallowed')


@check('E35', 'one list for two learners, no list at all, a fit inside a fit: nothing leaks')
def isolation(folder):
    log, subs = [], [RaiseS([], 'x')]
    data = SimpleNamespace(train=[(X, Y)], valid=None)
    one, two = (Learner(nn.Linear(6, 3), data, F.cross_entropy, subs=subs) for _ in range(2))
    one.subscribe(RaiseS(log, 'y'))
    one.fit(1, subs=(extra := [RaiseS(log, 'z')]))
    assert (len(subs), len(extra), len(one.subs), len(two.subs)) == (1, 1, 2, 1)
    three, four = (Learner(nn.Linear(6, 3), data, F.cross_entropy) for _ in range(2))
    three.subscribe(RaiseS(log, 'w'))
    assert four.subs == ()
    four.on('before_batch', lambda learn: learn.fit(1))
    fails(RuntimeError, '`fit` was called inside `fit`', lambda: four.fit(1))
    two.fit(1)


# --- F: bad input ---------------------------------------------------------------------------------

def bad_fit(error, text, n_warnings=0, subs=(), model=None, loss_fn=F.cross_entropy, **kwargs):
    data = dict(train=[(X, Y)], valid=None) | kwargs
    model = model or nn.Linear(6, 3)
    before, started = copied(model.state_dict()), []
    learn = Learner(model, SimpleNamespace(**data), loss_fn, kwargs.get('optim', torch.optim.SGD))
    learn.on('after_step', lambda learn: started.append(1))
    if error: fails(error, text, lambda: learn.fit(1))
    else:
        said, _ = quiet(lambda: learn.fit(1))
        assert any(text in one for one in said), said
    if error: same(before, copied(model.state_dict()))


@check('F36', 'empty loaders, for training and for validation')
def empty_loaders(folder):
    five = DataLoader([(X[i], Y[i]) for i in range(5)], 8, drop_last=True)
    bad_fit(ValueError, 'the train loader is empty (0 batches of 5 samples', train=five)
    bad_fit(ValueError, '`drop_last=True` with fewer samples than a batch holds', valid=five)
    bad_fit(ValueError, 'the train loader is empty (0 batches', train=[])


@check('F37', 'targets out of range')
def out_of_range(folder):
    wrong = Y.clone()
    wrong[3] = 7
    text = "target 7 at batch 0, item 3 is outside 0..2: the model's output has 3 classes"
    bad_fit(ValueError, text, train=[(X, wrong)])


@check('F38', 'types, shapes, devices, losses, optimizers that do not fit')
def wrong_shapes(folder):
    column = nn.Linear(6, 1)
    every = Learner(column, SimpleNamespace(train=[(X, Y.float())], valid=None), F.mse_loss)
    fails(ValueError, 'the loss compared each with every other', lambda: every.fit(1))
    bad_fit(RuntimeError, 'targets: (44,) float32 on cpu', train=[(X, Y.float())])
    bad_fit(TypeError, 'a batch must be a tuple, list or dict, got Tensor', train=[X])
    bad_fit(ValueError, 'the batch has no target', train=[(X,)])
    bad_fit(ValueError, 'the loss has shape (44,), expected a scalar',
            loss_fn=lambda p, y: F.cross_entropy(p, y, reduction='none'))
    bad_fit(ValueError, 'the loss needs no gradient', loss_fn=lambda p, y: p.detach().sum())
    bad_fit(ValueError, 'frozen', model=nn.Linear(6, 3).requires_grad_(False))
    bad_fit(ValueError, 'trainable parameters are in no optimizer: weight, bias',
            optim=lambda params, lr: torch.optim.SGD([nn.Parameter(X[:1])], lr))
    bad_fit((RuntimeError, NotImplementedError), '', train=[(X.to('meta'), Y)])


@check('F39', 'another architecture: all keys and shapes in one message, at most ten')
def architecture(folder):
    from nntrain.checkpoint.weights import load_model, save_model
    deep = lambda n: nn.Sequential(*(nn.Linear(6, 6) for _ in range(n)))
    save_model(deep(2), folder/'two.safetensors')
    for n, text in ((1, '1.weight has (6, 6) in the file, nothing in the model'), (9, '; and 4 ')):
        model = deep(n)
        before = copied(model.state_dict())
        said = str(fails(ValueError, text, lambda: load_model(model, folder/'two.safetensors')))
        assert 'two.safetensors is of another architecture' in said and said.count(' has ') <= 10
        same(before, model.state_dict())
    wide = nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 6))
    fails(ValueError, '0.weight has (6, 6) in the file, (7, 6) in the model',
          lambda: load_model(wide, folder/'two.safetensors'))


@check('F40', 'two of one name; an order that is no number; misspelt events, nearly and quite')
def misspelt(folder):
    class BadOrder(Subscriber): order = 'first'
    class Misspelt(Subscriber):
        def after_bacth(self, learn): pass
    class Nearly(Subscriber):
        def befor_batch(self, learn): pass
    learn = learner(CountS(1), CountS(2), seed=1)
    assert {'CountS', 'CountS#2'} <= {learn.name_of(sub) for sub in learn.subs}
    fails(TypeError, "BadOrder.order must be a number, got 'first'", lambda: learner(BadOrder()))
    fails(ValueError, 'did you mean `after_batch`?', lambda: learner(Misspelt()))
    said, _ = quiet(lambda: learner(Nearly()))
    assert said == ['`Nearly.befor_batch` is never called; did you mean `before_batch`?'], said


# --- G: numbers -----------------------------------------------------------------------------------

@check('G41', 'a loss that is nan: stopped before the step, every checkpoint and weight finite')
def not_a_number(folder):
    def finite(value):
        if isinstance(value, dict): value = [*value.values()]
        if isinstance(value, (list, tuple)): return all(map(finite, value))
        return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())
    def poison(learn):
        if learn.training and learn.train_iter == 8: learn.loss = learn.loss*float('nan')
    whole, n = trained(folder/'whole')['objects'], 0
    for every_steps in (1, 3):
        for kwargs in (dict(on_device=False), dict(on_device=True, every=2)):
            for on_error in (None, 'save'):
                n, path = n+1, folder/str(n)
                learn = learner(StopOnNaNS(**kwargs), seed=1)
                learn.on('after_loss', poison)
                fails(FloatingPointError, 'batch 2 of 6 (step 9)', lambda: trained(
                    path, learn=learn, every_steps=every_steps, on_error=on_error, keep=99))
                assert finite(learn.state_dict()['objects'])
                assert all(finite(read_checkpoint(p)['objects']) for p in checkpoints(path))
                if kwargs['on_device'] is False:
                    same(whole, trained(path, subs=[StopOnNaNS(**kwargs)], seed=4)['objects'])
    return f'{n} runs'


@check('G42', 'fp16: skipped steps are counted, 20 in a row are an error; inf in a row is shown')
def overflow(folder):
    inf = [(X*math.inf, Y)]
    fp16 = MixedPrecisionS('fp16')
    learn = Learner(nn.Linear(6, 3), SimpleNamespace(train=inf*3, valid=None), F.cross_entropy,
                    subs=[fp16, RecorderS()])
    learn.fit(1)
    assert fp16.n_skipped == 3 and recorded(learn)[-1]['skipped'] == 3
    learn.dls.train = inf*25
    fails(FloatingPointError, '20 steps in a row overflowed', lambda: learn.fit(1))
    learn = learner(ProgressS(), seed=1)
    learn.on('after_epoch', lambda learn: learn.row.update(a=math.inf, b=-math.inf, c=math.nan))
    with redirect_stdout(StringIO()) as said: learn.fit(1)
    assert "'a': 'inf'" in said.getvalue() or 'inf' in said.getvalue(), said.getvalue()


# --- H: safety ------------------------------------------------------------------------------------

@check('H43', 'malicious files: refused within a second, nothing run, nothing outside opened')
def malicious(folder):
    trained(folder/'a')
    path, ran = checkpoints(folder/'a')[-1], folder/'ran'
    program = f"cos\nsystem\n(S'touch {ran}'\ntR.".encode()
    opened, real = [], os.open
    def noted(name, *args, **kwargs):
        opened.append(str(name))
        return real(name, *args, **kwargs)
    attacks = {'tensors.safetensors': [program, (10**12).to_bytes(8, 'little') + b'{}', b''],
               'state.json': [program, b'['*10**5, b'{"~object": "os.system"}', b'1'*10**6]}
    for name, contents in attacks.items():
        for data in contents:
            bad = folder/'bad'
            shutil.rmtree(bad, ignore_errors=True)
            shutil.copytree(path, bad)
            (bad/name).write_bytes(data)
            forge(bad, name, data)
            start = time.time()
            with patch('os.open', noted): fails(CheckpointError, '', lambda: read_checkpoint(bad))
            assert time.time() - start < 1
    forge(bad, '../../x', b'')
    fails(CheckpointError, "'../../x'", lambda: read_checkpoint(bad))
    (bad/'link').symlink_to('/etc/hostname')
    fails(CheckpointError, 'is a link', lambda: read_checkpoint(bad))
    assert not ran.exists() and all(str(folder) in name for name in opened)
    def reading(): return 1 if quiet(lambda: peak(lambda: fails(
        CheckpointError, '', lambda: read_checkpoint(bad))))[1] > 64 else os._exit(17)
    huge = [('tensors.safetensors', (10**12).to_bytes(8, 'little') + b'{}'),
            ('tensors.safetensors', header(10**12) + bytes(10)), ('state.json', b'['*10**5),
            ('state.json', b'"' + b'x'*10**5), ('MANIFEST.json', b'{' + b'"a":{'*10**5)]
    for name, data in huge:
        shutil.rmtree(bad)
        shutil.copytree(path, bad)
        (bad/name).write_bytes(data)
        if name != 'MANIFEST.json': forge(bad, name, data)
        start = time.time()
        assert (code := in_child(reading, folder/'log')) == 17, (
            name, code, (folder/'log').read_text()[-800:])
        assert time.time() - start < 5  # with the fork
    return f'{sum(map(len, attacks.values()))+2} attacks, {len(huge)} within 64 MB of memory'


def header(n):
    "Of a safetensors file whose one tensor claims `n` bytes."
    import json
    text = json.dumps({'x': dict(dtype='U8', shape=[n], data_offsets=[0, n])}).encode()
    return len(text).to_bytes(8, 'little') + text


def peak(act):
    "Megabytes that a process grows by while it does `act`, at most a second."
    def high(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    before, start = high(), time.time()
    act()
    assert time.time() - start < 1
    return high() - before


def forge(folder, name, data):
    "Let the manifest agree with what was put in."
    import json
    import zlib
    manifest = json.loads((folder/'MANIFEST.json').read_text())
    manifest['files'][name] = dict(size=len(data), crc32=zlib.crc32(data))
    manifest['crc32'] = nntrain.checkpoint.format._crc(manifest)
    (folder/'MANIFEST.json').write_text(json.dumps(manifest))


@check('H44', 'save and resume with every unpickler switched off')
def no_pickle(folder):
    import pickle
    def forbidden(*args, **kwargs): raise AssertionError('a pickle was read')
    names = 'pickle.load', 'pickle.loads', 'pickle.Unpickler', 'torch.load', 'torch.save'
    whole = trained(folder/'whole')
    patches = [patch(name, forbidden) for name in names]
    for one in patches: one.start()
    try:
        trained(folder/'a', n=1)
        quiet(lambda: trained(folder/'a', seed=3))
        resume(folder/'a')
    finally:
        for one in patches: one.stop()
    assert pickle.loads is not forbidden and whole


@check('H45', 'no pickle, eval, exec, shell in the library')
def grep(folder):
    from check import ROOT, check_safe
    found = [line for path in ROOT.glob('nntrain/**/*.py') for line in check_safe(path)]
    assert not found, found


@pytest.mark.faults
@pytest.mark.parametrize('name', [pytest.param(name, id=f'{name} {CHECKS[name][0]}') for name in
                                  sorted(CHECKS, key=lambda name: (name[0], int(re.sub(r'\D', '', name))))])
def test_fault(name, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seed_all(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # who cares has a `quiet` of its own
            CHECKS[name][1](tmp_path.resolve())
    finally: torch.set_num_threads(threads)
