"""Runs, checkpoints and files of an nntrain that wrote less: they load and go on, or say what to do.

    python -m pytest -q tests/test_old_runs.py
"""
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nntrain.all import *
from nntrain.checkpoint.format import read_checkpoint, write_checkpoint
from nntrain.cli.main import main

TRAIN = ['train', '--data', 'pictures', '--model', 'linear', '--bs', '8', '--lr', '0.05', '--out']


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A folder with 24 pictures and a run of one epoch."
    folder = tmp_path_factory.mktemp('home')
    for i in range(24):
        path = folder/'pictures'/'ab'[i%2]/f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (8, 8), 20 + 200*(i%2) + i%5).save(path)
    (folder/'elsewhere').mkdir()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action='ignore'):
        patch.chdir(folder)
        assert main([*TRAIN, 'run', '--epochs', '1']) == 0
    return folder


def aged(home, tmp_path, name, *gone):
    "A copy of the run whose file `name` lacks some keys."
    shutil.copytree(home/'run', tmp_path/'old')
    path = tmp_path/'old'/name
    kept = {k: v for k,v in json.loads(path.read_text()).items() if k not in gone}
    path.write_text(json.dumps(kept))
    return tmp_path/'old'


def called(capsys, *words):
    code = main([*map(str, words)])
    said = capsys.readouterr()
    return code,said.out,said.err


EVERY = 'place','pixels_divided_by','options','result','versions'
OLD = {**{key: ('model.json', key) for key in EVERY}, 'all': ('model.json', *EVERY),
    'fingerprint': ('run.json', 'images'), 'curve': ('run.json', 'curve'),
    'versions of the run': ('run.json', 'versions')}


@pytest.mark.parametrize('from_here, what', [
    pytest.param(here, what, marks=[pytest.mark.faults]*(here and what in EVERY[1:]))
    for here in (True, False) for what in OLD])   # 'all' lacks each of EVERY
def test_a_run_without_a_key(home, tmp_path, capsys, monkeypatch, what, from_here):
    old = aged(home, tmp_path, *OLD[what])
    monkeypatch.chdir(home if from_here else home/'elsewhere')
    pictures = 'pictures' if from_here else '../pictures'
    code,out,err = called(capsys, 'predict', old, f'{pictures}/b/1.png')
    assert code == 0 and ': b (' in out, err
    assert called(capsys, 'validate', home/'run')[1].endswith('on 5 images\n')
    code,out,err = called(capsys, 'validate', old)
    if what in ('place', 'all'):   # a name alone may be another folder's, or one of the hub
        assert code == 2 and 'give --data' in err, out
        assert what == 'all' or "'pictures'" in err
        code,out,err = called(capsys, 'validate', old, '--data', pictures)
        n = 5 if what == 'place' and from_here else 24     # its own, or all of a folder
    else: n = 5
    assert code == 0 and out.endswith(f'on {n} images\n'), (out, err)
    if not from_here: return
    for words in (['show', old], ['export', old], ['report', old]):
        assert called(capsys, *words)[0] == 0, words
    code,out,err = called(capsys, *TRAIN, old, '--epochs', '2')
    assert code == 0 and 'goes on from' in out, err
    info = json.loads((old/'model.json').read_text())
    assert set(EVERY) < set(info) and info['result']['epoch'] == 1


def learner(folder=None, **kwargs):
    torch.manual_seed(0)
    x,y = torch.randn(24, 4),torch.arange(24)%3
    dls = DataLoaders(DataLoader(TensorDataset(x, y), 4, shuffle=True),
                      TensorLoader(x, y, batch_size=8))
    subs = [CheckpointS(folder, every_steps=4, keep=9)] if folder else []
    return Learner(nn.Linear(4, 3), dls, F.cross_entropy, torch.optim.Adam, 0.01, subs=subs)


NEWER = {'sizes': {}, 'orders': {}, 'settings': {}, 'lr': {}, 'data_epochs': {}, 'run': {},
         'frozen': {}}


@pytest.mark.parametrize('gone', [*[(name,) for name in NEWER], tuple(NEWER)])
@pytest.mark.parametrize('step', [4, 8, 12])
def test_a_checkpoint_without_a_key(tmp_path, gone, step):
    whole = learner(tmp_path/'new')
    whole.fit(2)
    wanted = whole.model.weight.detach()
    paths = {int(path.name.split('-')[1]): path for path in (tmp_path/'new').glob('step-*')}
    state,info = read_checkpoint(paths[step]),json.loads(
        (paths[step]/'MANIFEST.json').read_text())['info']
    old = tmp_path/'old'/paths[step].name
    old.parent.mkdir()
    write_checkpoint(old, {k: v for k,v in state.items() if k not in gone}, info)
    again = learner(tmp_path/'old')
    again.fit(2, resume=True)
    assert torch.equal(again.model.weight, wanted)


def test_an_exported_file_that_does_not_say_whether_sides_are_a_guess():
    from nntrain.inference.export import Predictor
    kept = dict(mode='L', size=[8, 8], flatten=True)
    info = dict(format=1, classes=['a', 'b'], shape=[64], dtype='float32', preparation=kept)
    old = Predictor(lambda x: x[:,:2], info)
    assert old.preparation.shape == (64,) and not old.preparation.guessed
    assert len(old([Image.new('L', (16, 16))])) == 1
