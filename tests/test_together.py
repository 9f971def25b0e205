"""Parts that are right alone are right together: neighbours of what public bug reports found.

    python -m pytest tests/test_together.py -k weights    runs one kind
"""
import itertools
import math
import warnings
from collections import defaultdict, deque
from copy import deepcopy
from functools import partial
from threading import Lock

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nntrain.all import *
from nntrain.checkpoint.folder import resume
from nntrain.pubsub import (CancelBatchException, CancelEpochException, CancelFitException, CancelStepException,
                            CancelTrainException)
from nntrain.variants.gan import TurnLossesS, hinge

CASES = {}   # (kind, what meets what) -> function that asserts


def case(kind, what):
    def register(function):
        assert (kind, what) not in CASES, what
        CASES[kind, what] = function
        return function
    return register


def mlp(*middle): return nn.Sequential(nn.Linear(4, 6), *(middle or [nn.Tanh()]), nn.Linear(6, 2))


def data(n=8, bad=()):
    "Batches of four and five samples; those in `bad` have a NaN."
    generator, found = torch.Generator().manual_seed(0), []
    for i in range(n):
        x = torch.randn(4 + i % 2, 4, generator=generator)
        y = (x.sum(1) > 0).long()
        if i in bad: x[0, 0] = math.nan
        found.append((x, y))
    return found


