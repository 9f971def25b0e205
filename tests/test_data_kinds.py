"""Neighbours of the programs whose data once meant something else: one table for each kind.

    python -m pytest -q tests/test_data_kinds.py
"""
import warnings
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (BatchSampler, ConcatDataset, DataLoader, Dataset, DistributedSampler,
    IterableDataset, RandomSampler, Sampler, SequentialSampler, StackDataset, Subset,
    SubsetRandomSampler, TensorDataset, WeightedRandomSampler, random_split)

from nntrain.all import *
from nntrain.cli.main import main
from nntrain.data.samplers import drawn_by_sum
from nntrain.distributed.comm import launch, start_ranks
from nntrain.learner import check_loader

datasets.disable_progress_bars()


def table(n=24, width=4, classes=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, width, generator=generator),torch.arange(n)%classes


def numbered(n=24): return TensorDataset(torch.arange(float(n))[:,None], torch.arange(n)%3)


def learner(train, valid=None, model=None, **kwargs):
    torch.manual_seed(0)
    return Learner(model or nn.Linear(1, 3), DataLoaders(train, valid), F.cross_entropy, lr=1e-9,
                   **kwargs)


def orders(learn, epochs=2):
    "The rows that each epoch trained on."
    found = []
    learn.on('before_epoch', lambda learn: found.append([]))
    learn.on('before_batch', lambda learn: found[-1].extend(learn.x[:,0].tolist()))
    learn.fit(epochs, valid=False)
    return found


# ---------------------------------------------------------------- 1: every epoch is another


class Seen:
    "Something that is told the epoch."
    def set_epoch(self, epoch): self.epochs = [*getattr(self, 'epochs', []), epoch]


class SeenSampler(Seen, Sampler):
    def __init__(self): pass
    def __len__(self): return 8
    def __iter__(self): return iter(range(8))


class SeenBatches(SeenSampler):
    def __iter__(self): return iter([[0, 1, 2, 3], [4, 5, 6, 7]])
    def __len__(self): return 2


