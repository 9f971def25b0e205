"""Names of metrics, validation sets, subscribers, classes and files in every output: a name is
shown as text. HTML and SVG keep the structure that an innocent name gives, a table of
comma-separated values its cells, TensorBoard its tags, a terminal its lines."""
import ast
import csv
import io
import warnings
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from importlib.util import find_spec
from types import SimpleNamespace
from unittest.mock import patch
from xml.etree import ElementTree

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nntrain.all import *
from nntrain.cli.run_folder import history_csv
import nntrain.data.decode
from nntrain.inference.inputs import as_predictions
from nntrain.inspect.loop import Table
from nntrain.progress import LossCurve, NotebookScreen, html_table
from nntrain.tracking.history import compare

NAMES = ['<script>alert(1)</script>', '=cmd()', '\x1b[2J\x1b]0;x\x07', 'a\nb\r\nc',
         'cat\u202egnp.exe', '$\\frac$', '\ud800']
MORE = ['"><img src=x onerror=alert(1)>', "' onload='x", '&lt;b&gt;', '+1', '-2+3', '@SUM(A1)',
        '＝1', ' =1', '\x9b2J', 'a\rb', 'a\tb', '\u200f\u2066x', '\x00x', 'a$b$c', '{0}{x}',
        '%s%n', '|a|b|','a"); import os; x("', "a\'\'\'b"]
QUICK = ['<script>alert(1)</script>', '\x1b[2J\x1b]0;x\x07', '$\\frac$', '\ud800']  # in plots


def names(quick):
    "Those of `quick`, and with the mark `faults` all others."
    return pytest.mark.parametrize('name', [name if name in quick else pytest.param(
        name, marks=pytest.mark.faults) for name in NAMES + MORE], ids=ascii)


class Shape(HTMLParser):
    "The tags of a page and the names of their attributes."
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()
    def handle_starttag(self, tag, attrs): self.found.append((tag, *(name for name, _ in attrs)))
    def handle_endtag(self, tag): self.found.append(f'/{tag}')
    def handle_comment(self, text): self.found.append('comment')


def lines_of(text):
    "The number of lines; every character in them is shown, but for the colours of the library."
    text = text.replace('\033[2m', '').replace('\033[0m', '')
    shown = [part for line in text.split('\n') for part in line.split('\r')]  # a bar goes back
    assert all(part.isprintable() for part in shown), [ascii(part) for part in shown]
    return text.count('\n')


def html_of(text):
    shown = text.replace('\n', ' ')
    assert shown.isprintable(), [ascii(c) for c in shown if not c.isprintable()]
    text.encode()
    return Shape(text).found


def svg_of(text):
    html_of(text)
    return [(element.tag, *element.attrib) for element in ElementTree.fromstring(text).iter()]


def csv_of(text):
    lines = [*csv.reader(io.StringIO(text))]
    for cell in sum(lines, []):
        assert cell.isprintable(), ascii(cell)
        try: float(cell)
        except ValueError: assert cell.lstrip(' ')[:1] not in set('=+-@\t\r\n＝＋－＠'), cell
    return [len(line) for line in lines]


def tags_of(tags):
    assert all(tag.isprintable() for tag in tags), tags
    return len(tags)


def code_of(text):
    nodes = [*ast.walk(ast.parse(text))]
    calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    imports = [ast.unparse(node) for node in nodes
               if isinstance(node, (ast.Import, ast.ImportFrom))]
    return sorted(calls), imports


KINDS = dict(text=lines_of, html=html_of, svg=svg_of, csv=csv_of, tags=tags_of, code=code_of)


@contextmanager
def in_a_notebook():
    "fastprogress finds the names that it has in a notebook alone."
    with ExitStack() as stack:
        for name in ('display', 'HTML'): stack.enter_context(patch(
            f'fastprogress.fastprogress.{name}', lambda *args, **kwargs: SimpleNamespace(
                update=lambda *args: None), create=True))
        yield


class Screen(io.StringIO):
    def isatty(self): return True