def learner(*subs, model=None, train=None, valid=None, loss=F.cross_entropy, cls=Learner,
            optim=torch.optim.SGD, lr=0.1, **kwargs):
    torch.manual_seed(1)
    dls = DataLoaders(data() if train is None else train, data(4) if valid is None else valid)
    return cls(mlp() if model is None else model, dls, loss, optim, lr, list(subs), **kwargs)


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def near(a, b, eps=1e-5):
    "Whether numbers in dicts, lists and tensors are equal up to rounding."
    if isinstance(a, torch.Tensor): a, b = a.tolist(), b.tolist()
    if isinstance(a, dict): return a.keys() == b.keys() and all(near(a[k], b[k], eps) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(near(x, y, eps) for x, y in zip(a, b))
    return a == b or isinstance(a, (int, float)) and (abs(a-b) < eps or a != a and b != b)


def valid_loss(learn):
    learn.fit(1, train=False)
    return learn.row['loss']


def valid_rows(learn): return [row['loss'] for row in learn.history.rows if row['mode'] == 'valid']


# 1: the weights that were validated are those that are kept, saved, loaded and left

class Growing(nn.Module):
    "Has a buffer that grows with the batches."
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer('seen', torch.zeros(0))
    def forward(self, x):
        if self.training and len(self.seen) < 12: self.seen = torch.cat([self.seen, x[:1, 0].detach()])
        return self.linear(x)


class LateMask(nn.Module):
    "Fills its mask with -inf in the third batch."
    def __init__(self):
        super().__init__()
        self.linear, self.n = nn.Linear(4, 2), 0
        self.register_buffer('mask', torch.zeros(4))
    def forward(self, x):
        self.n += 1
        if self.n == 3: self.mask[3] = -math.inf
        return self.linear((x + self.mask).softmax(1))


AVERAGES = {'no average': lambda: [], 'EMA': lambda: [EMAS(0.5)], 'SWA': lambda: [SWAS(0.3)]}
MODELS = {'a perceptron': mlp, 'batch norm': lambda: mlp(nn.BatchNorm1d(6)), 'a growing buffer': Growing,
          'a mask filled later': LateMask}


def left_is_validated(average, model, reverse):
    subs = [MetricsS(show=False), RecorderS(), *AVERAGES[average]()]
    learn = learner(*(subs[::-1] if reverse else subs), model=MODELS[model]())
    learn.fit(4)
    assert near(valid_rows(learn)[-1], loss := valid_loss(learn)) and math.isfinite(loss)


def best_is_validated(average, model, folder):
    "KeepBest, the best checkpoint and a file saved then all have the best row's value."
    def save(learn): learn.save(folder/f'{learn.epoch}.safetensors')
    subs = [MetricsS(show=False), RecorderS(), *AVERAGES[average](), KeepBestS()]
    learn = learner(*subs, model=MODELS[model](), lr=0.5)
    with learn.on('after_full_epoch', save, order=30):
        learn.fit(5, subs=CheckpointS(folder/'run', best='loss'))
    best = min(rows := valid_rows(learn))
    assert near(valid_loss(learn), best)
    other = learner(MetricsS(show=False), *AVERAGES[average](), model=MODELS[model](), lr=0.5)
    other.load(folder/f'{rows.index(best)}.safetensors')
    assert near(valid_loss(other), best)
    fresh = learner(*subs, model=MODELS[model](), lr=0.5)
    fresh.load_state_dict(resume(folder/'run', best=True))
    assert near(valid_loss(fresh), best)


def resumed_is_whole(average, *more):
    "A run that stops in a validation pass goes on as if it had not."
    def run(state=None):
        states = []
        shuffled = DataLoader(TensorDataset(*map(torch.cat, zip(*data()))), 8, shuffle=True)   # other batches each time
        learn = learner(MetricsS(show=False), *AVERAGES[average](), *(make() for make in more), model=mlp(nn.BatchNorm1d(6)), train=shuffled,
                        valid=DataLoader(TensorDataset(*map(torch.cat, zip(*data(4)))), 8))   # draws a number, too
        learn.on('after_batch', lambda learn: None if learn.rehearsing else states.append(learn.state_dict()), order=30)
        for event in 'after_epoch', 'after_full_epoch':
            learn.on(event, lambda learn: None if learn.rehearsing else states.append(learn.state_dict()), order=30)
        learn.fit(3, resume=state)
        return {**learn.model.state_dict()}, learn.row.get('loss'), states
    whole, loss, states = run()
    states.append(states[-1])   # of a complete run
    states[-1]['position'] = {'level': 'epoch', 'epoch': 3}
    late = len(states)-(9 if average == 'SWA' else 3)   # its statistics come from a pass of their own
    for at in (*range(late, len(states)), 2*len(states)//3 - 2, 5):
        again, other, _ = run(states[at])
        assert near(whole, again, 0) and (other is None or near(loss, other)), at


OFFERED = ('after_epoch', 30), ('after_full_epoch', -30), ('after_fit', -30), ('after_fit', 45)


def offered_is_validated(average, event, order, best, folder):
    "What `validate`, `get_preds`, `export` and `save` give in an event has the loss of the row."
    keep = [KeepBestS()] if best else []
    other, found = [(x, 1-y) for x, y in data(4)], {}   # the loss rises: the first epoch is the best
    learn = learner(MetricsS(show=False), RecorderS(), *AVERAGES[average](), *keep, model=mlp(nn.BatchNorm1d(6)),
                    lr=0.5, valid=other)
    def use(learn):
        if learn.rehearsing or learn.training and event.endswith('_epoch'): return
        before = {k: t.clone() for k, t in learn.model.state_dict().items()}
        found['validate'] = learn.validate()['loss']
        preds, targets = learn.get_preds()
        found['get_preds'] = F.cross_entropy(preds, targets).item()
        learn.export(folder/'exported.safetensors', prepare=None)
        learn.save(folder/'saved.safetensors')
        assert all(torch.equal(before[k], t) for k, t in learn.model.state_dict().items())
    learn.on(event, use, order=order)
    learn.fit(4)
    rows = valid_rows(learn)
    restored = best and event == 'after_fit' and order > 25   # by then KeepBestS has put it back
    fresh = learner(MetricsS(show=False), model=mlp(nn.BatchNorm1d(6)), valid=other)
    x, y = map(torch.cat, zip(*other))
    found['export'] = F.cross_entropy(load_predictor(folder/'exported.safetensors', fresh.model).scores(x), y).item()
    fresh.load(folder/'saved.safetensors')
    found['save'] = valid_loss(fresh)
    wanted = min(rows) if restored else rows[-1]
    assert near(found, dict.fromkeys(found, wanted)), (found, rows)


for average in AVERAGES:
    for event, order in OFFERED:
        for best in (False, True) if event == 'after_fit' else (False,):
            case('weights', f'{average} meets an export in {event} at {order}{" with KeepBest"*best}')(
                lambda tmp_path, a=(average, event, order, best): offered_is_validated(*a, tmp_path))


for average in AVERAGES:
    for model in MODELS:
        for reverse in False, True:
            case('weights', f'{average} meets {model}, {"other" if reverse else "one"} order')(
                partial(left_is_validated, average, model, reverse))
        if model in ('a perceptron', 'batch norm'): case('weights', f'best of {average}, {model}')(
            lambda tmp_path, a=average, m=model: best_is_validated(a, m, tmp_path))
    case('weights', f'{average} meets a resume')(partial(resumed_is_whole, average))
    case('weights', f'{average} meets a resume and KeepBest')(partial(resumed_is_whole, average, KeepBestS))


@case('weights', 'EMA and SWA are refused together')
def _():
    for subs in [EMAS(), SWAS()], [SWAS(), EMAS()]:
        with pytest.raises(ValueError, match='sets `average` too'): learner(*subs)


@case('weights', 'SWA meets a validation in an event of its pass for the norms')
def _():
    losses, learn = [], learner(MetricsS(show=False), RecorderS(), SWAS(0.3), model=mlp(nn.BatchNorm1d(6)))
    learn.on('cleanup_train', lambda learn: losses.append((learn.rehearsing, learn.validate()['loss'])))
    learn.fit(4)
    assert any(rehearsing for rehearsing, _ in losses) and all(math.isfinite(loss) for _, loss in losses)


@case('weights', 'SWA under accumulation, fp16, a limit in steps')
def _():
    for sub in GradientAccumulationS(2), MixedPrecisionS('bf16'), GradientClipS(0.1):
        learn = learner(MetricsS(show=False), RecorderS(), SWAS(0.3), sub, model=mlp(nn.BatchNorm1d(6)))
        learn.fit_for(n_steps=20)
        assert near(valid_rows(learn)[-1], valid_loss(learn), 1e-4)


# 1: the statistics of batch norm under SWA are those of a loop over the batches with the average

class TwoNorms(nn.Module):
    "The first norm has statistics that are not those of its inputs."
    def __init__(self, first=None):
        super().__init__()
        self.n1, self.n2 = first or nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        if self.n1.track_running_stats: self.n1.running_mean.fill_(0.5)
    def forward(self, x, extra=1.): return self.c(self.n2(self.b((self.n1(self.a(x))*extra).tanh())))


class FrozenByTrain(TwoNorms):
    def train(self, mode=True):
        super().train(mode)
        self.n1.eval()
        return self


class FreezeNormS(Subscriber):
    def __init__(self, event, order=0):
        self.order = order
        setattr(self, event, lambda learn: learn.model.n1.eval())


class EndPassS(Subscriber):
    def after_batch(self, learn):
        if learn.training and learn.iter == 4: raise CancelTrainException


class Endless:
    def __init__(self, batches): self.batches = batches
    def __iter__(self): return itertools.cycle(self.batches)


def in_seconds(learn):
    "Five seconds of a clock that ticks a tenth of one at each look."
    limit = StopAfterS(seconds=5.)
    limit.clock = partial(next, itertools.count(0., 0.1))
    learn.fit(10**9, subs=limit)


def two_inputs(): return [(x, x[:, :1].expand(-1, 6), y) for x, y in data()]
def dicts(): return [dict(x=x, extra=extra, labels=y) for x, extra, y in two_inputs()]
def in_steps(learn): learn.fit_for(n_steps=21)


FROZEN = dict(frozen=('n1',))
NORMS = {
    'a list of batches': {}, 'two inputs': dict(train=two_inputs), 'dict batches': dict(train=dicts),
    'an input by name': dict(train=lambda: [(x, y, y) for x, y in data()], n_inp=1),
    'a norm frozen by train()': dict(model=FrozenByTrain, **FROZEN),
    **{f'a norm frozen in {event} at {order}': dict(subs=lambda e=event, o=order: [FreezeNormS(e, o)], **FROZEN)
       for event in ('before_epoch', 'before_train', 'before_batch', 'before_predict') for order in (-50, 0)},
    'a norm without statistics': dict(model=lambda: TwoNorms(nn.BatchNorm1d(6, track_running_stats=False))),
    'a norm without parameters': dict(model=lambda: TwoNorms(nn.BatchNorm1d(6, affine=False))),
    'a norm that takes the plain mean': dict(model=lambda: TwoNorms(nn.BatchNorm1d(6, momentum=None))),
    'a limit in steps': dict(fit=in_steps), 'a limit in seconds': dict(fit=in_seconds),
    'an endless loader': dict(subs=lambda: [EndPassS()], endless=True),
    'an endless loader and a limit in steps': dict(subs=lambda: [EndPassS()], endless=True, fit=in_steps),
    'an endless loader and a limit in seconds': dict(subs=lambda: [EndPassS()], endless=True, fit=in_seconds),
    'short epochs': dict(subs=lambda: [ShortEpochS(0.5)]), 'accumulation': dict(subs=lambda: [GradientAccumulationS(3)]),
    'a transform': dict(subs=lambda: [BatchTransformS(Normalize([2.], [3.]))], change=lambda x: (x-2)/3),
    'SAM': dict(cls=SAMLearner),
}


def norms_of_average(model=TwoNorms, train=data, subs=lambda: [], endless=False, frozen=(), n_inp=None, cls=Learner,
                     change=lambda x: x, fit=lambda learn: learn.fit(4)):
    torch.manual_seed(0)
    model, batches, seen = model(), train(), [0]
    kept = model.n1.running_mean
    kept = kept if kept is None else kept.clone()
    dls = DataLoaders(Endless(batches) if endless else batches, None)
    learn = cls(model, dls, lambda preds, *ys: F.cross_entropy(preds, ys[-1]), torch.optim.SGD, 0.2,
                [average := SWAS(0.3), *subs()], n_inp=n_inp)
    def count(learn): seen[0] = max(seen[0], learn.iter+1)
    learn.on('after_batch', count, order=-60)
    with warnings.catch_warnings(action='error', category=UserWarning): fit(learn)
    assert average.averaged.n_averaged > 0
    hand, plain = deepcopy(model).train(), []
    for name, norm in hand.named_children():
        if name in frozen: norm.eval()
        elif isinstance(norm, nn.BatchNorm1d) and norm.track_running_stats: plain.append(norm)
    for norm in plain: norm.reset_running_stats(), setattr(norm, 'momentum', None)
    with torch.no_grad():
        for batch in itertools.islice(itertools.cycle(batches), seen[0]):
            inputs = {k: v for k, v in batch.items() if k != 'labels'} if isinstance(batch, dict) else batch[:n_inp or -1]
            hand(**inputs) if isinstance(inputs, dict) else hand(change(inputs[0]), *inputs[1:])
    assert near(dict(model.named_buffers()), dict(hand.named_buffers()), 1e-4)
    if frozen: assert torch.equal(model.n1.running_mean, kept)
    momenta = [m.momentum for m in model.children() if isinstance(m, nn.BatchNorm1d)]
    assert momenta[1] == 0.1 and momenta[0] in (0.1, None)


for name, kwargs in NORMS.items():
    case('norms', f'those of an average meet {name}')(partial(norms_of_average, **kwargs))


# 3: withheld and missing steps; one clock on the host's and on the device's way

class GradientNaN(nn.Module):
    "A linear layer whose gradient is NaN for inputs with a NaN."
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
    def forward(self, x):
        out = self.linear(x.nan_to_num())
        if x.isnan().any() and self.training: out.register_hook(lambda g: g*math.nan)
        return out


def guarded(on_device, *subs, fit='fit_one_cycle', bad=(3,), model=mlp, **kwargs):
    "Everything that counts, after two epochs with a faulty batch that is skipped."
    torch.manual_seed(1)
    recorder, ema = RecorderS(), EMAS(0.5)
    guard, smooth = StopOnNaNS('skip', on_device=on_device), SmoothLossS(0.9)
    learn = learner(MetricsS(accuracy, show=False), recorder, ema, guard, smooth,
                    *(sub(on_device) for sub in subs), train=data(bad=bad), model=model(), **kwargs)
    getattr(learn, fit)(2)
    tables = {str(key): {k: v.tolist() for k, v in table.items()}
              for key, table in recorder.history.tables.items()}
    return dict(weights=weights(learn), clocks=[learn.train_iter, learn.n_steps, learn.n_samples],
                tried=learn.counts['withheld'], bad=guard.n_bad, rows=recorder.history.rows,
                tables=tables, averaged=int(ema.n), smooth=float(learn.smooth_loss))


def same_both_ways(*subs, **kwargs):
    host, device = guarded(False, *subs, **kwargs), guarded(True, *subs, **kwargs)
    for name in host: assert near(host[name], device[name]), (name, host[name], device[name])
    assert host['bad'] and all(map(math.isfinite, host['weights'].tolist()))


def clip(_): return GradientClipS(0.1)
def grouped(_): return GradientAccumulationS(3)
def scaled(on_device): return MixedPrecisionS('fp16', 2.**10, on_device=on_device)


SKIPS = {
    'one cycle': dict(), 'a constant rate': dict(fit='fit'), 'a flat and a cosine part': dict(fit='fit_flat_cos'),
    'momentum': dict(optim=partial(torch.optim.SGD, momentum=0.9)), 'Adam': dict(optim=torch.optim.Adam),
    'the first and the last batch': dict(bad=(0, 7)), 'two in a row': dict(bad=(3, 4)),
    'NaN gradients': dict(model=GradientNaN), 'SAM': dict(cls=SAMLearner, fit='fit'),
}
for name, kwargs in SKIPS.items():
    case('withheld', f'a NaN meets {name}')(partial(same_both_ways, **kwargs))
for name, subs in {'clipping': [clip], 'accumulation': [grouped], 'accumulation and clipping': [clip, grouped],
                   'fp16': [scaled], 'fp16, accumulation and clipping': [scaled, grouped, clip]}.items():
    case('withheld', f'a NaN meets {name}')(partial(same_both_ways, *subs))
case('withheld', 'NaN gradients meet accumulation')(partial(same_both_ways, grouped, model=GradientNaN))


class SeededGAN(GANLearner):
    "Its noise depends on the batch and the turn alone."
    def make_noise(self, n, seed=None):
        generator = torch.Generator().manual_seed(100*self.epoch + 2*self.iter + (self.turn == 'generator'))
        return torch.randn(n, self.n_noise, generator=generator)


def gan_both_ways(k=1, fit='fit', spoil=False):
    "A NaN in the data of a discriminator's turn, or in its gradient."
    found = []
    for on_device in False, True:
        torch.manual_seed(2)
        recorder, guard, discriminator = RecorderS(), StopOnNaNS('skip', on_device=on_device), nn.Linear(4, 1)
        learn = learner(MetricsS(show=False), TurnLossesS(), recorder, guard, ema := EMAS(0.5),
            train=[(x,) for x, _ in data(bad=() if spoil else (3,))], model=nn.Linear(3, 4), loss=hinge,
            cls=SeededGAN, optim=torch.optim.Adam, discriminator=discriminator, n_noise=3, k=k,
            valid=False)
        learn.dls.valid = None
        def plant(learn):
            if learn.iter == 2 and learn.turn == 'discriminator': discriminator.weight.grad[0, 0] = math.nan
        if spoil: learn.on('after_backward', plant)
        getattr(learn, fit)(2)
        rows = [{k: v for k, v in row.items() if not isinstance(v, str)} for row in recorder.history.rows]
        found.append(dict(weights=torch.cat([weights(learn), discriminator.weight.detach().flatten()]),
            clocks=[learn.train_iter, learn.n_steps, learn.n_samples, learn.n_discriminator_steps],
            bad=guard.n_bad, rows=rows, averaged=int(ema.n)))
    for name in found[0]: assert near(found[0][name], found[1][name]), (name, found)
    assert found[0]['bad'] == 2*(k if spoil else 1)


for name, kwargs in {'a turn of the discriminator': {}, 'one of two turns': dict(k=2),
                     'one cycle': dict(fit='fit_one_cycle'), 'its gradient': dict(spoil=True)}.items():
    case('withheld', f'a NaN in a GAN meets {name}')(partial(gan_both_ways, **kwargs))


# 1, 7: a fit that is ended after an epoch: the last epoch may be the best

def best_of_limited(average, folder):
    "Limits in steps that end in mid-pass, with checkpoints in the pass or not."
    flipped = [(x, 1-y) for x, y in data(4)]   # the first epoch is the best
    for valid, n_steps, every, lr in (None, 19, {}, 0.05), (None, 19, dict(every_steps=1), 0.05), (None, 3, dict(every_steps=3, keep=1), 0.05), (
            flipped, 21, {}, 0.5):
        def make(): return learner(StopAfterS(n_steps=n_steps), MetricsS(show=False), RecorderS(), *AVERAGES[average](),
                                   KeepBestS('train loss'), model=mlp(nn.BatchNorm1d(6)), lr=lr, valid=valid)
        path = folder/f'{n_steps} {len(every)} {lr}'
        (learn := make()).fit(9, subs=CheckpointS(path, best='loss', **every))
        best = min(rows := valid_rows(learn))
        assert learn.n_steps == n_steps and (best == rows[0 if valid else -1]), rows
        (fresh := make()).load_state_dict(resume(path, best=True))
        assert near(valid_loss(fresh), best), rows
        again = make()
        again.fit(9, subs=CheckpointS(path, best='loss', **every), resume=True)   # it is complete
        assert near(dict(again.model.state_dict()), dict(learn.model.state_dict()), 0)


for average in AVERAGES:
    case('limits', f'the best checkpoint of {average}')(lambda tmp_path, a=average: best_of_limited(a, tmp_path))


@case('limits', 'the best checkpoint, of the epoch that reached a goal, with one at each step')
def _(tmp_path):
    for every in {}, dict(every_steps=1), dict(every_steps=1, keep=1, background=False):
        def make(goal): return learner(MetricsS(show=False), RecorderS(), EMAS(0.5), EarlyStoppingS(goal=goal, patience=9), lr=0.2)
        torch.manual_seed(0)
        (learn := make(1e-9)).fit(4)
        goal = sorted(valid_rows(learn))[1]   # it falls: the third epoch
        path = tmp_path/f'{len(every)}'
        torch.manual_seed(0)
        (learn := make(goal+1e-6)).fit(9, subs=CheckpointS(path, best='loss', **every))
        torch.manual_seed(0)
        (fresh := make(1e-9)).load_state_dict(resume(path, best=True))
        assert learn.epoch == 2 and near(valid_loss(fresh), valid_rows(learn)[-1])


@case('limits', 'who decides by the training waits through an evaluation')
def _():
    for make in KeepBestS, EarlyStoppingS, ReduceLROnPlateauS:
        learn = learner(MetricsS(show=False), make('train loss'))
        learn.fit(2)
        before = vars(learn.subs[1]).copy()
        learn.fit(1, train=False)
        assert learn.row['loss'] > 0 and learn.subs[1].best == before['best'] and learn.subs[1].best_epoch == before['best_epoch']


def swa_by_hand(*more):
    "SWA under accumulation and clipping, against torch's own average."
    torch.manual_seed(8)
    model = mlp(nn.BatchNorm1d(6))
    by_hand = deepcopy(model)
    learn = learner(MetricsS(show=False), SWAS(0.5), GradientAccumulationS(3), GradientClipS(0.5), *more, model=model)
    learn.fit(4)
    opt, average = torch.optim.SGD(by_hand.parameters(), 0.1), torch.optim.swa_utils.AveragedModel(by_hand)
    for epoch in range(4):
        by_hand.train()
        for start in range(0, 8, 3):
            group = data()[start:start+3]
            for x, y in group: (F.cross_entropy(by_hand(x), y)*len(y)/sum(len(y) for _, y in group)).backward()
            nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
            opt.step()
            opt.zero_grad()
        if epoch > 1: average.update_parameters(by_hand)
    torch.optim.swa_utils.update_bn([x for x, _ in data()], average)
    assert near(dict(model.state_dict()), dict(average.module.state_dict()), 1e-4)


case('weights', 'SWA meets accumulation and clipping, by hand')(swa_by_hand)
case('weights', 'SWA meets accumulation, clipping and validations in the pass, by hand')(lambda: swa_by_hand(ValidateS(2)))


@case('weights', 'EMA meets a layer that is unfrozen, by hand and resumed at each batch')
def _():
    def run(state=None):
        torch.manual_seed(9)
        states, model = [], mlp()
        learn = learner(MetricsS(show=False), EMAS(0.5), FreezeS({0: -1, 1: 0}), model=model, optim=GroupedOptim(torch.optim.Adam, model, ['0', '2']))
        learn.on('after_batch', lambda learn: states.append(learn.state_dict()) if learn.training else None, order=30)
        learn.fit(2, resume=state)
        return weights(learn), states
    whole, states = run()
    for state in states[::3]: assert torch.equal(whole, run(state)[0])
    torch.manual_seed(9)
    model, n = mlp(), 0
    opt, average = torch.optim.Adam(model.parameters(), 0.1), [p.detach().clone() for p in model.parameters()]
    for epoch in range(2):
        model[0].requires_grad_(epoch > 0)
        for x, y in data():
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
            n += 1
            for mean, p in zip(average, model.parameters()): mean.lerp_(p.detach(), 1 - min(0.5, (1+n)/(10+n)))
    assert near(whole, torch.cat([t.flatten() for t in average]), 1e-4)


@case('weights', 'several validation sets: one keeps, another ends')
def _():
    for average in AVERAGES:
        learn = learner(MetricsS(show=False), RecorderS(), *AVERAGES[average](), KeepBestS('valid b loss'), EarlyStoppingS('valid a loss', patience=1),
                        model=mlp(nn.BatchNorm1d(6)), lr=0.5, valid=dict(a=data(4), b=[(x, 1-y) for x, y in data(4)]))
        learn.fit(7)
        a, b = ([row['loss'] for row in learn.history.rows if row['mode'] == f'valid {name}'] for name in 'ab')
        assert near(learn.validate('valid b')['loss'], min(b))
        assert len(a) == next((i+1 for i in range(1, len(a)) if a[i] >= min(a[:i])), 7)


# 3: a schedule, withheld steps and a resume at each batch

def scheduled_and_resumed(on_device, *subs):
    def run(state=None):
        states, recorder = [], RecorderS()
        learn = learner(MetricsS(show=False), recorder, ScheduleS(lr=one_cycle(0.5), momentum=linear(0.9, 0.5)), StopOnNaNS('skip', on_device=on_device),
                        *(sub(on_device) for sub in subs), model=mlp(nn.BatchNorm1d(6)), train=data(bad=(3,)), optim=partial(torch.optim.SGD, momentum=0.9))
        learn.on('after_batch', lambda learn: states.append(learn.state_dict()) if learn.training else None, order=30)
        learn.fit(2, resume=state)
        rates = [rate for (_, _, mode), table in recorder.history.tables.items() if mode == 'train' for rate in table['lr'].tolist()]
        return [dict(learn.model.state_dict()), learn.row['loss'], learn.n_steps, learn.train_iter, learn.n_samples, learn.counts['withheld']], rates, states
    whole, rates, states = run()
    for state in states[::2]:   # the bad batch is the fourth
        again, later, _ = run(state)
        assert near(whole, again, 0) and later == rates[len(rates)-len(later):]


for on_device in False, True:
    for name, subs in {'no other': (), 'accumulation': (grouped,)}.items():
        case('withheld', f'a NaN, a schedule and a resume meet {name}, {"device" if on_device else "host"}')(partial(scheduled_and_resumed, on_device, *subs))


# 4: several optimizers, closures

REFUSED = {
    'fp16': (lambda: MixedPrecisionS('fp16'), {}, 'scales or clears gradients'),
    'a guard that skips': (lambda: StopOnNaNS('skip'), {}, 'scales or clears gradients'),
    'accumulation': (lambda: GradientAccumulationS(2), {}, 'scales or clears gradients'),
    'LBFGS': (lambda: GradientClipS(math.inf), dict(optim=torch.optim.LBFGS), 'zero_grad keeps'),
}
for name, (sub, kwargs, words) in REFUSED.items():
    def refused(sub=sub, kwargs=kwargs, words=words):
        with pytest.raises(ValueError, match=words):
            learner(sub(), cls=MomentumLearner, **kwargs).fit(1)
    case('optimizers', f'MomentumLearner refuses {name}')(refused)


class TwoOptimizers(Learner):
    def make_opt(self):
        self.opt = self.optim_class(self.model[0].parameters(), self.lr)
        self.last_opt = self.optim_class(self.model[2].parameters(), self.lr)
    def step(self): self.opt.step(), self.last_opt.step()
    def zero_grad(self): self.opt.zero_grad(), self.last_opt.zero_grad()


TOGETHER = {
    'clipping and a guard': lambda: [GradientClipS(0.1), StopOnNaNS('skip')],
    'a guard of the device': lambda: [StopOnNaNS('skip', on_device=True)],
    'accumulation and EMA': lambda: [GradientAccumulationS(3), EMAS(0.5)],
    'fp16, accumulation and a plateau': lambda: [MixedPrecisionS('fp16', 2.**26), GradientAccumulationS(2),
                                                  ReduceLROnPlateauS('train loss', patience=1, min_delta=9.)],
    'SWA': lambda: [SWAS(0.3)],
    "torch's schedule": lambda: [TorchScheduleS(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.8))],
}
for name, subs in TOGETHER.items():
    def alike(subs=subs):
        found = []
        for cls in Learner, TwoOptimizers:
            learn = learner(MetricsS(show=False), *subs(), cls=cls, train=data(bad=(3,)), lr=0.5)
            learn.fit(3)
            found.append([weights(learn).tolist(), learn.n_steps, learn.row['loss']])
        assert near(*found), found
    case('optimizers', f'two of them meet {name}')(alike)


# 3: a batch that is left out leaves nothing in batch norm, against a loop that never sees it

class OtherNorm(nn.BatchNorm1d):
    "Counts in a buffer of its own, which is replaced in each forward."
    def __init__(self, n):
        super().__init__(n)
        self.register_buffer('peak', torch.zeros(n))
        self.register_buffer('table', torch.zeros(1).expand(5))   # cannot be written
    def forward(self, x):
        if self.training: self.peak = torch.maximum(self.peak, x.detach().amax(0))
        return super().forward(x)


def loop_without(model, batches, epochs=2, group=1, bad=(), lr=0.1):
    "A loop by hand: a bad batch is not seen, a group that has one makes no step."
    model.train()
    opt = torch.optim.SGD(model.parameters(), lr)
    for _ in range(epochs):
        for start in range(0, len(batches), group):
            some = range(start, min(start+group, len(batches)))
            kept = [(i, *batches[i]) for i in some if i not in bad]
            for _, x, y in kept:
                loss = F.cross_entropy(model(x), y)
                (loss*len(y)/sum(len(y) for *_, y in kept)).backward()
            if len(kept) == len(some): opt.step()
            opt.zero_grad()
    return model.state_dict()


LEFT_OUT = {
    'a norm': {}, 'two in a row': dict(bad=(3, 4)), 'the first and the last': dict(bad=(0, 7)),
    'a plain mean': dict(norm=lambda: nn.BatchNorm1d(6, momentum=None)),
    'no parameters': dict(norm=lambda: nn.BatchNorm1d(6, affine=False)),
    'no statistics': dict(norm=lambda: nn.BatchNorm1d(6, track_running_stats=False)),
    'a norm that is lazy': dict(norm=nn.LazyBatchNorm1d, bad=(0,)), 'a buffer that is replaced': dict(norm=lambda: OtherNorm(6)),
    'a group': dict(subs=[grouped], group=3), 'a group and clipping': dict(subs=[grouped, lambda _: GradientClipS(math.inf)], group=3),
    'another who cancels': dict(subs=[lambda _: ForgetS()]), 'fp16': dict(subs=[scaled], eps=0.02),
    'two optimizers': dict(optimizers=True, norm=lambda: nn.BatchNorm1d(6, affine=False)),
}


class ForgetS(Subscriber):
    "Other subscribers may cancel a batch too; what was predicted counts as little."
    def after_loss(self, learn):
        if learn.training and learn.x.isnan().any(): raise CancelBatchException


def statistics_left_out(on_device, norm=lambda: nn.BatchNorm1d(6), bad=(3,), subs=(), group=1, eps=1e-5, optimizers=False):
    model, by_hand = [(torch.manual_seed(1), mlp(norm()))[1] for _ in range(2)]
    learn = learner(MetricsS(show=False), StopOnNaNS('skip', on_device=on_device), *(sub(on_device) for sub in subs),
                    model=model, train=data(bad=bad), cls=TwoOptimizers if optimizers else Learner)
    learn.fit(2)
    wanted = loop_without(by_hand, data(), group=group, bad=bad)
    assert near(dict(model.state_dict()), dict(wanted), eps), (model.state_dict(), wanted)
    with torch.no_grad(): losses = [F.cross_entropy(by_hand.eval()(x), y, reduction='sum') for x, y in data(4)]
    loss = sum(losses).item()/sum(len(y) for _, y in data(4))
    assert near(learn.row['loss'], loss, eps) and near(learn.validate()['loss'], loss, eps)


for name, kwargs in LEFT_OUT.items():
    for on_device in False, True:
        case('left out', f'{name}, {"the device" if on_device else "the host"} decides')(
            partial(statistics_left_out, on_device, **kwargs))


def as_if_never_seen(on_device, *subs, cls=Learner, fit='fit', **kwargs):
    "The same fit over the other batches ends in the same state."
    found = []
    for batches in data(bad=(3,)), data()[:3] + data()[4:]:
        torch.manual_seed(1)
        guard = StopOnNaNS('skip', on_device=on_device)
        learn = learner(MetricsS(show=False), RecorderS(), guard, *(sub(on_device) for sub in subs), cls=cls,
                        model=mlp(nn.BatchNorm1d(6)), train=batches, **kwargs)
        getattr(learn, fit)(3)
        found.append((dict(learn.model.state_dict()), valid_rows(learn)))
    assert near(*found), found
    assert all(map(math.isfinite, found[0][1]))


NEVER_SEEN = {'EMA': dict(subs=[lambda _: EMAS(0.5)]), 'SWA': dict(subs=[lambda _: SWAS(0.3)]), 'SAM': dict(cls=SAMLearner),
              'SAM and SWA': dict(cls=SAMLearner, subs=[lambda _: SWAS(0.3)]), 'Adam': dict(optim=torch.optim.Adam),
              'EMA, fp16 and clipping': dict(subs=[lambda _: EMAS(0.5), scaled, clip]),
              'a best checkpoint': dict(subs=[lambda _: KeepBestS()]), 'bf16': dict(subs=[lambda _: MixedPrecisionS()])}
for name, kwargs in NEVER_SEEN.items():
    def never_seen(subs=(), **kwargs):
        for on_device in False, True: as_if_never_seen(on_device, *subs, **kwargs)
    case('left out', f'a norm meets {name}')(partial(never_seen, **kwargs))


@case('left out', 'a norm meets a resume at each batch')
def _():
    for on_device in False, True:
        def run(state=None):
            states = []
            learn = learner(StopOnNaNS('skip', on_device=on_device), EMAS(0.5), model=mlp(nn.BatchNorm1d(6)), train=data(bad=(3,)))
            learn.on('after_batch', lambda learn: states.append(learn.state_dict()) if learn.training else None, order=30)
            learn.fit(2, resume=state)
            return dict(learn.model.state_dict()), states
        whole, states = run()
        for state in states: assert near(whole, run(state)[0], 0)


@case('left out', 'by a guard that stops: buffers are those before the batch')
def _():
    for model, what in (mlp, 'the loss'), (GradientNaN, 'a gradient'):
        for on_device in False, True:
            net, before = nn.Sequential(nn.BatchNorm1d(4), *(model().children() if model is mlp else [model()])), []
            learn = learner(StopOnNaNS(on_device=on_device), model=net, train=data(bad=(3,)))
            if model is GradientNaN:
                net[0].register_forward_pre_hook(lambda m, args: (args[0].nan_to_num(),))
                net[0].register_forward_hook(lambda m, args, out: out)
                net.register_full_backward_pre_hook(lambda m, grads: (grads[0]*math.nan,) if learn.iter == 3 else None)
            learn.on('before_batch', lambda learn: before.append({k: t.clone() for k, t in net.state_dict().items()}))
            with pytest.raises(FloatingPointError, match=what): learn.fit(1)
            assert near(before[3], dict(net.state_dict()), 0) and int(net[0].num_batches_tracked) == 3


def gan_norms(on_device, bad):
    torch.manual_seed(2)
    generator = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    discriminator = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    learn = learner(StopOnNaNS('skip', on_device=on_device), train=[(x,) for x, _ in data(bad=bad)], model=generator,
                    loss=hinge, cls=SeededGAN, discriminator=discriminator, n_noise=3, valid=False)
    learn.dls.valid, learn.make_noise = None, lambda n, seed=None: torch.linspace(-1, 1, 3*n).view(n, 3)
    if not bad: learn.dls.train = learn.dls.train[:3] + learn.dls.train[4:]
    learn.fit(2)
    return {**generator.state_dict(), **{f'd.{k}': t for k, t in discriminator.state_dict().items()}}


@case('left out', 'norms of both networks of a GAN')
def _():
    wanted = gan_norms(False, ())
    assert int(wanted['1.num_batches_tracked']) == 28
    for on_device in False, True: assert near(gan_norms(on_device, (3,)), wanted)


class NormedLoss(nn.Module):
    "A loss with statistics of its own."
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2, affine=False)
    def forward(self, preds, y): return F.cross_entropy(self.norm(preds), y)


