"""Folders and tables of pictures in every mode and state: trained on and predicted alike, or refused.

    python -m pytest -s tests/test_pictures.py    prints the table
"""
import json
import warnings
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from nntrain.all import *
from nntrain.cli.pictures import list_pictures, load_pictures
from nntrain.data.images import check_target, load_images
from nntrain.inference.export import load_predictor
from nntrain.inference.inputs import open_item

datasets.disable_progress_bars()
HEIGHT,WIDTH = 4,16
TABLE = []


@pytest.fixture(scope='module', autouse=True)
def place(tmp_path_factory):
    "A cache of its own; at the end the table, for those who look."
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp('cache')
    yield
    datasets.config.HF_DATASETS_CACHE = before
    for row in TABLE: print(' | '.join(row))


def colours(seed=0):
    "Smooth pictures that stay apart in every mode: (h, w, 3)."
    rows,columns = np.mgrid[:HEIGHT,:WIDTH]
    base = np.stack([rows*60, columns*15, (rows+columns+seed)*12], 2)
    return (base % 256).astype(np.uint8)


def picture(mode, seed=0):
    "A picture of a mode of PIL."
    grey = colours(seed)[...,1]
    if mode in ('I;16','I','F'): return deep(mode, grey)
    return Image.fromarray(colours(seed)).convert(mode)


def deep(mode, grey):
    if mode == 'I;16': return Image.fromarray(grey.astype(np.uint16)*257)
    return Image.fromarray(grey.astype(np.int32) if mode == 'I' else grey.astype(np.float32)/255)


def dataset(pictures, labels=None):
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=['a', 'b']))
    labels = [i%2 for i in range(len(pictures))] if labels is None else labels
    return datasets.Dataset.from_dict(dict(image=pictures, label=labels), features=kinds)


def learner(split, flatten=True, **kwargs):
    from functools import partial
    dls = DataLoaders.from_hf_dd(dict(train=split, valid=split), 4, shuffle=False,
                                 collate_fn=partial(hf_ds_collate_fn, flatten=flatten), **kwargs)
    n = next(iter(dls.train))[0][0].numel()
    return Learner(nn.Sequential(nn.Flatten(), nn.Linear(n, 2)), dls, F.cross_entropy, lr=.1)


def said(what, outcome): TABLE.append((what, ' '.join(str(outcome).split())[:200]))


MODES = '1','L','LA','P','PA','RGB','RGBA','CMYK','YCbCr'
DEEP = 'I;16','I','F'


@pytest.mark.parametrize('mode', MODES)
def test_every_mode_is_the_same_in_training_prediction_export_and_files(mode, tmp_path):
    pictures = [picture(mode, seed) for seed in range(4)]
    for flatten,options in ((True, {}), (False, {}), (False, dict(budget=0, num_workers=0))):
        learn = learner(dataset(pictures), flatten, **options)
        learn.fit(1)
        probs = learn.get_preds()[0].softmax(1).max(1).values
        prepare = find_preparation(learn)
        assert prepare.size == (HEIGHT, WIDTH) and not prepare.guessed
        x = torch.cat([batch[0] for batch in learn.dls.valid])
        torch.testing.assert_close(prepare(pictures), x)          # not square, flat or not
        found = torch.tensor([p.probability for p in learn.predict_items(pictures)])
        torch.testing.assert_close(found, probs)
        assert torch.equal(prepare([np.asarray(open_item(p)) for p in pictures]), x)
    grey = mode in ('1','L','LA')
    assert prepare.mode == ('L' if grey else 'RGB')
    wanted = np.asarray(Image.fromarray(np.asarray(pictures[0].convert('L' if grey else 'RGB'))))
    assert torch.equal(x[0], torch.tensor(wanted).reshape(HEIGHT, WIDTH, -1).movedim(2, 0)/255)
    said(mode, f'trained on as {prepare.mode}, predicted the same')


