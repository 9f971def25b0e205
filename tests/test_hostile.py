"""Damaged and hostile files, a table of them: each ends within two seconds of the processor and
300 MB in `FileError` or in the right result, and nothing on the disk changes. `-m faults` adds
six sevenths of the table's second half and 2,000 random edits, whose seeds are printed."""
import json
import os
import random
import resource
import shutil
import signal
import time
import warnings
import zlib
import zipfile
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO

import numpy as np
import pytest
import torch
from torch import nn

from nntrain.checkpoint.checkpoint import CheckpointS
from nntrain.checkpoint.files import FileError, FileReader
from nntrain.checkpoint.folder import best_of, checkpoints, resume, show_checkpoints
from nntrain.checkpoint.format import (CheckpointError, difference, read_checkpoint, read_manifest,
                                       write_checkpoint)
from nntrain.checkpoint.weights import load_model, save_model
from nntrain.cli.models import build_model
from nntrain.cli.options import config_text, read_config
from nntrain.cli.report import report_html
from nntrain.cli.resume import begin, is_complete, read_begun, show_run
from nntrain.cli.run_folder import load_run, read_info, run_predictor, write_run
from nntrain.dataloaders import DataLoaders, TensorLoader
from nntrain.inference.export import load_predictor
from nntrain.learner import Learner
from nntrain.lrfind import LRCurve
from nntrain.state import copied
from nntrain.tracking.history import History

STATE = dict(position=dict(level='epoch', epoch=1), clocks=dict(n_steps=3), lr=0.1,
             weights=torch.linspace(0, 1, 50), betas=(0.9, float('nan')), counts={0: 1})
FILES = 'MANIFEST.json', 'state.json', 'tensors.safetensors'
ODD = [None, -1, 2**70, 1.5, True, 'load', [], [[]], {}, {'a': {}}, '\x1b[2J']


class Late(BaseException): pass


def late(*args): raise Late


@contextmanager
def bounded(megabytes=300):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, handler = time.process_time(), signal.signal(signal.SIGALRM, late)
    signal.alarm(30)  # of the clock, as the machine may be busy: it hangs
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes*1024


def listing(folder):
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            about = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = about.st_mode, about.st_size, about.st_mtime_ns
    return found


def forge(path, name, data):
    "Put `data` into a file, and let the manifest agree."
    (path/name).write_bytes(data)
    manifest = json.loads((path/'MANIFEST.json').read_text())
    manifest['files'][name] = dict(size=len(data), crc32=zlib.crc32(data))
    sign(path, manifest)


def sign(path, manifest):
    rest = {key: value for key, value in manifest.items() if key != 'crc32'}
    manifest['crc32'] = zlib.crc32(json.dumps(rest, sort_keys=True).encode())
    (path/'MANIFEST.json').write_text(json.dumps(manifest))


def header(about):
    text = json.dumps(about).encode()
    return len(text).to_bytes(8, 'little') + text


def replaced(kind):
    def change(path, name):
        data = (path/name).read_bytes()
        (path/name).unlink()
        if kind == 'folder': (path/name).mkdir()
        elif kind == 'pipe': os.mkfifo(path/name)
        elif kind in LINKS: (path/name).symlink_to(LINKS[kind])
        elif kind != 'missing': (path/name).write_bytes(DAMAGE[kind](data))
    return change


LINKS = dict(zero='/dev/zero', hostname='/etc/hostname', dangling='nowhere', loop='MANIFEST.json')
DAMAGE = dict(empty=lambda d: b'', half=lambda d: d[:len(d)//2], cut=lambda d: d[:-1],
              longer=lambda d: d + b'}', flip=lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:],
              zip=lambda d: b'PK\3\4' + d, zeros=lambda d: bytes(len(d)), utf16=lambda d:
              d.decode('latin1').encode('utf-16'), pickle=lambda d: b"cos\nsystem\n(S'id'\ntR.",
              deep=lambda d: b'['*100_000, many=lambda d: b'[' + b'[],'*3_000_000 + b'1]',
              long=lambda d: b'"' + b'x'*30_000_000 + b'"', digits=lambda d: b'9'*1_000_000)
