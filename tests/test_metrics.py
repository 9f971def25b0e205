"""Metrics of whole passes against scikit-learn: on one rank and two, after a resume in mid-pass; and
collections of torchmetrics as they are. What is logged is added up over ranks."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score
from torch import nn

from nntrain.all import *
from nntrain.checkpoint.folder import checkpoints
from nntrain.pubsub import SAVE, SHOW

X = torch.randn(203, 6, generator=torch.Generator().manual_seed(3))
Y = (X[:, :3].argmax(1) + (X[:, 4] > 1).long()) % 3


def whole_pass():
    "Columns that are no means, of all passes and of validation alone."
    return [MetricsS(EpochMetric(f1_score, average='macro'), show=False),
            MetricsS(auc=EpochMetric(roc_auc_score, activation='softmax', multi_class='ovr'),
                     confusion=EpochMetric(confusion_matrix), passes='valid', show=False)]


class LoggingLearner(Learner):
    def get_loss(self):
        super().get_loss()
        self.log('largest', self.preds.detach().abs().amax(1).mean())
        self.log('count', 1., n=1)


def fitted(n_epochs=2, resume=None, keeps=False, subs=()):
    "Rows, states in mid-pass, and what scikit-learn says of all predictions of the validation."
    torch.manual_seed(0)
    dls = DataLoaders(TensorLoader(X[:100], Y[:100], batch_size=8, shuffle=True, seed=1),
                      TensorLoader(X[100:], Y[100:], batch_size=8))
    learn = LoggingLearner(nn.Linear(6, 3), dls, F.cross_entropy, lr=.1, subs=[*subs, *whole_pass()])
    rows,states = [],[]
    learn.on('after_epoch', lambda learn: rows.append(dict(learn.row)), order=SHOW-1)
    def keep(learn):
        if learn.iter in (2, 5): states.append(learn.state_dict())
    if keeps: learn.on('after_batch', keep, order=SAVE)
    learn.fit(n_epochs, resume=resume)
    scores,y = learn.model(X[100:]).detach(),Y[100:]
    right = dict(f1_score=f1_score(y, scores.argmax(1), average='macro'),
                 auc=roc_auc_score(y, scores.softmax(1), multi_class='ovr'),
                 confusion=confusion_matrix(y, scores.argmax(1)).tolist(),
                 largest=scores.abs().amax(1).mean().item(), loss=F.cross_entropy(scores, y).item())
    return rows,states,right


def check(row, right):
    assert row['confusion'] == right['confusion']
    for name in {*right} - {'confusion'}:
        assert row[name] == pytest.approx(right[name], abs=1e-6), name


def test_rows_equal_those_of_scikit_learn_after_every_resume():
    rows,states,right = fitted(keeps=True)
    check(rows[-1], right)
    assert len(states) == 8
    train,valid = [{*row} & {'f1_score', 'auc', 'confusion'} for row in rows[-2:]]
    assert (len(train), len(valid)) == (1, 3)    # passes='valid' measures there alone
    for state in states:
        again,_,_ = fitted(resume=state)
        assert again == rows[-len(again):]


def in_two(folder, resume=None):
    saver = CheckpointS(folder, every_steps=3, keep=20, fsync=False)
    rows,_,right = fitted(resume=resume, subs=[DistributedS(timeout=60), saver])
    end_ranks()
    return rows,right


def test_two_ranks_count_every_sample_once_also_after_a_resume(tmp_path):
    rows,right = launch(in_two, 2, tmp_path/'whole')[0]
    check(rows[-1], right)
    assert rows[-1]['count'] == 1.
    saved = [path for path in checkpoints(tmp_path/'whole') if not path.name.endswith('end')]
    assert len(saved) >= 3
    for path in saved[1:3]:                      # in the middle of both epochs
        again,_ = launch(in_two, 2, tmp_path/f'from-{path.name}', path)[0]
        assert again == rows[-len(again):] and len(again) > 1


def test_a_collection_of_torchmetrics_works_as_it_is():
    torchmetrics = pytest.importorskip('torchmetrics', reason=(
        "torchmetrics is not installed: pip install 'nntrain[torchmetrics]'"))
    from torchmetrics.classification import (MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score,
        MulticlassPrecision)
    def collection(): return torchmetrics.MetricCollection([
        MulticlassF1Score(3), MulticlassPrecision(3), MulticlassAccuracy(3, average='micro'),
        MulticlassAUROC(3)])
    def rows_of(resume=None):
        torch.manual_seed(0)
        batches = lambda x, y: [*zip(x.split(16), y.split(16))]
        dls = SimpleNamespace(train=batches(X[:100], Y[:100]), valid=batches(X[100:], Y[100:]))
        metrics = MetricsS(collection(), named=collection(), show=False)
        learn,rows,states = Learner(nn.Linear(6, 3), dls, F.cross_entropy, lr=.1, subs=metrics),[],[]
        learn.on('after_epoch', lambda learn: rows.append(learn.row), order=SHOW)
        learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=SAVE)
        learn.fit(2, resume=resume)
        return learn,rows,states
    learn,rows,states = rows_of()
    scores,y = learn.model(X[100:]).detach(),Y[100:]
    assert rows[-1]['MulticlassF1Score'] == pytest.approx(
        f1_score(y, scores.argmax(1), average='macro'), abs=1e-6)
    assert rows[-1]['named_MulticlassAUROC'] == pytest.approx(
        roc_auc_score(y, scores.softmax(1), multi_class='ovr'), abs=1e-6)
    for state in states:
        again = rows_of(state)[1]
        assert again == rows[-len(again):]
