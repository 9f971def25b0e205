"""nntrain on one GPU, in at most eight minutes: the pages' cells, speed, waits, memory, accuracy.

    python benchmarks/gpu.py                    every part that is not done yet
    python benchmarks/gpu.py --parts speed      one part, again
    python benchmarks/gpu.py --device pretend   without a GPU: proves that the script runs

Each part is written to runs/gpu.json when it is done, so that a run that was cut off goes on with
the next part; the table of all of them is printed at the end. Ratios are taken in one process, in
turn with the same loop written by hand."""
import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from nntrain.data.collate import hf_ds_collate_fn, load_digits
from nntrain.data.loaders import TensorLoader
from nntrain.dataloaders import DataLoaders
from nntrain.device import DeviceS
from nntrain.inspect.pretend import pretend_device
from nntrain.inspect.syncs import SyncCounterS
from nntrain.learner import Learner
from nntrain.metrics import MetricsS, accuracy
from nntrain.training.precision import CompileS, MixedPrecisionS

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT/'runs/gpu.json'
BATCH, WIDTH = 256, 512


def wait(device):
    if device.type == 'cuda': torch.cuda.synchronize()


class Residual(nn.Module):
    def __init__(self, n):
        super().__init__()
        layers = [nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n), nn.ReLU(),
                  nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n)]
        self.layers = nn.Sequential(*layers)
    def forward(self, x): return F.relu(x + self.layers(x))


def residual_net(n=32):
    "About the size of a net for CIFAR: pictures of 32x32 in three colours, ten classes."
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), Residual(n), nn.MaxPool2d(2),
                         Residual(n), nn.MaxPool2d(2), Residual(n), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(n, 10))


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
                         nn.Linear(WIDTH, 10))


def batches(device, n, shape=(784,), size=BATCH):
    torch.manual_seed(1)
    return [(torch.randn(size, *shape).to(device), torch.randint(10, (size,)).to(device))
            for _ in range(n)]


# --- the parts ------------------------------------------------------------------------------------

def cells(device, quick):
    "Every page with a `#| cuda` cell, those cells included."
    pages = [str(path) for path in sorted((ROOT/'nbs').rglob('*.ipynb'))
             if '#| cuda' in path.read_text() and '.ipynb_checkpoints' not in str(path)]
    if quick: return [dict(what=f'{len(pages)} pages with cells for a GPU', value='not run')]
    done = subprocess.run([sys.executable, 'tools/test_nbs.py', '--flags', 'cuda', *pages],
                          cwd=ROOT, text=True, capture_output=True)
    return [dict(what='pages with cells for a GPU', value=done.stdout.strip().split('\n')[-1])]


def by_hand(model, data, opt, dtype, scaler):
    for x, y in data:
        with torch.autocast(x.device.type, dtype) if dtype else nullcontext():
            loss = F.cross_entropy(model(x), y)
        if scaler:
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
        else:
            loss.backward()
            opt.step()
        opt.zero_grad()


def speed(device, quick):
    "A fit against the same loop by hand: seconds of the fit over seconds of the loop."
    ways = {'fp32': (None, False), 'bf16': (torch.bfloat16, False), 'fp16': (torch.float16, False),
            'compiled': (None, 'default'), 'CUDA graphs': (None, 'reduce-overhead')}
    if device.type != 'cuda': ways = {k: v for k, v in ways.items() if not v[1]}
    rows, n = [], 3 if quick else 200
    data = batches(device, n)
    for name, (dtype, mode) in ways.items():
        subs = [MixedPrecisionS(name)] if dtype else [CompileS(mode=mode)] if mode else []
        learn = Learner(perceptron().to(device), DataLoaders(data, None), F.cross_entropy, lr=.01,
                        subs=subs)
        model = perceptron().to(device)
        if mode: model.compile(mode=mode)
        opt = torch.optim.SGD(model.parameters(), .01)
        scaler = torch.amp.GradScaler(device.type) if dtype == torch.float16 else None
        seconds = {'fit': [], 'hand': []}
        for turn in range(2 if quick else 7):
            for who, act in (('hand', lambda: by_hand(model, data, opt, dtype, scaler)),
                             ('fit', lambda: learn.fit(1, reset_opt=False))):
                wait(device)
                start = time.perf_counter()
                act()
                wait(device)
                if turn: seconds[who].append(time.perf_counter()-start)  # the first warms up
        fit, hand = (statistics.median(seconds[who]) for who in ('fit', 'hand'))
        rows.append(dict(what=f'{name}: fit / loop by hand', value=round(fit/hand, 3),
                         goal='1.02', note=f'{hand/n*1e6:.0f} us a batch by hand'))
    return rows


def syncs(device, quick):
    "Waits per batch of loss, accuracy and a subscriber that reads: torch, the counter, the device."
    def learner(*subs):
        subs = [DeviceS(device), MetricsS(accuracy, show=False), *subs]
        return Learner(perceptron(), DataLoaders(batches('cpu', 4), None), F.cross_entropy,
                       subs=subs)
    counter, rows = SyncCounterS(), []
    learner(counter).fit(1)
    rows.append(dict(what='waits per batch: SyncCounterS', value=counter.per_batch, goal='0'))
    report = learner().check_device()
    rows.append(dict(what='waits per batch: check_device', value=report.per_batch, goal='0'))
    if device.type == 'cuda':
        learn, inside = learner(), []
        learn.on('before_batch', lambda learn: torch.cuda.set_sync_debug_mode('warn'), order=-100)
        learn.on('cleanup_batch', lambda learn: torch.cuda.set_sync_debug_mode('default'),
                 order=-100)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            learn.fit(1)
        inside = [w for w in caught if 'synchronizing' in str(w.message)]
        rows.append(dict(what='waits per batch: torch', value=len(inside)/4, goal='0'))
    return rows