TENSORS = [(10**12).to_bytes(8, 'little') + b'{}', header({'x': 1}), header({'x': {}}), header([]),
           *(header({'x': dict(dict(dtype='U8', shape=[1], data_offsets=[0, 1]), **{key: odd})})
             for key in ('dtype', 'shape', 'data_offsets') for odd in (*ODD, [10**12], [0, 10**12])),
           header({'__metadata__': {'a': 1}}), header({'__metadata__': []})]
TREES = [[], 1, 'x', {'~object': 'os.system'}, {'a': {'~dtype': 'load'}}, {'a': {'~tensor': 'no'}},
         {'a': {'~tensor': []}}, {'a': {'~float': 'x'}}, {'a': {'~tuple': 1}}, {'a': {'~dict': [1]}},
         {'a': {'~dict': [[[], 1]]}}, {'a': {'~array': 'weights', 'dtype': 'O', 'shape': [1]}},
         {'a': {'~array': 'weights', 'dtype': 'f8,f8', 'shape': [1], 'scalar': False}},
         {'a': {'~array': 'weights', 'dtype': 'u1', 'shape': [10**12], 'scalar': False}},
         {'a': {'~tensor': 'weights', 'order': [7]}}, {'a': {'~tensor': 'weights', 'order': 'x'}},
         *({'position': odd} for odd in ODD), *({'clocks': {'n_steps': odd}} for odd in ODD
                                                if odd is not True),
         *({'run': {'finished': odd}} for odd in ODD if odd is not True),
         *({'position': {'level': odd, 'epoch': 1}} for odd in ODD)]


def cases():
    "Name, and what it does to the folder of a checkpoint."
    for name in FILES:
        for kind in ('missing', 'folder', 'pipe', *LINKS, *DAMAGE):
            yield f'{name} {kind}', lambda path, n=name, k=kind: replaced(k)(path, n)
    for i, data in enumerate(TENSORS):
        yield f'tensors {i}', lambda path, d=data: forge(path, 'tensors.safetensors', d)
    for i, tree in enumerate(TREES):
        yield f'tree {i}', lambda path, t=tree: forge(path, 'state.json', json.dumps(t).encode())
    for field in ('format', 'version', 'info', 'versions', 'files'):
        for i, odd in enumerate(ODD):
            if field in ('info', 'versions') and type(odd) is dict: continue
            if field == 'version' and odd is True: continue  # equal to 1
            def change(path, field=field, odd=odd):
                sign(path, {**json.loads((path/'MANIFEST.json').read_text()), field: odd})
            yield f'manifest {field} {i}', change


CASES = dict(cases())


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp('good')/'step-00000003'
    write_checkpoint(path, STATE, dict(value=0.5, larger=False))
    return path


@pytest.mark.parametrize('name', CASES)
def test_checkpoint(name, good, tmp_path):
    path = tmp_path/good.name
    shutil.copytree(good, path)
    CASES[name](path)
    before = listing(tmp_path)
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(FileError) as told: resume(path)
        with pytest.raises(FileError): resume(tmp_path)
        show_checkpoints(tmp_path)
        best_of(tmp_path)
    assert str(path) in str(told.value) and len(str(told.value)) < 1000
    assert listing(tmp_path) == before


@pytest.mark.parametrize('kind', ['missing', 'folder', 'pipe', 'zero', 'dangling', *DAMAGE])
@pytest.mark.parametrize('suffix', ['safetensors', 'pth'])
def test_weights(kind, suffix, tmp_path):
    model, name = nn.Linear(2, 3), f'model.{suffix}'
    if suffix == 'pth': torch.save(model.state_dict(), tmp_path/name)
    else: save_model(model, tmp_path/name)
    weight = model.weight.detach().clone()
    replaced(kind)(tmp_path, name)
    before = listing(tmp_path)
    with bounded():
        try: load_model(model, tmp_path/name)
        except FileError as error: assert name in str(error)
        else: assert suffix == 'pth' and kind in ('longer', 'flip', 'cut')
    assert torch.equal(weight, model.weight) and listing(tmp_path) == before


