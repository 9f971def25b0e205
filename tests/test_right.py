"""Neighbours of what public bug reports found, one table for each kind: batches, what is kept, deciding, gradients,
exactness, predicting, words.

    python -m pytest tests/test_right.py -k deciding    runs one kind
"""
import collections
import copy
import functools
import math
import random
import threading
import warnings
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset

import nntrain.all
from nntrain.all import *
from nntrain.checkpoint.folder import resume
from nntrain.pubsub import CancelFitException, CancelTrainException, CancelValidateException
from nntrain.training.early_stopping import more_is_better
from nntrain.variants.gan import CancelGeneratorException, hinge

CASES = {}   # (kind, what meets what) -> function that asserts


def case(kind, what):
    def register(function):
        assert (kind, what) not in CASES, what
        CASES[kind, what] = function
        return function
    return register


def data(n=6):
    generator, found = torch.Generator().manual_seed(0), []
    for i in range(n):
        x = torch.randn(4 + i % 2, 4, generator=generator)
        found.append((x, (x.sum(1) > 0).long()))
    return found


def mlp(*middle): return nn.Sequential(nn.Linear(4, 6), *(middle or [nn.Tanh()]), nn.Linear(6, 2))


def learner(*subs, model=None, train=None, valid=None, loss=F.cross_entropy, cls=Learner, optim=torch.optim.SGD,
            lr=0.1, **kwargs):
    torch.manual_seed(1)
    dls = DataLoaders(data() if train is None else train, data(3) if valid is None else valid)
    return cls(mlp() if model is None else model, dls, loss, optim, lr, list(subs), **kwargs)


def same(a, b):
    "Whether two states are equal to the bit, containers and their types included."
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and torch.equal(a, b)
    if type(a).__name__ == 'ndarray': return np.array_equal(a, b)
    if isinstance(a, dict): return type(a) is type(b) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple, collections.deque)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


# 4: closures, several optimizers, other modules

def lbfgs(schedule=lambda n: 0.5):
    "A loop by hand: weights, their moving average, and the first loss of each step."
    torch.manual_seed(5)
    model, losses = mlp(), []
    average = [p.detach().clone() for p in model.parameters()]
    opt = torch.optim.LBFGS(model.parameters(), max_iter=4)
    for n, (x, y) in enumerate(data()*2):
        opt.param_groups[0]['lr'] = schedule(n)
        def closure():
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss
        losses.append(opt.step(closure).item())
        decay = min(0.5, (2+n)/(11+n))
        for mean, p in zip(average, model.parameters()): mean.lerp_(p.detach(), 1-decay)
    return model, average, losses


def flat(tensors): return torch.cat([t.detach().flatten() for t in tensors])


@case('closures', 'LBFGS with an average, with a schedule, and the losses recorded')
def _():
    def run(*subs):
        torch.manual_seed(5)
        learn = learner(RecorderS(), *subs, model=mlp(), lr=0.5, optim=partial(torch.optim.LBFGS, max_iter=4))
        learn.fit(2)
        return learn
    model, average, losses = lbfgs()
    learn = run(EMAS(0.5), MetricsS(accuracy, show=False))
    assert torch.allclose(flat(learn.model.parameters()), flat(average), atol=1e-5)
    found = [loss for (_, _, mode), table in learn.history.tables.items() if mode == 'train' for loss in table['loss'].tolist()]
    assert np.allclose(found, losses, atol=1e-5)
    model, *_ = lbfgs(lambda n: 0.5 - 0.4*n/11)
    learn = run(ScheduleS(lr=linear(0.5, 0.1)))
    assert torch.allclose(flat(learn.model.parameters()), flat(model.parameters()), atol=1e-5)


class BesideLBFGS(Learner):
    def make_opt(self):
        self.opt, self.other = torch.optim.LBFGS(self.model[0].parameters()), torch.optim.SGD(self.model[2].parameters(), 0.1)


@case('closures', 'LBFGS with whom it cannot meet, refused before the first batch')
def _():
    for make in (lambda: GradientClipS(1.)), StopOnNaNS, (lambda: MixedPrecisionS('fp16')), (lambda: GradientAccumulationS(2)):
        learn, batches = learner(make(), optim=torch.optim.LBFGS), []
        learn.on('before_batch', batches.append)
        with pytest.raises(ValueError, match=f'LBFGS evaluates .* {type(learn.subs[0]).__name__}.before_step would act on the first'):
            learn.fit(1)
        assert not batches
    learn = learner(cls=BesideLBFGS)
    with pytest.raises(ValueError, match='LBFGS evaluates .* cannot beside other optimizers, and there are 2'): learn.fit(1)


class LearnedLoss(nn.Module):
    "Has a weight of its own, and notes its mode."
    def __init__(self):
        super().__init__()
        self.scale, self.modes = nn.Parameter(torch.ones(())), []
    def forward(self, preds, targets):
        self.modes.append(self.training)
        return F.cross_entropy(preds*self.scale, targets)


@case('modules', 'a loss with parameters, in an optimizer or refused; its mode')
def _():
    learn = learner(loss=LearnedLoss())
    with pytest.raises(ValueError, match='1 trainable parameters are in no optimizer: loss_fn.scale; .*give those of a loss'): learn.fit(1)
    assert not learn.loss_fn.modes
    learn.optim_class = lambda params, lr: torch.optim.SGD([*params, *learn.loss_fn.parameters()], lr)
    for training in True, False:
        learn.loss_fn.train(training)
        learn.loss_fn.modes.clear()
        learn.fit(1)
        assert learn.loss_fn.modes == [True]*6 + [False]*3 and learn.loss_fn.training == training
    assert learn.loss_fn.scale != 1


class SeededGAN(GANLearner):
    def make_noise(self, n, seed=None):
        return torch.randn(n, self.n_noise, generator=torch.Generator().manual_seed(100*self.epoch + 2*self.iter + (self.turn == 'generator')))


class Noted(nn.Sequential):
    def forward(self, x):
        self.modes.append(self.training)
        return super().forward(x)


