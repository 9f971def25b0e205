"""Optimizers of others: modes (schedule-free), several as one, timm's factory, odd states."""
import copy
import warnings
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nntrain.all import *


class ScheduleFreeSGD(torch.optim.Optimizer):
    "Schedule-free SGD (Defazio 2024) in a few lines: trains at `y`, is evaluated at `x`."
    def __init__(self, params, lr, momentum=.9):
        super().__init__(params, dict(lr=lr, momentum=momentum, train_mode=False, k=0))
    def move(self, train):
        for group in self.param_groups:
            keep = group['momentum']
            if group['train_mode'] != train:
                for p in group['params']:
                    z = self.state[p].get('z')
                    if z is not None: p.data.lerp_(z, 1-keep if train else 1-1/keep)
            group['train_mode'] = train
    def train(self): self.move(True)
    def eval(self): self.move(False)
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            if not group['train_mode']: raise RuntimeError('a step in evaluation mode')
            group['k'] += 1
            share,keep,lr = 1/group['k'],group['momentum'],group['lr']
            for p in (p for p in group['params'] if p.grad is not None):
                z = self.state[p].setdefault('z', p.clone())
                p.lerp_(z, share)
                p.add_(p.grad, alpha=lr*(keep*(1-share) - 1))
                z.sub_(p.grad, alpha=lr)


def package(params, lr):
    from schedulefree import AdamWScheduleFree
    return AdamWScheduleFree(params, lr/10, warmup_steps=3)


def needs(name):
    if find_spec(name) is None: pytest.skip(
        f"{name} is not installed: pip install 'nntrain[{name}]'")
    try: return __import__(name)
    except ImportError as error: pytest.skip(f'{name} cannot be imported: {error}')


KINDS = dict(own=ScheduleFreeSGD, package=package,
             joint=lambda params, lr: (lambda ps: JointOptim(ScheduleFreeSGD(ps[:2], lr),
                                       torch.optim.AdamW(ps[2:], lr/10)))([*params]))


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == 'package': needs('schedulefree')
    return KINDS[request.param]


def data(n=48, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=draw),torch.randint(3, (n,), generator=draw)


def make(optim_class, *subs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(.1), nn.Linear(8, 3))
    dls = DataLoaders(TensorLoader(*data(), batch_size=8, shuffle=True),
                      TensorLoader(*data(24, 1), batch_size=8))
    return Learner(model, dls, F.cross_entropy, optim_class, .1, [MetricsS(show=False), *subs])


def weights(learn): return {k: t.clone() for k,t in learn.model.state_dict().items()}
def equal(a, b): return all(torch.equal(a[k], t) for k,t in b.items())
def valid_loss(model, state=None):
    model = copy.deepcopy(model).eval()
    if state: model.load_state_dict(state)
    x,y = data(24, 1)
    with torch.no_grad(): return F.cross_entropy(model(x), y).item()


def by_hand(optim_class, epochs=2):
    "The loop of the packages' own pages; weights at the end, and the losses of validation."
    learn,losses = make(optim_class),[]
    model,opt = learn.model,optim_class(learn.model.parameters(), .1)
    for _ in range(epochs):
        model.train()
        getattr(opt, 'train', int)()
        for x,y in learn.dls.train:
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
        model.eval()
        getattr(opt, 'eval', int)()
        losses.append(valid_loss(model))
    return weights(learn),losses


def test_a_fit_is_the_loop_by_hand(kind):
    end,losses = by_hand(kind)
    learn = make(kind, recorder := RecorderS())
    learn.fit(2)
    assert equal(weights(learn), end)
    assert recorder.history['valid','loss'] == pytest.approx(losses, abs=1e-6)
    assert learn.validate()['loss'] == pytest.approx(losses[-1], abs=1e-6)
    preds,_ = learn.get_preds()
    with torch.no_grad(): assert preds.allclose(learn.model.eval()(data(24, 1)[0]), atol=1e-6)
    assert equal(weights(learn), end)


def test_without_validation_too_the_evaluated_weights_are_left(kind):
    learn = make(kind)
    learn.fit(2, valid=False)
    end = by_hand(kind)[0]       # which goes there and back between its epochs: to rounding
    assert all(t.allclose(end[k], atol=1e-6) for k,t in weights(learn).items())


