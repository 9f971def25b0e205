"""What newcomers type wrong: each mistake ends in an error or a warning that names cause and cure.

    python -m pytest -s tests/test_mistakes.py    prints the table, as `make test` does
"""
import re
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nntrain.all import *
from nntrain.tracking.history import History

MISTAKES = {}   # what somebody does -> (function that does it, words that the text must have)


def mistake(what, *words):
    "Register a function; `words` are looked for in what the user is told."
    def register(function):
        assert what not in MISTAKES, what
        MISTAKES[what] = function, words
        return function
    return register


def data(n=24, width=8, classes=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=generator).to(dtype)
    return x, torch.randint(classes, (n,), generator=generator)


def loader(*tensors, batch_size=8): return DataLoader(TensorDataset(*tensors), batch_size)
def loaders(*tensors, batch_size=8): return DataLoaders(loader(*tensors, batch_size=batch_size))
def rows(*batches): return DataLoaders(list(batches))
def mlp(width=8, out=3): return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, out))


def learner(model=None, dls=None, loss_fn=F.cross_entropy, *args, **kwargs):
    return Learner(model or mlp(), dls or loaders(*data()), loss_fn, *args, **kwargs)


def regression(target, loss_fn=None, model=None):
    x, _ = data()
    return learner(model or mlp(out=1), loaders(x, target), loss_fn or nn.MSELoss())


# the constructor

@mistake('an optimizer in the fourth place', 'optim_class', 'class', 'torch.optim.Adam')
def _():
    model = mlp()
    learner(model, None, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters()))

@mistake("'adam' in the fourth place", "'adam'", 'torch.optim.Adam')
def _(): learner(None, None, F.cross_entropy, 'adam')

@mistake('a rate in the fourth place', '0.1', 'lr=0.1')
def _(): learner(None, None, F.cross_entropy, 0.1)

@mistake('a module for the optimizer: torch.optim', 'torch.optim.Adam')
def _(): learner(None, None, F.cross_entropy, torch.optim)

@mistake('None for the optimizer', 'optim_class', 'None', 'leave it out')
def _(): learner(None, None, F.cross_entropy, None)

@mistake('a schedule for the optimizer', 'parameters', 'optim_class')
def _(): learner(optim_class=torch.optim.lr_scheduler.StepLR).fit(1)

@mistake('the class of a loss', 'CrossEntropyLoss', 'nn.CrossEntropyLoss()')
def _(): learner(loss_fn=nn.CrossEntropyLoss)

@mistake('the name of a loss', "'cross_entropy'", 'nn.CrossEntropyLoss()')
def _(): learner(loss_fn='cross_entropy')

@mistake('no loss', 'loss_fn')
def _(): Learner(mlp(), loaders(*data())).fit(1)

@mistake('None for the loss', 'loss_fn')
def _(): Learner(mlp(), loaders(*data()), None).fit(1)

@mistake('the class of a model', 'class', 'Net()')
def _():
    class Net(nn.Module): pass
    learner(Net)

@mistake('model and data swapped', 'model, dls, loss_fn')
def _(): Learner(loaders(*data()), mlp(), F.cross_entropy)

@mistake('loaders in a tuple', 'tuple', 'DataLoaders(train, valid)')
def _(): learner(dls=(loader(*data()), loader(*data())))

@mistake('loaders in a dict', 'dict', "DataLoaders(dls['train'], dls['valid'])")
def _(): learner(dls=dict(train=loader(*data()), valid=loader(*data())))

@mistake('one loader', 'DataLoader', 'DataLoaders(')
def _(): learner(dls=loader(*data()))

@mistake('a dataset for the loaders', 'TensorDataset', 'DataLoader(', 'batch_size')
def _(): learner(dls=TensorDataset(*data()))

@mistake('a dataset for a loader', 'train', 'TensorDataset', 'DataLoader(', 'batch_size')
def _(): learner(dls=DataLoaders(TensorDataset(*data()))).fit(1)

@mistake('tensors for the loaders', 'tuple', 'DataLoader', 'TensorDataset')
def _(): learner(dls=data())

@mistake('a DatasetDict for the loaders', 'DatasetDict', 'DataLoaders.from_hf_dd(')
def _(): learner(dls=load_digits())

@mistake('the class of a subscriber', 'ProgressS()')
def _(): learner(subs=ProgressS)

@mistake('the class of a subscriber in a list', 'ProgressS()')
def _(): learner(subs=[ProgressS])

@mistake('subs=None', 'None', 'leave it out')
def _(): learner(subs=None)