def gan_by_hand(k):
    "Both networks and the average of the generator, against a loop by hand; the discriminator's mode."
    torch.manual_seed(2)
    generator, discriminator = nn.Linear(3, 4), Noted(nn.Linear(4, 1))
    discriminator.modes = []
    copies = [copy.deepcopy(net) for net in (generator, discriminator)]
    learn = learner(EMAS(0.5), train=[(x,) for x, _ in data()], valid=[(x,) for x, _ in data(2)], model=generator,
                    loss=hinge, cls=SeededGAN, optim=torch.optim.Adam, lr=0.01, discriminator=discriminator, n_noise=3, k=k)
    discriminator.eval()
    learn.fit(2)
    made, judge = copies
    opts = [torch.optim.Adam(net.parameters(), 0.01) for net in copies]
    average = [p.detach().clone() for p in made.parameters()]
    for n, (epoch, i) in enumerate((epoch, i) for epoch in range(2) for i in range(6)):
        noise = lambda turn, size: torch.randn(size, 3, generator=torch.Generator().manual_seed(100*epoch + 2*i + turn))
        for real in data()[i][0].chunk(k):
            with torch.no_grad(): fake = made(noise(0, len(real)))
            opts[1].zero_grad()
            hinge(judge(fake), judge(real)).backward()
            opts[1].step()
        opts[0].zero_grad()
        hinge(judge(made(noise(1, len(real))))).backward()
        opts[0].step()
        for mean, p in zip(average, made.parameters()): mean.lerp_(p.detach(), 1 - min(0.5, (2+n)/(11+n)))
    assert torch.allclose(flat(discriminator.parameters()), flat(judge.parameters()), atol=1e-6)
    assert torch.allclose(flat(generator.parameters()), flat(average), atol=1e-6)
    assert (learn.n_steps, learn.n_discriminator_steps) == (12, 12*k)
    assert discriminator.modes == ([True]*(2*k+1)*6 + [False]*2)*2 and not discriminator.training


@case('modules', 'an average counts steps of the generator alone')
def _():
    learn = learner(ema := EMAS(0.5), train=[(x,) for x, _ in data()], valid=False, model=nn.Linear(3, 4), loss=hinge, cls=SeededGAN,
                    discriminator=nn.Linear(4, 1), n_noise=3)
    learn.dls.valid = None
    def skip(learn):
        if learn.turn == 'generator' and learn.iter % 3: raise CancelGeneratorException
    learn.on('before_generator', skip)
    learn.fit(1)
    assert (int(ema.n), learn.n_steps, learn.n_discriminator_steps) == (2, 2, 6)


for k in 1, 2: case('modules', f'a GAN with {k} turns of its discriminator and an average')(partial(gan_by_hand, k))


@case('optimizers', 'one that was assigned is used')
def _():
    learn = learner()
    learn.opt = mine = torch.optim.Adam(learn.model.parameters(), 0.02)
    learn.fit(1)
    assert learn.opt is mine and len(mine.state) == 4 and mine.param_groups[0]['lr'] == 0.02
    learn.opt.zero_grad()
    learn.fit(1, lr=0.5)
    assert learn.opt is mine and mine.param_groups[0]['lr'] == 0.02


class WithoutOpt(Learner):
    def make_opt(self):
        self.first = torch.optim.Adam(self.model[0].parameters(), self.lr)
        self.second = torch.optim.Adam(self.model[2].parameters(), self.lr)
    def step(self): self.first.step(), self.second.step()
    def zero_grad(self): self.first.zero_grad(), self.second.zero_grad()


@case('optimizers', 'none is called `opt`, and they are kept')
def _():
    learn = learner(cls=WithoutOpt)
    learn.fit(1)
    kept = learn.first, learn.second
    learn.fit(1, reset_opt=False, lr=0.3)
    assert (learn.first, learn.second) == kept and learn.opt is None
    assert all(state['step'] == 12 for opt in kept for state in opt.state.values())
    assert [opt.param_groups[0]['lr'] for opt in kept] == [0.1, 0.1]
    learn.fit(1)
    assert learn.first is not kept[0]


# 2: the rate of one fit, with an optimizer kept or new

@case('rates', 'of one fit alone: kept, new, of layer groups, under a plateau')
def _():
    model, recorder = mlp(), RecorderS()
    learn = learner(recorder, Fills([1., 2., 2., 2.], 'loss'), ReduceLROnPlateauS(patience=2, factor=0.5), model=model, lr=0.2,
                    optim=GroupedOptim(torch.optim.SGD, model, ['0', '2'], rates=[0.5, 1.]))
    fits = [dict(lr=0.1), dict(reset_opt=False), dict(lr=0.4, reset_opt=False), dict(reset_opt=False), dict(lr=slice(0.01, 0.1)),
            dict(reset_opt=False), dict(lr=[0.3, 0.4], reset_opt=False), dict(reset_opt=False), {}]
    for options in fits: learn.fit(4 if len(options) == 1 and 'lr' in options else 1, **options)
    first = {}
    for (fit, epoch, mode), table in recorder.history.tables.items():
        if mode == 'train' and not epoch: first[fit] = [table['lr_0'][0].item(), table['lr'][0].item()]
    wanted = [[0.05, 0.1], [0.1, 0.2], [0.2, 0.4], [0.1, 0.2], [0.01, 0.1], [0.1, 0.2], [0.3, 0.4], [0.1, 0.2], [0.1, 0.2]]
    assert np.allclose([first[fit] for fit in sorted(first)], wanted), first
    assert learn.lr == 0.2


# 5: what a batch is

class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


class Last(nn.Module):
    "A linear layer of the last tensor that it gets; texts and pictures become numbers first."
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
    def forward(self, *xs, **named):
        x = [*xs, *named.values()][-1]
        if isinstance(x, nn.utils.rnn.PackedSequence): x = pad_packed_sequence(x, batch_first=True)[0].sum(1)
        if isinstance(x, (list, tuple)) and isinstance(x[0], str): x = torch.tensor([[len(t)]*4 for t in x])
        if isinstance(x, (list, tuple)): x = torch.stack([picture.mean((1, 2))[:1].expand(4) for picture in x])
        if isinstance(x, np.ndarray): x = torch.from_numpy(x)
        return self.linear(x.float())


def packed(x): return pack_padded_sequence(x[:, :, None].expand(-1, -1, 4), torch.arange(len(x), 0, -1).clamp(max=4), batch_first=True)
def pictures(x): return [torch.ones(3, 8+i, 5)*row.sum() for i, row in enumerate(x)]
def texts(x): return ['a'*(3+i) for i in range(len(x))]


