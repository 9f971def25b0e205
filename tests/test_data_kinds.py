"""Neighbours of the programs whose data once meant something else: one table for each kind.

    python -m pytest -q tests/test_data_kinds.py
"""
import random
import subprocess
import sys
import warnings
from functools import partial
from itertools import chain
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
    SubsetRandomSampler, TensorDataset, WeightedRandomSampler, default_collate, random_split)

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


class SeenCollate(Seen):
    def __call__(self, rows): return default_collate(rows)


class Under:
    "A wrapper of one's own, under a name of its own."
    def __init__(self, loader): self._inner = loader
    def __len__(self): return len(self._inner)
    def __iter__(self): return iter(self._inner)


class Slotted(Under):
    __slots__ = '_inner',


class Chained:
    "Several loaders, one after the other."
    def __init__(self, loaders): self.parts = loaders
    def __len__(self): return sum(map(len, self.parts))
    def __iter__(self): return chain(*self.parts)


class Mixed(Dataset):
    "Takes turns among data sets."
    def __init__(self, parts): self.parts = parts
    def __len__(self): return 8
    def __getitem__(self, i): return [*self.parts.values()][i%2][i]


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
    if what == 'wrapper of a wrapper':
        told = SeenSampler(); return told,Under(Slotted(DataLoader(numbered(8), 4, sampler=told)))
    if what == 'loaders in a list':
        told = SeenSampler()
        return told,Chained([DataLoader(numbered(4), 4), DataLoader(numbered(8), 4, sampler=told)])
    if what == 'data sets in a dict':
        told = SeenData(); return told,DataLoader(Mixed(dict(a=SeenData(), b=told)), 4)
    if what == 'partial':
        told = SeenCollate(); return told,DataLoader(numbered(8), 4, collate_fn=partial(told))
    if what == 'closure':
        told = SeenCollate()
        return told,DataLoader(numbered(8), 4, collate_fn=lambda rows: told(rows))
    told = SeenLoader()
    return told,told


@pytest.mark.parametrize('what', ['sampler', 'batch sampler', 'sampler in a batch sampler',
                                  'data set', 'subset', 'joined', 'stream', 'loader',
                                  'wrapper of a wrapper', 'loaders in a list', 'partial',
                                  'data sets in a dict', 'closure'])
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


def noisy(row): return dict(x=row['x'] + torch.randn(1), label=row['label'])


def own_collate(rows): return torch.stack([r['x'] for r in rows]),torch.tensor([r['label']
                                                                                for r in rows])


def keyed():
    return KeyedDataset([dict(x=torch.tensor([100.*i]), label=i%3) for i in range(8)], noisy)


def read(data, **options): return DataLoaders.from_hf_dd(dict(train=data, valid=data), 4,
                                                         shuffle=False, **options).train


KEYED = {'ours': lambda data: read(data), 'own collate': lambda data: read(data,
        collate_fn=own_collate), 'torch': lambda data: DataLoader(data, 4, collate_fn=own_collate),
    'workers that stay': lambda data: DataLoader(data, 4, collate_fn=own_collate, num_workers=1,
                                                 persistent_workers=True),
    'wrapper': lambda data: Under(DataLoader(data, 4, collate_fn=own_collate)),
    'joined': lambda data: DataLoader(ConcatDataset([data]), 4, collate_fn=own_collate),
    'subset': lambda data: DataLoader(Subset(data, range(8)), 4, collate_fn=own_collate)}


