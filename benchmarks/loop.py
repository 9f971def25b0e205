"""What the loop costs: microseconds of CPU and function calls per batch over a hand-written loop.

    python benchmarks/loop.py [--rounds N]

All rows are measured in one process, in turn with the hand-written loop, and the medians of the
differences are printed. Calls are counted by `sys.setprofile` and do not depend on the machine.
Progress goes to a file, as in a pipe. Exits with 1 if a limit of DESIGN section 8 is exceeded in
calls; the microseconds are printed beside their goals, since a busy machine shifts them.

Two ratios follow, which depend less on the machine: loss, accuracy and progress over the same
written by hand, with `.item()` and tqdm that shows the loss of each batch; and the loop alone over
the iteration of a torch `DataLoader` over the same list."""
import argparse
import contextlib
import os
import statistics
import sys
import time
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nntrain.learner import Learner
from nntrain.metrics import MetricsS, accuracy
from nntrain.progress import ProgressS
from nntrain.pubsub import Subscriber
from nntrain.inspect.timing import TimingS


class Stub:
    "A model, a loss and an optimizer that do nothing, so that the loop alone is left."
    param_groups = ()
    def __init__(self, *args): pass
    def __call__(self, x): return x
    def train(self, mode=True): return self
    def modules(self): return ()
    def parameters(self): return iter(())
    def named_parameters(self): return ()
    def step(self): pass
    backward = zero_grad = step


class First(Subscriber):
    def before_batch(self, learn): pass
    def after_batch(self, learn): pass

class Second(Subscriber):
    def after_loss(self, learn): pass

class Third(Subscriber):
    def before_batch(self, learn): pass
    def after_loss(self, learn): pass
    def after_step(self, learn): pass

class Fourth(Subscriber):
    def after_backward(self, learn): pass
    def before_step(self, learn): pass

class Fifth(Subscriber):
    def after_batch(self, learn): pass


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


def by_hand(model, opt, loss_fn, data):
    model.train()
    for xb, yb in data:
        loss = loss_fn(model(xb), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()


def by_hand_stub(data):
    model, loss = Stub(), Stub()
    by_hand(model, Stub(), lambda preds, targets: loss, data)


def by_hand_real(data):
    model = mlp()
    by_hand(model, torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data)


def by_hand_shown(data):
    "Loss, accuracy and progress as people write them."
    from tqdm import tqdm
    model, losses, right = mlp(), [], 0.
    opt = torch.optim.SGD(model.parameters(), 0.1)
    model.train()
    with open(os.devnull, 'w') as out:
        bar = tqdm(data, file=out)
        for xb, yb in bar:
            preds = model(xb)
            loss = F.cross_entropy(preds, yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
            right += (preds.argmax(1) == yb).float().mean().item()
            bar.set_postfix(loss=losses[-1])


def iterate(data):
    for batch in DataLoader(data, batch_size=None): pass


def fit(model, loss_fn, optim_class, data, subs):
    dls = SimpleNamespace(train=data, valid=None)
    learn = Learner(model, dls, loss_fn, optim_class, 0.1, subs)
    with open(os.devnull, 'w') as out, contextlib.redirect_stdout(out): learn.fit(1)


def stubbed(*subs):
    loss = Stub()
    return lambda data: fit(Stub(), lambda preds, targets: loss, Stub, data, subs)


def real(*make):
    return lambda data: fit(mlp(), F.cross_entropy, torch.optim.SGD, data, [m() for m in make])


def torcheval_metrics():
    from torcheval.metrics import MulticlassAccuracy
    return MetricsS(accuracy=MulticlassAccuracy())


ROWS = [  # what, function, hand-written loop, goal in microseconds, limit in calls
    ('loop alone', stubbed(), by_hand_stub, 2.5, None),
    ('loop alone, five subscribers', stubbed(First(), Second(), Third(), Fourth(), Fifth()),
     by_hand_stub, 3., None),
    ('loop alone, TimingS', stubbed(TimingS()), by_hand_stub, 12.5, None),
    ('bare step', real(), by_hand_real, None, 205),
    ('loss, accuracy, progress', real(lambda: MetricsS(accuracy=accuracy), ProgressS),
     by_hand_real, 40., 240),
    ('the same with torcheval', real(torcheval_metrics, ProgressS), by_hand_real, 80., None),
]


def microseconds(function, data):
    start = time.process_time()
    function(data)
    return (time.process_time() - start) / len(data) * 1e6


def calls(function, data):
    "Calls of Python and C functions per batch: the difference of a long and a short run."
    def count(data):
        n = 0
        def profile(frame, event, arg):
            nonlocal n
            n += event in ('call', 'c_call')
        sys.setprofile(profile)
        try: function(data)
        finally: sys.setprofile(None)
        return n
    half = len(data) // 2
    function(data[:4])
    return (count(data) - count(data[:half])) / (len(data) - half)


def ratio(what, functions, data, rounds, goal):
    "Print what the first costs over what the second costs, each without the third."
    rows = [[microseconds(function, data) for function in functions] for _ in range(rounds)]
    ours, theirs, raw = map(min, zip(*rows))
    print(f'{what:62}{ours-raw:8.2f}{theirs-raw:8.2f}{(ours-raw)/(theirs-raw):8.2f}{goal:>7}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=9, help='measurements of each row')
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = [(torch.randn(8, 16), torch.randint(0, 4, (8,))) for _ in range(2000)]
    too_many = 0
    print(f'{"":32}{"us":>8}{"over raw":>10}{"goal":>7}{"calls":>8}{"raw":>6}{"limit":>7}')
    for what, function, raw, goal, limit in ROWS:
        rows = data * (10 if goal and goal < 20 else 1)
        pairs = [(microseconds(raw, rows), microseconds(function, rows)) for _ in range(rounds)]
        over = statistics.median(ours - base for base, ours in pairs)
        ours = statistics.median(ours for _, ours in pairs)
        n, base = calls(function, data[:200]), calls(raw, data[:200])
        too_many += bool(limit and n > limit)
        goal, limit = goal or '', limit or ''
        print(f'{what:32}{ours:8.2f}{over:+10.2f}{goal:>7}{n:8.0f}{base:6.0f}{limit:>7}')
    print(f'{"":62}{"us":>8}{"theirs":>8}{"ratio":>8}{"goal":>7}')
    shown = ROWS[4][1]
    ratio('loss, accuracy, progress / by hand', (shown, by_hand_shown, by_hand_real), data, rounds,
          .15)
    ratio('loop alone / iterating a DataLoader', (stubbed(), iterate, by_hand_stub), data*10,
          rounds, .4)
    return 1 if too_many else 0


if __name__ == '__main__': sys.exit(main())