BATCHES = {
    'packed sequences': lambda x, y: (packed(x), y), 'pictures of any size': lambda x, y: (pictures(x), y),
    'texts in a list': lambda x, y: [texts(x), y], 'texts in a tuple': lambda x, y: (tuple(texts(x)), y),
    'a number first': lambda x, y: (torch.tensor(3.), x, y), 'nothing in the middle': lambda x, y: (texts(x), None, x, y),
    'a named tuple': Pair, 'arrays': lambda x, y: (x.numpy(), y),
    'names of files first': lambda x, y: dict(file=texts(x), ids=x, labels=y),
    'a dict in a dict': lambda x, y: dict(meta=dict(file=texts(x), n=torch.tensor(1)), ids=x, label=y),
    'an ordered dict': lambda x, y: collections.OrderedDict(ids=x, labels=y),
}


def batch_counts(make):
    "Loss, count and group of accumulation go by samples; the same after a rehearsal and in predictions."
    model = Last()
    learn = learner(MetricsS(show=False), model=model, train=[make(x, y) for x, y in data()],
                    valid=[make(x, y) for x, y in data(3)], lr=1e-9)
    sizes = []
    learn.on('after_batch', lambda learn: sizes.append(learn.batch_size) if learn.training else None)
    learn.fit(1)
    assert sizes == [4, 5]*3 and learn.n_samples == 27
    with torch.no_grad(): total = sum(
        F.cross_entropy(model(*([make(x, y)[k] for k in make(x, y) if not k.startswith('label')]
        if isinstance(make(x, y), dict) else make(x, y)[:-1])), y, reduction='sum') for x, y in data(3))
    assert abs(learn.row['loss'] - total.item()/13) < 1e-4 and abs(learn.validate()['loss'] - total.item()/13) < 1e-4
    learn.fit(1, subs=GradientAccumulationS(n_samples=9))
    assert learn.n_steps == 3
    preds, targets = learn.get_preds()
    assert len(preds) == len(targets) == 13


for name, make in BATCHES.items(): case('batch', f'of {name}')(partial(batch_counts, make))


@case('batch', 'split and counted by functions')
def _():
    batches = [dict(sentence=x, verdict=y, weight=torch.ones(99)) for x, y in data()]
    learn = learner(model=Last(), train=batches, valid=batches,
                    n_inp=lambda batch: ((batch['sentence'],), (batch['verdict'],)))
    learn.batch_size = lambda batch: len(batch['verdict'])
    learn.fit(2, subs=GradientAccumulationS(n_samples=9))
    assert learn.n_samples == 2*27 and learn.n_steps == 6 and learn.get_preds()[0].shape == (27, 2)


@case('batch', 'columns of a data set in any order')
def _():
    datasets = pytest.importorskip('datasets')
    columns = dict(input_ids=[[1, 2, 3], [4, 5, 6]]*4, attention_mask=[[1, 1, 0], [1, 1, 1]]*4,
                   token_type_ids=[[0, 0, 0]]*8, labels=[0, 1]*4)
    for order in ('labels', 'attention_mask', 'input_ids', 'token_type_ids'), ('input_ids', 'labels', 'attention_mask'), (
            'attention_mask', 'token_type_ids', 'labels', 'input_ids'):
        split = datasets.Dataset.from_dict({name: columns[name] for name in order}).with_format('torch')
        dls = DataLoaders.from_hf_dd(datasets.DatasetDict(train=split, test=split), batch_size=4)
        batch = next(iter(dls.train))
        learn = Learner(Last(), dls, F.cross_entropy)
        learn.batch = batch
        assert len(learn.yb) == 1 and learn.y.shape == (4,) and learn.batch_size == 4 and {*learn.y.tolist()} <= {0, 1}, (order, batch)


GRAPHS = type('Graphs', (), dict(num_graphs=7, x=torch.zeros(50, 3), y=torch.zeros(7)))


def table_of_counts():
    "(batch, `n_inp`, samples): the first tensor with a dimension, else the first list."
    x, y = torch.zeros(4, 3), torch.zeros(9)
    return [((x, y), None, 4), ((torch.tensor(1.), y), None, 9), (dict(a=torch.tensor(1.), b=dict(c=x)), None, 4),
            ((packed(torch.zeros(6, 3)),), None, 6), (dict(a=np.zeros((5, 2)), b=['a']*9), None, 5), ((['abc', 'de'],), None, 2), ((('abc', 'de', 'f'), None), None, 3),
            (([torch.zeros(3, 8, 8), torch.zeros(3, 5, 5)], [dict(boxes=x)]*2), None, 2), (dict(text=['abc', 'de']), None, 2),
            (dict(meta=dict(file=['a', 'b']), ids=x), None, 4), (dict(meta=dict(file=['a', 'b'])), None, 2),
            (dict(table=torch.zeros(99, 2), ids=x), lambda batch: ((batch['ids'],), ()), 4),
            (dict(table=torch.zeros(99, 2), ids=x), lambda batch: (dict(ids=batch['ids']), ()), 4), (GRAPHS(), None, 7), ((GRAPHS(),), None, 7)]


@case('batch', 'counted: a table')
def _():
    for batch, n_inp, n in table_of_counts():
        learn = learner(n_inp=n_inp)
        learn.batch = batch
        assert learn.batch_size == n, (batch, n, learn.batch_size)
    for batch in (torch.tensor(1.), 3), dict(a=None):
        learn = learner()
        learn.batch = batch
        with pytest.raises(TypeError, match='no tensor with a dimension and no list .*learn.batch_size = lambda'): learn.batch_size


@case('batch', 'counted and split by functions, whatever is in front')
def _():
    batches = [dict(lookup=torch.zeros(99), sentence=x, verdict=y) for x, y in data()]
    learn = learner(MetricsS(accuracy, show=False), model=Last(), train=batches, valid=batches, n_inp=lambda batch: (batch['sentence'], batch['verdict']))
    def change(learn):
        x, y = learn.x, learn.y
        learn.x = x*1
        assert torch.equal(learn.x, x) and torch.equal(learn.y, y) and learn.batch_size == len(y)
    with learn.on('before_batch', change): learn.fit(1, subs=BatchTransformS(lambda x: x))
    assert learn.n_samples == 27
    learn.batch_size = lambda batch: 2
    learn.fit(1)
    assert learn.n_samples == 12
    with pytest.raises(TypeError, match='is to return inputs and targets'): learner(n_inp=lambda batch: batch[0]).fit(1)