@mistake('None in the list of subscribers', 'None', 'leave it out')
def _(): learner(subs=[MetricsS(accuracy), None])

@mistake('the name of a subscriber', "'progress'", 'ProgressS()')
def _(): learner(subs='progress')

@mistake('a metric for a subscriber', 'accuracy', 'MetricsS(accuracy)')
def _(): learner(subs=[accuracy])

@mistake('a subscriber twice', 'ProgressS', 'already')
def _():
    sub = ProgressS()
    learner(subs=[sub, sub])

@mistake('learning_rate=', 'learning_rate', '`lr`')
def _(): learner(learning_rate=0.1)

@mistake('batch_size= of the learner', 'batch_size', 'loader')
def _(): learner(batch_size=32)

@mistake('callbacks=', 'callbacks', '`subs`')
def _(): learner(callbacks=[])

@mistake('optimizer=', 'optimizer', '`optim_class`')
def _(): learner(optimizer=torch.optim.Adam)

@mistake('criterion=', 'criterion', '`loss_fn`')
def _(): Learner(mlp(), loaders(*data()), criterion=nn.CrossEntropyLoss())

@mistake('metrics=', 'metrics', 'MetricsS')
def _(): learner(metrics=[accuracy])

@mistake('momentum= of the learner', 'momentum', 'partial(torch.optim.SGD, momentum=')
def _(): learner(momentum=0.9)

@mistake('n_epochs= of the learner', 'n_epochs', 'fit(')
def _(): learner(n_epochs=3)

@mistake('a rate that is a text', "'0.1'", 'number')
def _(): learner(lr='0.1')

@mistake('a rate below 0', '-0.1', 'above 0')
def _(): learner(lr=-0.1)

@mistake('a slice of rates', 'slice', 'GroupedOptim')
def _(): learner(lr=slice(1e-4, 1e-2))


# the call of fit

@mistake('a rate as the second argument of fit', '0.1', 'lr=0.1')
def _(): learner().fit(1, 0.1)

@mistake('loaders as the second argument of fit', '`train`', 'dls')
def _(): learner().fit(1, loaders(*data()))

@mistake('n_epochs= of fit', 'n_epochs', '`epochs`')
def _(): learner().fit(n_epochs=3)

@mistake('learning_rate= of fit', 'learning_rate', '`lr`')
def _(): learner().fit(1, learning_rate=0.1)

@mistake('batch_size= of fit', 'batch_size', 'loader')
def _(): learner().fit(1, batch_size=32)

@mistake('cbs= of fit', 'cbs', '`subs`')
def _(): learner().fit(1, cbs=[])

@mistake('lr_max= of fit_one_cycle', 'lr_max', '`max_lr`')
def _(): learner().fit_one_cycle(1, lr_max=0.1)

@mistake('half an epoch', '0.5', 'whole number', 'StopAfterS')
def _(): learner().fit(0.5)

@mistake('the number of epochs as a text', "'3'", 'whole number', 'without quotes')
def _(): learner().fit('3')

@mistake('fit within a fit', '`fit`', 'rehearse')
def _():
    learn = learner()
    learn.on('after_batch', lambda learn: learn.fit(1))
    learn.fit(1)

@mistake('the class of a subscriber, in fit', 'ProgressS()')
def _(): learner().fit(1, subs=ProgressS)

@mistake('a metric for a loss', 'accuracy', 'gradient')
def _(): learner(loss_fn=accuracy).fit(1)


def called(name, *words):
    "A method as Keras, Lightning, scikit-learn, skorch or fastai call it, called on a learner."
    mistake(f'learn.{name}()', name, *words)(lambda: getattr(learner(), name)())

called('compile', 'Learner(model, dls, loss_fn, optim_class, lr)')
called('evaluate', '`validate()`')
called('score', '`validate()`')
called('validate_dataloader', '`validate()`')
called('train', '`fit(epochs)`')
called('train_on_batch', '`fit(epochs)`')
called('fit_generator', '`fit(epochs)`')
called('predict_proba', '`get_preds()`', '`predict_items()`')
called('add_callback', '`subscribe(sub)`')
called('save_weights', '`save(path)`')
called('fit_sgdr', '`fit_warm_restarts()`')
called('to', 'DeviceS()')


# calls without what they need, or with what belongs elsewhere

def typed(what, *words):
    "A call as it is typed, with `learn`, and tensors `x` and `y`."
    def call():
        x, y = data()
        eval(what, globals(), dict(learn=learner(), x=x, y=y))
    mistake(what, *words)(call)