@case('left out', 'norms of a loss')
def _():
    found = []
    for on_device, batches in (False, data(bad=(3,))), (True, data(bad=(3,))), (False, data()[:3] + data()[4:]):
        torch.manual_seed(1)
        learn = learner(StopOnNaNS('skip', on_device=on_device), model=mlp(), loss=NormedLoss(), train=batches)
        learn.fit(2)
        found.append({**learn.loss_fn.state_dict(), **learn.model.state_dict()})
    assert near(found[0], found[2]) and near(found[1], found[2])


# 8: gradients: sparse, complex, of two passes; statistics of norms

class Words(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.embed, self.linear = nn.Embedding(10, 4, sparse=sparse), nn.Linear(4, 2)
    def forward(self, x): return self.linear(self.embed(x).mean(1))


def words(n=6):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randint(0, 10, (4, 3), generator=generator), torch.randint(0, 2, (4,), generator=generator))
            for _ in range(n)]


def sparse_is_dense(cls, subs):
    found = []
    for sparse in False, True:
        torch.manual_seed(0)
        learn = learner(*subs(), model=Words(sparse), train=words(), valid=words(2), cls=cls)
        learn.fit(2)
        found.append(weights(learn))
    assert near(*found)


for cls in Learner, SAMLearner:
    for name, subs in {'no other': lambda: [], 'clipping': lambda: [GradientClipS(0.1)],
                       'accumulation': lambda: [GradientAccumulationS(2)],
                       'fp16': lambda: [MixedPrecisionS('fp16')], 'a guard': lambda: [StopOnNaNS('skip')],
                       'a guard of the device': lambda: [StopOnNaNS('skip', on_device=True)]}.items():
        case('gradients', f'sparse ones in a {cls.__name__} meet {name}')(partial(sparse_is_dense, cls, subs))


