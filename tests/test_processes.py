"""What other processes, the clock, the keyboard and the disk do to a run in its folder: it ends by
the stated choice, says which checkpoint is the last, and goes on to the same end. More of it, and
at more moments, under `make test-faults`."""
import errno
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from unittest.mock import patch

import pytest
import torch

from test_faults import Keyed, fails, learner, quiet, same, trained

from nntrain.checkpoint.checkpoint import CheckpointS
from nntrain.checkpoint.folder import checkpoints, resume
from nntrain.checkpoint.format import read_checkpoint, write_checkpoint
from nntrain.checkpoint.verify import in_child
from nntrain.checkpoint.weights import save_model
from nntrain.training.limits import StopAfterS

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')


@pytest.fixture(autouse=True)
def one_thread():
    import_module('torch._dynamo')  # once, and not in every copy
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
    torch.set_num_threads(n)


def started(work, log, seconds=300):
    "The number of a copy of this process that runs `work`, as `in_child` does, without waiting."
    python, pid = random.getstate(), os.fork()
    if pid: return pid
    code = 1
    try:
        signal.alarm(seconds)
        random.setstate(python)
        with open(log, 'w', 1) as file, redirect_stdout(file), redirect_stderr(file):
            try: work()
            except BaseException: traceback.print_exc()
            else: code = 0
    finally: os._exit(code)


