"""What the package promises to those who install it: names, imports, methods, the series' code."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NURSERY = '''
import gc, json, os, sys, traceback
for imports, codes in json.loads(sys.argv[1]):
    gc.disable()
    exec(imports)
    gc.enable()
    gc.freeze()
    for name, code in codes.items():
        pid, status = os.fork(), 1
        if not pid:
            out = os.open(name, os.O_WRONLY | os.O_CREAT)
            for stream in (1, 2): os.dup2(out, stream)
            try: exec(code, {'__name__': '__main__'})
            except BaseException: traceback.print_exc()
            else: status = 0
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # nothing is freed
        _, status = os.waitpid(pid, 0)
        print(json.dumps([name, status]))'''
NAMES = '''
import nntrain as nt
from nntrain import Learner, MetricsS
import nntrain.all as everything
names = [name for name in vars(everything) if name[0] != '_']
assert nt.Learner is Learner is everything.Learner and len(names) <= 160
assert all(getattr(nt, name) is getattr(everything, name) for name in names)
try: nt.Lerner
except AttributeError as error: print(error)'''
FILTERS = '''
import sys, torch, warnings
before = list(warnings.filters)
from nntrain.all import *
print({'datasets', 'matplotlib', 'pandas', 'torcheval', 'PIL'} & {*sys.modules})
print(warnings.filters == before)'''
METHODS = '''
import sys, torch
from nntrain.learner import METHODS, Learner
learn = Learner(torch.nn.Linear(2, 2), None, torch.nn.functional.mse_loss)
before = {name for name in sys.modules if name.startswith('nntrain')}
assert {*METHODS} <= {*dir(learn)}, {*METHODS} - {*dir(learn)}
assert before == {name for name in sys.modules if name.startswith('nntrain')}
for name in METHODS:
    if name not in ('hypers', 'history'): assert callable(getattr(learn, name)), name
try: learn.lr_fnd
except AttributeError as error: print(error)'''
OLD = '''from nntrain.dataloaders import DataLoaders
from nntrain.learner import Learner
from nntrain.pubsub import CancelBatchException, PublishEvents, Subscriber
from nntrain.metrics import MetricsS
from nntrain.device import DeviceS
from nntrain.lrfind import LRFindS
from nntrain.momentum import MomentumLearner
from nntrain.progress import ProgressS
from nntrain.checkpoint import CheckpointS
from nntrain.distributed import DistributedS
from nntrain.inspect import LoopPicture'''
PATHS = f'''
import sys, torch
for line in {OLD.splitlines()}:
    for name in [name for name in sys.modules if name.split('.')[0] == 'nntrain']:
        del sys.modules[name]
    exec(line, {{}})
    print(line)'''
FIT = '''
import sys, torch
from nntrain.all import *
dls = DataLoaders([(torch.rand(4, 3), torch.tensor([0, 1, 2, 0]))]*2)
loss = torch.nn.functional.cross_entropy
learn = Learner(torch.nn.Linear(3, 3), dls, loss, torch.optim.SGD, .1, usual(accuracy))
with learn.no_bar(): learn.fit(1)
print([m for m in sys.modules if "pretend" in m or "device_check" in m])
learn.check_device()
print("nntrain.inspect.pretend" in sys.modules)'''
FORKED = '''
import os, torch
from torch import nn
from nntrain.all import *
batches = [(torch.ones(2, 3), torch.tensor([0, 1]))]
Learner(nn.Linear(3, 2), DataLoaders(batches, batches), nn.CrossEntropyLoss()).check_device()
if not os.fork():
    torch.ones(1, requires_grad=True).backward()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))'''
WINDOWS = f'''
import runpy
runpy.run_path({str(ROOT/'tests/without_unix.py')!r}, run_name='__main__')'''
ALONE = "import sys, nntrain; assert 'Learner' in dir(nntrain); print('torch' in sys.modules)"
STAGES = [   # what a fresh Python imports, and what its forks do then
    ('', dict(alone=ALONE)),
    ('import torch', dict(names=NAMES, filters=FILTERS, methods=METHODS, paths=PATHS,
                          help='import nntrain as nt; help(nt.Learner)')),
    ('import datasets, torch._dynamo', dict(fit=FIT, forked=FORKED, windows=WINDOWS))]


@pytest.fixture(scope='module')
def printed(tmp_path_factory):
    "Name of a code -> what it prints in a Python that has imported no more than its stage says."
    folder = tmp_path_factory.mktemp('printed')
    command = [sys.executable, '-W', 'ignore', '-X', 'warn_default_encoding', '-c', NURSERY]
    done = subprocess.run([*command, json.dumps(STAGES)], cwd=folder, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    codes = dict(map(json.loads, done.stdout.splitlines()))
    texts = {name: (folder/name).read_text(encoding='utf-8').strip() for name in codes}
    def of(name):
        assert codes[name] == 0, texts[name][-2000:]
        return texts[name]
    return of


def test_importing_nntrain_alone_imports_no_torch(printed): assert printed('alone') == 'False'


def test_names_of_the_package_are_those_of_all(printed): assert "no 'Lerner'" in printed('names')


def test_importing_all_leaves_slow_libraries_and_the_filters_of_warnings_alone(printed):
    assert printed('filters') == 'set()\nTrue'


def test_methods_are_there_after_importing_the_learner_alone(printed):
    assert "'Learner' object has no attribute 'lr_fnd'" in printed('methods')


def test_old_import_paths_work_each_as_the_first_import_of_the_package(printed):
    assert printed('paths') == OLD


def test_help_shows_the_parameters(printed):
    assert re.search(r'class Learner\(.*\n \|  Learner\(\s*model', printed('help'))


def test_a_normal_fit_imports_no_pretend_device(printed):
    lines = printed('fit').splitlines()
    assert '[]' in lines and lines[-1] == 'True', lines


def test_a_process_that_checked_for_a_device_can_be_forked(printed):
    "Autograd with a thread for a device refuses to work in a fork: `check_resume` kills forks."
    assert printed('forked') == '0'


def test_training_without_what_windows_lacks(printed): assert 'the same weights' in printed('windows')
