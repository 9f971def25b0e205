"""The command as a user has it: installed by pip into an empty folder, in processes of its own.

Where the beginning of a process is not the point, it is a fork of this one, which has torch."""
import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch._dynamo  # noqa: F401 - an optimizer imports it
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = dict(HF_HUB_OFFLINE='1', COLUMNS='80', OMP_NUM_THREADS='1')
QUIET = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking']
STAND_IN = '''
import sys, torch
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType
class StandIn(ModuleType):
    __path__ = ()
    def __getattr__(self, name):
        if name[:2] == '__': raise AttributeError(name)
        return type(name, (torch.nn.Module,), {})
try: import torchvision
except ImportError:
    modes = dict(NEAREST='nearest', BILINEAR='bilinear', BICUBIC='bicubic', BOX='box',
                 HAMMING='hamming', LANCZOS='lanczos')
    for name in ('', '.ops', '.ops.misc', '.transforms', '.transforms.functional', '.datasets',
                 '.models', '.models.feature_extraction', '.utils'):
        module = sys.modules[f'torchvision{name}'] = StandIn(f'torchvision{name}')
        module.InterpolationMode = Enum('InterpolationMode', modes)
        module.__spec__ = ModuleSpec(module.__name__, None)
        parent, _, child = module.__name__.rpartition('.')
        if parent: setattr(sys.modules[parent], child, module)
from nntrain.cli.main import main
sys.exit(main(sys.argv[1:]))'''


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "An empty folder, beside one into which the wheel of this checkout is installed."
    folder = tmp_path_factory.mktemp('user')
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    source = folder/'source'
    source.mkdir()
    names = 'settings.ini', 'setup.py', 'README.md', 'LICENSE', 'MANIFEST.in', 'nntrain', 'tools'
    subprocess.run(['cp', '-r', *(str(ROOT/name) for name in names), str(source)], check=True)
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    subprocess.run([*pip, 'install', '--no-build-isolation', '--no-deps', '--no-index', '--target',
                    str(folder/'site'), str(source)], check=True, env=env, timeout=300)
    (folder/'empty').mkdir()
    return folder/'empty'


def python(place, *words, cwd=None, code=0):
    env = {**os.environ, **OFFLINE, 'PYTHONPATH': str(place.parent/'site')}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd or place, env=env, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout if code == 0 else done.stderr


SEVERAL = """
import contextlib, io, json, sys
from nntrain.cli.main import main
told = []
class Watch(io.StringIO):
    def write(self, text):
        slow = {'torch', 'datasets', 'matplotlib', 'torch._dynamo', 'pandas'}
        if text.strip(): seen.append((text.split()[0], sorted(slow & {*sys.modules})))
        return super().write(text)
for words in json.loads(sys.argv[1]):
    code, seen = 0, []
    with contextlib.redirect_stdout(Watch()) as out, contextlib.redirect_stderr(out):
        try: code = main(words)
        except SystemExit as end: code = end.code
    told.append((code, out.getvalue(), seen[:4]))
print(json.dumps(told))"""


def commands(place, *lines):
    """What commands print, one after the other in one fresh process: torch is imported once.

    For each: its code, the text, and of what it wrote first the word and the slow imports by then."""
    done = python(place, '-c', SEVERAL, json.dumps([line.split() for line in lines]))
    told = json.loads(done.splitlines()[-1])
    for line, (code, text, _) in zip(lines, told): assert code in (0, None, 2), (line, text)
    return told


def fork(place, cwd, stream, act, **more):
    "Call `act` in a fork of this process, in the folder `cwd`, with the installed package; its id."
    pid = os.fork()
    if pid: return pid
    code, site = 1, str(place.parent/'site')
    try:
        for n in range(3): os.dup2(stream, n)
        sys.stdin, sys.stdout, sys.stderr = (
            open(n, mode, encoding='utf-8', closefd=False) for n, mode in enumerate('rww'))
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        os.chdir(cwd)
        for name in OFFLINE: os.environ.pop(name, None)
        os.environ.update({'PYTHONPATH': site, **more})
        ours = str(ROOT), str(ROOT/'tools')
        sys.path[:] = [str(cwd), site, *(path for path in sys.path if path not in ours)]
        for name in [name for name in sys.modules if name.split('.')[0] == 'nntrain']:
            del sys.modules[name]
        import nntrain
        assert Path(nntrain.__file__).is_relative_to(site), nntrain.__file__
        code = act()
    except SystemExit as end: code = end.code
    except BaseException: traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def command(*words):
    "`python -m nntrain` with these words."
    sys.argv = ['nntrain', *words]
    runpy.run_module('nntrain', run_name='__main__', alter_sys=True)