def ended(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def comes(path, seconds=120):
    "Wait for a file."
    for _ in range(seconds*200):
        if path.exists(): return
        time.sleep(0.005)
    raise AssertionError(f'{path} did not come')


def whole_of(folder, n=2, **kwargs):
    return trained(folder/'whole', n, learn=learner(seed=1, dataset=Keyed, **kwargs))['objects']


# --- clocks ---------------------------------------------------------------------------------------

def backwards(step):
    "A clock that goes back by `step` seconds at every look."
    now = [2e9]
    def look():
        now[0] -= step
        return now[0]
    return look


@pytest.mark.parametrize('step', [0.001, 3600])
def test_clock_goes_backwards(step, tmp_path):
    whole = whole_of(tmp_path)
    with patch('time.time', backwards(step)):
        learn = learner(StopAfterS(seconds=3600), seed=1, dataset=Keyed)
        state = quiet(lambda: trained(tmp_path/'run', learn=learn, every_steps=None,
                                      every_seconds=1e-9, keep=99))[1]
    same(whole, {k: state['objects'][k] for k in whole})
    found = checkpoints(tmp_path/'run')
    assert len(found) == 13 and found[-1].name == 'step-00000012-end'  # each batch, and the end
    for i, path in enumerate(found): os.utime(path, (1e9 - i, 1e9 - i))  # the newest is the oldest
    for path in found[8:]: shutil.rmtree(path)
    state = trained(tmp_path/'run', learn=learner(StopAfterS(seconds=3600), seed=7, dataset=Keyed))
    same(whole, {k: state['objects'][k] for k in whole})


# --- forks ----------------------------------------------------------------------------------------

def test_workers_are_forked_while_the_writer_writes(tmp_path):
    whole = whole_of(tmp_path, 4)
    alive, real = [], os.fork
    def fork():
        alive.append(any(thread.name == 'nntrain writer' for thread in threading.enumerate()))
        return real()
    def slow(handle, sync=os.fsync): (time.sleep(0.01), sync(handle))
    def work():
        learn = learner(seed=1, dataset=Keyed, num_workers=2)
        with patch('os.fsync', slow), patch('os.fork', fork):
            state = trained(tmp_path/'run', 4, learn=learn, every_steps=1)
        same(whole, state['objects'])
        assert any(alive), 'no worker was forked while the writer wrote'
    assert in_child(work, tmp_path/'log') == 0, (tmp_path/'log').read_text()[-2000:]


def test_a_copy_of_the_process_leaves_the_folder_alone(tmp_path):
    whole, copies = whole_of(tmp_path), []
    def copy(learn):
        if learn.training and learn.train_iter == 4: copies.append(os.fork())
    def work():
        learn = learner(seed=1, dataset=Keyed)
        learn.on('after_batch', copy)
        try: state = trained(tmp_path/'run', learn=learn, every_steps=1)
        except RuntimeError as error:
            if copies[-1]: raise
            with open(tmp_path/'copy', 'w') as file: file.write(str(error))
            os._exit(0)
        if not copies[-1]: os._exit(1)
        assert ended(copies[-1]) == 0
        same(whole, state['objects'])
    assert in_child(work, tmp_path/'log') == 0, (tmp_path/'log').read_text()[-2000:]
    said = (tmp_path/'copy').read_text()
    assert 'this process is a copy (a fork) of process' in said and 'os._exit' in said, said
    same(whole, trained(tmp_path/'run', learn=learner(seed=4, dataset=Keyed))['objects'])


def test_a_copy_is_not_deaf_to_sigterm(tmp_path):
    def child(learn):
        if not learn.training or learn.train_iter != 4: return
        reading, writing = os.pipe()
        if pid := os.fork():
            os.read(reading, 1)  # a signal that comes earlier is dropped by Python itself
            os.kill(pid, signal.SIGTERM)
            (tmp_path/'code').write_text(str(ended(pid)))
        else:
            signal.alarm(60)
            os.write(writing, b'.')
            while True: time.sleep(1)
    learn = learner(seed=1)
    learn.on('after_batch', child)
    trained(tmp_path/'run', learn=learn)
    assert (tmp_path/'code').read_text() == '-15'


class Slow(Keyed):
    def __getitem__(self, i):
        time.sleep(0.05)
        return super().__getitem__(i)


def test_workers_that_outlive_a_kill_do_not_keep_the_folder(tmp_path):
    whole = whole_of(tmp_path)
    def work():
        learn = learner(seed=1, dataset=Slow, num_workers=2)
        learn.on('after_batch', lambda learn: learn.train_iter == 4 and os.kill(os.getpid(), 9))
        trained(tmp_path/'run', learn=learn, every_steps=1, background=False)
    assert in_child(work, tmp_path/'log') == -9  # workers see it within five seconds
    state = trained(tmp_path/'run', learn=learner(seed=3, dataset=Keyed))
    same(whole, state['objects'])


# --- stopped and continued ------------------------------------------------------------------------

@pytest.mark.parametrize('n', [3, pytest.param(40, marks=pytest.mark.faults)])
def test_stopped_and_continued(n, tmp_path, record_property):
    whole, draw = whole_of(tmp_path, 8), random.Random(n)
    def work():
        learn = learner(seed=1, dataset=Keyed, num_workers=2)
        learn.on('before_fit', lambda learn: (tmp_path/'begun').touch())
        state = trained(tmp_path/'run', 8, learn=learn, every_steps=1)
        write_checkpoint(tmp_path/'end', state['objects'])
    pid = started(work, tmp_path/'log')
    comes(tmp_path/'begun')
    stopped = 0
    for i in range(n):
        time.sleep(draw.random()*0.1)
        if os.waitpid(pid, os.WNOHANG)[0]: break
        os.kill(pid, signal.SIGSTOP)
        stopped += 1
        if i == 0:  # it still has the folder
            fails(RuntimeError, f'in use by pid {pid}', lambda: trained(tmp_path/'run'))
        time.sleep(draw.random()*0.05)
        os.kill(pid, signal.SIGCONT)
    else: assert ended(pid) == 0, (tmp_path/'log').read_text()[-2000:]
    same(whole, read_checkpoint(tmp_path/'end'))
    record_property('said', f'stopped and continued {stopped} times, the same end')


# --- Ctrl-C, ten times ----------------------------------------------------------------------------

def storm(seed, folder, whole, n=8):
    "What the fit raised under ten Ctrl-C at random moments; then it is resumed, here and there."
    draw = random.Random(seed)
    options = dict(on_error=draw.choice([None, 'save']), background=draw.random() < 0.5)
    workers = draw.choice([0, 0, 1])
    def work():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        learn, raised = learner(seed=1, dataset=Keyed, num_workers=workers), None
        learn.on('before_fit', lambda learn: (folder/'begun').touch())
        try:
            try: trained(folder/'run', n, learn=learn, every_steps=1, fsync=False, **options)
            except BaseException as error:
                raised = error
                raise
            finally: signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt as error: raised = raised or error  # in the lines just above
        except BaseException: pass
        while signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # one came in the line just above
            try: signal.signal(signal.SIGINT, signal.SIG_IGN)
            except KeyboardInterrupt as error: raised = raised or error
        (folder/'raised').write_text(type(raised).__name__)
        if raised: (folder/'why').write_text(''.join(traceback.format_exception(raised)))
        # in the same process, as in a notebook
        for thread in threading.enumerate():
            if thread.name != 'nntrain writer': continue
            thread.join(5)   # it is done, and may be in its last lines
            assert not thread.is_alive()
        shutil.copytree(folder/'run', folder/'copy')
        go_on(folder/'run')
    def go_on(path):
        found = checkpoints(path)
        exact = not found or resume(found[-1])['run']['exact']  # `on_error` saves in any case
        again = learner(seed=5 if found else 1, dataset=Keyed)
        said, state = quiet(lambda: trained(path, n, learn=again))
        if exact: same(whole, state['objects'])
        else: assert any('is not the same as never having stopped' in text for text in said), said
        return exact
    folder.mkdir()
    pid = started(work, folder/'log')
    comes(folder/'begun')
    time.sleep(draw.random()*0.4)
    for _ in range(10):
        os.kill(pid, signal.SIGINT)
        time.sleep(draw.random()*0.004)
    code = ended(pid)
    assert code == 0, f'seed {seed}, {options}: {code}, {(folder/"log").read_text()[-2000:]}'
    exact = go_on(folder/'copy')  # in another one
    raised = (folder/'raised').read_text()
    assert raised in ('KeyboardInterrupt', 'NoneType'), f'seed {seed}: {(folder/"why").read_text()}'
    shutil.rmtree(folder)
    return raised == 'KeyboardInterrupt', exact


@pytest.mark.parametrize('seeds', [range(2), pytest.param(
    range(100), marks=pytest.mark.faults)], ids=len)
def test_storms_of_interrupts(seeds, tmp_path, record_property):
    whole = whole_of(tmp_path, 8)
    found = [storm(seed, tmp_path/f'{seed}', whole) for seed in seeds]
    raised, exact = (sum(both[i] for both in found) for i in range(2))
    record_property('said', f'{len(seeds)} storms of ten Ctrl-C, seeds 0 to {len(seeds)-1}: '
        f'{raised} ended in one KeyboardInterrupt, the others came after the end; {exact} resumed '
        'to the same end, in the same process and in another, the others said that they cannot')
    if len(seeds) >= 50: assert raised > len(seeds)/2 and exact > 0.6*len(seeds)


# --- a disk that is full --------------------------------------------------------------------------

@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path/'disk'
    place.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', str(place)]
    try: code = subprocess.run(mount, capture_output=True).returncode
    except OSError: code = 1
    if code: pytest.skip('needs a file system of its own: mount is not allowed')
    yield place
    subprocess.run(['umount', '-l', str(place)], check=True)


@pytest.mark.parametrize('choice', ['raise', 'warn'])
@pytest.mark.parametrize('background', [False, True])
def test_disk_full(choice, background, small_disk, tmp_path):
    whole, path = whole_of(tmp_path), small_disk/'run'
    def fill(learn):
        if learn.training and learn.train_iter == 4:
            if background: next(s for s in learn.subs if isinstance(s, CheckpointS)).wait()
            with pytest.raises(OSError), open(small_disk/'fill', 'wb', 0) as file:
                while True: file.write(bytes(512))
        if learn.training and learn.train_iter == 10: (small_disk/'fill').unlink()
    learn = learner(seed=1, dataset=Keyed)
    learn.on('after_batch', fill)
    def fit(): return trained(path, learn=learn, on_save_error=choice, background=background)
    if choice == 'raise':
        with pytest.raises(OSError, match='this checkpoint needs') as told: fit()
        assert told.value.errno == errno.ENOSPC
        assert any('the last checkpoint is step-00000003' in n for n in told.value.__notes__)
        assert [p.name for p in checkpoints(path)] == ['step-00000003']
        assert not [*path.glob('.tmp*')]
        (small_disk/'fill').unlink()
        state = trained(path, learn=learner(seed=4, dataset=Keyed))
    else:
        said, state = quiet(fit)
        assert any('without a checkpoint' in t and 'the last checkpoint is step-00000003' in t
                   for t in said), said
        assert checkpoints(path)[-1].name == 'step-00000012-end'  # there was room again
    same(whole, state['objects'])


# --- a folder that goes away, links, other processes ----------------------------------------------

def gone(path): shutil.rmtree(path)
def moved(path): path.rename(path.with_name('moved'))


def another(path):
    moved(path)
    path.mkdir()


@pytest.mark.parametrize('change', [gone, moved, another])
@pytest.mark.parametrize('choice', ['raise', 'warn'])
@pytest.mark.parametrize('background', [False, True])
def test_folder_changes_in_mid_run(change, choice, background, tmp_path):
    whole = trained(tmp_path/'whole', seed=1)
    path, learn = tmp_path/'run', learner(seed=1)
    saver = CheckpointS(path, 3, on_save_error=choice, background=background, best='valid loss')
    def act(learn):
        if not learn.training or learn.train_iter != 4: return
        saver.wait()
        change(path)
    learn.on('after_batch', act)
    def fit(): learn.fit(2, subs=saver)
    if choice == 'raise':
        with pytest.raises(OSError, match='deleted, moved or replaced') as told: quiet(fit)
        assert 'the last checkpoint is step-00000003' in told.value.__notes__[0]
    else:
        said, _ = quiet(fit)
        assert any('the last checkpoint is step-00000003' in text for text in said), said
        same(whole['objects'], learn.state_dict()['objects'])  # training went on as without
    if change is another: assert not checkpoints(path)
    if change is not gone: assert checkpoints(tmp_path/'moved')[-1].name == 'step-00000003'


@pytest.mark.parametrize('name', ['.tmp-step-00000003', '.trash-step-00000003', 'step-00000003',
                                  '.lock'])
def test_links_in_the_way_of_a_writer(name, tmp_path):
    mine, run = tmp_path/'mine', tmp_path/'run'
    for folder in (mine, run): folder.mkdir()
    (mine/'precious').write_text('precious')
    (run/name).symlink_to(mine if name != '.lock' else mine/'precious')
    if name == '.lock':
        with pytest.raises(RuntimeError, match='cannot be the lock'): trained(run)
    else: write_checkpoint(run/'step-00000003', {})
    assert [*mine.iterdir()] == [mine/'precious'] and (mine/'precious').read_text() == 'precious'
    (run/'model.safetensors').symlink_to(mine/'precious')
    save_model(learner().model, run/'model.safetensors')
    assert (mine/'precious').read_text() == 'precious'


def test_eight_processes_want_one_folder(tmp_path):
    whole, run = whole_of(tmp_path), tmp_path/'run'
    def work(i):
        comes(tmp_path/'go')
        learn = learner(seed=1, dataset=Keyed)
        learn.on('before_fit', lambda learn: (tmp_path/f'{i}.has').touch())
        learn.on('after_fit', lambda learn: comes(tmp_path/'enough'))
        try: state = trained(run, learn=learn)
        except RuntimeError as error: (tmp_path/f'{i}.refused').write_text(str(error))
        else: same(whole, state['objects'])
    pids = [started(lambda i=i: work(i), tmp_path/f'{i}.log') for i in range(8)]
    (tmp_path/'go').touch()
    for _ in range(24000):
        if len([*tmp_path.glob('*.refused')]) == 7: break
        time.sleep(0.005)
    (tmp_path/'enough').touch()
    codes = [ended(pid) for pid in pids]
    assert codes == [0]*8, [(tmp_path/f'{i}.log').read_text()[-500:] for i in range(8)]
    refused = [path.read_text() for path in tmp_path.glob('*.refused')]
    assert len(refused) == 7 and all('is in use by' in said for said in refused), refused
    same(whole, trained(run, learn=learner(seed=2, dataset=Keyed))['objects'])


@pytest.mark.faults
def test_processes_that_joblib_starts_afresh_score_as_this_one():
    "The page on scikit-learn scores in forks; 'loky', the default, has each import all again."
    joblib, _ = pytest.importorskip('joblib'), pytest.importorskip('sklearn')
    from sklearn.model_selection import cross_val_score
    from nntrain.interop.sklearn import LearnerClassifier
    X, y = import_module('sklearn.datasets').load_iris(return_X_y=True)
    estimator = LearnerClassifier(epochs=3, batch_size=16)
    alone = cross_val_score(estimator, X.astype('float32'), y, cv=3)
    with joblib.parallel_config('loky', n_jobs=2, inner_max_num_threads=1):
        both = cross_val_score(estimator, X.astype('float32'), y, cv=3)
    assert len({*both}) > 1 and both.tolist() == alone.tolist()