def test_what_looks_in_the_middle_has_the_evaluated_weights_and_changes_nothing(kind, tmp_path):
    found = {}
    def look(learn):
        if not learn.training or learn.train_iter != 4: return
        trained = weights(learn)
        found['loss'] = learn.validate()['loss']
        learn.save(tmp_path/'model.safetensors')
        assert equal(weights(learn), trained)
        found['trained'] = trained
    learn = make(kind)
    learn.on('after_batch', look)
    learn.fit(2)
    assert equal(weights(learn), by_hand(kind)[0])
    other = make(kind)
    other.load(tmp_path/'model.safetensors')
    assert not equal(weights(other), found['trained'])
    assert valid_loss(other.model) == pytest.approx(found['loss'], abs=1e-6)


def test_validation_inside_a_pass_has_the_evaluated_weights_and_changes_nothing(kind):
    learn = make(kind, recorder := RecorderS())
    learn.fit(2, subs=ValidateS(4))
    assert equal(weights(learn), by_hand(kind)[0])
    seen,learn = [],make(kind)
    learn.on('after_batch', lambda learn: learn.training and learn.train_iter % 4 == 0
             and seen.append(learn.validate()['loss']))
    learn.fit(2)
    at = dict(recorder.history['valid','step','loss'])
    assert [at[4], at[8]] == pytest.approx(seen[:2], abs=1e-6)


def test_early_stopping_inside_a_pass_leaves_the_best_weights(kind):
    class SpoiledS(Subscriber):
        def before_step(self, learn):
            if learn.n_steps < 6: return
            for group in learn.opt.param_groups: group['lr'] = 30.
    learn = make(kind, KeepBestS('valid loss'), stop := EarlyStoppingS('valid loss', patience=1),
                 SpoiledS())
    learn.fit(4, subs=ValidateS(4))
    assert learn.n_steps == 8                                      # ended inside of the second pass
    assert valid_loss(learn.model) == pytest.approx(stop.best, abs=1e-6)


def test_a_fit_that_is_ended_in_a_pass_leaves_the_evaluated_weights(kind):
    found = {}
    def end(learn):
        if learn.training and learn.train_iter == 4:
            found.update(learn.validate())
            raise CancelFitException
    learn = make(kind)
    learn.on('after_batch', end)
    learn.fit(2)
    assert valid_loss(learn.model) == pytest.approx(found['loss'], abs=1e-6)


def test_a_fit_without_training_changes_nothing(kind):
    learn = make(kind)
    def stop(learn):
        if learn.train_iter == 4 and learn.training: raise KeyboardInterrupt
    handle = learn.on('after_batch', stop)
    with pytest.raises(KeyboardInterrupt): learn.fit(2)
    handle.remove()
    before,groups = weights(learn),[g['lr'] for g in learn.opt.param_groups]
    learn.fit(1, train=False)
    assert equal(weights(learn), before)
    assert groups == [g['lr'] for g in learn.opt.param_groups]
    state = learn.state_dict()
    again = make(kind)
    again.fit(2, resume=state)
    assert equal(weights(again), by_hand(kind)[0])


def test_killed_runs_go_on_exactly(kind):
    learn = lambda: make(kind, RecorderS(), ValidateS(4), ScheduleS(lr=one_cycle(.1)))
    check_resume(learn, 2, at=[('after_step', 3), ('before_validate', 1), ('after_full_epoch', 2)])


def test_a_checkpoint_of_the_best_has_the_evaluated_weights(kind, tmp_path):
    learn = make(kind, CheckpointS(tmp_path/'run', best='valid loss', keep=1))
    learn.fit(2)
    path,info = best_of(tmp_path/'run')
    state = read_checkpoint(path)
    assert valid_loss(learn.model, state['objects']['model']) == pytest.approx(info['value'], abs=1e-6)


def muon_and_adamw(params, lr):
    params = [*params]
    return JointOptim(torch.optim.Muon([p for p in params if p.ndim == 2], lr),
                      torch.optim.AdamW([p for p in params if p.ndim != 2], lr/10))