typed('learn.predict(x)', '`predict_items([x])`', '`get_preds(loader)`')
typed('learn.predict()', 'no batch', 'next(iter(learn.dls.train))')
typed('learn.xb', 'no batch', 'next(iter(learn.dls.train))')
typed('learn.fit()', "'epochs'", 'How many epochs', '`learn.fit(5)`')
typed('learn.fit(x, y)', 'Tensor', 'whole number', 'DataLoaders(train, valid)')
typed('learn.fit(x, y, epochs=3)', "'epochs'", 'TensorDataset(x, y)', 'DataLoaders(train, valid)')
typed('learn.fit(loader(x, y))', 'DataLoader', 'whole number', 'DataLoaders(train, valid)')
typed('learn.fit(1, True, True, (), 0.1, True, None, 3)', '9 were given', 'learn.fit takes epochs')
typed('learn.fit_one_cycle()', "'epochs'", '`learn.fit_one_cycle(5)`')
typed("learn.fit_one_cycle(1, '0.1')", "'0.1'", 'Peak')
typed('learn.fine_tune()', "'epochs'", '`learn.fine_tune(5)`')
typed("learn.fit_for('10 minutes')", "'10 minutes'", 'Optimizer steps')
typed("learn.lr_find('valley')", "'valley'", '`start`', 'First learning rate')
typed('learn.freeze(3)', '2 were given', '`freeze_to(n)`')
typed('learn.unfreeze(1)', '2 were given', '`freeze_to(n)`')
typed("learn.freeze_to('0')", "'0'", 'How many')
typed('learn.save()', "'path'", "`learn.save('model.safetensors')`")
typed('learn.load()', "'path'", "`learn.load('model.safetensors')`")
typed('learn.export()', "'path'", "`learn.export('model.pt2')`")
typed('learn.predict_items()', "'items'", 'Paths', "`learn.predict_items(['a.png', 'b.png'])`")
typed('learn.get_preds(x)', '(24, 8)', 'DataLoader(TensorDataset(x, y)')
typed('learn.validate(x, y)', '3 were given', 'DataLoader(TensorDataset(x, y)')
typed("learn.validate('test')", "'test'", 'has train')
typed('learn.summary((1, 28, 28))', '2 were given', '`dls.train`')
typed('learn.plot_plan()', "'epochs'", '`learn.plot_plan(5)`')
typed('learn.subscribe([ProgressS(), MetricsS()])', 'list', '`subscribe(*subs)`')
typed('learn.subs.append(ProgressS())', 'append', '`learn.subscribe(sub)`')
typed("learn.unsubscribe('ProgressS')", "'ProgressS'", '`learn.subs`')
typed("learn.on('after_batch')", 'None', 'function of the learner', 'lambda learn:')
typed('learn.on(print)', 'print', 'the event comes first')
typed('learn.explain(x)', 'Tensor', 'no Subscriber', 'MetricsS(accuracy)')
typed("learn.check_device('cuda')", "'cuda'", '`n_batches`')
typed('learn.stop()', 'stop', '`raise CancelFitException`')
typed('learn.n_params', 'n_params', '`summary()`')
typed('learn.dls.one_batch()', 'one_batch', '`next(iter(dls.train))`')
typed('learn.dls.test', 'test', 'DataLoaders(train, dict(valid=')
typed('learn.dls.valid_dl', 'valid_dl', '`dls.valid`')
typed('Learner()', "'model' and 'dls'", 'Module to train', 'DataLoaders(train, valid)')
typed('Learner(mlp())', "'dls'", 'DataLoaders(train, valid)')
typed('learner(dls=DataLoaders(x, y)).fit(1)', 'Tensor', 'TensorDataset(x, y)')
typed("ScheduleS('cosine')", "'cosine'", '`lr=linear(0.1, 0)`')
typed('EarlyStoppingS(3)', '3', "'valid loss'", '`patience=3`')
typed("GradientClipS('1')", "'1'", 'number', 'max_norm=1.')


# batches

@mistake('labels that are strings', 'list', 'str', "'cat'", 'number')
def _():
    x, _ = data()
    learner(dls=rows((x[:2], ['cat', 'dog']))).fit(1)

@mistake('a dict batch whose keys the model does not take', "'pixels'", 'forward', 'input')
def _():
    x, y = data()
    learner(dls=rows(dict(pixels=x, label=y))).fit(1)

@mistake('three items for a model of one input', '3 items', 'n_inp=1')
def _():
    x, y = data()
    learner(dls=rows((x, x, y))).fit(1)