def memory(device, quick):
    "What `check_device` foresees against what CUDA's allocator saw."
    rows = []
    for name, make, shape in (('perceptron', perceptron, (784,)),
                              ('residual net', residual_net, (3, 32, 32))):
        size = 16 if quick else BATCH
        learn = Learner(make(), DataLoaders(batches('cpu', 3, shape, size), None), F.cross_entropy,
                        torch.optim.Adam)
        foreseen = learn.check_device(2, times=(1, 2)).memory.peak()
        row = dict(what=f'{name}: peak foreseen', value=f'{foreseen/1e6:.1f} MB')
        if device.type == 'cuda':
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            learn.fit(1, subs=[DeviceS(device)])
            seen = torch.cuda.max_memory_allocated() - before
            row |= dict(goal='within 10 %', note=f'seen {seen/1e6:.1f} MB, {foreseen/seen:.3f}')
            del learn
        rows.append(row)
    return rows


def copies(device, quick):
    "Batches from the host: through page-locked memory against copies that block."
    data, rows = batches('cpu', 3 if quick else 100, (3, 32, 32)), {}
    for name in ('page-locked', 'blocking'):
        mover = DeviceS(device)
        mover.non_blocking = mover.non_blocking and name == 'page-locked'
        learn = Learner(residual_net(), DataLoaders(data, None), F.cross_entropy, subs=[mover])
        learn.fit(1)
        wait(device)
        start = time.perf_counter()
        learn.fit(1)
        wait(device)
        rows[name] = time.perf_counter()-start
    return [dict(what='seconds page-locked / blocking', goal='below 1',
                 value=round(rows['page-locked']/rows['blocking'], 3))]


def digits(device):
    "The digits as pictures of a CIFAR's size."
    splits = [hf_ds_collate_fn(list(split), flatten=False) for split in load_digits().values()]
    large = [(F.interpolate(x, size=32).expand(-1, 3, -1, -1).contiguous().to(device), y.to(device))
             for x, y in splits]
    return large


def accuracy_reached(device, quick):
    "Epochs and seconds to 97 %: a Learner against its own script with the same batches."
    (x, y), (valid_x, valid_y) = digits(device)
    if quick: x, y, valid_x, valid_y = x[:64], y[:64], valid_x[:32], valid_y[:32]
    n_epochs, rows, ends = 1 if quick else 12, [], []
    loaders = lambda: TensorLoader(x, y, batch_size=64, shuffle=True, seed=0)
    for who in ('script', 'Learner'):
        model = residual_net().to(device)
        wait(device)
        start = time.perf_counter()
        if who == 'Learner':
            Learner(model, DataLoaders(loaders(), None), F.cross_entropy, torch.optim.Adam,
                    2e-3).fit(n_epochs)
        else:
            opt, loader = torch.optim.Adam(model.parameters(), 2e-3), loaders()
            for _ in range(n_epochs): by_hand(model.train(), loader, opt, None, None)
        wait(device)
        seconds = time.perf_counter()-start
        with torch.no_grad(): right = accuracy(model.eval()(valid_x), valid_y).item()
        ends.append(seconds)
        rows.append(dict(what=f'residual net, {who}: accuracy', value=round(right, 4),
                         goal='0.97', note=f'{seconds:.1f} s'))
    return [*rows, dict(what='seconds Learner / script', value=round(ends[1]/ends[0], 3),
                        goal='1.02')]


PARTS = dict(speed=speed, syncs=syncs, memory=memory, copies=copies, accuracy=accuracy_reached,
             cells=cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--device', default='cuda', help='cuda, or pretend to try the script')
    parser.add_argument('--parts', nargs='+', choices=PARTS, help='these, again')
    args = parser.parse_args()
    quick = args.device == 'pretend'
    if not quick and not torch.cuda.is_available():
        sys.exit('gpu.py: no CUDA device here; `--device pretend` shows that the script runs')
    device = pretend_device() if quick else torch.device(args.device)
    card = 'pretend' if quick else torch.cuda.get_device_name()
    done = json.loads(FILE.read_text()) if FILE.exists() and not quick else {}
    done = copy.deepcopy(done.get(card, {}))
    for name, part in PARTS.items():
        if name in done and name not in (args.parts or ()): continue
        if args.parts and name not in args.parts: continue
        start = time.perf_counter()
        done[name] = part(device, quick)
        print(f'{name}: {time.perf_counter()-start:.0f} s', flush=True)
        if quick: continue
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(json.dumps({card: done}, indent=1))
    print(f'\n{card}, torch {torch.__version__}')
    for row in [row for rows in done.values() for row in rows]:
        print(f"{row['what']:42} {row['value']!s:>12}   {row.get('goal', ''):12} "
              f"{row.get('note', '')}")


if __name__ == '__main__': main()
