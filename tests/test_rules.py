"""Each rule of tools/check.py is seen to fail on a planted fault, and to pass without it."""
import json

import pytest

import check
import pages


def page(tmp_path, monkeypatch, *cells, name='training/01_thing', module='training.thing'):
    "A page made of the sources of its code cells."
    monkeypatch.setattr(pages, 'NBS', tmp_path)
    path = tmp_path/f'{name}.ipynb'
    path.parent.mkdir(parents=True, exist_ok=True)
    sources = [f'#| default_exp {module}', *cells]
    path.write_text(json.dumps(dict(cells=[
        dict(cell_type='code', id=f'c{i}', metadata={}, outputs=[], source=source)
        for i, source in enumerate(sources)])))
    return pages.Page(path)


def messages(found): return [message for _, _, message in found]


@pytest.mark.parametrize('module, line, wrong', [
    ('training.thing', 'from nntrain.learner import Learner', False),
    ('training.thing', 'from nntrain.tracking.recorder import RecorderS', True),
    ('training.thing', 'from nntrain.inspect.timing import stopwatch', True),
    ('training.thing', 'from nntrain.all import Learner', True),
    ('training.thing', 'from nntrain.nowhere import x', True),
    ('pubsub', 'import torch', True), ('pubsub', 'import math', False),
    ('learner', 'from nntrain.metrics import MetricsS', True)])
def test_layers(tmp_path, monkeypatch, module, line, wrong):
    found = check.check_layers([page(tmp_path, monkeypatch, f'#| export\n{line}', module=module)])
    assert bool(messages(found)) == wrong


def test_a_sibling_subscriber(tmp_path, monkeypatch):
    one = page(tmp_path, monkeypatch, '#| export\nclass OneS(Subscriber): pass',
               name='training/01_one', module='training.one')
    two = page(tmp_path, monkeypatch, '#| export\nfrom nntrain.training.one import OneS\n'
               'class TwoS(Subscriber): pass', name='training/02_two', module='training.two')
    assert 'sibling' in ''.join(messages(check.check_layers([one, two])))


def test_cycle(tmp_path, monkeypatch):
    one = page(tmp_path, monkeypatch, '#| export\nfrom nntrain.data.two import a',
               name='data/01_one', module='data.one')
    two = page(tmp_path, monkeypatch, '#| export\nfrom nntrain.data.one import b',
               name='data/02_two', module='data.two')
    assert 'import each other' in ''.join(messages(check.check_cycles([one, two])))


CHAIN = '#| export\nclass _Base: pass\nclass Thing(_Base): pass'


@pytest.mark.parametrize('more, wrong', [('', True), ('\nclass Other(_Base): pass', False),
                                         ('\nthing = _Base()', False)])
def test_base_of_one_class(tmp_path, monkeypatch, more, wrong):
    found = messages(check.check_bases([page(tmp_path, monkeypatch, CHAIN + more)]))
    assert bool(found) == wrong


def test_private_name_of_another_module(tmp_path, monkeypatch):
    owner = page(tmp_path, monkeypatch, '#| export\nclass A:\n    def _secret(self): pass',
                 name='data/01_a', module='data.a')
    reader = page(tmp_path, monkeypatch, '#| export\ndef f(a): return a._secret()',
                  name='data/02_b', module='data.b')
    importer = page(tmp_path, monkeypatch, '#| export\nfrom nntrain.data.a import _hidden',
                    name='data/03_c', module='data.c')
    assert messages(check.check_private([owner])) == []
    assert '_secret' in ''.join(messages(check.check_private([owner, reader])))
    assert '_hidden' in ''.join(messages(check.check_private([owner, importer])))


def test_main_name_runs_early(tmp_path, monkeypatch):
    definition = '#| export\ndef thing(): return 1'
    early = page(tmp_path, monkeypatch, definition, 'import torch', 'thing()')
    late = page(tmp_path, monkeypatch, definition, *['1 + 1']*5, 'thing()')
    assert messages(check.check_main_name(early, 'thing')) == []
    assert 'does not run' in ''.join(messages(check.check_main_name(late, 'thing')))


@pytest.mark.parametrize('source, word', [
    ('from nntrain.x import *', 'no `*`'), ('from nntrain.x import save', 'hides torch.save'),
    ('from nntrain.x import sum', 'hides a name of Python'),
    ('from nntrain.x import a\nfrom nntrain.y import a', 'comes twice'),
    ('from nntrain.x import ' + ', '.join(f'name{i}' for i in range(161)), '161 names')])
def test_names_of_all(source, word):
    assert word in ''.join(check.check_all(source))
    assert [*check.check_all('from nntrain.x import Learner')] == []


def test_long_line(tmp_path, monkeypatch):
    found = messages(check.check_lines(page(tmp_path, monkeypatch, 'x = ' + '1'*100)))
    assert found == ['line of 104 columns']
