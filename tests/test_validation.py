"""Validation inside a training pass: on two ranks, as the trackers and the screens see it."""
import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nntrain.all import *
from nntrain.pubsub import CancelEpochException


def fitted(every=None, *subs):
    "Weights and rows of a fit with dropout, in one process or as one of several."
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(1)
    x,y = torch.randn(96, 8, generator=draw),torch.randint(3, (96,), generator=draw)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(.1), nn.Linear(16, 3))
    size = 8//int(os.environ.get('WORLD_SIZE', '1'))
    dls = DataLoaders(TensorLoader(x[:72], y[:72], batch_size=size, shuffle=True),
                      TensorLoader(x[72:], y[72:], batch_size=size))
    recorder = RecorderS()
    learn = Learner(model, dls, F.cross_entropy, torch.optim.SGD, .1,
                    [DistributedS(), MetricsS(accuracy, show=False), recorder, *subs])
    learn.fit(2, subs=ValidateS(every) if every else ())
    rows = [[row['epoch'], row['mode'], row['step'] if every else 0, row['loss'], row['accuracy']]
            for row in recorder.history.rows]
    return {k: t.clone() for k,t in learn.model.state_dict().items()},rows


def of_one_process(groups):
    subs = lambda: [GradientAccumulationS(2)] if groups else []
    plain,(weights,rows) = fitted(None, *subs())[0],fitted(2, *subs())
    return all(torch.equal(plain[k], t) for k,t in weights.items()),weights,rows


@pytest.mark.parametrize('groups', [False, True])
def test_two_ranks_train_as_without_it_and_have_the_same_rows(groups):
    ranks = launch(of_one_process, 2, groups)
    assert [same for same,*_ in ranks] == [True, True]
    (_,first,rows),(_,second,others) = ranks
    assert all(torch.equal(first[k], t) for k,t in second.items())
    steps = [row[2] for row in rows if row[1] == 'valid']
    assert steps == ([2, 4, 5, 6, 8, 10] if groups else [2, 4, 6, 8, 9, 10, 12, 14, 16, 18])
    epoch = [row[:3] for row in of_one_process(groups)[2]]
    assert [row[:3] for row in rows] == epoch


def test_validation_loss_on_two_ranks_is_that_of_one(monkeypatch):
    monkeypatch.setattr(nn.Dropout, 'forward', lambda self, x: x)   # drawn apart on each rank
    one = of_one_process(True)[2]
    two = launch(without_dropout, 2, True)[0][2]
    assert [row[:3] for row in one] == [row[:3] for row in two]
    assert torch.tensor([row[3:] for row in one]).allclose(torch.tensor([row[3:] for row in two]),
                                                           atol=1e-6)


def without_dropout(groups):
    nn.Dropout.forward = lambda self, x: x
    return of_one_process(groups)


def test_a_forgotten_validation_leaves_the_training_alone():
    def forget(learn):
        if not learn.training and 'look' in learn.open_phases: raise CancelEpochException
    learn = synth_learner(96, 32, 8, subs=[recorder := RecorderS()])
    learn.on('before_batch', forget)
    learn.fit(1, subs=ValidateS(5))
    assert [row['mode'] for row in recorder.history.rows] == ['train']*3 + ['valid']
    assert learn.model.training and learn.train_iter == 12


def test_an_error_inside_puts_everything_back_and_the_learner_fits_again():
    def fail(learn):
        if learn.n_steps == 5 and 'look' in learn.open_phases: raise ZeroDivisionError
    learn = synth_learner(96, 32, 8)
    handle = learn.on('after_batch', fail)
    with pytest.raises(ZeroDivisionError) as error: learn.fit(1, subs=ValidateS(5))
    assert 'validation' in ' '.join(error.value.__notes__)
    handle.remove()
    learn.fit(1, subs=ValidateS(5))
    assert learn.train_iter == 12 and learn.running is None


def test_screens_show_a_row_for_each(capsys):
    synth_learner(96, 32, 8, subs=[MetricsS(), ProgressS()]).fit(2, subs=ValidateS(5))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ['step', '5', '10', '12', '15', '20', '24']


def test_the_bar_of_epochs_counts_epochs_and_that_of_the_pass_its_own_time(monkeypatch):
    "In a notebook, whose screen is drawn after each row and batch; the clock is one of batches."
    from test_names import in_a_notebook
    from nntrain.progress import NotebookScreen
    seen,clock = [],[0.]
    class SeenS(ProgressS): seconds = -1
    def moved(screen, learn, loss, seconds, curve): seen.append((learn.epoch, learn.iter, seconds))
    monkeypatch.setattr('nntrain.progress.screen_kind', lambda: 'notebook')
    monkeypatch.setattr('nntrain.progress.monotonic', lambda: clock[0])
    monkeypatch.setattr(NotebookScreen, 'draw', lambda self, curve: rows.append(self.n_done))
    monkeypatch.setattr(NotebookScreen, 'refresh', moved)
    rows,learn = [],synth_learner(96, 32, 8, subs=[MetricsS(show=False), SeenS()])
    def tick(learn): clock[0] += 1
    learn.on('before_batch', tick)
    with in_a_notebook(): learn.fit(2, subs=ValidateS(5))
    assert rows == [0, 0, 1, 1, 1, 2, 2]       # the rows of two validations, the epoch; the close
    trained = [(i, seconds) for epoch,i,seconds in seen if seconds == i+1]
    assert len(trained) == 24 + 4*6            # each batch as many ticks after its pass began


def test_trackers_have_each_batch_once_also_after_a_resume(tmp_path):
    import json
    def run(resume=None, stop=None):
        learn = synth_learner(96, 32, 8, subs=[RecorderS(), JSONLLoggerS(tmp_path/'rows.jsonl'),
                              CheckpointS(tmp_path/'run', every_steps=1, background=False)])
        def end(learn):
            if learn.train_iter == stop and learn.training: raise KeyboardInterrupt
        learn.on('before_batch', end)
        learn.fit(1, subs=ValidateS(5), resume=resume)
    with pytest.raises(KeyboardInterrupt): run(stop=7)
    run(resume=True)
    rows = [json.loads(line) for line in (tmp_path/'rows.jsonl').read_text().splitlines()]
    assert [(row['mode'], row['step']) for row in rows] == [
        (mode, step) for step in (5, 10, 12) for mode in ('train','valid')]


def test_history_gives_a_row_its_batches_and_plots_rows_between_epochs():
    learn = synth_learner(96, 32, 8, subs=[MetricsS(show=False), recorder := RecorderS()])
    learn.fit(2, subs=ValidateS(5))
    history = recorder.history
    parts = [history.part_of(row)['loss'].tolist() for row in history['train']]
    assert [len(part) for part in parts] == [5, 5, 2, 3, 5, 4]
    assert sum(parts, []) == history.series().tolist()
    points = history.plot_metrics('loss')[0].lines[0].get_xdata()
    assert [round(float(x), 3) for x in points] == [.333, .667, 1, 1.333, 1.667, 2]