@case('batch', "of a dict: transformers' names of targets")
def _():
    for name in ('label', 'labels', 'label_ids', 'start_positions', 'end_positions', 'class_labels', 'mask_labels', 'next_sentence_label'):
        batches = [{'attention_mask': torch.ones_like(x), name: y, 'x': x} for x, y in data()]
        learn = learner(model=Last(), train=batches, valid=batches)
        learn.batch = batches[0]
        assert learn.y is batches[0][name] and [*learn.xb] == ['attention_mask', 'x']
        learn.fit(1)


@case('batch', 'of a data set whose target nobody named is asked for')
def _():
    datasets = pytest.importorskip('datasets')
    split = datasets.Dataset.from_dict(dict(price=[1., 2.]*4, a=[1., 2.]*4, b=[3., 4.]*4)).with_format('torch')
    with pytest.raises(ValueError, match=r"which of the columns \['price', 'a', 'b'\] is the target.*`?target='price'"):
        DataLoaders.from_hf_dd(datasets.DatasetDict(train=split, test=split), batch_size=4)
    dls = DataLoaders.from_hf_dd(datasets.DatasetDict(train=split, test=split), batch_size=4, target='price')
    assert next(iter(dls.valid))[-1].flatten().tolist() == [1., 2.]*4


# 6: what is kept

def made(name):
    "A subscriber by its name, made with the fewest arguments."
    given = {'CheckpointS': ('runs',), 'BatchTransformS': (lambda x: x,), 'StopAfterS': (3,), 'GradientClipS': (1.,),
             'GradientAccumulationS': (2,), 'ScheduleS': (), 'TorchScheduleS': (partial(torch.optim.lr_scheduler.ExponentialLR, gamma=.9),)}
    return getattr(nntrain.all, name)(*given.get(name, ()))


@case('kept', 'a state before the first fit, with any subscriber')
def _():
    seen = []
    for name in nntrain.all.__all__:
        kind = getattr(nntrain.all, name)
        if not isinstance(kind, type) or not issubclass(kind, Subscriber) or kind is Subscriber: continue
        try: sub = made(name)
        except (TypeError, ValueError, ImportError, RuntimeError, OSError): continue    # wants arguments
        try: learn = learner(sub)
        except Exception: continue
        state = learn.state_dict()
        other = learner(made(name))
        other.load_state_dict(state)
        seen.append(name)
    assert len(seen) > 20, seen


@dataclass
class Out:
    logits: torch.Tensor
    extra: dict


class Outs(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.linear, self.form = nn.Linear(4, 2), form
    def forward(self, x): return self.form(self.linear(x))


FORMS = {'a dict in a dict': lambda z: {'a': {'b': z}, 'c': [z, z]}, 'a list of rows': lambda z: list(z),
         'a named tuple': lambda z: Pair(z, z), 'a dataclass': lambda z: Out(z, {'z': (z,)}),
         'a tuple with None': lambda z: (z, None, (z, [z]))}


def tensors_in(value):
    if isinstance(value, torch.Tensor): return [value]
    if isinstance(value, dict): return sum(map(tensors_in, value.values()), [])
    if isinstance(value, (list, tuple)): return sum(map(tensors_in, value), [])
    return sum(map(tensors_in, vars(value).values()), []) if hasattr(value, '__dict__') else []


def no_graph(form):
    kept = []
    def metric(preds, targets):
        kept.append(preds)
        return torch.tensor(0.)
    def loss(preds, targets): return F.cross_entropy(torch.stack([*tensors_in(preds)[:len(targets)]])
        if isinstance(preds, list) else tensors_in(preds)[0], targets)
    learn = learner(MetricsS(metric, show=False), model=Outs(form), loss=loss)
    learn.fit(1)
    found = tensors_in(kept)
    assert found and not any(t.requires_grad or t.grad_fn for t in found)
    assert learn.preds is None and learn.loss is None


for name, form in FORMS.items(): case('kept', f'no graph of {name}')(partial(no_graph, form))


class Holds(Subscriber):
    "Has a container of any type in its state."
    def __init__(self, value): self.value = value
    def after_batch(self, learn): self.grow(self.value)
    def grow(self, value):
        if isinstance(value, dict): value['n'] = value.get('n', 0) + 1
        elif isinstance(value, (list, collections.deque)): value.append(len(value))
        elif isinstance(value, set): value.add(len(value))
        elif isinstance(value, torch.Tensor): value.add_(1)
        else: [self.grow(item) for item in value]
    def state_dict(self): return dict(value=self.value)
    def load_state_dict(self, state): self.value = state['value']


CONTAINERS = {'a deque': lambda: collections.deque([1], maxlen=50), 'a Counter': collections.Counter,
              'a default dict': lambda: collections.defaultdict(list), 'a set': set, 'an ordered dict': collections.OrderedDict,
              'a named tuple of lists': lambda: Pair([], {}), 'lists in tuples in dicts': lambda: {'n': 0, 'a': ([], {})},
              'a tensor in a list in a tuple': lambda: ([torch.zeros(2)],)}


def copies(make):
    learn, states = learner(Holds(make())), []
    learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=30)
    learn.fit(1)
    values = [state['subs']['Holds']['value'] for state in states]
    assert all(type(value) is type(make()) for value in values)
    assert not same(values[0], values[-1]) or isinstance(make(), dict) and 'a' in make()
    again = learner(Holds(make()))
    again.on('after_batch', lambda learn: None, order=30)
    again.load_state_dict(states[2])
    kept = repr(states[2]['subs']['Holds']['value'])
    for _ in range(3): again.subs[0].after_batch(again)
    assert repr(states[2]['subs']['Holds']['value']) == kept


for name, make in CONTAINERS.items(): case('kept', f'a copy of {name}')(partial(copies, make))