def test_exported_file_takes_the_modes_as_training_did(tmp_path):
    pictures = [picture('P', seed) for seed in range(4)]
    learn = learner(dataset(pictures))
    learn.fit(1)
    predictor = load_predictor(learn.export(tmp_path/'m.pt2'))
    for mode in MODES:
        items = [picture(mode, seed) for seed in range(2)]
        wanted = [p.probability for p in learn.predict_items(items)]
        found = [p.probability for p in predictor(items)]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize('flatten', [True, False])
@pytest.mark.parametrize('options', [{}, dict(budget=0, num_workers=0)])
@pytest.mark.parametrize('size', [(8, 8), (4, 16), (16, 4)])
def test_sides_of_the_two_splits(size, options, flatten):
    "As vectors, 4x16 and 8x8 pixels are the same 64 numbers."
    from functools import partial
    train = dataset([picture('L', seed) for seed in range(4)])
    valid = dataset([picture('L', seed).resize(size[::-1]) for seed in range(4)])
    def load(): return DataLoaders.from_hf_dd(dict(train=train, valid=valid), 4, collate_fn=partial(
        hf_ds_collate_fn, flatten=flatten), **options)
    if not flatten or size == (HEIGHT, WIDTH):
        load()
        return
    with pytest.raises(ValueError, match=f'1x4x16 .*1x{size[0]}x{size[1]}'): load()


def test_a_stream_of_pictures_that_are_not_square():
    pictures = [picture('RGB', seed) for seed in range(4)]
    stream = dataset(pictures).to_iterable_dataset()
    learn = Learner(nn.Linear(3*HEIGHT*WIDTH, 2), DataLoaders.from_hf_dd(dict(train=stream,
        valid=stream), 4), F.cross_entropy, lr=.1)
    learn.fit(1)
    found = torch.tensor([p.probability for p in learn.predict_items(pictures)])
    torch.testing.assert_close(found, learn.get_preds()[0].softmax(1).max(1).values)
    assert find_preparation(learn).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize('mode', DEEP)
def test_more_than_8_bits_are_refused_alike_and_the_cures_work(mode):
    pictures = [picture(mode, seed) for seed in range(4)]
    odd = dataset(pictures)
    with pytest.raises(ValueError, match='expected 8 bits') as training: learner(odd)
    assert "column 'image'" in str(training.value) and 'row 0' in str(training.value)
    plain = learner(dataset([Image.fromarray(colours(seed)[...,1]) for seed in range(4)]))
    with pytest.raises(ValueError, match='expected 8 bits') as prediction:
        plain.predict_items(pictures)
    cured = eval(str(training.value).split('`')[1], dict(dd=odd, eight_bits=eight_bits))
    trained = learner(cured)
    x,wanted = [torch.cat([batch[0] for batch in learn.dls.train]) for learn in (trained, plain)]
    assert torch.equal(x, wanted), mode
    one = eval(str(prediction.value).split('`')[1], dict(picture=pictures[0],
                                                         eight_bits=eight_bits))
    assert torch.equal(find_preparation(plain)([one])[0], wanted[0])
    said(mode, training.value)


def test_deep_arrays_are_refused_as_deep_pictures_are():
    plain = learner(dataset([picture('L')]*4))
    grey = colours()[...,1]
    for array in (grey.astype(np.uint16)*257, torch.tensor(grey.astype(np.int16))*100,
                  grey.astype(np.int64), grey.astype(np.float32), grey[None]*np.ones((2, 1, 1))):
        with pytest.raises(ValueError, match='8 bits|expected 0 to 1|expected .4, 16|of shape'):
            plain.predict_items([array])


def test_a_dark_16_bit_picture_stays_dark():
    dark = Image.fromarray(np.full((4, 4), 10*257, np.uint16))
    assert np.asarray(eight_bits(dark, 0, 65535)).max() == 10
    with pytest.raises(ValueError, match='from 0 to 300, expected 0 to 255'):
        eight_bits(np.array([[0, 300]]), 0, 255)
    with pytest.raises(ValueError, match='nan'): eight_bits(np.array([[0., np.nan]]), 0, 1)
    assert np.asarray(eight_bits(np.array([[-1., 1.]]), -1, 1)).tolist() == [[0, 255]]


