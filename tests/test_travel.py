"""Weights and programs that leave a learner: exports of unusual models, and wrapped models.

    python -m pytest -q tests/test_travel.py
"""
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nntrain.all import *
from nntrain.interop.accelerate import AcceleratorS

ONNX = pytest.mark.skipif(not all(map(find_spec, ('onnx', 'onnxscript', 'onnxruntime'))),
                          reason='the extra onnx is not installed')


# ---------------------------------------------------------------- exported programs


class Model(nn.Module):
    "A module with one part, and a function of it and the input."
    def __init__(self, part, run, n=8):
        super().__init__()
        self.part,self.run,self.head = part,run,nn.Linear(n, 3)
    def forward(self, x): return self.head(self.run(self.part, x))


def with_state(rnn, x):
    "With a first state of the size of the batch."
    zeros = x.new_zeros(1, len(x), 8)
    return rnn(x, (zeros, zeros))[0][:,-1]


def time_first(rnn, x): return rnn(x.transpose(0, 1))[0][-1]


def windows(part, x):
    "Each step of each sample through one layer, as a batch of its own."
    n,steps,width = x.shape
    return part(x.reshape(n*steps, width)).view(n, steps, -1).mean(1)


def by_hand(part, x):
    "Attention of two heads by reshaping."
    n,steps,_ = x.shape
    q,k,v = part(x).chunk(3, -1)
    q,k,v = (one.view(n, steps, 2, 4).transpose(1, 2) for one in (q, k, v))
    causal = torch.ones(steps, steps, dtype=torch.bool, device=x.device).tril()
    found = F.scaled_dot_product_attention(q, k, v, causal)
    return found.transpose(1, 2).reshape(n, steps, 8)[:,-1]


MODELS = {
    'LSTM': lambda: Model(nn.LSTM(4, 8, batch_first=True), lambda m, x: m(x)[0][:,-1]),
    'GRU': lambda: Model(nn.GRU(4, 8, batch_first=True), lambda m, x: m(x)[1][0]),
    'RNN': lambda: Model(nn.RNN(4, 8, batch_first=True), lambda m, x: m(x)[0].mean(1)),
    'LSTM of two layers and ways': lambda: Model(nn.LSTM(4, 4, 2, bidirectional=True, dropout=.1,
        batch_first=True), lambda m, x: m(x)[0][:,-1]),
    'GRU of two layers and ways': lambda: Model(nn.GRU(4, 4, 2, bidirectional=True,
        batch_first=True), lambda m, x: m(x)[0][:,-1]),
    'LSTM, time first': lambda: Model(nn.LSTM(4, 8), time_first),
    'GRU, time first': lambda: Model(nn.GRU(4, 8), time_first),
    'LSTM with a first state': lambda: Model(nn.LSTM(4, 8, batch_first=True), with_state),
    'LSTM with a projection': lambda: Model(nn.LSTM(4, 16, proj_size=8, batch_first=True),
                                            lambda m, x: m(x)[0][:,-1]),
    'attention': lambda: Model(nn.MultiheadAttention(4, 2, batch_first=True),
                               lambda m, x: m(x, x, x)[0].mean(1), 4),
    'attention without weights': lambda: Model(nn.MultiheadAttention(4, 2, batch_first=True),
        lambda m, x: m(x, x, x, need_weights=False)[0].mean(1), 4),
    'attention by hand': lambda: Model(nn.Linear(4, 24), by_hand),
    'a transformer layer': lambda: Model(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
                                         lambda m, x: m(x).mean(1), 4),
    'a transformer': lambda: Model(nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8,
        batch_first=True), 2), lambda m, x: m(x)[:,0], 4),
    'steps as samples': lambda: Model(nn.Linear(4, 8), windows),
    'flattened by view': lambda: Model(nn.Identity(), lambda m, x: x.view(len(x), -1), 24),
    'flattened by -1': lambda: Model(nn.Identity(), lambda m, x: x.reshape(-1, 24), 24),
    'einsum': lambda: Model(nn.Linear(4, 8), lambda m, x: torch.einsum('ntc,ntd->ncd', x, m(x))
                            .flatten(1), 32),
    'channels of steps': lambda: Model(nn.Conv1d(4, 8, 3), lambda m, x: m(x.movedim(-1, 1))
                                       .amax(-1)),
    'images of steps': lambda: Model(nn.Conv2d(1, 2, 3), lambda m, x: m(x[:,None]).flatten(1), 16),
    'batch norm of steps': lambda: Model(nn.BatchNorm1d(6), lambda m, x: m(x).flatten(1), 24),
    'split and joined': lambda: Model(nn.Linear(2, 4), lambda m, x: torch.cat([m(part) for part in
        x.split(2, -1)], -1).mean(1)),
    'as many as samples': lambda: Model(nn.Linear(4, 8), lambda m, x: m(x).mean(1)*len(x))}

QUICK = {('pt2', 'LSTM with a first state'), ('pt2', 'attention by hand'), ('pt2', 'einsum'),
         ('onnx', 'LSTM')}    # the others: make test-faults