def test_muon_and_adamw_under_one_cycle_resume_exactly():
    make_one = lambda: make(muon_and_adamw, RecorderS(), GradientClipS(1.), EMAS(),
                            ScheduleS(lr=one_cycle(.05)))
    learn,rates = make_one(),[]
    learn.on('before_step', lambda learn: rates.append(learn.hypers.lr), order=5)
    learn.fit(2)
    assert max(large for large,_ in rates) == pytest.approx(.05, rel=.05)
    assert [small/large for large,small in rates] == pytest.approx([.1]*12)
    check_resume(make_one, 2, at=[('after_step', 3), ('after_backward', 8)])


def layer_decay(model):
    timm = needs('timm')
    from timm.optim import create_optimizer_v2
    return lambda params, lr: create_optimizer_v2(model, opt='adamw', lr=lr, layer_decay=.5)


def vit():
    timm = needs('timm')
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(img_size=8, patch_size=4, in_chans=1, embed_dim=8, depth=2,
                                          num_heads=2, num_classes=3)
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 1, 8, 8, generator=draw), torch.randint(3, (4,), generator=draw))
               for _ in range(6)]
    return model,DataLoaders(batches, batches[:2])


@pytest.mark.parametrize('each', ['batch', 'epoch'])
def test_timm_with_layer_decay_and_its_schedulers(each):
    needs('timm')
    from timm.scheduler import CosineLRScheduler
    cosine = lambda opt: CosineLRScheduler(opt, 12 if each == 'batch' else 2, warmup_t=1,
                                           warmup_lr_init=.001, t_in_epochs=each == 'epoch')
    def learner():
        model,dls = vit()
        return Learner(model, dls, F.cross_entropy, layer_decay(model), .01,
                       [MetricsS(show=False), TorchScheduleS(cosine, each)])
    learn,seen = learner(),[]
    learn.on('before_step', lambda learn: seen.append([g['lr'] for g in learn.opt.param_groups]),
             order=5)
    learn.fit(2)
    model,dls = vit()                              # as timm's own script does it
    opt,by_hand = layer_decay(model)(None, .01),[]
    scheduler = cosine(opt)
    for epoch in range(2):
        for i,(x,y) in enumerate(dls.train):
            by_hand.append([g['lr'] for g in opt.param_groups])
            F.cross_entropy(model.train()(x), y).backward()
            opt.step()
            opt.zero_grad()
            if each == 'batch': scheduler.step_update(6*epoch + i + 1)
        if each == 'epoch': scheduler.step(epoch+1)
    for mine,his in zip(seen, by_hand): assert mine == pytest.approx(his)
    assert all(a.allclose(b, atol=1e-6) for a,b in zip(learn.model.parameters(), model.parameters()))
    check_resume(learner, 2, at=[('after_step', 3), ('after_step', 8)])
    with pytest.raises(ValueError, match="t_in_epochs=True goes with each='epoch'"):
        TorchScheduleS(lambda opt: CosineLRScheduler(opt, 2)).make(learn.opt)


class OddSGD(torch.optim.SGD):
    "Keeps something of each parameter that is no tensor, from its first step on."
    kept = torch.bfloat16
    @torch.no_grad()
    def step(self):
        super().step()
        for p in self.param_groups[0]['params']: self.state[p]['kept'] = self.kept


def test_a_dtype_in_the_state_is_saved_and_an_object_refused_after_the_first_batch(tmp_path):
    check_resume(lambda: make(OddSGD, RecorderS()), 2, at=[('after_step', 3)])
    class Objects(OddSGD):
        kept = object()
    learn = make(Objects, CheckpointS(tmp_path/'run'))
    with pytest.raises(TypeError, match=r"opt.state_dict\(\)\['state'\]\[0\]\['kept'\] is a object"):
        learn.fit(2)
    assert learn.train_iter == 1
    class InGroups(torch.optim.SGD):
        def __init__(self, params, lr):
            super().__init__(params, lr)
            self.param_groups[0]['rule'] = object()
    learn = make(InGroups, CheckpointS(tmp_path/'other'))
    with pytest.raises(TypeError, match='rule'): learn.fit(2)
    assert learn.train_iter == 0