@mistake('a batch without a target', 'target')
def _(): learner(dls=rows((data()[0],))).fit(1)

@mistake('a batch that is one tensor', 'batch', 'tuple')
def _(): learner(dls=rows(data()[0])).fit(1)

@mistake('NumPy arrays in a batch', 'ndarray', 'torch.as_tensor')
def _():
    x, y = data()
    learner(dls=rows((x.numpy(), y.numpy()))).fit(1)

@mistake('model and batch on different devices', 'meta', 'cpu', 'DeviceS()')
def _(): learner(mlp().to('meta')).fit(1)

@mistake('a target on another device', 'meta', 'cpu', 'DeviceS()')
def _():
    x, y = data()
    learner(dls=rows((x, y.to('meta')))).fit(1)

@mistake('a width that is wrong', '`0`', 'Linear', '64', '8')
def _(): learner(mlp(64)).fit(1)

@mistake('pictures for a linear layer', '`0`', 'Linear', '64', 'Flatten')
def _():
    x = torch.randn(8, 1, 8, 8)
    learner(mlp(64), rows((x, data(8)[1]))).fit(1)

@mistake('a number of channels that is wrong', 'Conv2d', '3 channels', '1')
def _():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    learner(model, rows((torch.randn(8, 1, 8, 8), data(8)[1]))).fit(1)

@mistake('pictures without a channel', 'Conv2d', '[:,None]')
def _():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    learner(model, rows((torch.randn(8, 8, 8), data(8)[1]))).fit(1)

@mistake('pictures with channels last', 'Conv2d', 'permute(0, 3, 1, 2)')
def _():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    learner(model, rows((torch.randn(8, 9, 9, 3), data(8)[1]))).fit(1)

@mistake('pictures of whole numbers', 'uint8', '.float()/255')
def _():
    x = torch.randint(255, (8, 8)).to(torch.uint8)
    learner(dls=rows((x, data(8)[1]))).fit(1)

@mistake('inputs of float64', 'float64', '.float()')
def _(): learner(dls=loaders(*data(dtype=torch.float64))).fit(1)

@mistake('targets of float64', 'float64', '.float()')
def _(): regression(torch.randn(24, 1, dtype=torch.float64)).fit(1)

@mistake('floating-point indices for an embedding', 'Embedding', '.long()')
def _():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(32, 3))
    learner(model).fit(1)

@mistake('an index outside an embedding', 'Embedding', '10', '0..9')
def _():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(32, 3))
    learner(model, rows((torch.full((4, 8), 10), data(4)[1]))).fit(1)

@mistake('batch norm with one sample', 'layer `1`, BatchNorm1d', 'drop_last=True')
def _():
    x, y = data(17)
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    learner(model, loaders(x, y)).fit(1)

@mistake('a NaN in the data', 'sample 5', 'column 2', 'StopOnNaNS')
def _():
    x, y = data()
    x[5, 2] = torch.nan
    learner(dls=loaders(x, y)).fit(1)

@mistake('a NaN in a later batch', 'sample 21', 'column 7', 'StopOnNaNS')
def _():
    x, y = data()
    x[21, 7] = torch.nan
    learner(dls=loaders(x, y)).fit(1)

@mistake('a NaN in the target', 'sample 3', 'target', 'StopOnNaNS')
def _():
    y = torch.randn(24, 1)
    y[3] = torch.nan
    regression(y).fit(1)

@mistake('a rate that is much too high', 'the train loss is', 'lower', 'StopOnNaNS')
def _():
    x, _ = data()
    learner(mlp(out=1), loaders(x, torch.randn(24, 1)), nn.MSELoss(), lr=1e6).fit(3)

@mistake('a generator for a loader', 'empty', 'generator')
def _():
    x, y = data()
    learner(dls=DataLoaders(batch for batch in [(x, y)])).fit(2)

@mistake('fewer samples than drop_last leaves', 'empty', 'drop_last')
def _(): learner(dls=DataLoaders(DataLoader(TensorDataset(*data(4)), 8, drop_last=True))).fit(1)

@mistake('rows of different lengths', 'collate_fn', 'length')
def _():
    samples = [(torch.randn(n), 0) for n in (3, 4, 5)]
    learner(dls=DataLoaders(DataLoader(samples, 3))).fit(1)

@mistake('pictures of PIL in a batch', 'collate', 'tensor')
def _():
    from PIL import Image
    samples = [(Image.new('L', (8, 8)), 0)]*4
    learner(dls=DataLoaders(DataLoader(samples, 4))).fit(1)