def outputs(name, folder):
    "Kind -> name of an output -> what it is with `name` wherever a user may put one."
    out = {kind: {} for kind in KINDS}
    x, y = torch.randn(8, 2), torch.arange(8) % 2
    def metric(preds, y): return (preds.argmax(1) == y).float().mean()
    word = name.encode('utf-8', 'ignore').decode().replace('\0', '').replace('.', '') or 'x'
    cls = type(word, (Subscriber,), dict(before_fit=lambda self, learn: None))
    dls = SimpleNamespace(train=[(x, y)], valid={name: [(x, y)], 'b': [(x, y)]})
    model = nn.Sequential()
    model.add_module(word, nn.Linear(2, 2))
    loss = lambda preds, y: F.cross_entropy(preds, y)
    loss.__name__ = word
    recorder = RecorderS()
    measured = MetricsS(**{name: metric})
    (folder/'csv').mkdir(parents=True)
    loggers = [CSVLoggerS(folder/'csv'/'rows.csv')]
    if find_spec('tensorboard'): loggers.append(TensorBoardS(folder/'events'))
    learn = Learner(model, dls, loss, torch.optim.SGD, 0.01, [measured, recorder, cls()])
    learn.on('after_batch', lambda learn: learn.log(f'{name} 2', 1.))
    text, html = out['text'], out['html']

    for kind in ('rows', 'terminal', 'notebook'):
        with redirect_stdout(Screen()) as said, patch('nntrain.progress.screen_kind', lambda: kind):
            shown = ProgressS()
            shown.seconds = -1
            if kind == 'notebook':
                draw = NotebookScreen.draw
                def drawn(self, curve):
                    draw(self, curve)
                    html['progress'] = self.master.text
                    if self.bar is not None: html['bar'] = self.bar.progress
                with patch.object(NotebookScreen, 'draw', drawn), in_a_notebook():
                    learn.fit(2, subs=shown)
            else:
                learn.fit(2, subs=[shown, *loggers] if kind == 'rows' else shown)
                text[kind] = said.getvalue()
    with redirect_stdout(Screen()) as said: learn.fit(1)
    text['metrics'] = said.getvalue()
    with redirect_stdout(io.StringIO()) as said: learn.fit(
        4, subs=EarlyStoppingS(f'valid {name} loss', patience=1, min_delta=99.))
    text['stopped'] = said.getvalue()
    text |= dict(learner=repr(learn), metrics_of=repr(measured), history=str(recorder.history),
                 history_line=repr(recorder.history), loop=str(learn.show_loop()),
                 dls=repr(DataLoaders([(x, y)], {name: [(x, y)]})))
    with redirect_stdout(Screen()): text['loop_dim'] = repr(learn.show_loop())
    out['svg']['loop'] = learn.show_loop()._repr_svg_()
    html['history'] = recorder.history._repr_html_()
    with redirect_stdout(io.StringIO()):
        tables = dict(explain=learn.explain(), summary=learn.summary(), check=learn.check(),
                      table=Table([{name: name, 'b': 1}]))
    for which, table in tables.items(): text[which], html[which] = repr(table), table._repr_html_()
    html['rows'] = html_table([{name: name, 'loss': 1.}])
    text['prediction'] = repr(as_predictions(torch.tensor([[0.9, 0.1]]), [name, 'b'])[0])
    with redirect_stderr(Screen()) as said: nntrain.data.decode._show_progress(name, 10, 10, 0)
    text['decoding'] = said.getvalue()
    with io.StringIO() as file:
        recorder.history.to_csv(file)
        out['csv']['history'] = file.getvalue()
    out['csv']['logger'] = (folder/'csv'/'rows.csv').read_text('utf-8')
    out['csv']['command'] = history_csv([{name: name, 'loss': 1.}]).decode()
    if find_spec('tensorboard'):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        found = EventAccumulator(str(folder/'events')).Reload()
        out['tags']['tensorboard'] = found.Tags()['scalars']
    plain = SimpleNamespace(train=[(x, y)], valid=[(x, y)])
    out['code']['as_code'] = Learner(nn.Linear(2, 2), plain, F.cross_entropy, torch.optim.SGD, 0.01,
                                     MetricsS(**{name: accuracy})).as_code()
    return out


@pytest.fixture(scope='module')
def innocent(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return outputs('plain', tmp_path_factory.mktemp('names')/'plain')


@names(NAMES)
def test_name_in_every_output(name, innocent, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = outputs(name, tmp_path)
    for kind, measure in KINDS.items():
        assert found[kind].keys() == innocent[kind].keys()
        for which, text in found[kind].items():
            assert measure(text) == measure(innocent[kind][which]), f'{which}: {text}'[:2000]


def test_there_are_many(innocent): assert sum(map(len, innocent.values())) > 30


@names(QUICK)
def test_name_in_plots(name):
    from matplotlib import pyplot
    x, y = torch.randn(8, 4), torch.arange(8) % 2
    recorder, curve = RecorderS(), LossCurve()
    dls = DataLoaders([(x, y)], [(x, y)])
    dls.classes = [name, f'{name} 2']
    two = DataLoaders([(x, y)], {name: [(x, y)], 'b': [(x, y)]})
    learn = Learner(nn.Linear(4, 2), two, F.cross_entropy, torch.optim.SGD, 0.01,
                    [MetricsS(**{name: accuracy}), recorder])
    shown = Learner(learn.model, dls, F.cross_entropy)
    with redirect_stdout(io.StringIO()): learn.fit(2)
    curve.points, curve.valid = [(1, 1.), (2, 1.)], {name: [(1, 1.)]}
    history = recorder.history
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', 'Glyph')  # a font may lack it
        curve._repr_png_()
        history.plot_metrics(), history.plot_loss(), compare(history, history)
        shown.plot_confusion(), shown.show_results(), shown.top_losses(2), shown.show_batch()
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            figure.savefig(io.BytesIO(), format='svg')
            figure.set_layout_engine('none')   # where everything stands is known by now
            figure.savefig(io.BytesIO(), format='png', dpi=50)
    pyplot.close('all')