@pytest.fixture(scope='module')
def pets(place):
    "600 pictures of three classes and of many sizes, three of them broken."
    folder = place/'pets'
    colours = dict(cat='red', dog='green', fox='blue')
    for i in range(600):
        name = [*colours][i % 3]
        (folder/name).mkdir(parents=True, exist_ok=True)
        picture = Image.new('RGB', (24 + i % 17, 20 + i % 13), colours[name])
        picture.putpixel((i % 20, i % 20), (i % 256, 99, 99))
        picture.save(folder/name/f'{i:03}.png')
    for i, data in (0, b''), (1, b'no picture'), (2, (folder/'fox/005.png').read_bytes()[:60]):
        (folder/[*colours][i]/f'{i:03}.png').write_bytes(data)
    return folder


@pytest.fixture(scope='module')
def told(place, pets):
    "What the commands say to one who trains on the pictures, predicts, reports, makes a project."
    return commands(place, 'train --model linear --epochs 1 --dry-run',
        'train --data pets --skip-broken --size=16 --epochs=3 --out=run',
        'predict run pets --csv=said.csv --json=said.json --skip-broken',
        'report run -o page.html', 'init mine', 'init noted --model=linear', 'init mine')


@pytest.fixture(scope='module')
def run(place, told):
    code, printed, _ = told[1]
    assert code == 0 and '3 of 600 files are left out' in printed and 'pictures of ' in printed
    return place/'run'


def browse(file, pictures):
    "The page in Chromium: light and dark, wide and 390 pixels; what it complains of or asks for."
    playwright = pytest.importorskip('playwright.sync_api')
    complaints = []
    with playwright.sync_playwright() as p:
        found = shutil.which('chromium') or shutil.which('google-chrome')
        try: browser = p.chromium.launch(executable_path=found, args=QUIET)
        except playwright.Error as error: pytest.skip(f'no Chromium: {str(error)[:80]}')
        for scheme in 'light', 'dark':
            for width in 1100, 390:
                page = browser.new_page(viewport=dict(width=width, height=900),
                                        color_scheme=scheme)
                page.on('console', lambda message: complaints.append(message.text))
                page.on('pageerror', lambda error: complaints.append(str(error)))
                page.on('request', lambda request: complaints.append(request.url)
                        if request.url[:5] not in ('file:', 'data:') else None)
                page.goto(file.as_uri())
                wide = page.evaluate('document.documentElement.scrollWidth')
                if wide > width: complaints.append(f'{wide} pixels at {width}')
                if pictures: page.screenshot(path=pictures/f'{file.parent.name}-{scheme}-{width}.png',
                                             full_page=True)
                titles = page.locator('h2').all_inner_texts()
                page.close()
        page = browser.new_page(viewport=dict(width=680, height=900), color_scheme='dark')
        page.emulate_media(media='print')   # 180 mm; on paper even by night
        page.goto(file.as_uri())
        for selector, style, wanted in (('body', 'backgroundColor', 'rgb(255, 255, 255)'),
                                        ('nav', 'display', 'none'), ('pre', 'whiteSpace', 'pre-wrap'),
                                        ('body', 'fontSize', '12px'),
                                        ('.confusion', 'breakInside', 'avoid')):
            found = page.locator(selector).first.evaluate(f'e => getComputedStyle(e).{style}')
            if found != wanted: complaints.append(f'printed {selector}: {style} is {found}')
        curves = page.locator('.row').first
        columns = curves.evaluate('e => getComputedStyle(e).gridTemplateColumns').split()
        if len(columns) != 2: complaints.append(f'printed curves: {columns}, not two in a row')
        wide = page.evaluate('document.documentElement.scrollWidth')
        if wide > 680: complaints.append(f'{wide} pixels printed at 680')
        if pictures: page.pdf(path=pictures/f'{file.parent.name}.pdf')
        browser.close()
    return titles, complaints


@pytest.mark.skipif(sys.platform == 'win32', reason='no pseudo-terminals')
@pytest.mark.parametrize('columns', [80, 120])
def test_no_line_is_wider_than_the_terminal(place, columns):
    import fcntl
    import pty
    import struct
    import termios
    offline = {name: value for name, value in OFFLINE.items() if name != 'COLUMNS'}
    def shown(*words):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 40, columns, 0, 0))
        pid = fork(place, place, theirs, lambda: command(*words), **offline)
        os.close(theirs)
        parts = []
        while True:
            try: part = os.read(ours, 4096)
            except OSError: break          # how Linux tells the end
            if not part: break
            parts.append(part)
        os.close(ours)
        os.waitpid(pid, 0)
        text = b''.join(parts).decode().replace('\r\n', '\n')
        wide = [line for line in re.sub(r"\x1b\[[\d;]*m", "", text).split('\n') for line in line.split('\r')
                if len(line.rstrip()) > columns]
        assert not wide, wide
        return ' '.join(text.split())
    shown('train', '--help')
    if columns == 120: return
    assert 'did you mean train?' in shown('trian')
    assert 'it is called `nntrain train --out RUN`' in shown('resume', 'run')
    printed = shown('train', '--model=linear', '--epochs=2', '--fresh', '--out=run80')
    assert 'run80 holds history.csv' in printed and 'valid_loss' in printed