# --- folders of runs, configurations, exports -----------------------------------------------------

OPTIONS = 'data', 'model', 'epochs', 'bs', 'lr', 'mom', 'seed'


def sampled(cases):
    "Every seventh case; the others under `make test-faults`."
    return [pytest.param(name, marks=[pytest.mark.faults]*(i % 7 > 0)) for i, name in enumerate(cases)]


RUN_FILES = 'model.json', 'run.json', 'model.safetensors', 'history.csv', 'run.toml'


@pytest.fixture(scope='module')
def command_run(tmp_path_factory):
    "A folder as `nntrain train` leaves it, without its pictures."
    folder = tmp_path_factory.mktemp('command')/'run'
    options = dict(data='digits', model='linear', epochs=1, bs=64, lr=0.1, mom=0.9, seed=0)
    begin(folder, dict(options=options, images='abc', lr=0.1, curve=[[0.1, 0.2], [2., 1.]]), new=True)
    info = dict(model='linear', shape=[1, 8, 8], classes=['a', 'b'], options={**options, 'data': 'nowhere'},
                result=dict(epoch=0, loss=1.), versions=dict(torch='2'))
    rows = [dict(epoch=0, mode=mode, loss=1., accuracy=.5) for mode in ('train', 'valid')]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        write_run(folder, build_model('linear', [1, 8, 8], 2), info, rows,
                  LRCurve([.001*1.3**i for i in range(30)], [2. - .05*i for i in range(30)]))
    (folder/'run.toml').write_text(config_text(options, 'of a test'))
    return folder


def looks(folder):
    "Every look at the folder of a run; each returns, or raises FileError."
    for act in (read_info, load_run, read_begun, show_run, run_predictor, report_html,
                lambda f: is_complete(f, 1), lambda f: read_config(f/'run.toml', OPTIONS)):
        try: act(folder)
        except FileError as error: yield str(error)


def run_cases():
    for name in RUN_FILES:
        for kind in ('missing', 'folder', 'pipe', *LINKS, *DAMAGE):
            yield f'{name} {kind}', lambda path, n=name, k=kind: replaced(k)(path, n)
    for name, fields in (('model.json', 'format model shape classes checksum place pixels_divided_by '
                          'options result versions'), ('run.json', 'format options images lr curve versions')):
        for field in fields.split():
            for i, odd in enumerate(ODD):
                def change(path, name=name, field=field, odd=odd):
                    made = json.loads((path/name).read_text())
                    (path/name).write_text(json.dumps({**made, field: odd}))
                yield f'{name} {field} {i}', change
    for i, text in enumerate(['epochs = [[1]]', 'a'*100_000, '[' * 50_000, 'epochs = ' + '['*50_000,
                              'x = 1\n'*2, 'data = "\x1b[2J"', 'epochs = 1e999', '[data]\na = 1']):
        yield f'run.toml text {i}', lambda path, t=text: (path/'run.toml').write_text(t)


RUN_CASES = dict(run_cases())


@pytest.mark.parametrize('name', sampled(RUN_CASES))
def test_run_folder(name, command_run, tmp_path):
    path = tmp_path/'run'
    shutil.copytree(command_run, path)
    RUN_CASES[name](path)
    before = listing(tmp_path)
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        said = [*looks(path)]
    assert all(str(path) in text and len(text) < 1000 for text in said), said
    assert listing(tmp_path) == before


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    "The same learner in every format."
    folder = tmp_path_factory.mktemp('exports')
    x, y = torch.randn(8, 4), torch.arange(8) % 2
    learn = Learner(nn.Linear(4, 2), DataLoaders([(x, y)], [(x, y)]), nn.functional.cross_entropy)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for suffix in ('pt2', 'safetensors', *['onnx']*ONNX): learn.export(folder/f'model.{suffix}')
    return folder