# model and loss

@mistake('a model that returns a tuple', 'tuple', 'get_loss')
def _():
    class Pair(nn.Linear):
        def forward(self, x): return super().forward(x), x
    learner(Pair(8, 3)).fit(1)

@mistake('a model that returns a dict', 'dict', 'get_loss', "'logits'")
def _():
    class Named(nn.Linear):
        def forward(self, x): return dict(logits=super().forward(x))
    learner(Named(8, 3)).fit(1)

@mistake('a model that returns nothing', 'None', 'return')
def _():
    class Forgets(nn.Linear):
        def forward(self, x): super().forward(x)
    learner(Forgets(8, 3)).fit(1)

@mistake('an LSTM in the middle of a Sequential', 'tuple', 'LSTM')
def _():
    model = nn.Sequential(nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 3))
    learner(model, rows((torch.randn(4, 5, 8), data(4)[1]))).fit(1)

@mistake('(N, 1) against (N,) in nn.MSELoss', '(8, 1)', '(8,)', 'squeeze(1)')
def _(): regression(torch.randn(24)).fit(1)

@mistake('(N, 1) against (N,) in a loss of one\'s own', '(8, 1)', '(8,)', 'squeeze(1)')
def _(): regression(torch.randn(24), lambda preds, y: ((preds-y)**2).mean()).fit(1)

@mistake('(N, 1) against (N,) in BCE', '(8, 1)', '(8,)', 'squeeze(1)')
def _(): regression((torch.randn(24) > 0).float(), nn.BCEWithLogitsLoss()).fit(1)

@mistake('a column of targets for several outputs', '(8, 3)', '(8, 1)', 'expand_as')
def _(): regression(torch.randn(24, 1), nn.HuberLoss(), mlp()).fit(1)

@mistake('one target for as many outputs as samples', '(8, 8)', '(8,)', '1 output')
def _(): regression(torch.randn(24), nn.L1Loss(), mlp(out=8)).fit(1)

@mistake('one target for several outputs', '(8, 3)', '(8,)', '1 output', 'nn.CrossEntropyLoss()')
def _(): regression(torch.randn(24), nn.MSELoss(), mlp()).fit(1)

@mistake('BCE on targets of another width', '(8, 3)', '(8, 1)', 'expand_as')
def _(): regression((torch.randn(24, 1) > 0).float(), nn.BCEWithLogitsLoss(), mlp()).fit(1)

@mistake('one output and cross entropy', '1', 'BCEWithLogitsLoss')
def _(): learner(mlp(out=1), loaders(data()[0], torch.zeros(24).long())).fit(1)

@mistake('softmax before cross entropy', 'softmax', 'cross entropy', 'scores')
def _(): learner(nn.Sequential(mlp(), nn.Softmax(1))).fit(1)

@mistake('NLLLoss on raw scores', 'NLLLoss', 'LogSoftmax')
def _(): learner(loss_fn=nn.NLLLoss()).fit(1)

@mistake('BCELoss on raw scores', 'BCEWithLogitsLoss')
def _(): regression((torch.randn(24, 1) > 0).float(), nn.BCELoss()).fit(1)

@mistake('BCEWithLogitsLoss on whole numbers', 'int64', '.float()')
def _(): regression((torch.randn(24, 1) > 0).long(), nn.BCEWithLogitsLoss()).fit(1)

@mistake('classes that are floats', 'float32', '.long()')
def _():
    x, y = data()
    learner(dls=loaders(x, y.float())).fit(1)

@mistake('classes of shape (N, 1)', '(8, 1)', 'squeeze(1)')
def _():
    x, y = data()
    learner(dls=loaders(x, y[:, None])).fit(1)

@mistake('classes as one-hot whole numbers', '(8, 3)', 'argmax(1)')
def _():
    x, y = data()
    learner(dls=loaders(x, F.one_hot(y, 3))).fit(1)

@mistake('classes from 1 instead of 0', 'target 3', '0..2')
def _():
    x, y = data()
    learner(dls=loaders(x, y+1)).fit(1)

@mistake('more predictions than targets', '(16, 3)', '(8,)', 'batch')
def _():
    class Doubles(nn.Linear):
        def forward(self, x): return super().forward(x).repeat(2, 1)
    learner(Doubles(8, 3)).fit(1)

@mistake('a loss that is not averaged', '(8,)', 'mean')
def _(): learner(loss_fn=nn.CrossEntropyLoss(reduction='none')).fit(1)