class SeenData(Seen, Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return torch.tensor([float(i)]),i%3


class SeenStream(Seen, IterableDataset):
    def __iter__(self): return ((torch.tensor([float(i)]), i%3) for i in range(8))


class SeenLoader(Seen):
    def __len__(self): return 2
    def __iter__(self): return iter(DataLoader(numbered(8), 4))


def told(what):
    if what == 'sampler': told = SeenSampler(); return told,DataLoader(numbered(8), 4, sampler=told)
    if what == 'batch sampler':
        told = SeenBatches(); return told,DataLoader(numbered(8), batch_sampler=told)
    if what == 'sampler in a batch sampler':
        told = SeenSampler()
        return told,DataLoader(numbered(8), batch_sampler=BatchSampler(told, 4, False))
    if what == 'data set': told = SeenData(); return told,DataLoader(told, 4)
    if what == 'subset': told = SeenData(); return told,DataLoader(Subset(told, range(8)), 4)
    if what == 'joined':
        told = SeenData(); return told,DataLoader(ConcatDataset([numbered(4), told]), 4)
    if what == 'stream': told = SeenStream(); return told,DataLoader(told, 4)
    told = SeenLoader()
    return told,told


@pytest.mark.parametrize('what', ['sampler', 'batch sampler', 'sampler in a batch sampler',
                                  'data set', 'subset', 'joined', 'stream', 'loader'])
def test_1_the_epoch_is_told(what):
    seen,loader = told(what)
    learn = learner(loader)
    learn.fit(2)
    learn.fit(1)
    assert list(dict.fromkeys(seen.epochs)) == [0, 1, 2], seen.epochs


@pytest.mark.parametrize('n_batches', [None, 2])
def test_1_a_distributed_sampler_in_one_process_shuffles_anew(n_batches):
    sampler = DistributedSampler(numbered(), num_replicas=1, rank=0, shuffle=True)
    first,second = orders(learner(DataLoader(numbered(), 8, sampler=sampler)))
    assert first != second and sorted(first) == sorted(second)


# ---------------------------------------------------------------- 2: dealt once


class Counted(IterableDataset):
    "A stream that divides nothing."
    def __iter__(self): return ((torch.tensor([float(i)]), i%3) for i in range(24))


class WithLength(Counted):
    def __len__(self): return 24


class Divided(IterableDataset):
    "A stream that divides itself, and says so."
    def __init__(self, rank, world): self.rank,self.world_size = rank,world
    def __iter__(self): return ((torch.tensor([float(i)]), i%3)
                                for i in range(self.rank, 24, self.world_size))


def hf_stream(rank, world, by_node):
    from datasets.distributed import split_dataset_by_node
    split = datasets.Dataset.from_dict(dict(x=[[float(i)] for i in range(24)],
        label=[i%3 for i in range(24)])).to_iterable_dataset(num_shards=4)
    return split_dataset_by_node(split.with_format('torch'), rank, world) if by_node else \
        split.with_format('torch')


def tuples(rows): return torch.stack([row['x'] for row in rows]),torch.tensor(
    [int(row['label']) for row in rows])


DEALT = {'tensors': lambda rank, world: TensorLoader(*numbered().tensors, batch_size=4),
    'torch': lambda rank, world: DataLoader(numbered(), 4),
    'batch sampler': lambda rank, world: DataLoader(numbered(), batch_sampler=BatchSampler(
        SequentialSampler(numbered()), 4, False)),
    'DistributedSampler': lambda rank, world: DataLoader(numbered(), 4, sampler=DistributedSampler(
        numbered(), world, rank, shuffle=False)),
    'DistributedSampler in a batch sampler': lambda rank, world: DataLoader(numbered(),
        batch_sampler=BatchSampler(DistributedSampler(numbered(), world, rank), 4, False)),
    'of another rank': lambda rank, world: DataLoader(numbered(), 4, sampler=DistributedSampler(
        numbered(), world, 1-rank)),
    'of more ranks': lambda rank, world: DataLoader(numbered(), 4, sampler=DistributedSampler(
        numbered(), 4, rank)),
    'stream': lambda rank, world: DataLoader(Counted(), 4),
    'stream with a length': lambda rank, world: DataLoader(WithLength(), 4),
    'stream divided by itself': lambda rank, world: DataLoader(Divided(rank, world), 4),
    'stream of Hugging Face': lambda rank, world: DataLoader(hf_stream(rank, world, False), 4,
                                                             collate_fn=tuples),
    'split by node': lambda rank, world: DataLoader(hf_stream(rank, world, True), 4,
                                                    collate_fn=tuples),
    'list of batches': lambda rank, world: [*DataLoader(numbered(), 4)]}
ASKED = {'of another rank', 'of more ranks'}


class SeenS(Subscriber):
    every_rank = True
    def before_fit(self, learn): self.rows = []
    def before_batch(self, learn):
        padded = getattr(learn.dl, 'padded', False)
        if learn.training and not padded: self.rows += learn.x[:,0].tolist()


def dealt():
    "Name -> the rows that this rank trained on, or the error."
    torch.set_num_threads(1)
    place,found = start_ranks(),{}
    for name,make in DEALT.items():
        seen = SeenS()
        try:
            learn = learner(make(place.rank, place.world), subs=[DistributedS(), seen])
            learn.fit(1, valid=False)
            found[name] = seen.rows
        except (TypeError,ValueError) as error: found[name] = str(error)
    return found


def test_2_each_row_is_dealt_once():
    one,two = launch(dealt, 2)
    for name in DEALT:
        if name in ASKED:
            assert 'make it without one' in one[name], one[name]
            continue
        assert not isinstance(one[name], str), (name, one[name])
        assert sorted(one[name] + two[name]) == [*range(24)], name
        assert one[name] and two[name], name


# ---------------------------------------------------------------- 3: columns by name


KINDS = datasets.Features(id=datasets.Value('int64'), x=datasets.List(datasets.Value('float32')),
    label=datasets.ClassLabel(names=['a', 'b']), weight=datasets.Value('float32'))


def rows(order=('id', 'x', 'label', 'weight'), n=6):
    columns = dict(id=[*range(n)], x=[[float(i), 0.] for i in range(n)],
                   label=[i%2 for i in range(n)], weight=[.5]*n)
    return datasets.Dataset.from_dict({k: columns[k] for k in order},
                                      features=datasets.Features({k: KINDS[k] for k in order}))


WAYS = {'last': lambda: rows(('x', 'label')), 'first': lambda: rows(('label', 'x')),
    'format': lambda: rows(('label', 'id', 'x')).with_format(None, columns=['label', 'x']),
    'torch': lambda: rows(('label', 'x')).with_format('torch'),
    'numpy': lambda: rows(('label', 'id', 'x')).with_format('numpy', columns=['x', 'label']),
    'transform': lambda: rows(('label', 'x')).with_transform(
        lambda batch: dict(label=batch['label'], x=batch['x'])),
    'labels': lambda: rows(('label', 'x')).rename_column('label', 'labels'),
    'keyed': lambda: KeyedDataset(rows(('label', 'x')), lambda row: row),
    'stream': lambda: rows(('label', 'x')).to_iterable_dataset(),
    'list': lambda: rows(('label', 'x')).to_list()}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('budget', [None, 0])
def test_3_the_target_is_the_last_item(way, budget):
    split = WAYS[way]()
    dls = DataLoaders.from_hf_dd(dict(train=split, valid=rows(('x', 'label')) if way != 'labels'
        else WAYS[way]()), 6, shuffle=False if way != 'stream' else None, budget=budget) \
        if way != 'stream' else DataLoaders.from_hf_dd(dict(train=split, valid=split), 6)
    x,y = next(iter(dls.train))
    assert torch.as_tensor(np.array(x) if isinstance(x, list) else x)[:,0].tolist() == [*range(6)]
    assert y.tolist() == [0, 1]*3


@pytest.mark.parametrize('target,wanted', [('weight', 'weight'), ('id', 'id'), (['label'], 'label'),
                                           ('label', 'label'), ('x', 'x')])
def test_3_a_named_target(target, wanted):
    split = rows()
    dls = DataLoaders.from_hf_dd(dict(train=split, valid=split), 6, shuffle=False, target=target)
    assert torch.equal(next(iter(dls.train))[-1].double(), torch.tensor(split[wanted]).double())
    assert dls.classes == (['a', 'b'] if wanted == 'label' else None)


@pytest.mark.parametrize('other,message', [
    (['b', 'a'], None), (['a', 'b', 'c'], None), (['a'], None), (['x', 'y'], 'rows of class'),
    (['a', 'B'], 'rows of class')])
def test_3_other_names_of_classes_are_mapped_or_refused(other, message):
    train = rows(('x', 'label'))
    kinds = datasets.Features(x=KINDS['x'], label=datasets.ClassLabel(names=other))
    labels = [i%min(len(other), 2) for i in range(4)]
    valid = datasets.Dataset.from_dict(dict(x=[[0., 0.]]*4, label=labels), features=kinds)
    def load(): return DataLoaders.from_hf_dd(dict(train=train, valid=valid), 2)
    if message is None:
        found = torch.cat([batch[1] for batch in load().valid]).tolist()
        assert [['a', 'b'][i] for i in found] == [other[i] for i in labels]
    else:
        with pytest.raises(ValueError, match=message): load()


@pytest.mark.parametrize('attribute', ['features', 'column_names', 'format', 'num_rows',
                                       'set_epoch_like', 'info'])
def test_3_an_attribute_makes_no_hf_dataset(attribute):
    class Own(Dataset):
        def __len__(self): return 6
        def __getitem__(self, i): return torch.tensor([float(i)]),i%3
    own = Own()
    setattr(own, attribute, torch.rand(6, 1))
    learn = learner(DataLoader(own, 3), DataLoader(own, 3))
    learn.fit(1)
    assert learn.get_preds()[1].tolist() == [0, 1, 2]*2


# ---------------------------------------------------------------- 6: what a resume is told


RESUMES = {'the same': ({}, None), 'batch size': (dict(batch_size=8), 'batch size of the train loader is 8, and was 4'),
    'grown': (dict(n=32), '24.*32|32.*24'), 'shrunk': (dict(n=16), '24.*16|16.*24'),
    'shuffled': (dict(shuffle=False), 'shuffle'), 'drop_last': (dict(drop_last=True), 'drop_last')}


@pytest.mark.parametrize('what', RESUMES)
@pytest.mark.parametrize('plain', [False, True])
def test_6_another_loader_is_exact_or_names_both_values(what, plain):
    changes,message = RESUMES[what]
    def make(n=24, batch_size=4, shuffle=True, drop_last=False):
        torch.manual_seed(3)
        if plain: return DataLoader(numbered(n), batch_size, shuffle=shuffle, drop_last=drop_last)
        return TensorLoader(*numbered(n).tensors, batch_size=batch_size, shuffle=shuffle, seed=0,
                            drop_last=drop_last)
    learn,states = learner(make()),[]
    learn.on('after_batch', lambda learn: states.append(learn.state_dict())
             if learn.train_iter == 3 else None)
    whole = orders(learn, 1)[0]
    again = learner(make(**changes))
    seen = []
    again.on('before_batch', lambda learn: seen.extend(learn.x[:,0].tolist()))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        if message is None:
            again.fit(1, valid=False, resume=states[0])
            return None if seen == whole[12:] else pytest.fail(f'{seen} {whole[12:]}')
        with pytest.raises((ValueError, UserWarning), match=message):
            again.fit(1, valid=False, resume=states[0])


SAMPLERS = {'random': lambda data: dict(shuffle=True), 'in order': lambda data: {},
    'with replacement': lambda data: dict(sampler=RandomSampler(data, True)),
    'weighted': lambda data: dict(sampler=WeightedRandomSampler([1.]*len(data), len(data))),
    'subset': lambda data: dict(sampler=SubsetRandomSampler(range(len(data))))}


@pytest.mark.parametrize('then', SAMPLERS)
@pytest.mark.parametrize('now', SAMPLERS)
def test_6_another_sampler_is_named(then, now):
    data,states = numbered(),[]
    learn = learner(DataLoader(data, 4, **SAMPLERS[then](data)))
    learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=SAVE)
    learn.fit(1, valid=False)
    again = learner(DataLoader(data, 4, **SAMPLERS[now](data)))
    if now == then: return again.fit(1, valid=False, resume=states[2])
    with pytest.raises(ValueError, match='sampler .* is .*Sampler.*, and was .*Sampler'):
        again.fit(1, valid=False, resume=states[2])
    again.fit(2, valid=False, resume=learn.state_dict())     # the pass is over: the next is another