ONNX = bool(find_spec('onnxruntime') and find_spec('onnxscript'))
FIELDS = 'format', 'classes', 'shape', 'dtype', 'preparation', 'normalize'


def zipped(path, change):
    "Write an archive again; `change` takes and returns name -> bytes."
    with zipfile.ZipFile(path) as old: members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, 'w') as new:
        for name, data in change(members).items(): new.writestr(name, data)


def with_info(path, odd):
    "Put fields into the description that a file holds."
    def put(text): return json.dumps({**json.loads(text), **odd})
    if path.suffix == '.pt2': zipped(path, lambda members: {
        name: put(data).encode() if name.endswith('nntrain.json') else data
        for name, data in members.items()})
    elif path.suffix == '.onnx':
        import onnx
        made = onnx.load(path)
        for entry in made.metadata_props:
            if entry.key == 'nntrain': entry.value = put(entry.value)
        onnx.save(made, path)
    else:
        from safetensors.torch import save_file
        tensors, about, _ = FileReader(path).read_tensors()
        save_file(tensors, path, {**about, 'nntrain': put(about['nntrain'])})


def bomb(path):
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as file:
        file.writestr('model/data/weights/weight_9', bytes(400_000_000))


def export_cases():
    for suffix in ('pt2', 'safetensors', *['onnx']*ONNX):
        for kind in ('missing', 'folder', 'pipe', 'zero', 'dangling', *DAMAGE):
            yield f'{suffix} {kind}', suffix, lambda p, k=kind: replaced(k)(p.parent, p.name)
        for field in FIELDS:
            for i, odd in enumerate([*ODD, [10**12], [[1e9]]]):
                yield f'{suffix} {field} {i}', suffix, lambda p, o={field: odd}: with_info(p, o)
    yield 'pt2 bomb', 'pt2', bomb
    for name in ('model.json', 'model_weights_config.json', 'weight_0', 'byteorder', 'archive_version'):
        for kind in ('empty', 'half', 'deep', 'pickle', 'digits', 'zeros'):
            yield f'pt2 {name} {kind}', 'pt2', lambda p, n=name, k=kind: zipped(p, lambda members: {
                m: DAMAGE[k](d) if m.endswith(n) else d for m, d in members.items()})
        yield f'pt2 without {name}', 'pt2', lambda p, n=name: zipped(p, lambda members: {
            m: d for m, d in members.items() if not m.endswith(n)})


EXPORTS = {name: (suffix, change) for name, suffix, change in export_cases()}


@pytest.mark.parametrize('name', sampled(EXPORTS))
def test_export(name, exports, tmp_path):
    suffix, change = EXPORTS[name]
    path, model = tmp_path/f'model.{suffix}', nn.Linear(4, 2)
    shutil.copy(exports/path.name, path)
    change(path)
    before, weight = listing(tmp_path), model.weight.detach().clone()
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: found = load_predictor(path, model)
        except FileError as error: assert str(path) in str(error) and len(str(error)) < 1000
        else:
            repr(found)
            x = torch.ones(1, 4)  # the right result, unless the file says that it is another one
            if found.shape == (4,) and not name.endswith(('weight_0 zeros', 'digits', 'deep')):
                same = load_predictor(exports/path.name, nn.Linear(4, 2)).scores(x)
                if suffix != 'safetensors' or 'normalize' not in name: assert torch.equal(
                    found.scores(x), same)
    assert torch.equal(weight, model.weight) and listing(tmp_path) == before


def test_there_are_enough(): assert len({**CASES, **RUN_CASES, **EXPORTS}) >= 600


# --- a state whose structure lies: each is signed, and only what it says is wrong -----------------

