"""Two ranks with batches of four do what one process does with batches of eight, whatever meets.

    python -m pytest tests/test_together_ranks.py -k nan      runs some of the programs
    make test-faults                                          adds kills, signals and refusals

A program is a function that trains and returns numbers. It runs in this process, and in two that
`launch` starts once for all programs; all three must return the same, up to rounding."""
import io
import math
import os
import shutil
import signal
import sys
import tempfile
import warnings
from contextlib import redirect_stdout
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nntrain.all import *
from nntrain.checkpoint.folder import resume
from nntrain.distributed.comm import gathered, launch, my_place, start_ranks, told
from nntrain.distributed.distributed import DistributedS
from nntrain.interop.transformers import GenerateS
from nntrain.pubsub import (MEASURE, PREPARE, SHOW, CancelBatchException, CancelFitException,
                            CancelStepException, CancelTrainException)
from nntrain.variants.gan import hinge
from nntrain.variants.sam import SAMLearner

PROGRAMS = {}   # name -> program


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def rank(): return my_place().rank
def is_last(): return rank() == my_place().world-1
def size(): return 8//my_place().world


def mlp(*middle):
    return nn.Sequential(nn.Linear(6, 8), *(middle or [nn.Tanh()]), nn.Linear(8, 2)).double()


def data(n=45, seed=0):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, (x.sum(1) > 0).long()


def loaders(n=45, dtype=torch.float64):
    "45 samples are five rounds and one with four on a rank and one on the other; 41 leave it none."
    (x, y), (x2, y2) = data(n), data(21, 1)
    return DataLoaders(TensorLoader(x.to(dtype), y, batch_size=size(), shuffle=True, seed=3),
                       TensorLoader(x2.to(dtype), y2, batch_size=size()))


def learner(*subs, n=45, model=mlp, dls=None, loss=F.cross_entropy, cls=Learner, lr=0.1,
            optim=partial(torch.optim.SGD, momentum=0.9), metrics=(accuracy,), timeout=60, **options):
    torch.manual_seed(1)
    looks = [] if metrics is None else [MetricsS(*metrics, show=False), RecorderS()]
    return cls(model(), dls or loaders(n), loss, optim, lr,
               [*subs, *looks, DistributedS(timeout=timeout, **options)])


def result(learn, **more):
    "All that must be the same: weights, buffers, rows, clocks, rates."
    recorded = any(isinstance(sub, RecorderS) for sub in learn.subs)
    rows = [{k: v for k, v in row.items() if k not in ('time', 'batches')}
            for row in (learn.history.rows if recorded else ())]
    return dict(
        weights=torch.cat([p.detach().flatten().double() for p in learn.model.parameters()]),
        buffers=[b.clone() for b in learn.model.buffers() if b.is_floating_point()], rows=rows,
        clocks=[learn.n_steps, learn.train_iter, learn.n_samples], counts=dict(learn.counts),
        rates=[float(g['lr']) for opt in learn.optimizers for g in opt.param_groups], **more)


def trained(learn, epochs=2, **more):
    learn.fit(epochs)
    return result(learn, **more)


def unlike(a, b, place='', eps=1e-7):
    "Where two results differ by more than rounding; None if nowhere."
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.shape == b.shape and torch.allclose(a.double(), b.double(), 0, eps, equal_nan=True)
        return None if same else f'{place}: {a} and {b}'
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        a, b, names = [*a.values()], [*b.values()], [*a]
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        names = range(len(a))
    else:
        close = isinstance(a, float) and isinstance(b, float) and (abs(a-b) < eps or a != a and b != b)
        return None if close or a == b else f'{place}: {a!r:.300} and {b!r:.300}'
    found = (unlike(x, y, f'{place}.{name}', eps) for name, x, y in zip(names, a, b))
    return next(filter(None, found), None)


# gradients

class TwoOptims(Learner):
    def make_opt(self):
        self.opt = torch.optim.SGD(self.model[0].parameters(), self.lr)
        self.opt2 = torch.optim.Adam(self.model[2].parameters(), self.lr/10)
    def step(self):
        self.opt.step()
        self.opt2.step()
    def zero_grad(self):
        self.opt.zero_grad()
        self.opt2.zero_grad()