# ---------------------------------------------------------------- 7: in order or not at all


class Backwards(Sampler):
    def __init__(self, data): self.data_source = data
    def __len__(self): return len(self.data_source)
    def __iter__(self): return iter(range(len(self))[::-1])


class OddBatches(BatchSampler):
    def __iter__(self): return iter([[3, 1], [2]])


class MineRandom(RandomSampler):
    def __iter__(self): return iter([5, 5, 5])


class StillRandom(RandomSampler): "A subclass that changes nothing."


def stateful(*args, **kwargs):
    return pytest.importorskip('torchdata.stateful_dataloader').StatefulDataLoader(*args, **kwargs)


D = numbered(10)
LOADERS = {'shuffle': lambda: DataLoader(D, 4, shuffle=True),
    'drop last': lambda: DataLoader(D, 4, shuffle=True, drop_last=True),
    'batch sampler': lambda: DataLoader(D, batch_sampler=BatchSampler(RandomSampler(D), 4, True)),
    'sequential': lambda: DataLoader(D, batch_sampler=BatchSampler(SequentialSampler(D), 3, True)),
    'subclass that changes nothing': lambda: DataLoader(D, 4, sampler=StillRandom(D)),
    'one by one': lambda: DataLoader(D, 1, shuffle=True),
    'random split': lambda: DataLoader(ConcatDataset(random_split(D, [5, 5],
        torch.Generator().manual_seed(0))), 4, shuffle=True),
    'stack': lambda: DataLoader(StackDataset(D.tensors[0], D.tensors[1]), 4, shuffle=True),
    'stateful': lambda: stateful(D, 4, shuffle=True),
    'stateful, last left out': lambda: stateful(D, 4, shuffle=True, drop_last=True),
    'subclass of the loader': lambda: type('Mine', (DataLoader,), {})(D, 4, shuffle=True),
    'with replacement': lambda: DataLoader(D, 4, sampler=RandomSampler(D, True, 5)),
    'tensors': lambda: TensorLoader(*D.tensors, batch_size=4, shuffle=True, drop_last=True)}


