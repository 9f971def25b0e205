"""Run the notebooks as tests, each by `nbdev_test` in a process of its own; 'N passed, N failed'.

    python tools/test_nbs.py [--flags 'slow'] [nbs/x.ipynb ...]

One process each: nbdev_test by itself runs several notebooks in one, where seeds, plot settings and
patched classes leak from one to the next; and it knows no time limit."""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = max(1, min(os.cpu_count() or 1, 4))


def environment():
    "Offline, no windows, and a share of the cores: two notebooks with all of them would only wait."
    bin_path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    env = dict(os.environ, PATH=bin_path, PYTHONPATH=str(ROOT), MPLBACKEND='agg',
               HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1')
    env.pop('PYTHONWARNINGS', None)
    env.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1)//WORKERS)))
    return env


def run(command, timeout):
    "Run `command` in the project's folder: whether it ended well, and what it printed."
    with tempfile.TemporaryFile() as file:  # not a pipe, which a stray child could hold open
        try:
            code = subprocess.run(command, cwd=ROOT, env=environment(), timeout=timeout,
                                  stdout=file, stderr=subprocess.STDOUT).returncode
            note = ''
        except subprocess.TimeoutExpired: code, note = 1, f'\nstopped after {timeout} seconds'
        file.seek(0)
        return code == 0, file.read().decode(errors='replace') + note


def report(name, ok, output, seconds):
    "One line for each thing tested; what it printed only if it failed."
    if not ok: print(output.rstrip())
    print(f"{'passed' if ok else 'FAILED'}  {name}  {seconds:.0f}s", flush=True)
    return ok


def test_nb(path, flags, timeout):
    "Run one notebook, report it."
    start = time.time()
    command = ['nbdev_test', '--path', str(path), '--n_workers', '0', '--flags', flags]
    ok, output = run(command, timeout)
    return report(path.name, ok, output, time.time()-start)


def test_notebooks(files=(), flags='', timeout=600):
    "Run the notebooks, a few at a time; a list with a bool for each."
    files = files or sorted(ROOT.glob('nbs/[!_.]*.ipynb'))
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda path: test_nb(path, flags, timeout), files))


def total(results):
    "Print the closing line; the exit status."
    print(f'{results.count(True)} passed, {results.count(False)} failed')
    return 0 if results and all(results) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', type=Path)
    parser.add_argument('--flags', default='', help='tst_flags to run all the same')
    parser.add_argument('--timeout', type=int, default=600, help='seconds a notebook may take')
    args = parser.parse_args()
    files = [path.resolve() for path in args.files]
    return total(test_notebooks(files, args.flags, args.timeout))


if __name__ == '__main__': sys.exit(main())
