"""What a person sees in python, IPython and a kernel: a failed fit, a silent one, the parameters.

Each is the real program, with a real Ctrl-C. An error shows their own lines and one of the loop.
"""
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

WORK = '''
import sys
import time
import torch
from torch import nn
from torch.nn import functional as F
from nntrain.dataloaders import DataLoaders
from nntrain.learner import Learner
from nntrain.pubsub import Subscriber

x, y = torch.randn(4, 8, 8), torch.randint(3, (4, 8))

class Fails(nn.Linear):
    def forward(self, x):
        mine = 'of the model'
        return super().forward(x)/[]

class FailsS(Subscriber):
    def after_batch(self, learn):
        mine = 'of the subscriber'
        raise LookupError('mine')

def fails(preds, y):
    mine = 'of the loss'
    return F.cross_entropy(preds, y) + 'text'

def picky(preds, y): return F.cross_entropy(preds, y)

class Waits(nn.Linear):
    def forward(self, x):
        mine = 'of the one who waits'
        print('it waits', flush=True)
        time.sleep(60)

def learner(model=None, loss_fn=F.cross_entropy, subs=()):
    return Learner(model or nn.Linear(8, 3), DataLoaders([*zip(x, y)]), loss_fn, subs=subs)

def train(what):
    if what == 'model': learner(Fails(8, 3)).fit(1)
    if what == 'subscriber': learner(subs=FailsS()).fit(1)
    if what == 'loss': learner(loss_fn=fails).fit(1)
    if what == 'outside': Learner(nn.Linear(8, 3), DataLoaders([*zip(x, y+3)]), picky).fit(1)
    if what == 'wait': learner(Waits(8, 3)).fit(1)

if __name__ == '__main__' and sys.argv[1:]: train(sys.argv[1])
'''
ENDS = dict(   # what fails -> the user's function, the note that stands last
    model=('forward', 'in Learner.predict, epoch 0, batch 0 of 4, training'),
    subscriber=('after_batch', 'in FailsS.after_batch, epoch 0, batch 0 of 4, training'),
    loss=('fails', 'in Learner.loss, epoch 0, batch 0 of 4, training'),
    outside=('picky', 'in Learner.loss, epoch 0, batch 0 of 4, training'),
    wait=('forward', 'interrupted in epoch 0, batch 0 of 4, training; model and optimizer are kept'))
LOOP = re.compile(r'nntrain/(?!learner\.py)\w+|in (?:publish|do_\w+|one_\w+|all_batches|call)\b')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('work')
    (folder/'work.py').write_text(WORK, encoding='utf-8')
    return folder


def environment(folder, **more):
    own = {k: v for k, v in os.environ.items() if not k.startswith(('NNTRAIN_', 'IN_TEST', 'PYTEST_'))}
    return own | dict(IPYTHONDIR=str(folder/'ipython'), PYTHONUNBUFFERED='1', NO_COLOR='1',
                      PYTHONPATH=f'{ROOT}{os.pathsep}{folder}') | more


def start(folder, *command, **more):
    "A program that runs in the folder; both of its streams are one text."
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment(folder, **more),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def output_of(process, typed=''):
    return process.communicate(typed, timeout=120)[0]


def check(text, what):
    "The user's frames, one line of `fit`, and the place last."
    mine, note = ENDS[what]
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[-1] == note, text
    assert not LOOP.search(text), text
    assert len(re.findall(r'nntrain/learner\.py', text)) == 1, text
    assert len(re.findall(r'work\.py', text)) >= 2, text
    assert re.search(rf'work\.py.*\b{mine}\b', text), text


def test_python_runs_a_script_into_ctrl_c(folder):
    script = start(folder, 'work.py', 'wait')
    assert script.stdout.readline() == 'it waits\n'
    script.send_signal(signal.SIGINT)
    text = output_of(script)
    check(text, 'wait')
    assert 'KeyboardInterrupt' in text and script.returncode in (-signal.SIGINT, 130, 1)


