"""Everything `make test` checks; goes on after a failure and ends with 'N passed, N failed'.

    python tools/test.py

clean: nbdev_clean changes no notebook. export: nbdev_export changes no module, all are in git.
readme: README.md is what index.ipynb says. book: each page has its row in contents.ipynb and knows
its neighbours. check: the rules of tools/check.py. Then, a few at a time, each notebook, each file
of tests/ (without those marked `faults`: make test-faults), and wheel: it installs and trains in an
environment without nbdev. The closing line counts each test of tests/ for itself.
"""
import re
import subprocess
import sys
import time
from pathlib import Path

from test_nbs import ROOT, notebooks, prepare, report, run, run_all, total


def contents(pattern):
    return {path.relative_to(ROOT): path.read_bytes() for path in sorted(ROOT.glob(pattern))}


def unchanged(command, pattern):
    "Run `command`: fine if it ends well and the files of `pattern` are what they were."
    before = contents(pattern)
    ok, output = run(command, timeout=300)
    after = contents(pattern)
    changed = [str(path) for path in sorted({*before, *after})
               if before.get(path) != after.get(path)]
    if changed: output += f"{command[0]} changed {', '.join(changed)}: look at it and commit\n"
    return ok and not changed, output


def untracked(folder):
    "Files in `folder` that git neither tracks nor ignores; none outside a checkout."
    command = ['git', 'ls-files', '--others', '--exclude-standard', '--', folder]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True).stdout.split('\n')[:-1]


def clean(): return unchanged(['nbdev_clean'], 'nbs/**/*.ipynb')


def export():
    ok, output = unchanged(['nbdev_export'], 'nntrain/**/*.py')
    for path in untracked('nntrain'): ok, output = False, output + f'{path} is not in git: add it\n'
    return ok, output


def readme(): return run([sys.executable, 'tools/readme.py', '--check'], timeout=120)
def book(): return run([sys.executable, 'tools/book.py', '--check'], timeout=60)
def check(): return run([sys.executable, 'tools/check.py'], timeout=120)
def wheel(): return subprocess.run([sys.executable, 'tools/wheel.py'], cwd=ROOT).returncode == 0


def log_of(file): return ROOT/'runs/tests'/f'{Path(file).stem}.txt'


def unit(file):
    "Run one file of tests; what pytest printed stays in runs/tests."
    command = [sys.executable, '-m', 'pytest', '-q', '-m', 'not faults', '-p', 'no:cacheprovider',
               file]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    log_of(file).parent.mkdir(parents=True, exist_ok=True)
    log_of(file).write_text(done.stdout, encoding='utf-8')
    print(done.stdout)
    return done.returncode in (0, 5)  # 5: all of them are marked `faults`


def n_passed(file):
    "How many tests beside the file itself passed."
    found = re.search(r'(\d+) passed', log_of(file).read_text(encoding='utf-8'))
    return max(int(found[1])-1, 0) if found else 0


def main():
    prepare()
    results = []
    for test in (clean, export, readme, book, check):
        start = time.time()
        results.append(report(test.__name__, *test(), time.time()-start))
    files = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('tests/test_*.py'))
    units = [(file, unit, file) for file in files]
    results += run_all([('wheel', wheel), *notebooks(), *units], timeout=900)
    return total(results, more=sum(map(n_passed, files)))


if __name__ == '__main__': sys.exit(main())