@pytest.mark.parametrize('name', LOADERS)
def test_7_predictions_are_the_rows_in_order(name):
    learn = learner(None, LOADERS[name]())
    x = learn.get_preds(inputs=True)[2][:,0].tolist()
    if name == 'random split': return x == [row[0].item() for row in LOADERS[name]().dataset] or \
        pytest.fail(str(x))
    assert x == [*range(10)], x


REFUSED = {'backwards': lambda: DataLoader(D, 4, sampler=Backwards(D)),
    'weighted': lambda: DataLoader(D, 4, sampler=WeightedRandomSampler([1.]*10, 10)),
    'batches of its own': lambda: DataLoader(D, batch_sampler=OddBatches(RandomSampler(D), 4, False)),
    'subclass that picks': lambda: DataLoader(D, 4, sampler=MineRandom(D)),
    'distributed': lambda: DataLoader(D, 4, sampler=DistributedSampler(D, 2, 0)),
    'a list': lambda: DataLoader(D, 4, sampler=[7, 3])}


@pytest.mark.parametrize('name', REFUSED)
def test_7_an_unknown_order_is_refused(name):
    with pytest.raises(ValueError, match='not known|of one rank'):
        learner(None, REFUSED[name]()).get_preds()


@pytest.mark.parametrize('at,workers', [('epoch', 0), ('batch', 0), ('batch', 1), ('end', 0)])
def test_7_a_stateful_loader_goes_on(at, workers):
    def make():
        torch.manual_seed(0)
        return learner(stateful(numbered(), 4, shuffle=True, num_workers=workers))
    whole,states = make(),[]
    whole.on('after_batch', lambda learn: states.append(learn.state_dict()), order=SAVE)
    wanted = orders(whole, 3)
    if at == 'end':      # a complete run is complete, and may be made longer
        again = make()
        again.fit(3, valid=False, resume=whole.state_dict())
        assert again.n_steps == 18
        assert [len(rows) for rows in orders(again, 2)] == [24, 24]
        longer = make()
        state,more = whole.state_dict(),[]
        longer.on('before_batch', lambda learn: more.extend(learn.x[:,0].tolist()))
        longer.fit(4, valid=False, resume=state)
        assert sorted(more) == [*range(24)] and longer.epoch == 3
        assert longer.get_preds('train', inputs=True)[2][:,0].tolist() == [*range(24)]
    elif at == 'epoch':
        first = make()
        first.fit(1, valid=False)
        again = make()
        seen = []
        again.on('before_batch', lambda learn: seen.extend(learn.x[:,0].tolist()))
        again.fit(3, valid=False, resume=first.state_dict())
        assert seen == wanted[1] + wanted[2]
    else:
        for k in 0,5,8:
            again,seen = make(),[]
            again.on('before_batch', lambda learn: seen.extend(learn.x[:,0].tolist()))
            again.fit(3, valid=False, resume=states[k])
            assert seen == sum(wanted, [])[4*(k + 1):]