def joint(parameters, lr):
    parameters = [*parameters]
    return JointOptim(torch.optim.SGD(parameters[:2], lr), torch.optim.Adam(parameters[2:], lr/10))


def clipped(k, **kwargs):
    clip = GradientClipS(0.1)
    learn = learner(GradientAccumulationS(k), clip, ScheduleS(lr=one_cycle(0.2)), **kwargs)
    learn.fit(2)
    return result(learn, norms=clip.norms)


@program
def accumulation_clipping_one_cycle(): return [clipped(3), clipped(3, n=41), clipped(4)]
@program
def several_optimizers(): return [clipped(2, cls=TwoOptims), clipped(2, optim=joint, n=41)]
@program
def sam(): return [trained(learner(cls=SAMLearner)), clipped(2, cls=SAMLearner, n=41)]


def adds(learn, term, order=0):
    def add(learn): learn.loss_grad = learn.loss_grad + 0.1*term(learn)
    learn.on('before_backward', add, order=order)
    return learn


def square(learn): return learn.preds.square().mean()
def norm(learn): return sum(p.square().sum() for p in learn.model.parameters())
class Penalty(Learner):
    def get_loss_grad(self): self.loss_grad = self.loss + 0.1*square(self)


@program
def own_terms_of_loss_grad():
    summed = partial(F.cross_entropy, reduction='sum')
    return [trained(adds(learner(*subs, n=n), term, order), 1) for term in (square, norm)
            for n, subs, order in ((41, [], 0), (45, [GradientAccumulationS(2)], 0), (45, [], -50))
            ] + [trained(learner(cls=Penalty), 1),
                 trained(adds(learner(loss=summed, lr=0.005, weights='sum'), norm), 1)]


@program
def a_group_that_ends_early():
    return [trained(learner(GradientAccumulationS(4), sub)) for sub in (
        ShortEpochS(0.9), StopAfterS(n_steps=3))]


# steps that are withheld

class SpoilS(Subscriber):
    "NaN in the last sample of some batches, which the last rank has, or in its gradients."
    order = PREPARE-5
    def __init__(self, *at, event='before_batch', factor=math.nan):
        self.at, self.event, self.factor = at, event, factor
    def is_due(self, learn, event):
        return event == self.event and learn.training and learn.iter in self.at and is_last()
    def before_batch(self, learn):
        if not self.is_due(learn, 'before_batch'): return
        x = learn.x.clone()
        x[-1] = self.factor
        learn.x = x
    def before_backward(self, learn):
        if self.is_due(learn, 'before_backward'): learn.loss_grad = learn.loss_grad*self.factor


def skipping(at, *subs, **guard):
    stop = StopOnNaNS('skip', **guard)
    return trained(learner(stop, SpoilS(*at), *subs), 1, bad=stop.n_bad)


@program
def nan_on_one_rank():
    found = []
    for on_device in False, True:
        guard = dict(on_device=on_device)
        found += [skipping([2], EMAS(0.5), **guard), skipping([5], **guard),
                  skipping([1, 4], GradientAccumulationS(2), **guard),
                  skipping([0, 5], GradientAccumulationS(3), **guard)]
    return found


@program
def nan_in_the_gradients_of_one_rank():
    spoil = SpoilS(1, 3, event='before_backward')
    found = [StopOnNaNS('skip'), StopOnNaNS('skip', on_device=True)]
    return [trained(learner(stop, spoil, *subs), 1, bad=stop.n_bad) for stop in found
            for subs in ([], [GradientAccumulationS(2)])]


@program
def nan_ends_all_ranks():
    said = []
    for on_device in False, True:
        learn = learner(StopOnNaNS(on_device=on_device), SpoilS(2))
        with pytest.raises(FloatingPointError, match='epoch 0, batch 2 of 6') as info: learn.fit(1)
        said.append(str(info.value))
    return said