@mistake('a loss that is a float', 'float', 'tensor')
def _(): learner(loss_fn=lambda preds, y: F.cross_entropy(preds, y).item()).fit(1)

@mistake('predictions that are detached', 'gradient', 'detach')
def _(): learner(loss_fn=lambda preds, y: F.cross_entropy(preds.detach(), y)).fit(1)

@mistake('a model that is frozen', 'gradient', 'frozen')
def _(): learner(mlp().requires_grad_(False)).fit(1)

@mistake('a state carried from batch to batch', 'detach')
def _():
    class Carries(nn.Linear):
        state = 0
        def forward(self, x):
            self.state = super().forward(x)**2 + self.state
            return self.state
    learner(Carries(8, 3)).fit(1)

@mistake('the optimizer of another model', 'no optimizer', 'make_opt')
def _(): learner(optim_class=lambda _, lr: torch.optim.SGD(mlp().parameters(), lr)).fit(1)

@mistake('layers in a plain list', 'Stack', 'nn.ModuleList')
def _():
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(8, 3)]
        def forward(self, x): return self.layers[0](x)
    learner(Stack()).fit(1)


# subscribers

@mistake('a misspelt event', 'after_bacth', '`after_batch`')
def _():
    class TypoS(Subscriber):
        def after_bacth(self, learn): pass
    learner(subs=TypoS())

def foreign(name, *words):
    "A subscriber with a method as Keras, Lightning or fastai call it, beside one of ours."
    def use():
        sub = type('MineS', (Subscriber,), {name: lambda self, *args: None,
                                            'after_fit': lambda self, learn: None})
        learner(subs=sub())
    mistake(f'`{name}` in a subscriber', name, *words)(use)

foreign('on_epoch_end', '`after_full_epoch`')
foreign('on_train_batch_end', '`after_batch`')
foreign('on_train_begin', '`before_fit`')
foreign('on_train_epoch_end', '`after_train`')
foreign('on_before_optimizer_step', '`before_step`')
foreign('on_validation_end', '`after_validate`')
foreign('training_step', '`get_loss`')
foreign('configure_optimizers', '`optim_class`')
foreign('after_pred', '`after_predict`')

@mistake('an event without the learner', 'after_batch', 'learn')
def _():
    class ForgetsS(Subscriber):
        def after_batch(self): pass
    learner(subs=ForgetsS())

@mistake('self.learn, as in fastai', 'learn', 'argument')
def _():
    class FastaiS(Subscriber):
        def after_batch(self, learn): self.learn.loss
    learner(subs=FastaiS()).fit(1)

@mistake('a callback that is no Subscriber', 'Subscriber', 'derive')
def _():
    class Plain:
        def after_batch(self, learn): pass
    learner(subs=Plain())

@mistake('an event that is asynchronous', 'after_batch', 'async')
def _():
    class LaterS(Subscriber):
        async def after_batch(self, learn): pass
    learner(subs=LaterS())

@mistake('an event of another name in learn.on', "'on_epoch_end'", '`after_full_epoch`')
def _(): learner().on('on_epoch_end', print)

@mistake('early stopping on the name of Keras', "'val_loss'", "'valid loss'")
def _():
    dls = DataLoaders(loader(*data()), loader(*data()))
    learner(dls=dls, subs=[MetricsS(), EarlyStoppingS('val_loss')]).fit(1)

@mistake('early stopping without a validation set', "'valid loss'", 'no validation', "'train loss'")
def _(): learner(subs=[MetricsS(), EarlyStoppingS()]).fit(1)

@mistake('early stopping without metrics', "'train loss'", 'MetricsS(')
def _(): learner(subs=EarlyStoppingS('train loss')).fit(1)

@mistake('early stopping on a metric that nobody computes', "'train accuracy'", 'MetricsS(accuracy')
def _(): learner(subs=[MetricsS(), EarlyStoppingS('train accuracy')]).fit(1)

@mistake('a plateau on a metric that nobody computes', "'train accuracy'", 'MetricsS(accuracy')
def _(): learner(subs=[MetricsS(), ReduceLROnPlateauS('train accuracy')]).fit(1)

@mistake('the best of a metric that nobody computes', "'train accuracy'", 'MetricsS(accuracy')
def _(): learner(subs=[MetricsS(), KeepBestS('train accuracy')]).fit(1)

@mistake('a metric that is a class', 'MulticlassAccuracy()')
def _():
    from torcheval.metrics import MulticlassAccuracy
    MetricsS(MulticlassAccuracy)

