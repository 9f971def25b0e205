"""Run the notebooks as tests, each as `nbdev_test` does, in a process of its own.

    python tools/test_nbs.py [--flags 'slow'] [nbs/x.ipynb ...]

One process each: nbdev_test by itself runs several notebooks in one, where seeds, plot settings and
patched classes leak from one to the next; and it knows no time limit. The processes are forks of
this one, which has imported what they all need; the longest start first. What fails beside others
is run once more when all else has ended, alone, and the closing line names it if it passes then.
Ends with 'N passed, N failed'."""
import argparse
import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from pages import ROOT, name_of, page_paths

WORKERS = max(1, min((os.cpu_count() or 1) + 1, 5))  # one more than cores: some only wait
SECONDS = ROOT/'tools/seconds.json'  # of the last time, by page
SETTINGS = dict(MPLBACKEND='agg', HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1',
                PYTHONPATH=str(ROOT))


def prepare():
    "Offline, no windows, and a share of the cores: two notebooks with all of them would only wait."
    os.environ.pop('PYTHONWARNINGS', None)
    os.environ |= dict(SETTINGS, PATH=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get('PATH', '')]))
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1)//WORKERS)))
    sys.path.insert(0, str(ROOT))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` would ignore it


def run(command, timeout):
    "Run `command` in the project's folder: whether it ended well, and what it printed."
    with tempfile.TemporaryFile() as file:  # not a pipe, which a stray child could hold open
        try:
            code = subprocess.run(command, cwd=ROOT, timeout=timeout,
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


def into(file, function, *args):
    "Call `function`, its output going into `file`; end the process, with 1 if that failed."
    for stream in (1, 2): os.dup2(file.fileno(), stream)
    sys.stdout = sys.stderr = open(1, 'w', closefd=False)
    try: ok = function(*args)
    except BaseException as error:
        traceback.print_exception(error)
        ok = False
    threading._shutdown()  # wait for threads, then call what is registered, as any Python does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(not ok)  # to free each object of this process's parent took 0.3 s of a processor


def run_some(jobs, timeout, workers):
    "Run jobs (name, function, *args), so many at a time, each in a fork; {name: it passed}."
    jobs, running, results = list(jobs), {}, {}
    gc.collect()
    gc.freeze()  # else each fork's collections would copy all pages of this process's memory
    while jobs or running:
        while jobs and len(running) < workers:
            name, *call = jobs.pop(0)
            file = tempfile.TemporaryFile()
            pid = os.fork()
            if not pid: into(file, *call)  # ends this process
            running[pid] = name, file, time.time()
        time.sleep(0.05)
        for pid, (name, file, start) in list(running.items()):
            seconds = time.time()-start
            if seconds > timeout: os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, 0 if seconds > timeout else os.WNOHANG)
            if not done: continue
            code = os.waitstatus_to_exitcode(status)
            file.seek(0)
            note = f'\nended with {code} after {seconds:.0f} seconds'
            output = file.read().decode(errors='replace') + note
            results[name] = report(name, code == 0, output, seconds)
            del running[pid]
    return results


def run_all(jobs, timeout):
    "Run jobs, and what failed once more, alone: (name, how: 'passed', 'again' or 'failed')."
    jobs = list(jobs)
    results = run_some(jobs, timeout, WORKERS)
    failed = [job for job in jobs if not results[job[0]]]
    if len(failed) > 3: again = {}  # that is no accident
    else: again = run_some(failed, timeout, 1)
    return [(name, 'passed' if ok else 'again' if again.get(name) else 'failed')
            for name, ok in results.items()]


def test_notebook(path, flags):
    "Run one notebook as nbdev_test does."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    config = get_config()
    return test_nb(path, skip_flags=config.tst_flags.split(), force_flags=flags.split(),
                   basepath=config.config_path)[0]


def notebooks(files=(), flags=''):
    "The jobs, the longest first; and the imports that they share."
    gc.disable()  # all of it stays: to look for garbage takes a quarter of the time
    import datasets, matplotlib.pyplot, nbdev.test, nbformat, torch._dynamo  # noqa: F401, E401
    gc.enable()
    seconds = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    files = sorted(files or page_paths(), key=lambda path: -seconds.get(name_of(path), 5))
    return [(name_of(path), test_notebook, path, flags) for path in files]


def total(results, more=0):
    "Print the closing line, with so many `more` that passed; the exit status."
    named = {how: [name for name,it in results if it == how] for how in ('again', 'failed')}
    if named['again']:
        print(f"failed beside others, passed alone: {', '.join(named['again'])}")
    n_failed = len(named['failed'])
    print(f'{len(results) - n_failed + more} passed, {n_failed} failed')
    return 0 if results and not n_failed else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', type=Path)
    parser.add_argument('--flags', default='', help='tst_flags to run all the same')
    parser.add_argument('--timeout', type=int, default=600, help='seconds a notebook may take')
    args = parser.parse_args()
    prepare()
    files = [path.resolve() for path in args.files]
    return total(run_all(notebooks(files, args.flags), args.timeout))


if __name__ == '__main__': sys.exit(main())