# ---------------------------------------------------------------- 9: the command reads what is named


def put_pictures(folder, classes='ab', n=12):
    for i in range(n):
        path = folder/classes[i%len(classes)]/f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (8, 8), 20 + 200*(i%2)).save(path)


def put_table(path, order=('label', 'image'), labels='ab', n=12):
    columns = dict(image=[Image.new('L', (8, 8), 20 + 200*(i%2)) for i in range(n)],
                   label=[labels[i%len(labels)] for i in range(n)], score=[7]*n, labels=[0]*n)
    datasets.Dataset.from_dict({k: columns[k] for k in order}).to_parquet(str(path))


def digits_and_a_folder(place): put_pictures(place/'digits')
def digits_and_a_file(place): (place/'digits').write_text('no set')
def of_another_place(place):
    put_pictures(place/'other'/'pets')
    main(['train', '--data', str(place/'other'/'pets'), '--model', 'linear', '--epochs', '1',
          '--lr', '.1', '--dry-run'])      # it may be in a cache now
def broken(place):
    put_pictures(place/'pets')
    (place/'pets'/'a'/'bad.png').write_bytes(b'no picture')


NAMED = {'a folder': (lambda place: put_pictures(place/'pets'), 'pets', 'a, b'),
    'with a slash': (lambda place: put_pictures(place/'pets'), './pets/', 'a, b'),
    'label first': (lambda place: put_table(place/'t.parquet'), 't.parquet', 'a, b'),
    'label last': (lambda place: put_table(place/'t.parquet', ('image', 'label')), 't.parquet',
                   'a, b'),
    'numbers between': (lambda place: put_table(place/'t.parquet', ('score', 'label', 'image')),
                        't.parquet', 'a, b'),
    'label before labels': (lambda place: put_table(place/'t.parquet', (
        'labels', 'image', 'label')), 't.parquet', 'a, b'),
    'digits and a folder of that name': (digits_and_a_folder, 'digits', 'a, b'),   # before the set
    'digits and a file of that name': (digits_and_a_file, 'digits', 'give ./digits'),
    'the folder digits': (digits_and_a_folder, './digits', 'a, b'),
    'a folder that is elsewhere': (of_another_place, 'pets', 'cannot be read'),
    'a broken picture': (broken, 'pets', 'bad.png'),
    'no label': (lambda place: put_table(place/'t.parquet', labels=['a', None]), 't.parquet',
                 'row 1: None is no label')}