@pytest.mark.parametrize('way', KEYED)
def test_1_random_changes_are_those_of_the_epoch(way):
    "And a resume at the second epoch has those of the second epoch."
    def run(**how):
        torch.manual_seed(0)
        learn,seen = learner(KEYED[way](keyed())),[]
        learn.on('before_batch', lambda learn: seen.append(learn.x[:,0].tolist()))
        learn.fit(2, valid=False, **how)
        return seen
    whole,states = run(),[]
    assert whole[:2] != whole[2:] and [round(x/100) for x in whole[0]] == [0, 1, 2, 3]
    torch.manual_seed(0)
    learn = learner(KEYED[way](keyed()))
    learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=SAVE)
    learn.fit(2, valid=False)
    assert run(resume=states[1]) == whole[2:] and run(resume=states[2]) == whole[3:]


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
    'part': lambda: Subset(rows(('label', 'x'), 9), range(6)),
    'part of a part': lambda: Subset(Subset(rows(('label', 'x'), 9), range(8)), torch.arange(6)),
    'joined': lambda: ConcatDataset([rows(('label', 'x'), 9).select(part) for part in
                                     (range(4), range(4, 6))]),
    'list': lambda: rows(('label', 'x')).to_list()}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('budget', [None, 0])
def test_3_the_target_is_the_last_item(way, budget):
    split = WAYS[way]()
    dls = DataLoaders.from_hf_dd(dict(train=split, valid=rows(('x', 'label')) if way != 'labels'
        and 'part' not in way and way != 'joined' else WAYS[way]()), 6, shuffle=False if way != 'stream' else None, budget=budget) \
        if way != 'stream' else DataLoaders.from_hf_dd(dict(train=split, valid=split), 6)
    x,y = next(iter(dls.train))
    assert torch.as_tensor(np.array(x) if isinstance(x, list) else x)[:,0].tolist() == [*range(6)]
    assert y.tolist() == [0, 1]*3
    if 'part' in way or way == 'joined': assert dls.classes == ['a', 'b'], dls.classes


SUGGESTED = {('x', 'y'): 'y', ('target', 'x'): 'target', ('x', 'class'): 'class',
    ('label', 'labels', 'x'): 'label', ('labels', 'x', 'label'): 'labels', ('x', 'price', 'id'): 'price',
    ('input_ids', 'y', 'attention_mask'): 'y'}


@pytest.mark.parametrize('columns', SUGGESTED)
def test_3_a_target_that_is_not_known_is_asked_for(columns):
    split = datasets.Dataset.from_dict({name: [1, 2] for name in columns})
    with pytest.raises(ValueError, match=f"`target='{SUGGESTED[columns]}'`"):
        DataLoaders.from_hf_dd(dict(train=split, valid=split), 2)


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


class Draws(Sampler):
    "Shuffles by a generator of its own."
    def __init__(self, generator): self.generator_of_mine = generator
    def __len__(self): return 24
    def __iter__(self):
        rows = [*range(24)]
        self.generator_of_mine.shuffle(rows)
        return iter(rows)


class Numbered(Sampler):
    "Shuffles by the number of its passes."
    def __init__(self, seed=0): self.seed,self.passes = seed,0
    def __len__(self): return 24
    def __iter__(self):
        self.passes += 1
        generator = torch.Generator().manual_seed(1000*self.seed + self.passes)
        return iter(torch.randperm(24, generator=generator).tolist())


class Remembered(Numbered):
    def state_dict(self): return dict(passes=self.passes)
    def load_state_dict(self, state): self.passes = state['passes']


class Told(Numbered):
    def set_epoch(self, epoch): self.passes = epoch


class Around(Sampler):
    def __init__(self, inner): self.whatever = [inner]
    def __len__(self): return len(self.whatever[0])
    def __iter__(self): return iter(self.whatever[0])


class Noisy(Dataset):
    def __init__(self, noise): self.noise = noise
    def __len__(self): return 24
    def __getitem__(self, i): return torch.tensor([i + self.noise()]),i%3


class Noise:
    def __init__(self): self.draws = np.random.default_rng(0)
    def __call__(self): return float(self.draws.random())/2


class Pairs(Sampler):
    def __init__(self, size=4): self.size = size
    def __len__(self): return 24//self.size
    def __iter__(self): return iter(torch.randperm(24).split(self.size))


