"""Train, keep and go on without what Windows lacks: a rehearsal on Unix, not Windows itself.

    python -X warn_default_encoding tests/without_unix.py

Takes away fcntl and its like, forks, the signals and flags of `os.open` that are Unix's, and the
opening of folders; text files opened without a named encoding are errors. Then it imports
`nntrain.all`, trains with what writes files, goes on from a checkpoint, and compares weights."""
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = 'fcntl grp pwd resource syslog'.split()
NAMES = {os: 'fork forkpty register_at_fork wait waitpid mkfifo getuid geteuid setsid killpg chown '
             'uname O_DIRECTORY O_NOFOLLOW O_CLOEXEC'.split(),
         signal: 'SIGKILL SIGHUP SIGALRM SIGCHLD SIGUSR1 SIGUSR2 alarm setitimer pause'.split()}


def take_away():
    "Make this process look like one on Windows, as far as that goes."
    import ctypes  # noqa: F401 - these choose by the system while they are imported,
    import multiprocessing, subprocess, torch  # noqa: F401, E401 - and so do parts of torch
    import datasets, torch.utils.data  # noqa: F401, E401
    os_open = os.open
    def open_file(path, *args, **kwargs):
        if os.path.isdir(path): raise PermissionError(13, 'Permission denied', str(path))
        return os_open(path, *args, **kwargs)
    for name in MODULES: sys.modules[name] = None
    for module, names in NAMES.items():
        for name in names: vars(module).pop(name, None)
    os.open, shutil._use_fd_functions = open_file, False  # as rmtree does it there


def learner(folder):
    "One with what writes files."
    import nntrain.all as n
    import torch
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    data = [n.hf_ds_collate_fn([*rows]) for rows in n.load_digits().values()]
    dls = n.DataLoaders(n.TensorLoader(*data[0], batch_size=64, shuffle=True),
                        n.TensorLoader(*data[1], batch_size=128))
    subs = [n.MetricsS(), n.RecorderS(), n.CSVLoggerS(folder/'rows.csv'),
            n.JSONLLoggerS(folder/'rows.jsonl'), n.CheckpointS(folder/'kept', every_steps=10)]
    return n.Learner(model, dls, torch.nn.functional.cross_entropy, lr=0.1, subs=subs)


def cut(learn):
    "An error in mid-epoch."
    if learn.train_iter == 33: raise RuntimeError('power cut')


def go_on(folder):
    "Train once in one go and once with an error in between; end if the two differ."
    import torch
    whole, parts = folder/'whole', folder/'parts'
    once = learner(whole)
    once.fit(3)
    broken = learner(parts)
    broken.on('after_batch', cut)
    try: broken.fit(3)
    except RuntimeError as error: assert 'power cut' in str(error)
    again = learner(parts)
    again.fit(3, resume=True)
    for p, q in zip(once.model.parameters(), again.model.parameters()): assert torch.equal(p, q)
    for name in ('rows.csv', 'rows.jsonl'):
        assert (whole/name).read_bytes() == (parts/name).read_bytes()
    once.subs[1].history.to_csv(folder/'history.csv')


def main():
    take_away()
    warnings.filterwarnings('error', category=EncodingWarning, module='nntrain')
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder: go_on(Path(folder))
    print('imported nntrain.all, trained, went on from a checkpoint: the same weights and rows')


if __name__ == '__main__': main()