@pytest.mark.parametrize('name', NAMED)
def test_9_the_command_reads_what_is_named(name, tmp_path, monkeypatch, capsys):
    make,data,wanted = NAMED[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'cache')
    monkeypatch.setattr(datasets, 'load_dataset', asked_here(datasets.load_dataset))
    with warnings.catch_warnings(action='ignore'):
        make(tmp_path)
        capsys.readouterr()
        code = main(['train', '--data', data, '--model', 'linear', '--epochs', '1', '--lr', '.1',
                     '--bs', '4', '--dry-run'])
    said = capsys.readouterr()
    assert (code == 0) == (wanted == 'a, b'), (said.out, said.err)
    text = said.out if code == 0 else said.err
    assert wanted in text, text


def asked_here(load):
    "`load_dataset` without a network."
    def found(path, *args, **kwargs):
        if not Path(path).exists() and path != 'parquet': raise ConnectionError('no network')
        return load(path, *args, **kwargs)
    return found


# ---------------------------------------------------------------- 10: asked beforehand


class Shaped(nn.Module):
    "Views each sample in a shape."
    def __init__(self, *shape): super().__init__(); self.shape = shape
    def forward(self, x): return x.view(len(x)*self.shape[0], *self.shape[1:])


NORMS = {'vectors': ([nn.BatchNorm1d(4)], True), 'layer norm': ([nn.LayerNorm(4)], False),
    'maps of 1x1': ([nn.Unflatten(1, (4, 1, 1)), nn.BatchNorm2d(4)], True),
    'maps of 2x1': ([nn.Unflatten(1, (2, 2, 1)), nn.BatchNorm2d(2)], False),
    'volumes of 1x1x1': ([nn.Unflatten(1, (4, 1, 1, 1)), nn.BatchNorm3d(4)], True),
    'sequences': ([nn.Unflatten(1, (2, 2)), nn.BatchNorm1d(2)], False),
    'sequences of 1': ([nn.Unflatten(1, (4, 1)), nn.BatchNorm1d(4)], True),
    'steps as samples': ([Shaped(2, 2), nn.BatchNorm1d(2), Shaped(1, 2), nn.Unflatten(0, (-1, 2)),
                          nn.Flatten()], False),
    'no running values': ([nn.BatchNorm1d(4, track_running_stats=False)], True),
    'frozen': ([nn.BatchNorm1d(4).eval().requires_grad_(False)], False),
    'lazy': ([nn.LazyBatchNorm1d()], True), 'each a group': ([nn.GroupNorm(4, 4)], True),
    'groups': ([nn.GroupNorm(2, 4)], False)}


