"""A tracker that fails to open leaves nothing open, with the services' own libraries."""
import os
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nntrain.all import Learner, MLflowS, TensorBoardS, TrackerS, WandbS


def learner(*subs):
    batches = [(torch.ones(4, 2), torch.ones(4, 1))]*2
    return Learner(nn.Linear(2, 1), SimpleNamespace(train=batches, valid=batches),
                   nn.functional.mse_loss, subs=subs)


class RefusesS(TrackerS):
    "The last in the list, which does not open."
    def open(self, learn): raise PermissionError('not for you')


def open_files(folder):
    "Files below `folder` that this process holds open."
    handles = (f'/proc/self/fd/{number}' for number in os.listdir('/proc/self/fd'))
    paths = [os.readlink(handle) for handle in handles if os.path.lexists(handle)]
    return [path for path in paths if path.startswith(str(folder))]


needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc of Linux')


def needs(*modules):
    missing = [name for name in modules if not find_spec(name)]
    return pytest.mark.skipif(bool(missing), reason=f'not installed: {", ".join(missing)}')


@needs('wandb')
@pytest.mark.parametrize('mode', ['offline', 'disabled'])
@pytest.mark.parametrize('case', ['bad data', 'later one', 'bad folder'])
def test_wandb(tmp_path, monkeypatch, mode, case):
    for name, value in dict(SILENT='true', ERROR_REPORTING='false', DATA_DIR=tmp_path,
                            CACHE_DIR=tmp_path, CONFIG_DIR=tmp_path).items():
        monkeypatch.setenv(f'WANDB_{name}', str(value))
    import wandb
    finished = []
    real = wandb.sdk.wandb_run.Run.finish

    def finish(run, exit_code=None, **kwargs):
        finished.append(exit_code)
        return real(run, exit_code=exit_code, **kwargs)
    monkeypatch.setattr(wandb.sdk.wandb_run.Run, 'finish', finish)
    if case == 'bad folder':
        (tmp_path/'taken').write_text('a file')
        tracker, others, kind = WandbS('p', folder=tmp_path/'taken', mode=mode), [], OSError
    elif case == 'bad data':
        # the address of the data is looked at after the run was begun
        tracker = WandbS('p', folder=tmp_path, mode=mode, dataset='digits')
        others, kind = [], ValueError
    else: tracker, others, kind = WandbS('p', folder=tmp_path, mode=mode), [RefusesS()], OSError
    with pytest.raises(kind): learner(tracker, *others).fit(1)
    assert tracker.client is None and not tracker.opened
    if mode == 'offline': assert finished == ([] if case == 'bad folder' else [1])
    assert wandb.run is None
    if case == 'bad data': assert tracker.run is None


@pytest.mark.faults              # it makes a database of 40 tables
@needs('mlflow', 'sqlalchemy')
def test_mlflow(tmp_path):
    from mlflow import MlflowClient
    uri = f'sqlite:///{tmp_path}/runs.db'
    begun = MLflowS(uri)
    with pytest.raises(PermissionError): learner(begun, RefusesS()).fit(1)

    def odd(parameters, lr):             # MLflow refuses the name of its second number
        return torch.optim.SGD([{'params': [*parameters], 'lr': lr, 'a%b': 1.}], lr)
    half, late = MLflowS(uri), learner()
    late.optim_class = odd
    with pytest.raises(Exception, match='a%b'): late.fit(1, subs=half)
    assert half.run is None and not half.opened
    client = MlflowClient(uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert sorted(run.info.status for run in runs) == ['FAILED', 'FAILED']
    with pytest.raises(OSError, match='cannot write'):
        learner(MLflowS(f'sqlite:///{tmp_path}/nowhere/runs.db')).fit(1)
    with pytest.raises(ValueError, match='is a folder'): learner(MLflowS(str(tmp_path))).fit(1)


@needs('tensorboard')
@needs_proc
def test_tensorboard(tmp_path):
    (tmp_path/'taken').write_text('a file')
    bad = TensorBoardS(tmp_path/'taken')
    good = TensorBoardS(tmp_path/'good')
    with pytest.raises(OSError, match='cannot write'): learner(good, bad).fit(1)
    assert open_files(tmp_path) == [] and bad.model is None and bad.writer is None
    with pytest.raises(PermissionError): learner(good, RefusesS()).fit(1)
    assert open_files(tmp_path) == [] and good.model is None
    learner(good).fit(1)                 # after the error it can be used again
    assert open_files(tmp_path) == [] and list((tmp_path/'good').iterdir())
