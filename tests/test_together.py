"""Parts that are right alone are right together: neighbours of what public bug reports found.

    python -m pytest tests/test_together.py -k weights    runs one kind
"""
import itertools
import math
import warnings
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nntrain.all import *
from nntrain.checkpoint.folder import resume
from nntrain.pubsub import (CancelEpochException, CancelFitException, CancelStepException,
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


def resumed_is_whole(average, tmp_path):
    "A run that stops in a validation pass goes on as if it had not."
    def run(state=None):
        states = []
        learn = learner(MetricsS(show=False), *AVERAGES[average](), model=mlp(nn.BatchNorm1d(6)))
        learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=30)
        learn.fit(3, resume=state)
        return weights(learn), learn.row['loss'], states
    whole, loss, states = run()
    for at in (len(states)-2, 2*len(states)//3 - 2, 5):
        again, other, _ = run(states[at])
        assert torch.equal(whole, again) and near(loss, other), at


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
    case('weights', f'{average} meets a resume')(lambda tmp_path, a=average: resumed_is_whole(a, tmp_path))


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
        with pytest.raises(ValueError, match='`wave` is complex64, and fp16 cannot'): learn.fit(1)
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