@pytest.mark.parametrize('what', NORMS)
@pytest.mark.parametrize('loader', ['tensors', 'torch', 'batch sampler'])
def test_10_one_sample_left_over(what, loader):
    layers,refused = NORMS[what]
    if what == 'lazy': layers = [nn.LazyBatchNorm1d()]     # it was made for another test
    data,(x,y) = TensorDataset(*table(9, 4)),table(9, 4)
    train = {'tensors': lambda: TensorLoader(x, y, batch_size=4),
        'torch': lambda: DataLoader(data, 4, shuffle=True), 'batch sampler': lambda: DataLoader(
            data, batch_sampler=BatchSampler(RandomSampler(data), 4, False))}[loader]()
    learn = Learner(nn.Sequential(nn.Linear(4, 4), *layers, nn.Flatten(), nn.Linear(4, 3)),
                    DataLoaders(train), F.cross_entropy)
    if what == 'frozen': learn.subscribe(BatchNormFreezeS())
    if not refused: return learn.fit(1, valid=False)
    with pytest.raises(ValueError, match='one sample.*9 samples in batches of 4.*drop_last=True'):
        learn.fit(1, valid=False)
    assert learn.n_steps == 0 and not [m for m in learn.model.modules() if m._forward_pre_hooks]
    learn.fit(1, valid=False, subs=SingleBatchS())    # which does not come to it
    learn.dls.train = TensorLoader(x, y, batch_size=4, drop_last=True)
    learn.fit(1, valid=False)


@pytest.mark.parametrize('batched', [False, True])
@pytest.mark.parametrize('more', [0, 1])
def test_10_more_weights_than_torch_draws_from(batched, more):
    n = 2**24 + more
    sampler = WeightedRandomSampler(torch.ones(1, dtype=torch.float64).expand(n), 4)
    kwargs = dict(batch_sampler=BatchSampler(sampler, 2, False)) if batched else dict(
        batch_size=2, sampler=sampler)
    class Same(Dataset):
        def __len__(self): return n
        def __getitem__(self, i): return torch.ones(1),0
    learn = learner(DataLoader(Same(), **kwargs))
    if not more: return check_loader(learn.dls.train, 'train')
    with pytest.raises(ValueError, match='16,777,217 weights.*16,777,216.*Weighted'): learn.fit(1)
    weights = torch.zeros(n)
    weights[-1] = 1
    assert drawn_by_sum(weights, 4, torch.Generator()).tolist() == [n-1]*4    # as `Weighted` does


BAD = {'infinite': ([1., float('inf')], 'finite'), 'nan': ([1., float('nan')], 'finite'),
    'negative': ([1., -1.], 'at least 0'), 'all 0': ([0., 0.], 'sum'),
    'too large': ([1e308, 1e308], 'sum'), 'too few': ([1.], '1 weights for 2')}


@pytest.mark.parametrize('what', BAD)
def test_10_weights(what):
    weights,message = BAD[what]
    with pytest.raises(ValueError, match=message): Weighted(weights)(2, 0)