def test_transform_that_divides_16_bits_is_used_for_new_pictures_too():
    pictures = [picture('I;16', seed) for seed in range(4)]
    def change(rows): return dict(rows, image=[eight_bits(p, 0, 65535) for p in rows['image']])
    learn = learner(dataset(pictures).with_transform(change))
    learn.fit(1)
    wanted = learn.get_preds()[0].softmax(1).max(1).values
    found = torch.tensor([p.probability for p in learn.predict_items(pictures)])
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match="has pictures of mode I;16"):
        learn.predict_items([picture('L')])


def turned_file(path, orientation, mode='RGB'):
    exif = Image.Exif()
    exif[274] = orientation
    picture(mode).save(path, exif=exif, **(dict(quality=95) if path.suffix == '.jpg' else {}))


@pytest.mark.parametrize('ending', ['.jpg', '.png', '.webp', '.tif'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_orientation_counts_in_training_prediction_and_the_command(ending, orientation, tmp_path):
    for name in 'ab':
        (tmp_path/name).mkdir()
        for i in range(2): turned_file(tmp_path/name/f'{i}{ending}', orientation)
    paths = sorted(map(str, tmp_path.rglob(f'*{ending}')))
    rows = dataset(paths)
    learn = learner(rows, flatten=False)
    size = tuple(next(iter(learn.dls.train))[0].shape[2:])
    assert size == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    prepare,x = find_preparation(learn),next(iter(learn.dls.train))[0]
    opened = [Image.open(path) for path in paths]
    own = torch.stack([hf_ds_collate_fn([dict(i=p)], flatten=False)[0][0] for p in opened])
    for found in (prepare(paths), prepare(opened), own): assert torch.equal(found, x)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        images = load_pictures(list_pictures(tmp_path)).images
    everything = torch.cat([images.train[0], images.valid[0]])
    assert everything.shape[2:] == size and torch.equal(everything[0], x[0])


# ---------------------------------------------------------------- files in every state


def files(folder):
    "Two classes of eight good pictures."
    for name in ('a', 'b'):
        (folder/name).mkdir(parents=True)
        for i in range(8): picture('L', i).save(folder/name/f'{i}.png')
    return folder


def damage(folder, state):
    path = folder/'b'/'3.png'
    whole = path.read_bytes()
    if state == 'truncated': path.write_bytes(whole[:len(whole)//2])
    if state == 'zero bytes': path.write_bytes(b'')
    if state == 'text': path.write_text('no picture')
    if state == 'random': path.write_bytes(bytes(range(256)))
    if state == 'directory': path.unlink(), path.mkdir()
    if state == 'dangling': path.unlink(), path.symlink_to(folder/'nowhere.png')
    if state == 'truncated jpeg': picture('L').save(path, 'jpeg'), path.write_bytes(
        path.read_bytes()[:-30])
    if state == '16 bits': picture('I;16').save(path)
    return path


BROKEN = 'truncated','zero bytes','text','random','truncated jpeg','16 bits'


@pytest.mark.parametrize('state', BROKEN)
def test_a_broken_file_is_named(state, tmp_path):
    path = damage(files(tmp_path/'pics'), state)
    with pytest.raises(ValueError, match='b/3.png') as error: load_pictures(list_pictures(path.parents[1]))
    assert '1 of 16 pictures' in str(error.value) and '--skip-broken' in str(error.value)
    loaded = load_pictures(list_pictures(path.parents[1]), skip_broken=True)
    assert sum(len(part[0]) for part in loaded.images[:2]) == 15
    rows = dataset([str(p) for p in sorted(path.parents[1].rglob('*.png'))], [0]*8 + [1]*8)
    with pytest.raises(ValueError, match="column 'image', row 11") as error: learner(rows)
    with pytest.raises(ValueError, match='3.png' if state != '16 bits' else '8 bits'):
        learner(rows.select([0, 1, 9])).predict_items([path])
    said(state, error.value)


@pytest.mark.parametrize('state', ['directory', 'dangling'])
def test_what_is_no_file_is_no_picture(state, tmp_path):
    path = damage(files(tmp_path/'pics'), state)
    assert len(list_pictures(path.parents[1]).splits['train']) == 15
    said(state, 'no picture of the folder')


@pytest.mark.parametrize('name', ['mit Leerzeichen.png', 'ünïcödé.png', '図.PNG', "it's.png",
                                  'a,b.png', '#1.png', '100%.png', 'x.y.png', '-rf.png', '😀.png'])
def test_names_of_files_and_folders(name, tmp_path):
    folder = files(tmp_path/'pics')
    (folder/'b'/'3.png').rename(folder/'b'/name)
    (folder/'b').rename(folder/name.split('.')[0])
    loaded = load_pictures(list_pictures(folder))
    assert sorted(loaded.images.classes) == sorted(['a', name.split('.')[0]])
    images = load_images(str(folder))
    assert sorted(images.classes) == sorted(loaded.images.classes)
    assert len(images.train[0]) + len(images.valid[0]) == 16


def write_table(folder, kind, labels):
    "A table of sixteen pictures, the label of the fourth and fifth as given."
    import pandas as pd
    names = [f'{name}/{i}.png' for name in 'ab' for i in range(8)]
    table = pd.DataFrame(dict(file_name=names, label=pd.Series(labels, dtype=object)))
    path = folder/f'metadata.{kind}'
    if kind == 'csv': table.to_csv(path, index=False)
    elif kind == 'jsonl': path.write_text('\n'.join(json.dumps(row) for row in
        table.to_dict('records')) + '\n')
    else: table.infer_objects().to_parquet(path)
    return path


#         labels of both classes                    what csv, parquet and jsonl say; None: trained on
LABELS = {'text': (['x', 'y'], {}),
    'numbers': ([0, 1], {}),
    'booleans': ([True, False], {}),
    'whole floats': ([0., 1.], {}),
    'two signs': ([-1, 1], {}),
    'large': ([2**53 + 1, 2**53 + 2], {}),
    'none': ([0, 1, None], dict(every='label')),
    'nan': ([0., 1., float('nan')], dict(every='label')),
    'empty': (['x', 'y', ''], dict(every='label')),
    'None': (['x', 'y', 'None'], dict(every='label')),
    'minus one': ([0, 1, -1], dict(parquet='marks a row', jsonl='marks a row')),
    'price': ([1., 2., 2.5], dict(parquet='is no class', jsonl='is no class')),
    'list': ([[0], [1], [0, 1]], dict(parquet='several values', jsonl='several values'))}


@pytest.mark.parametrize('kind', ['csv', 'parquet', 'jsonl'])
@pytest.mark.parametrize('what', LABELS)
def test_labels_of_tables(what, kind, tmp_path):
    (first,second,*odd),refused = LABELS[what][0],LABELS[what][1]
    labels = [first]*8 + [second]*8
    for value in odd: labels[3] = value
    folder = files(tmp_path/'pics')
    path = write_table(folder, kind, labels)
    message = refused.get('every') or refused.get(kind)
    def load():
        listing = list_pictures(path) if kind != 'jsonl' else None
        if listing is None: return load_images(str(folder))
        return load_pictures(listing).images
    if message is None:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            images = load()
        assert len(images.train[0]) + len(images.valid[0]) == 16
        assert not {*images.classes} & {'None', 'nan', ''}
        return said(f'{kind}: {what}', f'classes {images.classes}')
    with pytest.raises(ValueError, match=message) as error: load()
    text,row = str(error.value),0 if what == 'list' else 3
    assert f'row {row}' in text or f'a/{row}.png' in text, text
    if kind != 'jsonl': assert f'a/{row}.png' in text, text    # the command names the file
    said(f'{kind}: {what}', text)


def test_a_missing_file_of_a_table_is_named(tmp_path):
    path = write_table(files(tmp_path/'pics'), 'csv', [0]*8 + [1]*8)
    (path.parent/'b'/'3.png').unlink()
    with pytest.raises(ValueError, match='b/3.png'): load_pictures(list_pictures(path))


#                 values, type, what is said (None: taken as they are)
TARGETS = {'classes': ([0, 1], datasets.ClassLabel(names=['x', 'y']), None),
    'integers': ([0, 5], 'int64', None), 'beyond 2**53': ([2**53 + 1, 0], 'int64', None),
    'quantities': ([.5, -1.], 'float64', None), 'negative': ([-1, -2], 'int64', None),
    'lists': ([[0., 1.], [1., 0.]], datasets.List(datasets.Value('float32')), None),
    'unlabelled': ([0, -1], datasets.ClassLabel(names=['x', 'y']), 'row 1: -1'),
    'none': ([0, None], datasets.ClassLabel(names=['x', 'y']), 'row 1: None'),
    'named None': ([0, 1], datasets.ClassLabel(names=['x', 'None']), 'row 1: 1'),
    'missing number': ([0, None], 'int64', 'row 1: None'),
    'minus one': ([3, -1], 'int64', 'row 1: -1'),
    'nan': ([0., float('nan')], 'float32', 'row 1: nan'),
    'infinite': ([0., float('inf')], 'float64', 'row 1: inf'),
    'beyond float32': ([0., 1e300], 'float64', 'row 1: 1e'),
    'text': (['x', 'y'], 'string', "row 0: 'x' is text"),
    'empty text': (['x', ''], 'string', "row 1: '' is no label"),
    'booleans': ([True, False], 'bool', 'row 0: True'),
    'ragged': ([[0], [1, 2]], datasets.List(datasets.Value('int64')), 'row 1.*make no tensor'),
    'empty list': ([[], [1]], datasets.List(datasets.Value('int64')), 'row 1.*make no tensor'),
    'none in a list': ([[0., 1.], [None, 1.]], datasets.List(datasets.Value('float32')), 'row 1: '),
    'nan in a list': ([[0., 1.], [float('nan'), 1.]], datasets.List(datasets.Value('float32')),
                      'row 1: .nan'),
    'beyond in a list': ([[0., 1.], [1e300, 1.]], datasets.List(datasets.Value('float64')),
                         'row 1: .1e'),
    'unlabelled in a list': ([[0, 1], [1, -1]], datasets.List(datasets.ClassLabel(
        names=['x', 'y'])), 'row 1: .* -100'),
    'grids': ([[[0., 1.]], [[1., 0.]]], datasets.Array2D((1, 2), 'float32'), None),
    'blurred': ([2.**24 + 1, 2.**24 + 2], 'float64', 'row 0: 16777217.0 becomes 16777216'),
    'far from 0': ([1.7e9, 1.7e9 + 60], 'float64', 'row 1: .* blurs'),
    'close to 0': ([1e-60, 3e-60], 'float64', 'row 0: 1e-60 becomes 0.0'),
    'large and apart': ([1.6e9, 1.7e9], 'float64', None)}


def test_a_target_beyond_int64():
    with pytest.raises(ValueError, match='row 1: 9.*beyond int64'):
        check_target([0, 2**63], datasets.Value('uint64'), 'label')


@pytest.mark.parametrize('what', TARGETS)
@pytest.mark.parametrize('budget', [None, 0])
def test_targets_of_a_dataset(what, budget):
    values,kind,message = TARGETS[what]
    kinds = datasets.Features(x=datasets.Value('float32'), label=datasets.Value(kind)
                              if isinstance(kind, str) else kind)
    rows = datasets.Dataset.from_dict(dict(x=[0.]*len(values), label=values), features=kinds)
    def load(rows):
        dls = DataLoaders.from_hf_dd(dict(train=rows, valid=rows), 2, shuffle=False, budget=budget)
        return next(iter(dls.train))[1]
    if message is None:
        found = load(rows)
        assert found.tolist() == values
        return said(f'target: {what}', found.dtype)
    with pytest.raises((ValueError, TypeError), match=message) as error: load(rows)
    text = str(error.value)
    assert "column 'label'" in text
    said(f'target: {what}', text)
    cures = [part for part in text.split('`')[1::2] if part.startswith('dd.c')]
    if what == 'text': cures = [f'{cures[0]}']
    for cure in cures:
        dd = eval(cure, dict(dd=datasets.DatasetDict(train=rows), datasets=datasets))
        load(dd['train'])