def run_of(folder):
    from types import SimpleNamespace
    from nntrain.tracking.recorder import RecorderS
    from nntrain.training.early_stopping import EarlyStoppingS
    from nntrain.training.schedule import TorchScheduleS
    from nntrain.training.weight_averaging import EMAS
    from nntrain.metrics import MetricsS, accuracy
    torch.manual_seed(1)
    x, y = torch.randn(44, 6), torch.arange(44) % 3
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    dls = SimpleNamespace(train=TensorLoader(x, y, batch_size=8, shuffle=True), valid=[(x, y)])
    steps = TorchScheduleS(lambda opt: torch.optim.lr_scheduler.StepLR(opt, 3))
    learn = Learner(model, dls, nn.functional.cross_entropy, torch.optim.Adam, 0.01, [
        steps, MetricsS(accuracy), RecorderS(), EMAS(0.9), EarlyStoppingS(patience=5)])
    return learn, CheckpointS(folder, every_steps=4, keep=9, background=False)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    learn, saver = run_of(folder)
    learn.fit(2, subs=saver)
    return folder/'step-00000008'


def parts(value, path=()):
    "The places of a nested state, at most two of a list."
    yield path
    if isinstance(value, dict): inner = value.items()
    else: inner = [*enumerate(value)][:2] if isinstance(value, (list, tuple)) else ()
    for key, item in inner: yield from parts(item, (*path, key))


GONE = object()
LIES = dict(gone=GONE, text='x', number=-1, huge=2**62, decimal=0.5, empty={}, items=[],
            more=[[1], 2], tensor=torch.ones(7), dtype=torch.float16, flag=True, array=np.ones(3), none=None)


def lie(value, path, new):
    "A copy of a nested state with `new` at `path`."
    if not path: return new
    key, *rest = path
    items = dict(value) if isinstance(value, dict) else [*value]
    if rest or new is not GONE: items[key] = lie(items[key], rest, new)
    else: del items[key]
    return items if not isinstance(value, tuple) else tuple(items)


def forged_state(seed, state):
    draw = random.Random(seed)
    places = {}
    for path in parts(state):
        if path: places.setdefault(path[:2], []).append(path)
    path = draw.choice(places[draw.choice(sorted(places, key=str))])
    return path, (name := draw.choice(sorted(LIES))), lie(state, path, LIES[name])


def everything(learn): return learn.model.state_dict(), learn.subs, torch.get_rng_state()


def forged_run(seed, run, tmp_path):
    "Go on from a forged checkpoint; what was said, None if it was no error."
    path, kind, state = forged_state(seed, read_checkpoint(run))
    shutil.rmtree(tmp_path/'forged', ignore_errors=True)
    (tmp_path/'forged').mkdir()
    folder = tmp_path/'forged'/run.name
    write_checkpoint(folder, state, read_manifest(run)['info'], fsync=False)
    learn, saver = run_of(tmp_path/'forged')
    files, before = listing(folder), copied(everything(learn))
    where = f'seed {seed}: {".".join(map(str, path))} is {kind}'
    try:
        with bounded(): learn.fit(2, subs=saver, resume=True)
    except CheckpointError as error:
        assert not difference(copied(everything(learn)), before), where
        assert listing(folder) == files, where
        assert str(tmp_path) in str(error) and len(str(error)) < 2000, where
        return where, str(error)
    except Late: raise AssertionError(f'{where}: it hangs')
    except Exception as error: raise AssertionError(f'{where}: {error!r}') from error
    return where, None


def lies(seeds, run, tmp_path):
    "Many of them: how many were refused, and how many went on to the end of the fit."
    said = []
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter('ignore')
        for seed in seeds: said.append(forged_run(seed, run, tmp_path)[1])
    return len([text for text in said if text]), said.count(None)


def test_lies(run, tmp_path):
    refused, went_on = lies(range(40), run, tmp_path)
    assert refused > 30 and refused + went_on == 40


