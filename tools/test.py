"""Everything `make test` checks; goes on after a failure and ends with 'N passed, N failed'.

    python tools/test.py

clean: nbdev_clean changes no notebook. export: nbdev_export changes no module, all are in git.
readme: README.md is what index.ipynb says. book: each page has its row there and knows its
neighbours. check: import rules and style (tools/check.py). windows: training goes on from a
checkpoint without what Unix alone has. Then, a few at a time, each notebook, and wheel: it
installs and trains in an environment without nbdev.
"""
import subprocess
import sys
import time

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
def windows():
    return run([sys.executable, '-X', 'warn_default_encoding', 'tools/windows.py'], timeout=120)
def wheel(): return subprocess.run([sys.executable, 'tools/wheel.py'], cwd=ROOT).returncode == 0


def main():
    prepare()
    results = []
    for test in (clean, export, readme, book, check, windows):
        start = time.time()
        results.append(report(test.__name__, *test(), time.time()-start))
    return total(results + run_all([('wheel', wheel), *notebooks()], timeout=900))


if __name__ == '__main__': sys.exit(main())