LOOKS = {'validate': lambda learn: learn.validate(), 'get_preds': lambda learn: learn.get_preds('train'),
         'a fit without training': lambda learn: learn.fit(1, train=False), 'lr_find': lambda learn: learn.lr_find(n_batches=10, tries=4),
         'summary': lambda learn: learn.summary(), 'explain': lambda learn: learn.explain(), 'check': lambda learn: learn.check(),
         'tta': lambda learn: learn.tta([lambda x: -x])}


def leaves_state(look, inside):
    subs = [MetricsS(accuracy, show=False), EMAS(0.9), StopOnNaNS('skip'), SmoothLossS(), KeepBestS(),
            GradientAccumulationS(2), ReduceLROnPlateauS(patience=2), EarlyStoppingS(patience=9)]
    learn = learner(*subs, model=mlp(nn.BatchNorm1d(6)), optim=partial(torch.optim.Adam, amsgrad=True))
    if not inside:
        learn.fit(2)
        before = learn.state_dict()
        look(learn)
        assert same(before, learn.state_dict())
        return
    found = []
    def compare(learn):
        if not learn.training or learn.rehearsing or learn.iter != 2: return
        before = learn.state_dict()
        look(learn)
        found.append(same(before, learn.state_dict()))
    learn.on('after_batch', compare, order=30)
    learn.fit(2)
    assert found == [True, True]


for name, look in LOOKS.items():
    for inside in (False,) if name in ('a fit without training', 'lr_find') else (False, True):
        case('kept', f'the state {"in" if inside else "after"} a fit through {name}')(partial(leaves_state, look, inside))


@case('kept', 'the memory layout through a file and a checkpoint')
def _(tmp_path):
    def model():
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4*16, 2)).to(memory_format=torch.channels_last)
        net[2].weight = nn.Parameter(net[2].weight.detach().t().contiguous().t())
        return net
    batches = [(torch.randn(4, 3, 6, 6), torch.randint(0, 2, (4,))) for _ in range(3)]
    learn = learner(model=model(), train=batches, valid=batches, optim=torch.optim.Adam)
    strides = lambda module: [p.stride() for p in module.parameters()]
    wanted = strides(learn.model)
    learn.fit(1, subs=CheckpointS(tmp_path/'run'))
    learn.save(tmp_path/'weights.safetensors')
    other = learner(model=model(), train=batches, valid=batches, optim=torch.optim.Adam)
    other.load(tmp_path/'weights.safetensors')
    other.load_state_dict(resume(tmp_path/'run'))
    moments = [state['exp_avg'].stride() for state in other.opt.state.values()]
    assert strides(learn.model) == strides(other.model) == wanted == moments


class Unsaveable(Subscriber):
    def __init__(self, value): self.value = value
    def after_batch(self, learn): pass
    def state_dict(self): return dict(value=self.value)
    def load_state_dict(self, state): pass


for name, make in {'a lock': threading.Lock, 'a function': lambda: (lambda: 1), 'a generator': lambda: (i for i in 'ab'),
                   'an object': lambda: Out(None, {}), 'a module': lambda: nn.Linear(1, 1)}.items():
    @case('kept', f'{name} cannot be: said before the first batch')
    def _(tmp_path, make=make):
        learn, batches = learner(Unsaveable(make())), []
        learn.on('before_batch', lambda learn: batches.append(1) if learn.rehearsing is False else None)
        with pytest.raises((TypeError, ValueError), match='Unsaveable'): learn.fit(1, subs=CheckpointS(tmp_path/'run'))
        assert not batches


# 7: deciding

LOWER = ('perplexity', 'mse', 'rmse', 'mae', 'wer', 'cer', 'top_5_error', 'nll', 'mape', 'brier', 'val_loss', 'fid')
HIGHER = ('accuracy', 'f1', 'auc', 'bleu', 'iou', 'dice', 'r2', 'precision', 'recall', 'top_5_accuracy')


class Fills(Subscriber):
    "Fills a column of the validation rows."
    order = 10
    def __init__(self, values, column='score', modes=('valid',)): self.values, self.column, self.modes = values, column, modes
    def after_epoch(self, learn):
        if learn.row['mode'] in self.modes: learn.row[self.column] = self.values[learn.epoch]


DECIDERS = {'EarlyStoppingS': lambda m, **k: EarlyStoppingS(m, **k), 'KeepBestS': lambda m, **k: KeepBestS(m, **k),
            'ReduceLROnPlateauS': lambda m, **k: ReduceLROnPlateauS(m, **k)}


@case('deciding', 'every decider asks where a name does not tell')
def _(tmp_path):
    for name in 'gauge', 'value', 'energy':
        for make in DECIDERS.values():
            with pytest.raises(ValueError, match='higher_is_better'):
                learner(Fills([1, 2, 3], name), make(f'valid {name}')).fit(3)
        with pytest.raises(ValueError, match='higher_is_better'):
            learner(Fills([1, 2, 3], name)).fit(3, subs=CheckpointS(tmp_path/name, best=name))


for names, better, script in (LOWER, False, [3., 1., 2.]), (HIGHER, True, [1., 3., 2.]):
    for name in names:
        @case('deciding', f'the best {name}')
        def _(tmp_path, name=name, better=better, script=script):
            try: known = more_is_better(name)
            except ValueError: return        # asks
            assert known is better, (name, known)
            best = KeepBestS(f'valid {name}')
            learner(Fills(script, name), best).fit(3, subs=CheckpointS(tmp_path/'run', best=name))
            assert best.best_epoch == 1
            assert resume(tmp_path/'run', best=True)['position']['epoch'] == 2


@case('deciding', 'any validation set can be named')
def _(tmp_path):
    for at in 'a', 'b':
        best = KeepBestS(f'valid {at} score', higher_is_better=True)
        fills = [Fills([1, 3, 2], modes=('valid a',)), Fills([1, 2, 3], modes=('valid b',))]
        learn = learner(*fills, best, valid=dict(a=data(2), b=data(2)))
        learn.fit(3, subs=CheckpointS(tmp_path/at, best=f'valid {at} score', higher_is_better=True))
        assert resume(tmp_path/at, best=True)['position']['epoch'] == best.best_epoch + 1
        assert best.best_epoch == (1 if at == 'a' else 2)