@program
def nan_is_found_on_the_rank_that_has_it():
    learn = learner(StopOnNaNS('skip', diagnose=True), SpoilS(2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        learn.fit(1)
    place, said = my_place(), ' '.join(str(one.message) for one in said)
    assert ('first: rank 1: output of `0`' if place.world > 1 else 'first: output of `0`') in said
    return result(learn)


@program
def overflow_on_one_rank():
    found = []
    for subs in [], [GradientAccumulationS(2)]:
        precision = MixedPrecisionS('fp16')
        learn = learner(precision, SpoilS(1, 3, event='before_backward', factor=math.inf), EMAS(0.5),
                        *subs, model=lambda: mlp().float(), dls=loaders(dtype=torch.float32))
        learn.fit(2)
        found.append([learn.n_steps, learn.n_samples, precision.n_skipped,
                      learn.scaler.get_scale()])
    return found


@program
def steps_of_one_rank_that_are_cancelled():
    def cancel(learn):
        if learn.iter == 2 and rank() == 1: raise CancelStepException
    learn = learner()
    learn.on('before_step', cancel)
    if my_place().world == 1: return 'refused'
    with pytest.raises(RuntimeError, match=r'the ranks have made \[6, 5\] steps.*learn.row'):
        learn.fit(1)
    return 'refused'


# weights and decisions

class GhostNorm(nn.BatchNorm1d):
    "In one process: each rank's part of the batch by itself, and the mean of what they collect."
    def forward(self, x):
        if not self.training or my_place().world > 1: return super().forward(x)
        parts, sums, outs = x.split(4), [], []
        self.num_batches_tracked += 1
        share = self.momentum or 1/float(self.num_batches_tracked)
        for part in parts:
            new = self.running_mean.clone(), self.running_var.clone()
            outs.append(F.batch_norm(part, *new, self.weight, self.bias, True, share, self.eps))
            sums.append([b*len(part)/len(x) for b in new])
        for b, *means in zip((self.running_mean, self.running_var), *sums): b.copy_(sum(means))
        return torch.cat(outs)


def normed(): return mlp(GhostNorm(8))


@program
def batch_norm():
    return [trained(learner(*subs, n=48, model=normed), 3) for subs in (
        [], [GradientAccumulationS(2)], [EMAS(0.5), KeepBestS()])]


@program
def averages_with_fresh_norms(): return trained(learner(SWAS(0.3), KeepBestS(), n=48, model=normed), 4)


@program
def frozen_norms():
    learn = learner(model=normed)
    norm = learn.model[1]
    learn.on('before_predict', lambda learn: norm.eval())
    return trained(learn)


@program
def averages():
    return [trained(learner(*subs), 4) for subs in (
        [EMAS(0.5), KeepBestS()], [SWAS(0.3)], [EMAS(0.5), GradientAccumulationS(4)])]


@program
def best_checkpoint():
    folder = told(tempfile.mkdtemp() if rank() == 0 else '')
    learn = learner(EMAS(0.5), KeepBestS(), CheckpointS(folder, best='loss', fsync=False))
    learn.fit(3)
    state = resume(folder, best=True) if rank() == 0 else None
    best = told(state and [state['validated'], state['position']])
    if rank() == 0: shutil.rmtree(folder)
    return result(learn, best=best)


@program
def deciding():
    found = []
    for sub in EarlyStoppingS(patience=1, min_delta=0.05), ReduceLROnPlateauS(patience=1, min_delta=0.05):
        learn = learner(sub, KeepBestS())
        learn.fit(5)
        found.append(result(learn, epoch=learn.epoch))
    return found


# what is measured, and passes inside of events

def count_ones(preds, targets): return ((preds.argmax(1) == 1) & (targets == 1)).sum().item()


@program
def numbers_of_a_whole_pass():
    learn = learner(metrics=[EpochMetric(count_ones), accuracy], n=41)
    learn.on('after_loss', lambda learn: learn.log('square', square(learn)))
    learn.on('after_train', lambda learn: learn.log('outside', 3.))
    return trained(learn)


@program
def no_metrics():
    "Then no row has a loss, on ranks neither."
    learn = learner(metrics=None, cls=SAMLearner)
    return [trained(learn), learn.row]


@program
def validation_inside_a_pass():
    return [trained(learner(ValidateS(every), *subs, KeepBestS())) for every, subs in (
        (3, [GradientAccumulationS(2)]), (0.4, [EMAS(0.5)]))]


EVENTS = ('after_full_epoch', SHOW), ('after_batch', 0)


@program
def validate_and_get_preds_in_events():
    "In an event of order SHOW rank 0 alone calls them."
    found = []
    for event, order in EVENTS:
        seen, learn = [], learner(GradientAccumulationS(2), EMAS(0.5))
        def look(learn):
            if learn.training and learn.iter != 2 and event == 'after_batch': return
            if learn.rehearsing: return
            seen.append([learn.validate(), *learn.get_preds(losses=True), learn.get_preds('train')[1]])
        learn.on(event, look, order=order)
        learn.fit(1 if event == 'after_batch' else 2)   # in mid-epoch it is seen by the rest of it
        found.append(result(learn, seen=told(seen)))
    return found


@program
def predictions_after_a_fit():
    learn = learner()
    learn.fit(1)
    alone = learn.get_preds() if rank() == 0 else None    # no rank waits for another
    return [learn.validate(), *learn.get_preds('train', losses=True), *told(alone)]


class Writer(nn.Module):
    "Writes two words about each row."
    def __init__(self):
        super().__init__()
        self.layers = mlp()
    def forward(self, x, words=None): return self.layers(x)
    def generate(self, x, words=None): return torch.stack([self(x).argmax(1), (x[:, 0] > 0).long()], 1)


def named_batches(n=45):
    x, y = data(n)
    return [dict(x=x[i:i+size()], words=[f'w{j}' for j in range(i, min(n, i+size()))],
                 label=torch.stack([y[i:i+size()]]*2, 1)) for i in range(0, n, size())]


@program
def texts_of_all_ranks():
    "The metric depends on the order of all texts, so that no mean of two ranks gives it."
    def order(generated, wanted):
        return sum((i+1)*hash_of(a, b) for i, (a, b) in enumerate(zip(generated, wanted)))
    def hash_of(a, b): return 2*(a == b) + int(a[0])
    generate = GenerateS(lambda rows: [' '.join(map(str, map(int, row))) for row in rows], order,
                         prompt=lambda batch: dict(x=batch['x']))
    learn = learner(generate, model=Writer, loss=lambda preds, y: F.cross_entropy(preds, y[:, 0]),
                    dls=DataLoaders(named_batches(), named_batches(21)), metrics=())
    learn.fit(2)
    assert len(generate.wanted) == 21
    return result(learn, texts=[generate.generated, generate.wanted])


# batches

class Own(Writer):
    def forward(self, x, words=None, label=None):
        preds = self.layers(x)
        return dict(loss=F.cross_entropy(preds, label[:, 0]), logits=preds)


class Stacks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = mlp()
    def forward(self, words, rows): return self.layers(torch.stack(rows))


@program
def dicts_strings_and_lists():
    (x, y), found = data(), []
    rows = [(['a']*len(x[i:i+size()]), [*x[i:i+size()]], y[i:i+size()]) for i in range(0, 45, size())]
    batches = DataLoaders(named_batches(), named_batches(21))
    kinds = [dict(model=Writer, loss=lambda preds, y: F.cross_entropy(preds, y[:, 0]), dls=batches),
             dict(model=Own, loss=None, dls=batches),
             dict(model=Stacks, dls=DataLoaders(rows, rows), metrics=(accuracy,))]
    for kind in kinds:
        found.append(trained(learner(GradientAccumulationS(2), EMAS(0.5), **dict(metrics=()) | kind)))
    return found


@program
def loaders_of_torch():
    torch_loader = lambda *data, **how: DataLoader(TensorDataset(*data), size(), **how)
    dls = DataLoaders(torch_loader(*data(), shuffle=True), torch_loader(*data(21, 1)))
    learn = learner(GradientAccumulationS(2), dls=dls)
    torch.manual_seed(3)
    return trained(learn)


@program
def two_validation_sets():
    dls = loaders()
    dls.valid = {'a': dls.valid, 'b': TensorLoader(*data(13, 5), batch_size=size())}
    return trained(learner(EMAS(0.5), KeepBestS('valid b loss'), dls=dls))


# freezing, and parameters that are not used

class Branches(nn.Module):
    "Uses one head always or two in turn, and a third one never."
    def __init__(self, turns=True):
        super().__init__()
        self.body, self.turns = mlp()[:2], turns
        self.heads = nn.ModuleList(nn.Linear(8, 2).double() for _ in range(3))
        self.register_buffer('n', torch.tensor(0))
    def forward(self, x):
        if self.training: self.n += self.turns
        return self.heads[int(self.n) % 2](self.body(x))


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.down = mlp().requires_grad_(False), nn.Linear(6, 2).double()
    def forward(self, x): return self.base(x) + self.down(x)


@program
def parameters_that_are_not_used():
    return [trained(learner(*subs, model=partial(Branches, turns))) for turns in (False, True)
            for subs in ([], [GradientAccumulationS(2), GradientClipS(0.1)])]


@program
def adapters():
    optim = lambda params, lr: torch.optim.Adam([p for p in params if p.requires_grad], lr)
    return trained(learner(GradientAccumulationS(2), EMAS(0.5), KeepBestS(), model=Adapted, optim=optim))


@program
def freezing():
    learn, found = learner(), []
    learn.freeze_to(-1)
    found.append(trained(learn, 1))
    learn.unfreeze()
    found.append(trained(learn, 1))
    found.append(trained(learner(FreezeS({0: -1, 1: 0})), 3))
    for event, until in ('before_full_epoch', 6), ('before_batch', 9), ('before_batch', 3):
        learn = learner(GradientAccumulationS(2))
        learn.on(event, lambda learn: learn.model[0].requires_grad_(learn.train_iter >= until))
        found.append(trained(learn))
    return found


@program
def fine_tuning():
    torch.manual_seed(1)
    model = mlp()
    learn = learner(model=lambda: model, optim=GroupedOptim(torch.optim.Adam, model))
    learn.fine_tune(2, freeze_epochs=1)
    return result(learn)


# trying things

@program
def range_tests():
    test, learn = LRFindS(2.), learner(GradientAccumulationS(2), EMAS(0.5))
    learn.fit(9, subs=test, lr=1e-4)
    learn.fit(1)
    return result(learn, lrs=test.curve.lrs, losses=test.curve.losses)


@program
def rehearsals():
    found = []
    for event in 'after_full_epoch', 'after_batch':
        seen, learn = [], learner(GradientAccumulationS(2), EMAS(0.5))
        def rehearse(learn):
            if learn.rehearsing or event == 'after_batch' and not (learn.training and learn.iter == 2): return
            with learn.rehearse():
                learn.fit(1)
                seen.append(learn.n_samples)
        learn.on(event, rehearse)
        found.append(trained(learn, seen=seen))
    learn = learner()
    learn.check()
    return [*found, trained(learn)]


@program
def fits_after_each_other():
    learn = learner(GradientAccumulationS(2))
    learn.fit(1)
    learn.fit(1, lr=0.05, reset_opt=False)
    learn.fit(1, train=False)
    learn.fit(1, valid=False)
    return result(learn)


class CountS(Subscriber):
    order, ranks, n = MEASURE, None, 0
    def on_ranks(self, ranks): self.ranks = ranks
    def after_batch(self, learn):
        self.n += sum(self.ranks.gathered(learn.batch_size)) if self.ranks else learn.batch_size


@program
def joins_in_an_event():
    learn, count = learner(n=48), CountS()
    def join(learn):
        if count not in learn.subs: learn.subscribe(count)
    learn.on('after_full_epoch', join)
    learn.fit(3)
    return count.n


@program
def refused():
    "Before training, by name."
    gan = partial(GANLearner, discriminator=nn.Linear(6, 1), n_noise=3)
    said, x = [], data()[0].float()
    for make, names in ((lambda: learner(optim=torch.optim.LBFGS), 'DistributedS: LBFGS'), (lambda: learner(
            cls=gan, model=lambda: nn.Linear(3, 6), loss=hinge, metrics=None,
            dls=DataLoaders(TensorLoader(x, batch_size=size()), None)), 'discriminator')):
        learn = make()
        if my_place().world == 1: learn.fit(1)   # one process does it
        else:
            with pytest.raises(ValueError, match=names): learn.fit(1)
            assert learn.train_iter == 0
        said.append(names)
    return said


@program
def trackers():
    "Rank 0 alone writes."
    folder = told(tempfile.mkdtemp() if rank() == 0 else '')
    learner(CSVLoggerS(f'{folder}/a.csv'), JSONLLoggerS(f'{folder}/a.jsonl')).fit(2)
    told('written')
    found = {name: len(open(f'{folder}/{name}').readlines()) for name in sorted(os.listdir(folder))}
    gathered('read')
    if rank() == 0: shutil.rmtree(folder)
    return found


def quietly(name):
    torch.manual_seed(0)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(action='ignore'):
        return PROGRAMS[name]()


def results(names):
    "What the programs return; after an error the other rank may wait elsewhere, so it is the last."
    start_ranks(60)
    if my_place().world > 1: sys.tracebacklimit = 0  # torch keeps the stack of each `manual_seed`
    found = {}
    for name in names:
        try: found[name] = [quietly(name)]
        except BaseException as error: found[name] = f'{type(error).__name__}: {error}'
        if isinstance(found[name], str) and my_place().world > 1: break
    return found


@pytest.fixture(scope='module')
def found(request):
    "What one process and two ranks return, by program; the ranks are started once for all."
    names = [item.callspec.params['name'] for item in request.session.items
             if item.function is test_ranks_equal_one_process]
    return results(names), *launch(results, 2, names)


@pytest.mark.parametrize('name', PROGRAMS)
def test_ranks_equal_one_process(found, name):
    alone, *two = [some[name] for some in found]
    for some in (alone, *two): assert isinstance(some, list), some
    assert not (said := unlike(two[0], two[1], 'rank 0 and rank 1')), said
    assert not (said := unlike(alone, two[0], 'one process and two')), said


# a run that stops in mid-epoch goes on as if it had not: `make test-faults`

def log_square(learn): learn.log('square', square(learn))
def dropout(): return mlp(nn.Dropout(0.5))


def logging(*subs):
    learn = learner(*subs)
    learn.on('after_loss', log_square)
    return learn


MAKES = dict(
    plain=learner, clipping=lambda *subs: learner(
        GradientAccumulationS(2), GradientClipS(0.1), ScheduleS(lr=one_cycle(0.2)), *subs),
    groups_of_three=lambda *subs: learner(GradientAccumulationS(3), *subs, n=41),
    groups_of_four=lambda *subs: learner(GradientAccumulationS(4), *subs),
    ema=lambda *subs: learner(EMAS(0.5), KeepBestS(), *subs), swa=lambda *subs: learner(SWAS(0.3), *subs),
    dropout=lambda *subs: learner(*subs, model=dropout),
    nan=lambda *subs: learner(StopOnNaNS('skip'), SpoilS(1, 4), GradientAccumulationS(2), *subs),
    nan_on_device=lambda *subs: learner(StopOnNaNS('skip', on_device=True), SpoilS(1, 5), *subs),
    validating=lambda *subs: learner(ValidateS(2), GradientAccumulationS(2), *subs),
    sam=lambda *subs: learner(GradientAccumulationS(2), *subs, cls=SAMLearner),
    joint=lambda *subs: learner(*subs, optim=joint), norms=lambda *subs: learner(*subs, n=48, model=normed),
    unused=lambda *subs: learner(GradientAccumulationS(2), *subs, model=Branches), logging=logging,
    words=lambda *subs: learner(GradientAccumulationS(2), *subs, model=Own, loss=None, metrics=(),
                                dls=DataLoaders(named_batches(), named_batches(21))),
    deciding=lambda *subs: learner(ReduceLROnPlateauS(patience=1, min_delta=0.05), *subs),
    freezing=lambda *subs: learner(FreezeS({0: -1, 1: 0}), *subs),
    short=lambda *subs: learner(GradientAccumulationS(4), ShortEpochS(0.9), *subs))


class Killed(Exception): pass


def interrupted(name, at, folder):
    "A run that ends after `at` batches of training, and goes on from its last checkpoint."
    def die(learn):
        if learn.training and learn.train_iter == at: raise Killed
    for last in False, True:
        learn = MAKES[name](CheckpointS(folder, every_steps=3, fsync=False))
        if not last: learn.on('after_batch', die)
        try: learn.fit(3, resume=True)
        except Killed: told('both have ended')
    return result(learn)


def all_interrupted(names):
    start_ranks(120)
    found = {}
    for name in names:
        with warnings.catch_warnings(action='ignore'):
            whole = MAKES[name]()
            whole.fit(3)
            whole = result(whole)
            for at in 5, 8:
                folder = told(tempfile.mkdtemp() if rank() == 0 else '')
                found[name, at] = unlike(whole, interrupted(name, at, folder), eps=0)
                told('read')
                if rank() == 0: shutil.rmtree(folder)
    return [[*key, said] for key, said in found.items()]


@pytest.mark.faults
def test_resumes_in_mid_epoch_are_exact():
    "Weights, clocks, rows and rates of 38 runs, to the last bit, on both ranks."
    for found in launch(all_interrupted, 2, [*MAKES]):
        assert len(found) == 2*len(MAKES)
        assert not (wrong := [one for one in found if one[2]]), wrong


# one rank alone: an error that names it, and no rank waits

class Late(Branches):
    "Leaves a head out from the fourth batch on."
    def forward(self, x):
        self.n += self.training
        h = self.body(x)
        return self.heads[0](h) if self.n > 3 else self.heads[0](h) + self.heads[1](h) + self.heads[2](h)


def alone(what):
    here, cancels = rank(), dict(batch=CancelBatchException, train=CancelTrainException,
                                 fit=CancelFitException)
    def act(learn):
        if not learn.training or learn.train_iter < 3 or here != 1 and what != 'rank 0': return
        if what in cancels: raise cancels[what]
        if what == 'rank 0' and not learn.rehearsing:
            with learn.rehearse(): learn.fit(1)
        if what == 'Ctrl-C': os.kill(os.getpid(), signal.SIGINT)
        if what == 'SIGTERM': os.kill(os.getpid(), signal.SIGTERM)
    learn = learner(timeout=600, model=Late if what == 'unused' else mlp)
    event = 'before_batch' if what == 'batch' else 'after_batch'
    learn.on(event, act, order=SHOW if what == 'rank 0' else 0)
    try: learn.fit(2)
    except RuntimeError as error:
        raise RuntimeError(' '.join([str(error), *getattr(error, '__notes__', ())])) from error


@pytest.mark.faults
@pytest.mark.parametrize('what, said', [
    ('batch', 'rank 1 has cancelled a batch, and another goes on'),
    ('train', 'rank 1 has ended a pass after 3 batches, and another goes on'),
    ('fit', 'rank 1 has ended a pass after 3 batches, and another goes on'),
    ('rank 0', 'a fit that trains needs all ranks, and rank 0 alone calls .*every_rank = True'),
    ('unused', r'DistributedS\(find_unused_parameters=True\). looks for such'), ('Ctrl-C', 'rank 1'), ('SIGTERM', 'rank 1 failed: SignalException.* signal: 15')])
def test_one_rank_alone_is_an_error(what, said):
    with pytest.raises(RuntimeError, match=said): launch(alone, 2, what)


def ended(folder, at):
    "A run that rank 0 gets SIGTERM in."
    def end(learn):
        if learn.training and learn.train_iter == at and rank() == 0: os.kill(os.getpid(), signal.SIGTERM)
    learn = learner(GradientAccumulationS(2), EMAS(0.5), CheckpointS(folder, every_epochs=1, fsync=False))
    learn.on('after_batch', end)
    learn.fit(3, resume=True)
    return result(learn)


@pytest.mark.faults
def test_sigterm_on_rank_0_saves_all_ranks(tmp_path):
    whole = launch(ended, 2, str(tmp_path/'whole'), -1)
    with pytest.raises(RuntimeError): launch(ended, 2, str(tmp_path/'ended'), 8)
    assert (tmp_path/'ended'/'step-00000008').exists()    # in mid-epoch
    for one, other in zip(whole, launch(ended, 2, str(tmp_path/'ended'), -1)):
        assert not (said := unlike(one, other, eps=0)), said
