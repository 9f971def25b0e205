"""Build the wheel and use it as a user would: another environment, another folder, no nbdev.

    python tools/wheel.py

The environment, .venv-wheel, is kept for the next time; nntrain is installed afresh."""
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENV = ROOT/'.venv-wheel'
BIN = ENV/('Scripts' if os.name == 'nt' else 'bin')
DATA = 'nntrain/data/digits.parquet'
TRAIN = """
import importlib.util, runpy, sys
missing = [name for name in ('nbdev', 'IPython', 'execnb') if importlib.util.find_spec(name)]
assert not missing, f'the environment should be without {missing}'
import nntrain.all
fit = nntrain.all.Learner.fit
assert 'epochs : int' in fit.__doc__ and 'How many epochs' in fit.__doc__, fit.__doc__
print('imported', nntrain.__version__, nntrain.__file__, sep='|', flush=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run(*command, cwd=ROOT):
    "Run `command`, without the caller's own settings for Python; what it printed."
    env = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout, end='')
    if done.returncode: sys.exit(f"{command[0]} ended with {done.returncode}: {command[1:]}")
    return done.stdout


def build(folder):
    "Build the wheel into `folder`, look at what is in it; its path."
    shutil.rmtree(ROOT/'build', ignore_errors=True)  # setuptools would pack what it finds there
    run(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '-w', folder, '.')
    path, = Path(folder).glob('nntrain-*.whl')
    names = set(zipfile.ZipFile(path).namelist())
    wanted = {DATA, *(path.relative_to(ROOT).as_posix() for path in ROOT.glob('nntrain/**/*.py*')
                      if path.suffix in ('.py', '.pyi'))}
    extra = [name for name in names if not name.startswith('nntrain')]
    if wanted - names or extra: sys.exit(f'{path.name} lacks {wanted - names}, has also {extra}')
    print(f'{path.name}: {len(names)} files')
    return path


def install(wheel):
    "Install `wheel`, and what it requires, into the second environment."
    if not (BIN/'python').exists(): venv.create(ENV, with_pip=True)
    pip = BIN/'python', '-m', 'pip'
    wanted, kept = (ROOT/'constraints.txt').read_bytes(), ENV/'constraints.txt'
    run(*pip, 'install', '--quiet', '--no-compile', '--no-deps', '--force-reinstall', wheel)
    check = [str(part) for part in (*pip, 'check')]
    same = kept.exists() and kept.read_bytes() == wanted
    if same and subprocess.run(check, stdout=subprocess.DEVNULL).returncode == 0: return
    run(*pip, 'install', '--quiet', '--no-compile', '-c', ROOT/'constraints.txt', wheel)
    run(*check)
    kept.write_bytes(wanted)


def use(folder):
    "Import everything, train for an epoch, show the run, in a folder that holds nothing."
    out = Path(folder)/'run'
    command = BIN/'nntrain', 'train', '--data', 'digits', '--epochs', '1', '--out', out
    lines = run(BIN/'python', '-c', TRAIN, *command, cwd=folder).splitlines()
    _, version, path = next(line for line in lines if line.startswith('imported|')).split('|')
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    assert version == config['DEFAULT']['version'], f'the wheel says it is version {version}'
    assert Path(path).is_relative_to(ENV), f'imported from {path}'
    run(BIN/'nntrain', 'show', out, cwd=folder)
    files = sorted(path.name for path in out.iterdir())
    assert 'history.csv' in files and any(name.endswith('.safetensors') for name in files), files
    print('the run folder holds', *files)


def main():
    with tempfile.TemporaryDirectory() as folder: install(build(folder))
    with tempfile.TemporaryDirectory() as folder: use(folder)


if __name__ == '__main__': main()