def exported(model, x, path, format):
    learn = Learner(model, DataLoaders(TensorLoader(x, torch.arange(12)%3, batch_size=5)),
                    F.cross_entropy)
    return learn,learn.export(path, format)


@pytest.mark.parametrize('format,name', [
    pytest.param(format, name, marks=[*[ONNX]*(format == 'onnx'),
                                      *[pytest.mark.faults]*((format, name) not in QUICK)])
    for format in ('pt2', 'onnx') for name in MODELS])
def test_a_program_predicts_as_the_learner(name, format, tmp_path):
    torch.manual_seed(0)
    x,model = torch.randn(12, 6, 4),MODELS[name]()
    learn,path = exported(model, x, tmp_path/'model', format)
    predictor = load_predictor(path)
    for n in 1,2,7:      # batches of any size
        wanted = learn.get_preds([(x[:n],)])[0]
        assert torch.allclose(predictor.scores(x[:n]), wanted, atol=1e-5), n


NONE = {'a number of samples': (lambda m, x: x.reshape(4, 24), r"cannot be written.*'\[4, 24\]'"),
    'one sample after the other': (lambda m, x: torch.stack([row.mean(0) for row in x]),
                                   'holds for one number of samples'),
    'a branch on values': (lambda m, x: x.mean(1) if x.sum() > 0 else x.amax(1), 'be written'),
    'NumPy': (lambda m, x: torch.from_numpy(x.numpy().mean(1)), 'cannot be written|differs')}


@pytest.mark.parametrize('name', NONE)
def test_what_is_no_program_is_refused_by_its_cause(name, tmp_path):
    run,message = NONE[name]
    model = Model(nn.Identity(), run, 24 if 'number' in name else 4)
    with pytest.raises(ValueError, match=message):
        exported(model, torch.randn(12, 6, 4), tmp_path/'model', 'pt2')
    assert not [*tmp_path.iterdir()]


# ---------------------------------------------------------------- wrapped models


@pytest.fixture(scope='module')
def one_process(tmp_path_factory):
    "A group of one process, for DistributedDataParallel and FSDP."
    if not dist.is_available(): pytest.skip('torch was built without its distributed part')
    store = tmp_path_factory.mktemp('store')/'file'
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def compiled(model): return torch.compile(model, backend='eager')


def compiled_part(model):
    model[0] = compiled(model[0])
    return model


def ddp(model): return nn.parallel.DistributedDataParallel(model)


WRAPS = {'compiled': compiled, 'a compiled part': compiled_part, 'DataParallel': nn.DataParallel,
    'DDP': ddp, 'DDP of compiled': lambda m: ddp(compiled(m)),
    'compiled of DDP': lambda m: compiled(ddp(m))}
X,Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)),torch.arange(12)%3


def learner(model, **kwargs):
    return Learner(model, DataLoaders(TensorLoader(X, Y, batch_size=4, shuffle=True, seed=0),
        TensorLoader(X, Y, batch_size=5)), F.cross_entropy, torch.optim.Adam, .05, **kwargs)


@pytest.mark.parametrize('name', WRAPS)
def test_weights_of_a_wrapped_model_have_its_own_names(name, tmp_path, one_process):
    from safetensors.torch import load_file
    bare,wrapped = learner(plain()),learner(WRAPS[name](plain()))
    for learn in bare,wrapped: learn.fit(2)
    wrapped.save(tmp_path/'wrapped.safetensors')
    bare.save(tmp_path/'bare.safetensors')
    kept = load_file(tmp_path/'wrapped.safetensors')
    assert {*kept} == {*plain().state_dict()}
    for key,value in load_file(tmp_path/'bare.safetensors').items():
        assert torch.allclose(kept[key].float(), value.float(), atol=1e-6), key
    wanted = bare.get_preds()[0]
    assert torch.allclose(wrapped.get_preds()[0], wanted, atol=1e-5)
    assert wrapped.validate()['loss'] == pytest.approx(bare.validate()['loss'], abs=1e-5)
    for path in 'wrapped','bare':      # either file, into either model
        for model in plain(),WRAPS[name](plain()):
            again = learner(model)
            assert again.load(tmp_path/f'{path}.safetensors') == []
            assert torch.allclose(again.get_preds()[0], wanted, atol=1e-5)
    exported = load_predictor(wrapped.export(tmp_path/'model.pt2'))
    assert torch.allclose(exported.scores(X), bare.get_preds([(X,)])[0], atol=1e-5)


@pytest.mark.parametrize('name', WRAPS)
def test_a_checkpoint_of_a_wrapped_model_goes_on(name, tmp_path, one_process):
    whole = learner(WRAPS[name](plain()))
    whole.fit(2)
    first = learner(WRAPS[name](plain()), subs=[CheckpointS(tmp_path/'run')])
    first.fit(1)
    again = learner(WRAPS[name](plain()), subs=[CheckpointS(tmp_path/'run')])
    again.fit(2, resume=True)
    assert torch.equal(again.get_preds()[0], whole.get_preds()[0])