class Waves(nn.Module):
    "Has a complex and a real parameter."
    def __init__(self):
        super().__init__()
        self.wave, self.linear = nn.Parameter(torch.randn(4, 2, dtype=torch.complex64)), nn.Linear(4, 2)
    def forward(self, x): return (x.float().to(torch.complex64)@self.wave).abs() + self.linear(x)


@case('gradients', 'complex ones meet fp16, frozen or not, and bf16')
def _():
    for cls in Learner, SAMLearner:
        learn, found = learner(MixedPrecisionS('fp16'), model=Waves(), cls=cls), []
        before = weights(learn)
        learn.on('before_batch', found.append)
        with pytest.raises(ValueError, match='`wave` is complex64, and fp16 cannot scale complex gradients: take bf16'): learn.fit(1)
        assert not found and torch.equal(before, weights(learn))
        learn.to_fp32().fit(1)
        learn.to_bf16().fit(1)
        learn.to_fp32().to_fp16().model.wave.requires_grad_(False)
        learn.fit(1)
        assert learn.n_steps == 8


def norms_by_hand(learn, batches, taught=None):
    "Statistics of batch norm after each batch was seen once, and once more for SAM's gradient."
    model, rho = learn.model.train(), getattr(learn, 'rho', None)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    def loss_of(x, y):
        preds, loss = (p := model(x)), F.cross_entropy(p, y)
        if taught is None: return loss
        with torch.no_grad(): soft = (taught(x)/2).softmax(1)
        return 0.5*loss + 0.5*4*F.kl_div((preds/2).log_softmax(1), soft, reduction='batchmean')
    for x, y in batches:
        opt.zero_grad()
        loss_of(x, y).backward()
        if rho:
            kept = {k: t.clone() for k, t in model.state_dict().items()}
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            with torch.no_grad():
                for p in model.parameters(): p.add_(p.grad*rho/(norm+1e-12))
            opt.zero_grad()
            loss_of(x, y).backward()
            model.load_state_dict(kept)
        opt.step()
    return model.state_dict()


