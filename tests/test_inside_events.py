"""A fit inside an event is the promised error and leaves no trace; inside `rehearse` it works."""
import pytest
import torch

from nntrain.all import synth_learner

FITS = dict(
    fit=lambda learn: learn.fit(1), fit_one_cycle=lambda learn: learn.fit_one_cycle(1),
    fit_flat_cos=lambda learn: learn.fit_flat_cos(1), fine_tune=lambda learn: learn.fine_tune(1),
    fit_warm_restarts=lambda learn: learn.fit_warm_restarts(1),
    fit_for=lambda learn: learn.fit_for(n_steps=3),
    lr_find=lambda learn: learn.lr_find(n_batches=10, tries=0))
EVENTS = 'before_fit', 'before_epoch', 'before_batch', 'after_loss', 'after_step', 'after_fit'


def fitted(call=None, event='after_batch'):
    "Weights and state of a fit of two epochs, and what `call` did at `event`."
    learn, seen = synth_learner(n_train=96, n_valid=32), []

    def act(learn):
        try: seen.append(call(learn))
        except RuntimeError as error: seen.append(error)
    handle = learn.on(event, act, every=4) if call else None
    learn.fit(2)
    if handle: handle.remove()
    assert learn.subs == () and not learn.fitting and learn.model.weight.requires_grad
    return learn.model.weight.detach(), (learn.n_steps, learn.n_samples, learn.row['epoch']), seen


@pytest.mark.parametrize('name', FITS)
@pytest.mark.parametrize('rehearsing', [False, True])
def test_fit_inside_an_event(name, rehearsing):
    weight, counts, _ = fitted()

    def call(learn):
        if not rehearsing: return FITS[name](learn)
        before = learn.model.weight.detach().clone()
        with learn.rehearse():
            FITS[name](learn)
            return name == 'lr_find' or not torch.equal(before, learn.model.weight)
    for event in EVENTS:
        found, counted, seen = fitted(call, event)
        assert torch.equal(found, weight) and counted == counts, event
        assert seen
        if rehearsing: assert all(one is True for one in seen), (event, seen)
        else: assert all('was called inside `fit`' in str(one) for one in seen), (event, seen)
