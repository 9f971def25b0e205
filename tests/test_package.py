"""What the package promises to those who install it: names, imports, methods, the series' code."""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def python(code, *flags):
    "What a fresh Python prints for `code`; its errors are ours."
    done = subprocess.run([sys.executable, '-W', 'ignore', *flags, '-c', code], cwd=ROOT, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_importing_nntrain_alone_imports_no_torch():
    code = "import sys, nntrain; assert 'Learner' in dir(nntrain); print('torch' in sys.modules)"
    assert python(code) == 'False'


def test_names_of_the_package_are_those_of_all():
    code = '''
import nntrain as nt
from nntrain import Learner, MetricsS
import nntrain.all as everything
names = [name for name in vars(everything) if name[0] != '_']
assert nt.Learner is Learner is everything.Learner and len(names) <= 160
assert all(getattr(nt, name) is getattr(everything, name) for name in names)
try: nt.Lerner
except AttributeError as error: print(error)'''
    assert "no 'Lerner'" in python(code)


def test_importing_all_leaves_slow_libraries_and_the_filters_of_warnings_alone():
    code = '''
import sys, torch, warnings
before = list(warnings.filters)
from nntrain.all import *
print({'datasets', 'matplotlib', 'pandas', 'torcheval', 'PIL'} & {*sys.modules})
print(warnings.filters == before)'''
    assert python(code) == 'set()\nTrue'


def test_methods_are_there_after_importing_the_learner_alone():
    code = '''
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
    assert "'Learner' object has no attribute 'lr_fnd'" in python(code)


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


def test_old_import_paths_work_each_as_the_first_import_of_the_package():
    code = f'''
import sys, torch
for line in {OLD.splitlines()}:
    for name in [name for name in sys.modules if name.split('.')[0] == 'nntrain']:
        del sys.modules[name]
    exec(line, {{}})
    print(line)'''
    assert python(code) == OLD


def test_training_without_what_windows_lacks():
    command = [sys.executable, '-X', 'warn_default_encoding', str(ROOT/'tests/without_unix.py')]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_cell_of_a_notebook_prints_nothing(monkeypatch):
    import nbformat
    from nbclient import NotebookClient
    monkeypatch.delenv('PYTHONWARNINGS', raising=False)
    cell = nbformat.v4.new_code_cell('from nntrain.all import *\ndd = load_digits()')
    nb = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(nb, kernel_name='python3', extra_arguments=['--log-level=40']).execute()
    assert cell.outputs == [], cell.outputs