class SAMDistillation(SAMLearner, DistillationLearner): "Both at once."


def statistics_once(cls, subs):
    teacher = mlp(nn.BatchNorm1d(6))
    before = {k: t.clone() for k, t in teacher.state_dict().items()}
    options = dict(teacher=teacher) if issubclass(cls, DistillationLearner) else {}
    made = [learner(*subs(), model=mlp(nn.BatchNorm1d(6)), cls=cls, **options) for _ in range(2)]
    made[1].model.load_state_dict(made[0].model.state_dict())
    made[0].fit(1)
    by_hand = norms_by_hand(made[1], data(), options.get('teacher'))
    assert near(dict(made[0].model.state_dict()), dict(by_hand)) and by_hand['1.num_batches_tracked'] == 8
    assert all(torch.equal(before[k], t) for k, t in teacher.state_dict().items())


for cls in Learner, SAMLearner, DistillationLearner, SAMDistillation:
    for name, subs in {'a fit': lambda: [], 'metrics': lambda: [MetricsS(accuracy, show=False)],
                       'a guard': lambda: [StopOnNaNS('skip', on_device=True)]}.items():
        case('gradients', f'norms of a {cls.__name__} meet {name}')(partial(statistics_once, cls, subs))


def distilled_by_hand():
    "SAM, distillation and accumulation in one loop by hand."
    torch.manual_seed(7)
    teacher, model = mlp(), mlp()
    by_hand = deepcopy(model)
    learn = learner(GradientAccumulationS(3), model=model, cls=SAMDistillation, teacher=teacher, rho=0.1)
    learn.fit(2)
    params, opt = [*by_hand.parameters()], torch.optim.SGD(by_hand.parameters(), 0.1)
    def gradient(x, y):
        preds = by_hand(x)
        with torch.no_grad(): soft = (teacher(x)/2).softmax(1)
        taught = 4*F.kl_div((preds/2).log_softmax(1), soft, reduction='batchmean')
        return torch.autograd.grad((F.cross_entropy(preds, y) + taught)/2*len(y), params)
    for start in (*range(0, 8, 3),)*2:
        group = data()[start:start+3]
        for x, y in group:
            first = gradient(x, y)
            climb = [g*0.1/(torch.stack([g.norm() for g in first]).norm() + 1e-12) for g in first]
            with torch.no_grad(): torch._foreach_add_(params, climb)
            second = gradient(x, y)
            with torch.no_grad(): torch._foreach_sub_(params, climb)
            for p, g in zip(params, second): p.grad = g if p.grad is None else p.grad + g
        for p in params: p.grad /= sum(len(y) for _, y in group)
        opt.step()
        opt.zero_grad()
    assert near(weights(learn), torch.cat([p.detach().flatten() for p in params]), 1e-4)