def mine(data=None, size=4, **kwargs): return DataLoader(numbered() if data is None else data, size,
                                                         **kwargs)


def seeded(): return torch.Generator().manual_seed(1)


def with_closure():
    draws = np.random.default_rng(0)
    def collate(rows): return [item + draws.integers(9)*(i == 0)
                               for i,item in enumerate(default_collate(rows))]
    return mine(collate_fn=collate)


EXACT = {"a generator of Python's": lambda: mine(sampler=Draws(random.Random(0))),
    "of NumPy's": lambda: mine(sampler=Draws(np.random.default_rng(0))),
    'in a sampler in a sampler': lambda: mine(sampler=Around(Draws(random.Random(0)))),
    'in a wrapper': lambda: Under(mine(sampler=Draws(random.Random(0)))),
    "the loader's in a wrapper": lambda: Under(mine(shuffle=True, generator=seeded())),
    'ours in a wrapper': lambda: Under(TensorLoader(*numbered().tensors, batch_size=4,
                                                    shuffle=True, seed=0)),
    'in a transform of the data': lambda: mine(Noisy(Noise())),
    'in a closure': with_closure,
    'a sampler with a state': lambda: mine(sampler=Remembered()),
    'that in a wrapper': lambda: Under(mine(sampler=Around(Remembered()))),
    'a sampler with an epoch': lambda: Slotted(mine(sampler=Told())),
    'batches by torch': lambda: mine(None, 1, batch_sampler=Pairs()),
    'stateful with another sampler': lambda: stateful(numbered(), 4, sampler=Draws(
        random.Random(0))),
    'stateful with a generator': lambda: stateful(numbered(), 4, shuffle=True, generator=seeded()),
    'stateful in a wrapper': lambda: Under(stateful(numbered(), 4, shuffle=True))}


def kept_states(make):
    "All batches of three epochs, and the state after each."
    torch.manual_seed(0)
    learn,seen,states = learner(make()),[],[]
    learn.on('before_batch', lambda learn: seen.append(learn.x[:,0].tolist()))
    learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=SAVE)
    learn.fit(3, valid=False)
    return seen,states


def gone_on(make, state):
    torch.manual_seed(0)
    learn,seen = learner(make()),[]
    learn.on('before_batch', lambda learn: seen.append(learn.x[:,0].tolist()))
    learn.fit(3, valid=False, resume=state)
    return seen


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', EXACT)
def test_6_what_draws_by_itself_goes_on_exactly(name):
    seen,states = kept_states(EXACT[name])
    assert len({str(sorted(batches)) for batches in (seen[:6], seen[6:12], seen[12:])}) > 1 or (
        seen[:6] != seen[6:12])
    for at in 1,5,8: assert gone_on(EXACT[name], states[at]) == seen[at+1:], at


def loss(weight): return nn.CrossEntropyLoss(weight=torch.tensor(weight))
def decayed(*decays):
    def make(params, lr): return torch.optim.SGD([dict(params=[p], weight_decay=decay)
        for p,decay in zip(params, decays)], lr=lr)
    return make
def rates(*shares):
    def make(params, lr): return torch.optim.SGD([dict(params=[p], lr=lr*share)
        for p,share in zip(params, shares)], lr=lr)
    return make


