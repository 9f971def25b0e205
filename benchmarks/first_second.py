"""What a user waits for before anything happens: the command, the imports, the first batch.

    python benchmarks/first_second.py [--rounds N]

Each row runs in fresh processes, with compiled bytecode on the disk and one thread, next to a
process that does without us. Seconds of CPU and of the clock are the least of all rounds: the
clock counts what other programs take. The difference is in seconds of CPU, the ratio too.
`torch.optim` imports `torch._dynamo` when the first optimizer is made, about a second that every
PyTorch program pays, so the fit is compared with one step of SGD by hand. Exits with 1 if a
difference exceeds its goal."""
import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

STEP = '''
import torch
from torch import nn
from torch.nn import functional as F
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
opt = torch.optim.SGD(model.parameters(), 0.1)
F.cross_entropy(model(torch.rand(64, 8, 8)), torch.zeros(64, dtype=torch.long)).backward()
opt.step()
opt.zero_grad()
'''
FIT = '''
import torch
from torch import nn
from torch.nn import functional as F
from nntrain.all import *
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
dls = DataLoaders.from_hf_dd(load_digits(), 64)
learn = Learner(model, dls, F.cross_entropy, torch.optim.SGD, 0.1, [SingleBatchS()])
learn.fit(1, valid=False)
'''
HEAVY = 'matplotlib', 'datasets', 'torcheval', 'fastprogress', 'PIL', 'pandas', 'IPython'
IMPORT = f'''
import sys
import torch
before = set(sys.modules)
from nntrain.all import *
print(*({set(HEAVY)} & set(sys.modules) - before))
'''
NOTHING, TORCH = ('nothing: python alone', ['-c', '']), ('import torch', ['-c', 'import torch'])
ROWS = [  # what, the words after python, what it is compared with, goal in seconds
    ('nntrain --help', ['-m', 'nntrain', '--help'], NOTHING, .1),
    ('nntrain train, its first line', ['-m', 'nntrain', 'train', '--dry-run'], NOTHING, 2.),
    ('import nntrain.learner', ['-c', 'import torch, nntrain.learner'], TORCH, .2),
    ('from nntrain.all import *', ['-c', IMPORT], TORCH, .3),
    ('one batch of the digits', ['-c', FIT], ('a step of SGD by hand', ['-c', STEP]), 1.),
    ('one batch of the digits', ['-c', FIT],
     ('and import datasets', ['-c', STEP + 'import datasets']), None),
    ('a step of SGD by hand', ['-c', STEP], TORCH, None),
]


def once(words, folder):
    "Seconds of CPU, seconds of the clock, what was printed; of `train` until its first line."
    env = {**os.environ, 'PYTHONPYCACHEPREFIX': str(folder/'bytecode'), 'OMP_NUM_THREADS': '1',
           'PYTHONPATH': str(Path(__file__).resolve().parents[1])}
    env.pop('PYTHONDONTWRITEBYTECODE', None)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=env, cwd=folder, text=True,
                               stdout=subprocess.PIPE)
    first = 'train' in words
    said = process.stdout.readline() if first else process.stdout.read()
    if first: process.kill()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = status
    process.stdout.close()
    if status and not first: sys.exit(f'{words[:2]} ended with {status}')
    return used.ru_utime + used.ru_stime, seconds, said


def least(words, folder, rounds, known):
    "The best of `rounds` runs after one that fills the caches; measured once for equal words."
    key = tuple(words)
    if key not in known:
        once(words, folder)
        runs = [once(words, folder) for _ in range(rounds)]
        known[key] = min(run[0] for run in runs), min(run[1] for run in runs), runs[0][2]
    return known[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5, help='processes for each row')
    rounds, known, slow = parser.parse_args().rounds, {}, False
    print(f'{"":30}{"CPU s":>7}{"clock s":>9}  {"compared with":23}{"CPU s":>7}'
          f'{"over":>7}{"ratio":>7}{"goal":>7}')
    with TemporaryDirectory() as folder:
        for what, words, (other, theirs), goal in ROWS:
            cpu, clock, said = least(words, Path(folder), rounds, known)
            base = least(theirs, Path(folder), rounds, known)[0]
            slow |= bool(goal and cpu - base > goal)
            print(f'{what:30}{cpu:7.2f}{clock:9.2f}  {other:23}{base:7.2f}{cpu-base:+7.2f}'
                  f'{cpu/base:7.2f}{goal or "":>7}', flush=True)
            if words[-1] is IMPORT: print(f'  heavy packages loaded: {said.strip() or "none"}')
    return 1 if slow else 0


if __name__ == '__main__': sys.exit(main())