def test_600_pictures_of_many_sizes_with_three_broken_ones(place, run, pets):
    with open(run/'left_out.csv', newline='') as file: left = [*csv.DictReader(file)]
    assert [Path(row['path']).name for row in left] == ['000.png', '001.png', '002.png']
    with open(place/'said.csv', newline='') as file: rows = [*csv.DictReader(file)]
    again = json.loads((place/'said.json').read_text())
    assert len(rows) == len(again) == 597
    right = sum(row['label'] == Path(row['path']).parent.name for row in rows)
    assert right >= .99*len(rows), right
    assert [row['label'] for row in again] == [row['label'] for row in rows]


def tells_its_environment(page):
    for what in 'torch', 'python', 'system', 'device':
        assert f'<td>{what}</td>' in page.read_text(), what


def test_report_of_a_run_in_a_browser(place, run):
    kept = os.environ.get('NNTRAIN_PICTURES')
    titles, complaints = browse(place/'page.html', Path(kept) if kept else None)
    assert titles == ['Summary', 'Curves', 'Learning rate', 'Confusion', 'Worst samples', 'Time',
                      'What was trained', 'Environment']
    assert complaints == []
    tells_its_environment(place/'page.html')


def one_epoch(project):
    settings = (project/'settings.toml').read_text()
    assert 'epochs = 10' in settings
    (project/'settings.toml').write_text(settings.replace('epochs = 10', 'epochs = 1'))
    return project


def test_a_project_of_ones_own(place, told):
    (made, *_), (refused, error, _) = told[4], told[6]
    assert made == 0 and refused == 2 and 'is there already and not empty' in error
    project = one_epoch(place/'mine')
    def both():
        runpy.run_path('train.py', run_name='__main__')
        command('report', 'run')
    with (project.parent/'mine.txt').open('w+', encoding='utf-8') as file:
        _, status = os.waitpid(fork(place, project, file.fileno(), both, **OFFLINE), 0)
        file.seek(0)
        printed = file.read()
    assert 'accuracy' in printed and status == 0, printed
    kept = os.environ.get('NNTRAIN_PICTURES')
    titles, complaints = browse(project/'run/report.html', Path(kept) if kept else None)
    assert 'Confusion' in titles and 'What is missing' in titles and complaints == []
    tells_its_environment(project/'run/report.html')


def test_the_notebook_of_a_project_and_a_first_cell_that_prints_nothing(place, told, monkeypatch):
    import nbformat
    from nbclient import NotebookClient
    monkeypatch.setenv('PYTHONPATH', str(place.parent/'site'))
    monkeypatch.delenv('PYTHONWARNINGS', raising=False)
    nb = nbformat.read(one_epoch(place/'noted')/'train.ipynb', 4)
    first = nbformat.v4.new_code_cell('from nntrain.all import *\ndd = load_digits()')
    nb.cells.insert(0, first)
    NotebookClient(nb, kernel_name='python3', timeout=300, extra_arguments=['--log-level=40'],
                   resources=dict(metadata=dict(path=str(place/'noted')))).execute()
    assert first.outputs == [], first.outputs
    assert (place/'noted/run/loop.py').is_file()


@pytest.mark.faults
def test_models_of_timm_train_and_predict_again(place, pets):
    if find_spec('timm') is None: pytest.skip('timm is an extra')
    for name in 'test_resnet', 'test_vit_relpos':
        words = '--data', 'pets', '--skip-broken', '--size=32', '--epochs=1', '--lr=0.01'
        python(place, '-c', STAND_IN, 'train', *words, f'--model=timm:{name}', f'--out=timm-{name}')
        history = (place/f'timm-{name}/history.csv').read_text().splitlines()[-1].split(',')
        told = python(place, '-c', STAND_IN, 'validate', f'timm-{name}')
        assert f'accuracy {float(history[3]):.4g} ' in told, (history, told)
        python(place, '-c', STAND_IN, 'predict', f'timm-{name}', 'pets/fox/005.png')


def test_who_what_and_on_what_come_before_the_slow_imports(told):
    lines = told[0][2]
    assert [word for word, _ in lines] == ['nntrain', 'reads', 'has', 'data'], lines
    assert [slow for _, slow in lines[:3]] == [[], [], ['torch']], lines