def test_a_model_divided_by_hand_is_refused_by_name(tmp_path, one_process):
    from torch.distributed.fsdp import fully_shard
    learn = learner(fully_shard(plain()), subs=[CheckpointS(tmp_path/'run')])
    for act in (lambda: learn.save(tmp_path/'a.safetensors'), lambda: learn.fit(1)):
        with pytest.raises(TypeError, match="divided among processes.*DistributedS.'fsdp'"): act()
    learner(plain()).save(tmp_path/'a.safetensors')
    with pytest.raises(TypeError, match='before `fully_shard`'):
        learn.load(tmp_path/'a.safetensors')


def test_fsdp_leaves_the_model_whole(tmp_path, one_process):
    whole,learn = learner(plain()),learner(plain(), subs=[DistributedS('fsdp')])
    for each in whole,learn: each.fit(1)
    learn.save(tmp_path/'a.safetensors')
    again = learner(plain())
    assert again.load(tmp_path/'a.safetensors') == []
    assert torch.allclose(again.get_preds()[0], whole.get_preds()[0], atol=1e-6)


class Tied(nn.Module):
    "Two layers with one weight, or, `apart`, with two."
    def __init__(self, apart=False):
        super().__init__()
        self.first,self.second,self.head = nn.Linear(4, 4),nn.Linear(4, 4),nn.Linear(4, 3)
        if not apart: self.second.weight = self.first.weight
    def forward(self, x): return self.head(self.second(self.first(x)))


@pytest.mark.parametrize('wrap', [lambda m: m, compiled, nn.DataParallel])
@pytest.mark.parametrize('saved,loaded', [(False, False), (False, True), (True, True), (True, False)])
def test_one_weight_under_two_names(saved, loaded, wrap, tmp_path):
    "Two values of a file cannot both be in it."
    first,second = learner(wrap(Tied(saved))),learner(wrap(Tied(loaded)))
    first.save(tmp_path/'a.safetensors')
    if saved and not loaded:
        before = {k: v.clone() for k,v in second.model.state_dict().items()}
        with pytest.raises(ValueError, match='second.weight is one with first.weight in the model'):
            second.load(tmp_path/'a.safetensors')
        assert all(torch.equal(v, before[k]) for k,v in second.model.state_dict().items())
        return
    assert second.load(tmp_path/'a.safetensors') == []
    assert torch.equal(first.get_preds()[0], second.get_preds()[0])


def test_a_lazy_model_is_loaded_before_it_has_seen_a_batch(tmp_path):
    def lazy(): return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    first,second = learner(lazy()),learner(lazy())
    first.fit(1)
    first.save(tmp_path/'a.safetensors')
    assert second.load(tmp_path/'a.safetensors') == []
    assert torch.equal(first.get_preds()[0], second.get_preds()[0])


# ---------------------------------------------------------------- Accelerate


@pytest.mark.skipif(not find_spec('accelerate'), reason='accelerate is not installed')
@pytest.mark.parametrize('precision', ['no', 'bf16'])
@pytest.mark.parametrize('loader', ['tensors', 'torch'])
def test_a_learner_under_accelerate_does_everything(precision, loader, tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from safetensors.torch import load_file
    AcceleratorState._reset_state(True)      # one process knows one precision
    data = TensorDataset(X, Y)
    def make():
        subs = [AcceleratorS(Accelerator(cpu=True, mixed_precision=precision)),
                MetricsS(accuracy=accuracy)]
        learn = learner(plain(), subs=subs)
        torch.manual_seed(1)
        if loader == 'torch': learn.dls = DataLoaders(DataLoader(data, 4, shuffle=True),
                                                      DataLoader(data, 5))
        return learn
    learn,inside = make(),tmp_path/'inside.safetensors'
    learn.on('after_fit', lambda learn: learn.save(inside))
    learn.fit(2)
    state = learn.state_dict()
    learn.save(tmp_path/'after.safetensors')
    for path in inside,tmp_path/'after.safetensors': assert {*load_file(path)} == {
        *plain().state_dict()}
    preds,targets = learn.get_preds()
    assert len(preds) == 12 and targets.tolist() == Y.tolist()
    near = dict(atol=.03) if precision == 'bf16' else dict(atol=1e-6)
    with torch.no_grad(): assert torch.allclose(preds.float(), learn.model.eval()(X), **near)
    loss = F.cross_entropy(preds.float(), Y).item()
    assert learn.validate()['loss'] == pytest.approx(loss, abs=.02)
    assert torch.allclose(learn.get_preds([(X[3:4],)])[0], preds[3:4], **near)
    predictor = load_predictor(learn.export(tmp_path/'model.pt2'))
    assert torch.allclose(predictor.scores(X), preds.float(), **near)
    other = learner(plain())
    other.load(tmp_path/'after.safetensors')
    assert torch.allclose(other.get_preds()[0], preds.float(), **near)
    again = make()
    again.fit(3, resume=state)
    learn = make()
    learn.fit(3)
    assert all(map(torch.equal, again.model.state_dict().values(),
                   learn.model.state_dict().values()))
