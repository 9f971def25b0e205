"""Everything `make test` checks; goes on after a failure and ends with 'N passed, N failed'.

    python tools/test.py

clean: nbdev_clean changes no notebook. export: nbdev_export changes no module, all are in git.
readme: README.md is what index.ipynb says. book: each page has its row in contents.ipynb and knows
its neighbours. check: the rules of tools/check.py. wheel: it installs and trains in an environment
without nbdev. Clean and export come first; then, a few at a time, the others, each file of tests/
(without those marked `faults`: make test-faults) and each notebook. The closing line counts each
test of tests/ for itself.
"""
import re
import runpy
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
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


def tool(file, *arguments):
    "Run a script of this folder, in this process: a fork, which has what it imports."
    sys.argv = [file, *arguments]
    try: runpy.run_path(str(ROOT/'tools'/file), run_name='__main__')
    except SystemExit as end:
        if isinstance(end.code, str): print(end.code)
        return not end.code
    return True


def log_of(file): return ROOT/'runs/tests'/f'{Path(file).stem}.txt'


def unit(file):
    "Run one file of tests; what pytest printed stays in runs/tests."
    log_of(file).parent.mkdir(parents=True, exist_ok=True)
    with (log_of(file).open('w', encoding='utf-8') as out, redirect_stdout(out),
          redirect_stderr(out)):
        code = pytest.main(['-q', '-m', 'not faults', '-p', 'no:cacheprovider', file])
    print(log_of(file).read_text(encoding='utf-8'))
    return code in (0, 5)  # 5: all of them are marked `faults`


def n_passed(file):
    "How many tests beside the file itself passed."
    found = re.search(r'(\d+) passed', log_of(file).read_text(encoding='utf-8'))
    return max(int(found[1])-1, 0) if found else 0


def main():
    prepare()
    results = []
    def before():
        for test in (clean, export):
            start = time.time()
            ok = report(test.__name__, *test(), time.time()-start)
            results.append((test.__name__, 'passed' if ok else 'failed'))
    with ThreadPoolExecutor(1) as beside:  # imports nothing of nntrain
        first, pages = beside.submit(before), notebooks()
        first.result()
    files = sorted((path.relative_to(ROOT).as_posix() for path in ROOT.glob('tests/test_*.py')),
                   key=lambda file: -(ROOT/file).stat().st_size)
    units = [(file, unit, file) for file in files]
    tools = [('check', tool, 'check.py'), ('readme', tool, 'readme.py', '--check'),
             ('book', tool, 'book.py', '--check')]
    jobs = [('wheel', tool, 'wheel.py'), *units, *tools, *pages]
    results += run_all(jobs, timeout=900)
    return total(results, more=sum(map(n_passed, files)))


if __name__ == '__main__': sys.exit(main())