@mistake('a metric that gives a float', 'float', 'tensor')
def _():
    def share(preds, y): return (preds.argmax(1) == y).float().mean().item()
    learner(subs=MetricsS(share)).fit(1)

@mistake('the name of a metric', "'accuracy'", 'function')
def _(): MetricsS('accuracy')

@mistake('two schedules of the rate', 'lr', 'ScheduleS')
def _(): learner(subs=[ScheduleS(lr=linear(1., 0.)), ScheduleS(lr=linear(1., 0.))])


# a learner used as what it is not

@mistake('a learner that is called', '`predict_items([x])`', 'learn.model(x)')
def _(): learner()(data()[0])

@mistake('a learner that is indexed', 'learn.model[0]', 'learn.dls.train')
def _(): learner()[0]

@mistake('a learner that is iterated', 'learn.dls.train')
def _(): list(learner())

@mistake('predict without an input', 'learn.predict_items([x])')
def _(): learner().predict()

@mistake('predict with an input', '`predict_items([x])`')
def _(): learner().predict(data()[0])

@mistake('log without a name', 'learn.log("kl", 0.5)')
def _(): learner().log(0.5)

@mistake('log with keywords', 'learn.log("kl", 0.5)')
def _(): learner().log(accuracy=0.5)

# what is given to a subscriber, a loader, a metric

@mistake('a keyword that a subscriber has not', 'has no `every`', '`every_steps`', 'It takes')
def _(): CheckpointS('run', every=1)

@mistake('restore_best_weights= of Keras', 'has no `restore_best_weights`', 'patience')
def _(): EarlyStoppingS('valid loss', restore_best_weights=True)

@mistake('an argument for a subscriber that takes none', 'takes no arguments')
def _():
    class PlainS(Subscriber): pass
    PlainS(3)

@mistake('usual without brackets', 'call it', 'usual(...)')
def _(): learner(subs=usual)

@mistake('usual in a list', 'list within the list', '[*usual(accuracy), YourS()]')
def _(): learner(subs=[usual(accuracy)])

@mistake('a list of metrics', 'MetricsS(*metrics)')
def _(): MetricsS([accuracy])

@mistake('metrics= of MetricsS', 'MetricsS(*metrics)')
def _(): MetricsS(metrics=[accuracy])

@mistake('accuracy of numbers', 'MetricsS()', 'classes of shape (n,)')
def _(): learner(mlp(out=1), loaders(data()[0], data()[0][:, :1]), nn.MSELoss(),
                 subs=MetricsS(accuracy)).fit(1)

@mistake('accuracy of one output', '(scores > 0) == y')
def _():
    dls = loaders(data()[0], (data()[1] > 0).float())
    model = nn.Sequential(mlp(out=1), nn.Flatten(0))
    learner(model, dls, nn.BCEWithLogitsLoss(), subs=MetricsS(accuracy)).fit(1)

@mistake('clipping at 0', 'nothing is learned', 'leave it out')
def _(): GradientClipS(0.)

@mistake('a curve without its name', 'lr=one_cycle(0.1)')
def _(): ScheduleS(one_cycle)

@mistake("a class of torch's schedulers for a curve", 'TorchScheduleS(partial(StepLR')
def _(): ScheduleS(lr=torch.optim.lr_scheduler.StepLR)

@mistake("a scheduler of torch without its settings", 'partial(StepLR, step_size=')
def _(): TorchScheduleS(torch.optim.lr_scheduler.StepLR)

@mistake('a scheduler of torch that is made already', 'partial(StepLR')
def _():
    opt = torch.optim.SGD(mlp().parameters(), .1)
    TorchScheduleS(torch.optim.lr_scheduler.StepLR(opt, 1))

@mistake('three loaders', 'a dict of several')
def _(): DataLoaders(loader(*data()), loader(*data()), loader(*data()))

@mistake('test= of the loaders', 'a dict of several')
def _(): DataLoaders(loader(*data()), test=loader(*data()))

@mistake('loaders that are indexed', '`dls.train` and `dls.valid`')
def _(): loaders(*data())[0]

@mistake('loaders that are iterated', 'next(iter(dls.train))')
def _(): list(loaders(*data()))

# what does not fit, though all runs

@mistake('a sigmoid before BCEWithLogitsLoss', 'without the sigmoid')
def _(): regression((data()[1] > 0).float(), nn.BCEWithLogitsLoss(),
                    nn.Sequential(mlp(out=1), nn.Sigmoid(), nn.Flatten(0))).fit(1)