@pytest.mark.parametrize('path, kind, text', [
    (('clocks', 'n_steps'), 'gone', "the state lacks ['clocks.n_steps']"),
    (('position', 'pass'), 'huge', f'`position.pass` {2**62}, and an epoch of this fit has 2'),
    (('objects', 'opt', 'state', 0, 'exp_avg'), 'tensor',
     'tensor (7,) as `objects.opt.state.0.exp_avg`, expected (8, 6)'),
    (('objects', 'opt', 'state', 0, 'step'), 'text',
     "has 'x' as `objects.opt.state.0.step`, expected a number"),
    (('objects', 'model', '0.weight'), 'tensor', '0.weight has (7,) in the state, (8, 6) in the'),
    (('loaders', 'train', 'position'), 'text', "has 'x' as `loaders.train.position`, expected a num"),
    (('subs', 'EarlyStoppingS', 'wait'), 'tensor', 'as `subs.EarlyStoppingS.wait`, expected a num'),
    (('subs', 'MetricsS'), 'text', "has 'x' as `subs.MetricsS`, expected a dict"),
    (('generators', 'torch'), 'tensor', 'the state has'),
    (('gradients',), 'text', "state.json has 'x' as `gradients`, expected a dict")])
def test_what_a_lie_is_told(path, kind, text, run, tmp_path, monkeypatch):
    state = lie(read_checkpoint(run), path, LIES[kind])
    monkeypatch.setitem(globals(), 'forged_state', lambda *_: (path, kind, state))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        said = forged_run(0, run, tmp_path)[1]
    assert said and (text in said or path[0] == 'generators') and 'take another' in said, said
    if path[0] == 'position': return  # which a fit reads
    learn = run_of(tmp_path)[0]
    before = copied(everything(learn))
    with pytest.raises(CheckpointError): learn.load_state_dict(resume(tmp_path/'forged'))
    assert not difference(copied(everything(learn)), before) and learn.opt is None


@pytest.mark.parametrize('text', ['', '{', '[]', 'null', '['*10**5, *(
    json.dumps({**dict(rows=[], passes=[], series={}), field: odd})
    for field in ('rows', 'passes', 'series') for odd in (None, 1, 'x', [1], [[]], {'a': 1}))])
def test_history(text):
    with bounded(), pytest.raises(FileError): History.from_json(text)


@pytest.mark.faults
def test_random_edits(good, tmp_path, record_property):
    wrong, whole, state = 0, 0, read_checkpoint(good)
    for seed in range(2000):
        draw, path = random.Random(seed), tmp_path/f'{seed}'
        shutil.copytree(good, path)
        name = draw.choice(FILES)
        data = bytearray((path/name).read_bytes())
        kind = draw.choice(['flip', 'cut', 'swap', 'insert'])
        if kind == 'flip':
            for _ in range(draw.randint(1, 5)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif kind == 'cut': del data[draw.randrange(len(data)):]
        elif kind == 'swap': data = bytearray((path/draw.choice(FILES)).read_bytes())
        else: data[(i := draw.randrange(len(data))):i] = draw.randbytes(draw.randint(1, 9))
        if name == 'MANIFEST.json' or draw.random() < 0.5: (path/name).write_bytes(data)
        else: forge(path, name, bytes(data))
        try:
            with bounded(): whole += not difference(read_checkpoint(path), state)
        except FileError: wrong += 1
        except BaseException:
            print(f'seed {seed}')
            raise
        shutil.rmtree(path)
    record_property('said', f'2000 random edits, seeds 0 to 1999: {wrong} refused, {whole} read as they were')
    assert wrong > 1000


@pytest.mark.faults
def test_random_lies(run, tmp_path, record_property):
    refused, went_on = lies(range(2000), run, tmp_path)
    record_property('said', f'2000 lies, seeds 0 to 1999: {refused} refused, {went_on} without consequence')
    assert refused > 1500
