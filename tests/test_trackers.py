"""Trackers with the services' own libraries: one that fails to open leaves nothing open, and one
that finds a run of the user's open sends its rows there and leaves it open."""
import os
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nntrain.all import Learner, MetricsS, MLflowS, RecorderS, Subscriber, TensorBoardS, TrackerS, WandbS


def learner(*subs):
    batches = [(torch.ones(4, 2), torch.ones(4, 1))]*2
    return Learner(nn.Linear(2, 1), SimpleNamespace(train=batches, valid=batches),
                   nn.functional.mse_loss, subs=[MetricsS(show=False), *subs])


class RefusesS(TrackerS):
    "The last in the list, which does not open."
    def open(self, learn): raise PermissionError('not for you')


class FailsS(Subscriber):
    def before_backward(self, learn): raise ArithmeticError('as asked')


def open_files(folder):
    "Files below `folder` that this process holds open."
    handles = (f'/proc/self/fd/{number}' for number in os.listdir('/proc/self/fd'))
    paths = [os.readlink(handle) for handle in handles if os.path.lexists(handle)]
    return [path for path in paths if path.startswith(str(folder))]


needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc of Linux')


def needs(*modules):
    missing = [name for name in modules if not find_spec(name)]
    return pytest.mark.skipif(bool(missing), reason=f'not installed: {", ".join(missing)}')


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    for name, value in dict(SILENT='true', ERROR_REPORTING='false', DATA_DIR=tmp_path,
                            CACHE_DIR=tmp_path, CONFIG_DIR=tmp_path, INIT_TIMEOUT='300',
                            _SERVICE_WAIT='300').items():
        monkeypatch.setenv(f'WANDB_{name}', str(value))
    import wandb
    yield wandb
    wandb.teardown()


@needs('wandb')
@pytest.mark.parametrize('mode', ['offline', 'disabled'])
@pytest.mark.parametrize('case', ['bad data', 'later one', 'bad folder'])
def test_wandb(tmp_path, monkeypatch, wandb, mode, case):
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


@needs('wandb')
@pytest.mark.parametrize('mode', ['offline', 'disabled'])
def test_open_wandb_run(tmp_path, wandb, mode, capsys):
    "Rows go into the run that is open, beside the user's numbers, also when a fit fails."
    history = RecorderS()
    learn = learner(history, WandbS('other'))
    with wandb.init(project='team', id='ours', dir=tmp_path, mode=mode, config=dict(lr=7)) as run:
        run.log({'mine': 1})
        learn.fit(1)
        learn.fit(2)
        with pytest.raises(ArithmeticError): learn.fit(1, subs=FailsS())
        assert wandb.run is run
        run.log({'mine': 2})             # raises where the run has ended
        if mode == 'offline':
            assert run.config['lr'] == 7 and run.config['optimizer'] == 'SGD'
            assert run.summary['mine'] == 2 and run.summary['batches'] == 6
            assert run.summary['valid/loss'] == history.history.rows[-1]['loss']
            assert run.step == 2 + len(history.history.rows) + 6  # a call for each row and batch
    assert 'open run ours of the project' in capsys.readouterr().out
    if mode == 'disabled': return        # the client has such a run open until the process ends
    tracker = WandbS('own', folder=tmp_path, mode=mode)
    learner(tracker).fit(1)              # with no run open it has one of its own
    assert tracker.joined is None and tracker.run and wandb.run is None


@needs('wandb')
def test_open_wandb_run_that_failed(tmp_path, wandb):
    "A tracker that raises while it opens leaves the run of the user open."
    with wandb.init(dir=tmp_path, mode='offline') as run:
        with pytest.raises(ValueError): learner(WandbS(dataset='digits')).fit(1)
        with pytest.raises(PermissionError): learner(WandbS(), RefusesS()).fit(1)
        run.log({'mine': 2})
        assert wandb.run is run


@pytest.mark.faults
@needs('mlflow', 'sqlalchemy')
def test_open_mlflow_run(tmp_path, monkeypatch):
    "A resumed fit sends what the open run lacks; a second learner in the run sends all it has."
    for name in 'MLFLOW_DISABLE_TELEMETRY', 'DO_NOT_TRACK': monkeypatch.setenv(name, 'true')
    import mlflow
    mlflow.set_tracking_uri(f'sqlite:///{tmp_path}/mine.db')
    stored = lambda: [point.step for point in
                      mlflow.MlflowClient().get_metric_history(run.info.run_id, 'valid/loss')]
    try:
        with mlflow.start_run() as run:
            states, learn = [], learner(MLflowS(f'sqlite:///{tmp_path}/never.db'))
            learn.on('after_full_epoch', lambda learn: states.append(learn.state_dict()), order=32)
            learn.fit(2)
            learner(MLflowS()).fit(2, resume=states[0])
            assert stored() == [2, 4]
            learner(MLflowS()).fit(2)
            assert sorted(stored()) == [2, 2, 4, 4]
            assert mlflow.active_run().info.run_id == run.info.run_id
            with pytest.raises(PermissionError): learner(MLflowS(), RefusesS()).fit(1)
            assert mlflow.get_run(run.info.run_id).info.status == 'RUNNING'
        assert mlflow.get_run(run.info.run_id).info.status == 'FINISHED'
        assert not (tmp_path/'never.db').exists()
        tracker = MLflowS(mlflow.get_tracking_uri())
        learn = learner(tracker)
        learn.fit(2)                     # in a run of its own
        with mlflow.start_run() as run:
            learn.fit(1)
            assert stored() == [6]       # without the rows of the other run
            with pytest.raises(ArithmeticError): learn.fit(1, subs=FailsS())
        assert mlflow.get_run(tracker.run).info.status == 'FINISHED'
    finally: mlflow.set_tracking_uri(None)


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