@case('deciding', 'an epoch without validation is waited through')
def _():
    for name, make in DECIDERS.items():
        options = dict(higher_is_better=True, **(dict(patience=2) if name != 'KeepBestS' else {}))
        sub = make('valid score', **options)
        learn = learner(Fills([1., 9., 1., 9., 1., 9., 1., 9.]), sub)
        def skip(learn):
            if not learn.training and learn.epoch % 2: raise CancelEpochException
        learn.on('before_epoch', skip)
        learn.fit(3 if name == 'EarlyStoppingS' else 4)
        assert sub.best == 1. and sub.wait <= 1 and sub.best_epoch == 0, (name, vars(sub))


@case('deciding', 'a state saved in the epoch that decides has counted it')
def _():
    values, ends = [3., 1., 2., 2., 2., 2., 2., 2.], []
    def make(states=None):
        learn = learner(Fills(values, 'loss'), stop := EarlyStoppingS(patience=3), KeepBestS(), ReduceLROnPlateauS(patience=2))
        learn.on('after_full_epoch', lambda learn: None if states is None else states.append(learn.state_dict()), order=30)
        return learn, stop
    learn, stop = make(states := [])
    learn.fit(8)
    whole = torch.cat([p.detach().flatten() for p in learn.model.parameters()])
    for state in states[:-1]:
        again, _ = make([])
        again.fit(8, resume=state)
        assert again.epoch == learn.epoch == 4
        assert torch.equal(whole, torch.cat([p.detach().flatten() for p in again.model.parameters()]))


# 8: gradients

class Penalty(Subscriber):
    def before_backward(self, learn):
        learn.loss_grad = learn.loss_grad + 0.3*sum(p.square().sum() for p in learn.model.parameters())


class Penalised(nn.Module):
    "The same penalty in the loss itself."
    def __init__(self, model): super().__init__(); self.model = model
    def forward(self, preds, *ys):
        penalty = 0.3*sum(p.square().sum() for p in self.model.parameters()) if torch.is_grad_enabled() else 0.
        return F.cross_entropy(preds, *ys) + penalty


PENALISED = {'SAM': dict(cls=SAMLearner), 'momentum': dict(cls=MomentumLearner), 'accumulation': dict(subs=lambda: [GradientAccumulationS(3)]),
             'SAM and accumulation': dict(cls=SAMLearner, subs=lambda: [GradientAccumulationS(2)]),
             'fp16 and clipping': dict(subs=lambda: [MixedPrecisionS('fp16'), GradientClipS(0.5)]),
             'LBFGS': dict(optim=partial(torch.optim.LBFGS, max_iter=3))}


def penalty_everywhere(cls=Learner, subs=lambda: [], optim=torch.optim.SGD):
    found = []
    for own in False, True:
        torch.manual_seed(3)
        model = mlp()
        learn = learner(*subs(), *([] if own else [Penalty()]), model=model, cls=cls, optim=optim, lr=0.05,
                        loss=Penalised(model) if own else F.cross_entropy)
        if own: learn.loss_fn = Penalised(model).forward     # no parameters of its own
        learn.fit(1)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*found, atol=1e-5), (found[0]-found[1]).abs().max()


for name, kwargs in PENALISED.items(): case('gradients', f'a penalty meets {name}')(partial(penalty_everywhere, **kwargs))


@case('gradients', 'the last group of a pass that ends early')
def _():
    found = []
    for early in False, True:
        learn = learner(GradientAccumulationS(3), train=data(8) if early else data(5))
        def end(learn):
            if early and learn.training and learn.iter == 4: raise CancelTrainException
        learn.on('after_batch', end)
        learn.fit(2)
        found.append((learn.n_steps, torch.cat([p.detach().flatten() for p in learn.model.parameters()])))
    assert found[0][0] == found[1][0] == 4 and torch.equal(found[0][1], found[1][1])


for name, clip in {'a norm of 0': lambda: GradientClipS(0.), 'a value of 0': lambda: GradientClipS(max_value=0.)}.items():
    @case('gradients', f'clipped to {name}: nothing moves, with any learner')
    def _(clip=clip):
        for cls, extra in (Learner, []), (SAMLearner, []), (Learner, [GradientAccumulationS(2)]), (Learner, [MixedPrecisionS('fp16')]):
            learn = learner(clip(), *extra, cls=cls)
            before = torch.cat([p.detach().flatten() for p in learn.model.parameters()])
            learn.fit(1)
            assert torch.allclose(before, torch.cat([p.detach().flatten() for p in learn.model.parameters()]), atol=1e-7)


@case('gradients', 'none at all: a frozen model meets clipping, guards, fp16, SAM')
def _():
    for cls, sub in (Learner, GradientClipS(1.)), (Learner, StopOnNaNS('skip')), (Learner, StopOnNaNS('skip', on_device=True)), (
            Learner, MixedPrecisionS('fp16')), (SAMLearner, GradientClipS(1.)), (Learner, GradientAccumulationS(2)):
        model = mlp()
        model[0].requires_grad_(False)
        learn = learner(sub, model=model, cls=cls)
        learn.fit(1)
        assert model[0].weight.grad is None


# 9: exactness that is promised

class Noisy(Dataset):
    "Adds noise of a generator of its own."
    def __init__(self, draw): self.draw = draw
    def __len__(self): return 12
    def __getitem__(self, i): return torch.full((4,), i/12) + self.draw(), i % 2


class Draws:
    def __init__(self, kind):
        self.kind = kind
        self.generator = {'torch': torch.Generator().manual_seed(5) if kind == 'torch' else None,
            'python': random.Random(5), 'numpy': np.random.default_rng(5), 'old numpy': np.random.RandomState(5)}[kind]
    def __call__(self):
        if self.kind == 'torch': return torch.rand(4, generator=self.generator)
        if self.kind == 'python': return torch.tensor([self.generator.random() for _ in range(4)])
        return torch.from_numpy(self.generator.random(4) if self.kind == 'numpy' else self.generator.random_sample(4)).float()


def collated(draw): return lambda items: (torch.stack([x for x, _ in items]) + draw(), torch.tensor([y for _, y in items]))


