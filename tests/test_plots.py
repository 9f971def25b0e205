"""Every plot: whole epochs, labels, nothing cut off, a white page, the smoothed loss from the first point.

    CONTACT=folder python -m pytest tests/test_plots.py    writes each as a picture, too
"""
import math
import os
import warnings
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.image import imread
from torch import nn
from torch.nn import functional as F

from nntrain.all import *
from nntrain.cli.run_folder import draw_png, plot_history
from nntrain.inspect.hooks import plot_activations, plot_gradients, plot_histograms
from nntrain.inspect.timing import TimingS
from nntrain.data.names import number_text
from nntrain.progress import LossCurve, plot_losses
from nntrain.tracking.history import compare
from nntrain.variants.gan import show_rows

NAMES = ['zero', 'one', 'two', 'a long name of a class', 'four', 'five', 'six', 'seven', 'eight',
         'another very long name']
PICTURES = 'show_batch', 'show_results', 'top_losses', 'show_rows'   # no axes to label


def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture(scope='module')
def plots():
    "Name -> axes of each plot of the library, after one short fit of the digits."
    torch.manual_seed(0)
    dls = DataLoaders.from_hf_dd(load_digits(), batch_size=64)
    found, seen = {}, [ActivationStatsS(), GradientStatsS(), TimingS(), RecorderS()]
    curve = LossCurve()
    learn = Learner(mlp(), dls, F.cross_entropy, torch.optim.Adam, 0.003,
                    subs=[MetricsS(accuracy), *seen])
    found['show_batch'] = learn.show_batch()
    found['plot_plan'] = learn.plot_plan(3, [ScheduleS(lr=linear(1., 0.)), KeepBestS()])
    rate = learn.lr_find()
    learn.fit_one_cycle(3, 0.01)
    activations, gradients, timing, recorder = seen
    history = recorder.history
    found |= dict(lr_find=rate.plot(), plot_lrs_skip=rate.plot(skip_start=5),
                  plot_loss=history.plot_loss(), plot_lr=history.plot_lr(),
                  plot_metrics=history.plot_metrics(), compare=compare(history, history),
                  plot_activations=plot_activations(activations),
                  plot_histograms=plot_histograms(activations),
                  plot_gradients=plot_gradients(gradients), timing=timing.plot(),
                  show_results=learn.show_results(), top_losses=learn.top_losses(8)[1],
                  plot_confusion=learn.plot_confusion(), plot_calibration=learn.plot_calibration(),
                  show_rows=show_rows({1: torch.rand(8, 1, 8, 8), 2: torch.rand(8, 1, 8, 8)}, 'epochs'))
    curve.points, curve.valid = [*enumerate(history.series().tolist(), 1)], {'valid': [(69, 1.)]}
    found['plot_losses'] = plot_losses(curve)
    dls.classes = NAMES
    found |= dict(long_batch=learn.show_batch(), long_results=learn.show_results(),
                  long_losses=learn.top_losses(8)[1], long_confusion=learn.plot_confusion())
    rows = [dict(epoch=e, mode=m, loss=1/(e+1), accuracy=.5) for e in range(4) for m in ('train', 'valid')]
    made = pyplot.subplots(1, 2, figsize=(9, 4), layout='constrained')[1]
    plot_history(rows, *made)
    found['command'] = made
    found = {name: [ax for ax in np.ravel(axes)] for name, axes in found.items()}
    if os.environ.get('CONTACT'):
        for name, axes in found.items():
            axes[0].figure.savefig(Path(os.environ['CONTACT'])/f'{name}.png', dpi=100)
    yield found
    pyplot.close('all')


def test_every_plot_has_labels_whole_epochs_and_nothing_outside(plots):
    assert len(plots) >= 18
    wrong = []
    for name, axes in plots.items():
        figure = axes[0].figure
        figure.canvas.draw()
        if figure.get_facecolor() != (1, 1, 1, 1): wrong.append((name, 'is not on white'))
        whole, page = figure.get_tightbbox(), figure.get_size_inches()
        over = min(whole.x0, whole.y0, page[0]-whole.x1, page[1]-whole.y1)
        if over < -0.02: wrong.append((name, f'is cut off by {-over:.2f} inches'))
        boxes = [ax.title.get_window_extent() for ax in axes if ax.get_title()]
        if any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]):
            wrong.append((name, 'titles overlap'))
        if name in PICTURES or name in ('long_batch', 'long_results', 'long_losses'): continue
        for ax in axes:
            shared = ax.get_shared_x_axes().get_siblings(ax)
            if not any(one.get_xlabel() for one in shared): wrong.append((name, 'x has no label'))
            if not ax.get_ylabel(): wrong.append((name, 'y has no label'))
            ticks = ax.get_xticks() if ax.get_xlabel() == 'epochs' else ()
            if any(tick % 1 for tick in ticks): wrong.append((name, f'epochs {ticks}'))
    assert wrong == []


