"""The guide for users of fastai has a row for every name of fastai's loop, and names what exists."""
import json
import re
from pathlib import Path

import pytest

import nntrain.all
from nntrain.all import synth_learner

ROOT = Path(__file__).resolve().parent.parent
FASTAI = json.loads((ROOT/'tests/fastai_names.json').read_text())
KINDS = [kind for kind in FASTAI if kind not in ('source', 'version')]


def rows():
    "(names of fastai, names of nntrain or None for the same, note) of each row of the guide."
    page = json.loads((ROOT/'nbs/guides/01_from_fastai.ipynb').read_text(encoding='utf-8'))
    text = '\n'.join(''.join(cell['source']) for cell in page['cells']
                     if cell['cell_type'] == 'markdown')
    quoted = lambda cell: [re.sub(r'^self\.|\(.*| = .*', '', name)
                           for name in re.findall('`([^`]+)`', cell)]
    for line in text.splitlines():
        if not line.startswith('| ') or line.startswith(('| fastai', '| |')): continue
        theirs, ours, *note = [cell.strip() for cell in line.strip('|').split(' | ')]
        same = ours.startswith('the same')
        yield quoted(theirs), None if same else quoted(ours), ' '.join(note).strip('| ')


def test_the_list_is_that_of_a_release():
    assert FASTAI['version'] == '2.8.12' and FASTAI['source'].startswith('https://github.com/')
    assert [len(FASTAI[kind]) for kind in KINDS] == [24, 7, 83, 6, 20]


@pytest.mark.parametrize('kind', KINDS)
def test_every_name_has_a_row(kind):
    there = {name for theirs, _, _ in rows() for name in theirs}
    assert sorted(set(FASTAI[kind]) - there) == []


def test_what_takes_its_place_exists():
    learn = synth_learner()
    known = {*dir(learn), *learn.events, *dir(nntrain.all), *dir(nntrain.all.Subscriber)}
    for theirs, ours, note in rows():
        missing = [name for name in (theirs if ours is None else ours) if name.isidentifier()
                   and name not in known and name not in ('learn', 'subs')]
        assert missing == [], (theirs, missing)
        assert ours is None or ours or note, f'{theirs} has no counterpart and no reason'