def own_generator(kind, where, tmp_path):
    "A run that goes on is exact, or its first start says before the first batch that it is not."
    def run(name, stop=None, exact=False):
        draw, at_first = Draws(kind), []
        dataset = Noisy(draw if where == 'data set' else lambda: 0.)
        if where == 'transform': dataset.draw, dataset.transform = (lambda: dataset.transform()), draw
        collate = collated(draw) if where == 'collate' else partial(add_to, draw=draw) if where == 'partial' else None
        learn = learner(train=DataLoader(dataset, 4, shuffle=True, collate_fn=collate), valid=data(2))
        def end(learn):
            if not at_first: at_first.append([str(one.message) for one in told])
            if learn.train_iter == stop: raise RuntimeError('killed')
        learn.on('before_batch', end)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            try: learn.fit(3, resume=True, subs=CheckpointS(tmp_path/name, every_steps=1, keep=20, background=False,
                                                            on_error=None, exact=exact))
            except RuntimeError as error: assert 'killed' in str(error)
        return torch.cat([p.detach().flatten() for p in learn.model.parameters()]), at_first[0]
    whole, said = run('whole')
    named = [text for text in said if 'generator of its own' in text]
    for stop in 2, 7:
        run(f'{stop}', stop)
        again, told = run(f'{stop}')
        assert torch.equal(whole, again) or named and {*named} <= {*told}, (stop, said)
        assert torch.equal(whole, again) or where not in ('collate', 'partial'), stop
    if named:
        with pytest.raises(ValueError, match='with `exact=True` nothing may be in the way.*generator of its own'): run('exact', exact=True)


def add_to(items, draw): return collated(draw)(items)


for kind, where in zip(('torch', 'python', 'numpy', 'old numpy', 'torch'), ('data set', 'transform', 'collate', 'partial', 'collate')):
    case('exactness', f'a generator of {kind} in a {where}')(
        lambda tmp_path, kind=kind, where=where: own_generator(kind, where, tmp_path))


@case('exactness', 'a stateful loader of torchdata')
def _():
    stateful = pytest.importorskip('torchdata.stateful_dataloader').StatefulDataLoader
    def run(state=None, states=None):
        learn = learner(train=stateful(Noisy(lambda: torch.rand(4)), 4, shuffle=True), valid=data(2))
        learn.on('after_batch', lambda learn: states.append(learn.state_dict()) if states is not None and learn.training else None, order=30)
        learn.fit(2, resume=state)
        return torch.cat([p.detach().flatten() for p in learn.model.parameters()])
    whole = run(states=(states := []))
    for at in range(len(states)): assert torch.equal(whole, run(states[at])), at


# 11: predicting

class Heads(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.a, self.b, self.form = nn.Linear(4, 2), nn.Linear(4, 1), form
    def forward(self, x): return self.form(self.a(x), self.b(x))


class HeadLoss(nn.Module):
    def forward(self, preds, kinds, sizes):
        a, b = (preds['a'], preds['b']) if isinstance(preds, dict) else preds[:2]
        return F.cross_entropy(a, kinds) + F.mse_loss(b[:, 0], sizes)


for name, form in {'a tuple': lambda a, b: (a, b), 'a dict': lambda a, b: dict(a=a, b=b), 'a list': lambda a, b: [a, b],
                   'a named tuple': lambda a, b: Pair(a, b)}.items():
    @case('predicting', f'losses of heads in {name}')
    def _(form=form):
        batches = [(x, y, x.mean(1)) for x, y in data(3)]
        learn = learner(model=Heads(form), train=batches, valid=batches, loss=HeadLoss(), n_inp=1)
        learn.fit(1)
        _, _, losses = learn.get_preds(losses=True)
        with torch.no_grad(): by_hand = torch.stack([HeadLoss()(learn.model(x[i:i+1]), y[i:i+1], z[i:i+1])
                                                     for x, y, z in batches for i in range(len(x))])
        assert torch.allclose(losses, by_hand, atol=1e-6)


for dtype in torch.bfloat16, torch.float16, torch.float64:
    @case('predicting', f'arrays of a model in {dtype}')
    def _(dtype=dtype):
        batches = [(x.to(dtype), y) for x, y in data(3)]
        learn = learner(model=mlp().to(dtype), train=batches, valid=batches, lr=1e-4)
        for preds in learn.get_preds()[0], learn.tta([lambda x: -x])[0], next(learn.iter_preds())[0]:
            assert preds.numpy().dtype == (np.float64 if dtype == torch.float64 else np.float32)


class OwnLoss(nn.Module):
    def __init__(self): super().__init__(); self.linear = nn.Linear(4, 2)
    def forward(self, x, labels=None):
        logits = self.linear(x)
        return dict(logits=logits, **({} if labels is None else dict(loss=F.cross_entropy(logits, labels))))


@case('predicting', 'a model with its own loss: mixed, validated, predicted, losses')
def _():
    batches = [dict(x=x, labels=y) for x, y in data(4)]
    learn = learner(MetricsS(accuracy, show=False), MixUpS(0.4), model=OwnLoss(), train=batches, valid=batches, loss=None)
    learn.fit(2)
    preds, targets, losses = learn.get_preds(losses=True)
    assert torch.allclose(losses, F.cross_entropy(preds, targets, reduction='none'), atol=1e-6)
    assert abs(learn.validate()['loss'] - losses.mean().item()) < 1e-5


@case('predicting', 'estimators with transforms: predict, proba and score go through them')
def _():
    pytest.importorskip('sklearn')
    from nntrain.interop.sklearn import LearnerClassifier, LearnerRegressor
    generator = np.random.default_rng(0)
    X = generator.normal(500., 100., (120, 3)).astype('float32')
    y = (X.sum(1) > 1500).astype(int)
    subs = [BatchTransformS(Normalize([500.], [100.]))]
    found = LearnerClassifier(subs=subs, epochs=20, lr=0.05).fit(X, y)
    assert found.score(X, y) > 0.9 and (found.predict_proba(X).argmax(1) == found.predict(X)).all()
    numbers = LearnerRegressor(subs=subs, epochs=40, lr=0.05).fit(X, (X.sum(1)-1500)/300)
    assert numbers.score(X, (X.sum(1)-1500)/300) > 0.5


@case('predicting', 'an export has what validation does, and nothing of training alone')
def _(tmp_path):
    class Shift(nn.Module):
        def forward(self, x): return x + 100.
    subs = [BatchTransformS(Normalize([2.], [3.])), BatchTransformS(Shift(), train_only=True), EMAS(0.5)]
    learn = learner(*subs, lr=1e-3)
    learn.fit(2)
    preds, _ = learn.get_preds()
    x = torch.cat([x for x, _ in data(3)])
    for format in 'safetensors', 'pt2':
        file = learn.export(tmp_path/f'model.{format}', prepare=None)
        assert torch.allclose(load_predictor(file, mlp()).scores(x), preds, atol=1e-5)


class Dice(nn.Module):
    "Has a `reduction` that it does not follow."
    reduction = 'mean'
    def forward(self, preds, targets): return 1 - (preds.softmax(1).gather(1, targets[:, None]).mean())


@case('predicting', 'losses of a class that does not reduce as it says')
def _():
    learn = learner(loss=Dice())
    preds, targets, losses = learn.get_preds(losses=True)
    by_hand = torch.stack([Dice()(preds[i:i+1], targets[i:i+1]) for i in range(len(targets))])
    assert losses.shape == (13,) and torch.allclose(losses, by_hand, atol=1e-6)


class NormedOwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2))
    def forward(self, x, labels):
        logits = self.body(x)
        return dict(logits=logits, loss=F.cross_entropy(logits, labels))