@mistake('a ReLU before cross entropy', 'leave the last ReLU out')
def _(): learner(nn.Sequential(mlp(), nn.ReLU())).fit(1)

@mistake('a loss that is summed', "reduction='mean'")
def _(): learner(loss_fn=nn.CrossEntropyLoss(reduction='sum')).fit(1)

@mistake('classes of int32', 'y.long()')
def _(): learner(dls=loaders(data()[0], data()[1].int())).fit(1)

@mistake('classes of bool', 'y.long()')
def _(): learner(mlp(out=2), loaders(data()[0], data()[1] > 0)).fit(1)

@mistake('weights of classes of float64', 'weight.float()')
def _(): learner(loss_fn=nn.CrossEntropyLoss(weight=torch.ones(3).double())).fit(1)

@mistake('scores with a dimension too many', '.flatten(1)')
def _(): learner(nn.Sequential(mlp(), nn.Unflatten(1, (3, 1)))).fit(1)

# a learner that is changed, what came out of it

def changed(name, value):
    learn = learner()
    setattr(learn, name, value)
    learn.fit(1)

@mistake('learn.opt that is a class', 'learn.optim_class = Adam')
def _(): changed('opt', torch.optim.Adam)

@mistake('learn.loss_fn that is a name', "'mse'", 'nn.CrossEntropyLoss()')
def _(): changed('loss_fn', 'mse')

@mistake('learn.lr that is a text', '`lr` must be a number')
def _(): changed('lr', '0.1')

@mistake('learn.dls that is one loader', 'DataLoaders(dls)')
def _(): changed('dls', loader(*data()))

@mistake('the curve of lr_find for a rate', '`valley`')
def _(): learner().fit(1, lr=learner().lr_find())

@mistake('the suggestion of lr_find by the name of Lightning', '`valley`')
def _(): learner().lr_find().suggestion()

@mistake('history.history of Keras', "history['valid','loss']")
def _(): History().history

@mistake('history.plot', 'history.plot_loss()')
def _(): History().plot()

@mistake('weights for Keras', 'model.safetensors')
def _(): learner().save('model.h5')

@mistake('weights into a folder that is not there', 'there is no folder', 'make it first')
def _(): learner().save('is-not-there/model.safetensors')

@mistake('weights that are not there', 'is missing', 'is the path right')
def _(): learner().load('is-not-there.safetensors')

@mistake('rows of numbers for predict_items', 'prepare=torch.stack')
def _(): learner().predict_items([data()[0][0]])


def told(function):
    "What the user is told by an error with its notes, or by warnings; and the first line of it."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try: function()
        except Exception as error:
            notes = [note for note in getattr(error, '__notes__', ())
                     if not note.startswith(('in ', '(it was'))]
            return type(error).__name__, [f'{error}', *notes]
    ours = [w for w in caught if 'loss.py' not in w.filename]
    return 'warning' if ours else 'SILENT', [str(w.message) for w in ours]


def table(results):
    "One line per mistake: what it is, how it ends, the last line that says what to do."
    width = max(map(len, results))
    for what, (kind, texts) in results.items():
        text = re.sub(r'\s+', ' ', (texts or ['-'])[-1])
        yield f'{what:{width}} | {kind}: {text}'


@pytest.fixture(scope='module')
def results():
    torch.manual_seed(0)
    return {what: told(function) for what, (function, _) in MISTAKES.items()}


def test_table(results, capsys):
    with capsys.disabled(): print('', *table(results), sep='\n')
    assert len(results) >= 50
    assert not [what for what, (kind, _) in results.items() if kind == 'SILENT']


@pytest.mark.parametrize('what', MISTAKES)
def test_cause_and_cure(results, what):
    kind, texts = results[what]
    missing = [word for word in MISTAKES[what][1] if word not in '\n'.join(texts)]
    assert kind != 'SILENT' and not missing, (missing, texts)


SHAPES = [what for what in MISTAKES if '(N, 1)' in what or 'output' in what or 'width' in what]


@pytest.mark.parametrize('what', SHAPES)
def test_shapes_that_do_not_fit_are_told_before_the_first_step(what, monkeypatch):
    "The weights are what they were: no optimizer was asked for a step."
    steps = []
    monkeypatch.setattr(torch.optim.SGD, 'step', lambda *args, **kwargs: steps.append(1))
    kind, texts = told(MISTAKES[what][0])
    if kind != 'warning': assert not steps, texts
    else: assert len(steps) == 3, texts    # a warning lets the fit go on