#                      then, now, what is said: both values
NAMED_BOTH = {'a sampler that counts': (lambda: mine(sampler=Numbered()), None, 'passes.* 0.* 1 '),
    'its seed': (lambda: mine(sampler=Told(1)), lambda: mine(sampler=Told(2)), 'seed.* 2.* 1 '),
    'size of own batches': (lambda: mine(None, 1, batch_sampler=Pairs(4)),
        lambda: mine(None, 1, batch_sampler=Pairs(8)), 'batches.* 3.* 6 '),
    'size in a wrapper': (lambda: Under(mine()), lambda: Under(mine(size=8)), 'is 8, and was 4'),
    'a list of batches': (lambda: [*mine()], lambda: [*mine(size=8)], 'batches.* 3.* 6 '),
    'a generator more': (lambda: mine(shuffle=True), lambda: mine(shuffle=True,
        generator=seeded()), 'generators.* 1.* 0 '),
    'a generator less': (lambda: mine(shuffle=True, generator=seeded()),
        lambda: mine(shuffle=True), 'generators.* 0.* 1 '),
    'other weights': (lambda: mine(sampler=WeightedRandomSampler([1.]*24, 24)), lambda: mine(
        sampler=WeightedRandomSampler([1.]*12 + [0.]*12, 24)), 'checksum of Weighted.* was '),
    'seed of torch': (lambda: mine(sampler=DistributedSampler(numbered(), 1, 0)), lambda: mine(
        sampler=DistributedSampler(numbered(), 1, 0, seed=3)), r'seed.* 3.* 0 '),
    'rows drawn': (lambda: mine(sampler=RandomSampler(numbered(), True, 24)), lambda: mine(
        sampler=RandomSampler(numbered(), True, 22)), '_num_samples.* 22.* 24 '),
    'a wrapper, grown': (lambda: Under(mine(numbered(16))), lambda: Under(mine()),
        'samples.* is 24, and was 16')}


@pytest.mark.parametrize('name', NAMED_BOTH)
def test_6_what_decides_the_rows_is_compared(name):
    then,now,message = NAMED_BOTH[name]
    states = kept_states(then)[1]
    with pytest.raises(ValueError, match=message): gone_on(now or then, states[8])


MADE = {'decay of a group': (dict(optim_class=decayed(0, .1)), dict(optim_class=decayed(0, .3)),
        'weight_decay=0.3 in group 1.*weight_decay=0.1'),
    'rate of a group': (dict(optim_class=rates(1, .5)), dict(optim_class=rates(1, .1)),
                        'share of lr=0.1 in group 1.*0.5'),
    'weights of the loss': (dict(loss_fn=loss([1., 2., 1.])), dict(loss_fn=loss([1., 5., 1.])),
                            r'weight=.1.0, 5.0, 1.0.*1.0, 2.0, 1.0'),
    'momentum': (dict(optim_class=partial(torch.optim.SGD, momentum=.9)),
                 dict(optim_class=partial(torch.optim.SGD, momentum=.5)), '0.5.*0.9')}


@pytest.mark.parametrize('at', [2, 5, -1])
@pytest.mark.parametrize('name', MADE)
def test_6_what_was_made_with_other_settings_is_named(name, at):
    then,now,message = MADE[name]
    def make(loss_fn=F.cross_entropy, optim_class=torch.optim.SGD):
        torch.manual_seed(0)
        return Learner(nn.Linear(1, 3), DataLoaders(mine()), loss_fn, optim_class, 1e-4)
    learn,states = make(**then),[]
    learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=SAVE)
    learn.fit(2, valid=False)
    with pytest.raises(ValueError, match=message): make(**now).fit(3, valid=False, resume=states[at])
    again = make(**then)
    again.fit(3, valid=False, resume=states[at])
    again.fit(1, valid=False, lr=1e-5)


# ---------------------------------------------------------------- 7: in order or not at all