class FixedMixUp(MixUpS):
    def draw(self): return 0.7


@case('predicting', 'MixUp of a model with its own loss, dropout and norms, by hand')
def _():
    batches, seen = [dict(x=x, labels=y) for x, y in data()], []
    learn = learner(mix := FixedMixUp(), model=NormedOwnLoss(), train=batches, valid=False, loss=None)
    learn.dls.valid = None
    model = copy.deepcopy(learn.model)
    learn.on('before_predict', lambda learn: None if mix.again else seen.append((mix.partner, torch.get_rng_state())), order=50)
    learn.fit(1)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    for (x, y), (partner, state) in zip(data(), seen):
        torch.set_rng_state(state)
        logits = model.train().body(torch.lerp(x[partner], x, 0.7))
        opt.zero_grad()
        torch.lerp(F.cross_entropy(logits, y[partner]), F.cross_entropy(logits, y), 0.7).backward()
        opt.step()
    ours, by_hand = learn.model.state_dict(), model.state_dict()
    assert all(torch.allclose(ours[name], by_hand[name], atol=1e-6) for name in by_hand)


# 12: words

FOREIGN = {'on_train_batch_end': 'after_batch', 'on_validation_epoch_end': 'validate', 'on_fit_start': 'before_fit', 'on_step_end': 'after_step',
           'after_bacth': 'after_batch', 'before_eopch': 'before_epoch', 'on_train_begin': 'before_', 'after_pred': 'after_predict',
           'batch_end': 'after_batch', 'on_before_optimizer_step': 'before_step'}
for name, ours in FOREIGN.items():
    @case('words', f'an event called {name}')
    def _(name=name, ours=ours):
        learn = learner()
        with pytest.raises((ValueError, AttributeError, TypeError), match=ours): learn.on(name, lambda learn: None)
        kind = None
        with pytest.raises((ValueError, AttributeError, TypeError), match=ours):
            kind = type('ForeignS', (Subscriber,), {name: lambda self, learn: None})
            learner(kind())
        with pytest.raises((ValueError, AttributeError, TypeError), match=ours):
            learner().fit(1, subs=(kind or type('ForeignS', (Subscriber,), {name: lambda self, learn: None}))())


@case('words', 'pct_train in every event')
def _():
    for batches, epochs, subs in (6, 3, []), (4, 2, [GradientAccumulationS(3)]), (5, 1, [MetricsS(show=False)]):
        learn, found = learner(*subs, train=data(batches)), []
        for event in learn.events:
            def look(learn, event=event): found.append((event, learn.epoch, learn.iter, learn.training, learn.pct_train))
            if event != 'after_create': learn.on(event, look)
        learn.fit(epochs)
        shares = [pct for *_, pct in found if pct is not None]
        assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
        for event, epoch, i, training, pct in found:
            if training and event.endswith(('_batch', '_predict', '_loss', '_backward')):
                assert pct == (epoch + i/batches)/epochs, (event, epoch, i, pct)


@case('words', 'a name that is like no event, and one of others beside an event of ours')
def _():
    for name in 'incorrect', 'epoch_end', 'train':
        with pytest.raises(ValueError, match=f"there is no event '{name}'; did you mean `"): learner().on(name, print)
    for name, ours in ('on_epoch_end', 'after_full_epoch'), ('on_train_batch_end', 'after_batch'), ('on_fit_start', 'before_fit'):
        kind = type('MixedS', (Subscriber,), {name: lambda self, learn: None, 'after_step': lambda self, learn: None})
        with pytest.raises(ValueError, match=f'`MixedS.{name}`: no such event; the event is `{ours}`'): learner(kind())


class NotReadyS(Subscriber):
    "Its properties have a value in a fit alone; a lookup of one is an error."
    def after_batch(self, learn): self.seen = True
    @property
    def norms(self): raise RuntimeError('asked too early')
    @functools.cached_property
    def table(self): raise AttributeError('asked too early')


@case('words', 'a subscriber whose properties are not ready joins, trains, is rehearsed and shown')
def _():
    learn = learner(sub := NotReadyS())
    learn.fit(1)
    learn.lr_find(n_batches=10, tries=3)
    assert sub.seen and 'NotReadyS' in repr(learn) and learn.validate() and learn.state_dict()


class NoLength:
    def __iter__(self): return iter(data())


@case('words', 'pct_train is unknown where the length is')
def _():
    learn, found = learner(train=NoLength()), []
    learn.on('after_batch', lambda learn: found.append(learn.pct_train) if learn.training else None)
    learn.on('after_full_epoch', lambda learn: found.append(learn.pct_train))
    learn.fit(2)
    assert found == [None]*6 + [0.5] + [None]*6 + [1.]


NAMES = [f'{kind}: {what}' for kind, what in CASES]


@pytest.mark.parametrize('at', range(len(NAMES)), ids=NAMES)
def test_right(at, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = [*CASES.values()][at]
    code = getattr(function, '__code__', None)
    torch.manual_seed(0)
    with warnings.catch_warnings(action='ignore'):
        function(tmp_path) if code and 'tmp_path' in code.co_varnames[:code.co_argcount] else function()