case('gradients', 'SAM, distillation and accumulation, by hand')(distilled_by_hand)


class FixedMixUp(MixUpS):
    def draw(self): return 0.7


@case('gradients', 'SAM, MixUp and batch norm, by hand')
def _():
    torch.manual_seed(4)
    model, partners = mlp(nn.BatchNorm1d(6)), []
    by_hand = deepcopy(model).train()
    learn = learner(mix := FixedMixUp(), model=model, cls=SAMLearner, rho=0.1)
    learn.on('after_batch', lambda learn: partners.append(mix.partner) if learn.training else None)
    learn.fit(1)
    params, opt = [*by_hand.parameters()], torch.optim.SGD(by_hand.parameters(), 0.1)
    for (x, y), partner in zip(data(), partners):
        def gradient():
            preds = by_hand(torch.lerp(x[partner], x, 0.7))
            return torch.autograd.grad(0.7*F.cross_entropy(preds, y) + 0.3*F.cross_entropy(preds, y[partner]), params)
        first = gradient()
        kept = {k: t.clone() for k, t in by_hand.state_dict().items()}
        with torch.no_grad(): torch._foreach_add_(params, [g*0.1/(torch.stack([g.norm() for g in first]).norm() + 1e-12) for g in first])
        second = gradient()
        by_hand.load_state_dict(kept)
        for p, g in zip(params, second): p.grad = g
        opt.step()
    assert near(dict(model.state_dict()), dict(by_hand.state_dict()), 1e-4)