class Backwards(Sampler):
    def __init__(self, data): self.data_source = data
    def __len__(self): return len(self.data_source)
    def __iter__(self): return iter(range(len(self))[::-1])
    class Loader(DataLoader):
        def __iter__(self): return iter([*super().__iter__()][::-1])


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
    'tensors': lambda: TensorLoader(*D.tensors, batch_size=4, shuffle=True, drop_last=True),
    'wrapped': lambda: Under(DataLoader(D, 4)), 'ours wrapped': lambda: Under(TensorLoader(
        *D.tensors, batch_size=4)), 'list': lambda: [*DataLoader(D, 4)],
    'wrapped twice': lambda: Under(Slotted(DataLoader(D, 1)))}


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
    'a list': lambda: DataLoader(D, 4, sampler=[7, 3]),
    'a loader with an iter': lambda: Backwards.Loader(D, 4),
    'wrapped shuffle': lambda: Under(DataLoader(D, 4, shuffle=True)),
    'wrapped, last left out': lambda: Slotted(DataLoader(D, 4, drop_last=True)),
    'wrapped, deep': lambda: Under(Chained([DataLoader(D, 4), DataLoader(D, 4, shuffle=True)])),
    'ours wrapped': lambda: Under(TensorLoader(*D.tensors, batch_size=4, shuffle=True)),
    'wrapped weights': lambda: Under(DataLoader(D, 4, sampler=WeightedRandomSampler([1.]*10, 10))),
    'wrapped stateful': lambda: Under(stateful(D, 4, shuffle=True))}


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
def digits_and_a_table(place):
    (place/'digits').mkdir()
    put_table(place/'digits'/'train.parquet')
def digits_in_the_cache(place):
    put_pictures(place/'other'/'digits')
    datasets.load_dataset(str(place/'other'/'digits'), cache_dir=str(place/'cache'))
    assert [*(place/'cache').iterdir()]
def digits_in_both(place): digits_in_the_cache(place), put_pictures(place/'digits', 'xy')
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
    'with a slash behind': (digits_and_a_folder, 'digits/', 'a, b'),
    'its whole path': (lambda place: digits_and_a_folder(place), '{place}/digits', 'a, b'),
    'digits alone': (lambda place: None, 'digits', '0, 1, 2'),
    'digits and a folder with a table': (digits_and_a_table, 'digits', 'give ./digits'),
    'that folder by its path': (digits_and_a_table, './digits', 'a, b'),
    'digits and a set in the cache': (digits_in_the_cache, 'digits', '0, 1, 2'),
    'digits in all places': (digits_in_both, 'digits', 'x, y'),
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
        code = main(['train', '--data', data.format(place=tmp_path), '--model', 'linear', '--epochs', '1', '--lr', '.1',
                     '--bs', '4', '--dry-run'])
    said = capsys.readouterr()
    assert (code == 0) == (', ' in wanted), (said.out, said.err)
    text = said.out if code == 0 else said.err
    assert wanted in text, text


@pytest.mark.faults
def test_9_the_command_in_a_process_of_its_own(tmp_path):
    put_pictures(tmp_path/'digits')
    def said(data):
        run = subprocess.run([sys.executable, '-m', 'nntrain', 'train', '--data', data, '--model',
            'linear', '--epochs', '1', '--lr', '.1', '--dry-run'], cwd=tmp_path, text=True,
            capture_output=True, timeout=300)
        assert run.returncode == 0, run.stderr
        return run.stdout
    for data in 'digits','./digits': assert 'a, b' in said(data), data
    (tmp_path/'digits').rename(tmp_path/'others')
    assert '0, 1, 2' in said('digits')


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


class Sized(Counted):
    def __len__(self): return 9


LONE = {'list': lambda data: [*DataLoader(data, 4)], 'wrapper': lambda data: Under(DataLoader(
        data, 4)), 'part': lambda data: DataLoader(Subset(ConcatDataset([data]*2), range(9)), 4),
    'weights': lambda data: DataLoader(data, 4, sampler=WeightedRandomSampler([1.]*9, 9)),
    'distributed': lambda data: DataLoader(data, 4, sampler=DistributedSampler(data, 1, 0)),
    'stateful': lambda data: stateful(data, 4), 'stream with a length': lambda data: DataLoader(
        Sized(), 4)}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('way', LONE)
def test_10_one_sample_left_over_in_other_loaders(way):
    learn = learner(LONE[way](numbered(9)), model=nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4),
                                                                nn.Linear(4, 3)))
    with pytest.raises(ValueError, match='last training batch has one sample .9 samples'):
        learn.fit(1, valid=False)
    assert learn.n_steps == 0


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