def test_python_asked_line_by_line_and_pdb_after_it(folder):
    "One session: all frames on request, four errors, and the last one looked at post mortem."
    kinds = ['model', 'subscriber', 'outside', 'loss']
    lines = ['import os, sys, pdb', 'from work import *', 'sys.ps1 = ""', 'print("=== all")',
             'os.environ["NNTRAIN_FULL_TRACEBACK"] = "1"', 'train("model")',
             'del os.environ["NNTRAIN_FULL_TRACEBACK"]']
    for kind in kinds: lines += [f'print("=== {kind}")', f'train("{kind}")']
    typed = '\n'.join([*lines, 'pdb.pm()', 'p mine', 'up', 'p self', 'q', ''])
    text, _, debugger = output_of(start(folder, '-i', '-q', '-c', ''), typed).partition('\n> ')
    _, every, *parts = text.split('=== ')
    assert len(re.findall('in publish', every)) == 6 and 'in all_batches' in every, every
    assert every.splitlines()[-1] == ENDS['model'][1]
    for kind, part in zip(kinds, parts, strict=True):
        check(part, kind)
        assert part.count('Traceback') == 1, part    # also where a better error took its place
    assert "classes" in parts[2] and '(it was IndexError' in parts[2]
    assert re.match(r'.*work\.py\(\d+\)fails\(\)', debugger), debugger
    assert "(Pdb) 'of the loss'" in debugger and 'Learner(Linear' in debugger, debugger


def test_ipython_runs_a_command_and_debug_goes_to_the_users_frame(folder):
    typed = 'from work import *\ntrain("subscriber")\n%debug\np mine\nq\nexit\n'
    text = output_of(start(folder, '-m', 'IPython', '--simple-prompt', '--colors=nocolor',
                           '--no-confirm-exit'), typed)
    trace, debugger = text.split('In [3]: ')
    check(re.sub(r'(?s).*^In \[2\]: ', '', trace, flags=re.M), 'subscriber')
    assert re.match(r'> .*work\.py\(\d+\)after_batch\(\)', debugger), text
    assert 'of the subscriber' in debugger, text


class Kernel:
    "A kernel as a notebook has it; what a cell shows comes back as text."
    def __init__(self, folder):
        from jupyter_client import KernelManager
        self.manager = KernelManager()
        self.manager.start_kernel(env=environment(folder), cwd=folder)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=100)

    def run(self, code, interrupt_at=None):
        shown = []
        def show(message):
            content = message['content']
            if message['msg_type'] == 'stream': shown.append(content['text'])
            elif message['msg_type'] == 'error': shown.append('\n'.join(content['traceback']))
            if interrupt_at and interrupt_at in shown[-1:]: self.manager.interrupt_kernel()
        self.client.execute_interactive(code, output_hook=show, timeout=100)
        return re.sub(r'\x1b\[[\d;]*m', '', ''.join(shown))

    def about(self, code):
        "What Shift-Tab shows of the name at the end of `code`."
        reply = self.client.inspect(code, len(code), reply=True, timeout=100)['content']
        return re.sub(r'\x1b\[[\d;]*m', '', reply['data']['text/plain'])

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope='module')
def kernel(folder):
    kernel = Kernel(folder)
    kernel.run('from work import *')
    yield kernel
    kernel.stop()


@pytest.mark.parametrize('what', ['model', 'subscriber', 'loss', 'outside'])
def test_a_kernel_shows_the_users_frames(kernel, what): check(kernel.run(f'train({what!r})'), what)


def test_a_kernel_that_is_interrupted(kernel):
    check(kernel.run('train("wait")', interrupt_at='it waits\n'), 'wait')
    again = 'learn = learner()\nlearn.fit(1)\nprint(learn.n_steps)'
    assert kernel.run(again).endswith('4\n')


def test_a_kernel_shows_the_parameters_on_shift_tab(kernel):
    for asked in 'Learner', 'Learner(':
        text = kernel.about(asked)
        assert all(name in text for name in ('model', 'dls', 'loss_fn', 'optim_class', 'n_inp'))
        assert '*args' not in text and '**kwargs' not in text, text
    assert 'epochs' in kernel.about('learn.fit(') and 'resume' in kernel.about('learn.fit(')
    assert 'n_batches: int' in kernel.about('learn.lr_find')   # of a page not yet imported


def test_a_kernel_is_told_once_what_shows_a_fit(folder, kernel):
    kernel.run('from nntrain import learner as page\npage.SAID.clear()')
    one, two = kernel.run('learner().fit(1)'), kernel.run('learner().fit(1)')
    assert one.count('this fit shows nothing') == 1 and 'usual(accuracy)' in one and two == ''