# 10: what the user had frozen, in an adapter, stays so

class Adapter(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.down, self.up = base.requires_grad_(False), nn.Linear(4, 2, bias=False), nn.Linear(2, 6, bias=False)
    def forward(self, x): return self.base(x) + self.up(self.down(x))


@case('freezing', 'fine_tune meets adapters')
def _():
    for subs in [], [EMAS(0.5)], [SWAS(0.3)], [GradientAccumulationS(2), KeepBestS()]:
        model, modes = nn.Sequential(Adapter(nn.Linear(4, 6)), nn.BatchNorm1d(6), nn.Linear(6, 2)), []
        base, needs = [p.detach().clone() for p in model[0].base.parameters()], lambda: [p.requires_grad for p in model.parameters()]
        before = needs()
        learn = learner(MetricsS(show=False), *subs, model=model, optim=GroupedOptim(torch.optim.Adam, model, ['0', '1', '2']))
        learn.on('before_train', lambda learn: modes.append(needs()))
        learn.fine_tune(2, 1e-2)
        assert all(map(torch.equal, base, model[0].base.parameters())) and needs() == before
        assert modes[0][:4] == [False]*4 and modes[-1] == before == [False]*2 + [True]*6
        learn.freeze_to(-1)
        learn.unfreeze()
        assert needs() == before


# 6, 7, 11: looks in the middle of a fit, and predictions that are dicts

def looks_leave_no_trace(event, cls):
    found = []
    for look in False, True:
        torch.manual_seed(1)
        learn = learner(MetricsS(show=False), RecorderS(), EMAS(0.5), StopOnNaNS('skip', on_device=True), GradientAccumulationS(2),
                        model=mlp(nn.BatchNorm1d(6), nn.Dropout(0.3)), cls=cls, train=data(bad=(3,)))
        def use(learn):
            if not learn.rehearsing and learn.training: learn.validate(), learn.get_preds()
        if look: learn.on(event, use, order=5)
        learn.fit(2)
        rows = [{k: v for k, v in row.items() if isinstance(v, (int, float))} for row in learn.history.rows]
        found.append([dict(learn.model.state_dict()), rows, learn.n_steps, learn.train_iter])
    assert near(*found, 0)


for event, cls in {'after_predict': SAMLearner, 'after_backward': Learner, 'before_step': SAMLearner, 'after_train': Learner}.items():
    case('looks', f'validate and get_preds in {event} of a {cls.__name__}')(partial(looks_leave_no_trace, event, cls))


class KindAndSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.kind, self.size = nn.Linear(4, 2), nn.Linear(4, 1)
    def forward(self, x): return dict(kind=self.kind(x), size=self.size(x)[:, 0])


def right_kinds(preds, targets): return (preds['kind'].argmax(1) == targets).float().mean()
def both_losses(preds, targets): return F.cross_entropy(preds['kind'], targets) + F.mse_loss(preds['size'], targets.float())


@case('looks', 'dicts as predictions meet metrics and validations in the pass')
def _():
    for subs in [], [EMAS(0.5)], [SWAS(0.1)], [GradientAccumulationS(2)]:
        learn, seen = learner(MetricsS(right_kinds, show=False), RecorderS(), ValidateS(3), *subs, model=KindAndSize(), loss=both_losses), []
        def by_hand(learn):
            if learn.training or learn.iter+1 < learn.n_iter: return
            x, y = map(torch.cat, zip(*data(4)))
            preds = learn.model(x)
            seen.append([both_losses(preds, y).item(), right_kinds(preds, y).item()])
        learn.on('after_batch', by_hand)
        learn.fit(2)
        rows = [[row['loss'], row['right_kinds']] for row in learn.history.rows if row['mode'] == 'valid']
        assert near(rows, seen) and len(rows) >= 4, (rows, seen)


class Odd(Subscriber):
    "Has what cannot be copied, what grows, itself, and a property that is not ready."
    def __init__(self):
        self.queue, self.parts, self.me, self.lines = deque([1]), defaultdict(list), self, (i for i in range(9))
        self.lock, self.total = Lock(), torch.zeros(2)
    def after_batch(self, learn):
        self.queue.append(learn.iter)
        self.parts['a'].append(1)
        self.total += 1
        self.new = 1
    @property
    def table(self): raise RuntimeError('not ready')


class OddEnd(Subscriber):
    def cleanup_batch(self, learn): raise KeyError('odd')


class LeavesS(Subscriber):
    def after_batch(self, learn): learn.unsubscribe(self)


@case('looks', 'rehearsals meet odd subscribers')
def _():
    learn = learner(odd := Odd(), MetricsS(show=False), RecorderS(), EMAS(0.5), model=mlp(nn.BatchNorm1d(6)))
    seen = lambda: [list(odd.queue), dict(odd.parts), odd.total.clone(), dict(learn.model.state_dict()), sorted(vars(odd)), sorted(learn.muted)]
    for extra in None, OddEnd(), LeavesS():
        before = deepcopy(seen())
        if extra: learn.subscribe(extra)
        try:
            with learn.rehearse(): learn.fit(1)
        except KeyError: assert isinstance(extra, OddEnd)
        assert near(before, seen(), 0) and (extra is None or extra in learn.subs)
        if extra: learn.unsubscribe(extra)
    learn.fit(1)
    assert learn.history.rows and len(odd.queue) == 1+12


# 2: a range test that somebody else ends

ENDS = {'a cancelled fit': ('after_batch', CancelFitException), 'a cancelled pass': ('after_batch', CancelTrainException),
        'an epoch given up': ('before_batch', CancelEpochException), 'an error': ('after_batch', RuntimeError),
        'cancelled steps': ('before_step', CancelStepException), 'Ctrl-C': ('before_loss', KeyboardInterrupt),
        'a NaN': None, 'a NaN and a guard': None, 'a limit': None}


def range_test_ended(name, repeats):
    subs = {'a NaN and a guard': [StopOnNaNS()], 'a limit': [StopAfterS(n_steps=20)]}.get(name, [])
    learn = learner(MetricsS(show=False), *subs, train=data(16, bad=(3,) if 'NaN' in name else ()),
                    optim=partial(torch.optim.SGD, momentum=0.9), model=mlp(nn.BatchNorm1d(6)))
    event, error = ENDS[name] or ('after_batch', None)
    def end(learn):
        if error and learn.training and learn.train_iter >= 20: raise error('here')
    learn.on(event, end)
    state, random, subs = learn.state_dict(), torch.get_rng_state(), [*learn.subs]
    test = LRFindS(1.2, repeats=repeats)
    try: learn.fit(20, subs=test, lr=1e-4)
    except (RuntimeError, KeyboardInterrupt) as raised: assert type(raised) is error
    now = learn.state_dict()
    assert near({**state['objects']['model']}, {**now['objects']['model']}) and learn.opt is None
    assert learn.lr == 0.1 and [*learn.subs] == subs and torch.equal(random, torch.get_rng_state())
    n = len(test.curve.lrs)
    if name == 'a limit': return test.curve.suggestions
    assert n == 3 if 'NaN' in name else n in (19, 20)
    why = {'a cancelled fit': 'another subscriber ended', 'a NaN': 'loss was nan at', 'a NaN and a guard': 'loss was nan at'}
    if name not in why: return
    assert why[name] in repr(test.curve)
    with pytest.raises(ValueError, match=why[name] if n < 10 else 'never fell'): test.curve.suggestions


for name in ENDS:
    for repeats in 1, 2:
        case('rates', f'a range test, {repeats} times, meets {name}')(partial(range_test_ended, name, repeats))


NAMES = [f'{kind}: {what}' for kind, what in CASES]


@pytest.mark.parametrize('at', range(len(NAMES)), ids=NAMES)
def test_together(at, tmp_path):
    function = [*CASES.values()][at]
    code = getattr(function, '__code__', None)
    torch.manual_seed(0)
    with warnings.catch_warnings(action='ignore'):
        function(tmp_path) if code and 'tmp_path' in code.co_varnames[:code.co_argcount] else function()