def test_no_legend_covers_a_curve(plots):
    wrong = []
    for name in 'plot_activations', 'plot_gradients', 'timing', 'plot_plan':
        figure = plots[name][0].figure
        figure.canvas.draw()
        for legend in [ax.get_legend() for ax in figure.axes if ax.get_legend()] + figure.legends:
            box = legend.get_window_extent()
            wrong += [name for ax in figure.axes
                      if ax.get_window_extent().shrunk(.98, .98).overlaps(box)]
    assert wrong == []


def test_numbers_are_written_in_one_way(plots):
    for name in 'lr_find', 'plot_gradients': plots[name][0].figure.canvas.draw()
    texts = [text.get_text() for text in plots['lr_find'][0].get_legend().get_texts()]
    ticks = [text.get_text() for name in ('lr_find', 'plot_gradients') for ax in plots[name]
             for axis in (ax.xaxis, ax.yaxis) if axis.get_scale() == 'log'
             for text in axis.get_ticklabels(which='both')]
    shown = [text.split()[-1] for text in texts[2:]] + [text for text in ticks if text]
    assert len(shown) > 8
    assert shown == [number_text(float(text)) for text in shown]


def test_what_is_written_can_be_read_in_the_dark():
    with pyplot.style.context('dark_background'):
        learn = Learner(mlp(), DataLoaders.from_hf_dd(load_digits(), batch_size=64), F.cross_entropy)
        for axes in learn.show_batch(), learn.show_results(), learn.top_losses(8)[1]:
            colours = {ax.title.get_color() for ax in axes.flat if ax.get_title()}
            assert colours <= {'white', 'tab:red'} and colours
        pyplot.close('all')


def test_runs_of_different_optimizers_are_compared_by_what_both_have():
    found = []
    for optim_class in torch.optim.SGD, torch.optim.AdamW:
        recorder = RecorderS()
        torch.manual_seed(0)
        batch = torch.ones(8, 64), torch.arange(8)
        Learner(mlp(), DataLoaders([batch]), F.cross_entropy, optim_class, .1, subs=recorder).fit(1)
        found.append(recorder.history)
    texts = [text.get_text() for text in compare(*found).get_legend().get_texts()]
    pyplot.close('all')
    assert all('momentum' in text and 'beta2' not in text for text in texts), texts


def test_units_and_where_curves_begin(plots):
    assert plots['timing'][0].get_xlabel() == 'milliseconds per batch'
    for name in 'plot_loss', 'plot_losses', 'lr_find': assert 'loss' in plots[name][0].get_ylabel()
    for name in 'plot_loss', 'plot_losses':
        raw, smooth = plots[name][0].lines[:2]
        assert raw.get_xdata()[0] == smooth.get_xdata()[0]
        assert raw.get_ydata()[0] == pytest.approx(smooth.get_ydata()[0])
    assert min(plots['command'][0].lines[0].get_xdata()) == 1   # epochs are counted as done
    assert min(plots['plot_metrics'][0].lines[0].get_xdata()) == 1


@pytest.mark.parametrize('end, scale', [(0.001, 'log'), (0.5, 'linear'), (-1., 'linear')])
def test_a_loss_that_has_fallen_far_is_on_a_logarithmic_axis(end, scale):
    curve = LossCurve()
    curve.points = [(i, 2 + (end-2)*min(i/50, 1)) for i in range(1, 200)]
    assert plot_losses(curve).get_yscale() == scale
    pyplot.close('all')


def test_pictures_of_notebooks_and_runs_have_two_pixels_for_one(plots):
    curve = LossCurve()
    curve.points = [(i, 1/i) for i in range(1, 9)]
    data, size = curve._repr_png_()
    height, width = imread(BytesIO(data)).shape[:2]
    assert (width, height) == (2*size['width'], 2*size['height'])
    rows = [dict(epoch=0, mode='train', loss=1., accuracy=.5)]
    assert imread(BytesIO(draw_png(partial(plot_history, rows), 2))).shape[1] == 9*200
