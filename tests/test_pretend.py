"""Subscribers, variants and methods of ours on the pretend device: what waits, what is foreign."""
import json
import warnings

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nntrain.all as everything
from nntrain.all import *
from nntrain.inspect.device_check import OUTER, Seen
from nntrain.inspect.pretend import meter, pretend_device
from nntrain.learner import METHODS
from pages import NBS

def images(n=3, size=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [(torch.rand(size, 1, 8, 8, generator=draw),
             torch.randint(4, (size,), generator=draw)) for _ in range(n)]


class Net(nn.Sequential):
    def reset(self): pass


def net():
    torch.manual_seed(0)
    return Net(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
               nn.Dropout(.1), nn.Linear(256, 4))


def make(*subs, cls=Learner, opt=torch.optim.SGD, **kwargs):
    dls = DataLoaders(images(), images(2, seed=1))
    dls.classes = list('abcd')
    return cls(net(), dls, F.cross_entropy, opt, .05, [DeviceS(pretend_device()), *subs], **kwargs)


def seen_while(learn, act):
    "What the meter sees while `act` runs: waits in batch events by what and who; foreign tensors."
    with Seen(learn) as seen:
        meter.on_wait,meter.on_foreign = seen.wait,seen.meet
        try:
            with torch.autograd.set_multithreading_enabled(False): act()
        finally: meter.on_wait = meter.on_foreign = None
    inside = {(what, event, who) for what,event,who,*_ in seen.waits if not event.endswith(OUTER)}
    return inside,[f['what'] for f in seen.foreign.values()]


def gan_loss(fake, real=None):
    loss = F.softplus(-fake).mean()
    return loss if real is None else F.softplus(fake).mean() + F.softplus(-real).mean()


class GanNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 64)
    def forward(self, z): return self.linear(z).unflatten(1, (1, 8, 8))


def gan(*subs):
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    return GANLearner(GanNet(), DataLoaders(images(), None), gan_loss, torch.optim.Adam, 1e-3,
                      [DeviceS(pretend_device()), *subs], discriminator=discriminator)


def logging():
    learn = make(MetricsS(accuracy, show=False), RecorderS(), MixedPrecisionS('fp16'))
    learn.on('after_loss', lambda learn: learn.log('square', learn.preds.square().mean()))
    learn.on('before_step', lambda learn: learn.log('batch number', learn.train_iter, n=torch.ones(
        (), device=learn.loss.device)))
    learn.on('before_epoch', lambda learn: learn.log('weight', learn.model[0].weight.norm()))
    return learn


def subscribers(folder):
    "Name -> function that makes a learner with it."
    plain = dict(
        ActivationRegularizationS=lambda: ActivationRegularizationS(layer='5'),
        ActivationStatsS=lambda: ActivationStatsS(every=1), BatchNormFreezeS=BatchNormFreezeS,
        BatchTransformS=lambda: BatchTransformS(Normalize([.5], [.5], dim=1)),
        CSVLoggerS=lambda: CSVLoggerS(folder/'rows.csv'), ChannelsLastS=ChannelsLastS,
        CheckpointS=lambda: CheckpointS(folder/'checkpoints', every_steps=2), CutMixS=CutMixS,
        DeviceS=None, EMAS=EMAS, EarlyStoppingS=EarlyStoppingS, FreezeS=lambda: FreezeS({0: 0}),
        GradientAccumulationS=lambda: GradientAccumulationS(2),
        GradientClipS=lambda: GradientClipS(1.), GradientStatsS=lambda: GradientStatsS(every=1),
        JSONLLoggerS=lambda: JSONLLoggerS(folder/'rows.jsonl'), KeepBestS=KeepBestS,
        LRFindS=LRFindS, MetricsS=lambda: MetricsS(accuracy), MixUpS=MixUpS,
        MixedPrecisionS=MixedPrecisionS, OverfitBatchS=OverfitBatchS, ProgressS=ProgressS,
        RandomErasingS=lambda: RandomErasingS(1.), RecorderS=RecorderS,
        ReduceLROnPlateauS=ReduceLROnPlateauS, ResetStateS=ResetStateS, SWAS=SWAS,
        SmoothLossS=SmoothLossS,
        ScheduleS=lambda: ScheduleS(lr=one_cycle(.1)), ShortEpochS=lambda: ShortEpochS(.5),
        SingleBatchS=SingleBatchS, StopAfterS=lambda: StopAfterS(n_steps=4),
        StopOnNaNS=StopOnNaNS, SyncCounterS=SyncCounterS, ValidateS=lambda: ValidateS(2),
        TensorBoardS=lambda: TensorBoardS(folder/'board'), TimingS=TimingS,
        TorchScheduleS=lambda: TorchScheduleS(
            lambda opt: torch.optim.lr_scheduler.StepLR(opt, 2), each='batch'))
    found = {name: (lambda sub=sub: make(*([sub()] if sub else []), MetricsS(accuracy, show=False)))
             for name,sub in plain.items()}
    found['learn.log'] = logging
    found['fp16'] = lambda: make(MixedPrecisionS('fp16'))
    found['skipped batches, accumulation'] = lambda: make(StopOnNaNS('skip'), GradientAccumulationS(2))
    found['accumulation, clipping, bf16, averages, schedule'] = lambda: make(
        GradientAccumulationS(2), MixedPrecisionS(), GradientClipS(1.), EMAS(),
        ScheduleS(lr=one_cycle(.1)), MetricsS(accuracy, show=False), RecorderS())
    found['MomentumLearner'] = lambda: make(cls=MomentumLearner)
    found['SAMLearner'] = lambda: make(cls=SAMLearner)
    found['DistillationLearner'] = lambda: make(cls=DistillationLearner, teacher=net())
    found['GANLearner'] = gan
    found['SamplesS'] = lambda: gan(SamplesS(4))
    return found


# Not here: they need a library, several processes or a compiler, or are bases.
ELSEWHERE = {'AcceleratorS', 'CompileS', 'DistributedS', 'GenerateS', 'MLflowS', 'PruneS',
             'WandbS', 'Subscriber', 'TrackerS', 'Learner'}
# Who waits in a batch, and why.
WAITS = {'CheckpointS': 'AfterAllS',    # a checkpoint every second step: it is a copy
         'LRFindS': 'LRFindS',          # reads losses five times a second, not in each batch
         'ValidateS': 'ValidateS'}      # a row at each of its validations


def test_every_subscriber_and_variant_has_a_line(tmp_path):
    kinds = everything.Subscriber, everything.Learner
    ours = {name for name,value in vars(everything).items()
            if isinstance(value, type) and issubclass(value, kinds)}
    assert ours - ELSEWHERE == {*subscribers(tmp_path)} & ours


def test_no_subscriber_waits_in_a_batch_or_keeps_a_tensor_on_the_cpu(tmp_path, capsys):
    lines,wrong = [],[]
    for name,build in subscribers(tmp_path).items():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            learn = build()
            inside,foreign = seen_while(learn, lambda: learn.fit(2))
        lines.append(f'{name:50} {len(foreign)} foreign, waits: {sorted(inside) or 0}')
        if foreign or {who for *_,who in inside} - {WAITS.get(name)}: wrong.append(lines[-1])
    with capsys.disabled(): print('\n' + '\n'.join(lines))
    assert not wrong, '\n'.join(wrong)


def verbs(folder):
    "Method of a learner -> call; those that only draw or read rows are left out."
    return dict(
        log=lambda learn: learn.log('kl', .5), lr_find=lambda learn: learn.lr_find(n_batches=20, repeats=1),
        freeze_to=lambda learn: learn.freeze_to(1),
        freeze=lambda learn: learn.freeze(), unfreeze=lambda learn: learn.unfreeze(),
        fit_one_cycle=lambda learn: learn.fit_one_cycle(1),
        fit_flat_cos=lambda learn: learn.fit_flat_cos(1),
        fit_warm_restarts=lambda learn: learn.fit_warm_restarts(1),
        fine_tune=lambda learn: learn.fine_tune(1), plot_plan=lambda learn: learn.plot_plan(1),
        fit_for=lambda learn: learn.fit_for(n_steps=2), to_bf16=lambda learn: learn.to_bf16(),
        to_fp16=lambda learn: learn.to_fp16(), to_fp32=lambda learn: learn.to_fp16().to_fp32(),
        show_loop=lambda learn: learn.show_loop(),
        explain=lambda learn: learn.explain(), summary=lambda learn: learn.summary(),
        check=lambda learn: learn.check(), as_code=lambda learn: make().as_code(),
        save=lambda learn: learn.save(folder/'w.safetensors'),
        load=lambda learn: learn.load(folder/'w.safetensors'),
        get_preds=lambda learn: learn.get_preds(), validate=lambda learn: learn.validate(),
        iter_preds=lambda learn: [*learn.iter_preds()],
        tta=lambda learn: learn.tta([lambda x: x.flip(-1)]),
        results=lambda learn: learn.results(), top_losses=lambda learn: learn.top_losses(2),
        show_batch=lambda learn: learn.show_batch(), confusion=lambda learn: learn.confusion(),
        show_results=lambda learn: learn.show_results(),
        most_confused=lambda learn: learn.most_confused(),
        plot_confusion=lambda learn: learn.plot_confusion(),
        calibration=lambda learn: learn.calibration(),
        plot_calibration=lambda learn: learn.plot_calibration(),
        predict_items=lambda learn: learn.predict_items(list(images(1)[0][0])),
        export=lambda learn: learn.export(folder/'model.pt2'),
        snapshot=lambda learn: (learn.snapshot('now'), learn.restore('now')),
        resume=lambda learn: learn.fit(2, resume=resumable(learn)))


def resumable(learn):
    "A state from the middle of a fit."
    states = []
    with learn.on('after_batch', lambda learn: states.append(learn.state_dict()), order=SAVE):
        learn.fit(1)
    return states[1]


# They answer on the host by what each batch contains, or gather predictions there.
ANSWERS = {'explain', 'check', 'lr_find'}


def test_every_method_has_a_line(tmp_path):
    elsewhere = {'check_device', 'push_to_hub', 'history', 'hypers', 'no_bar', 'no_logging'}
    assert {*METHODS} - elsewhere <= {*verbs(tmp_path)}


def test_no_method_waits_in_a_batch_or_keeps_a_tensor_on_the_cpu(tmp_path, capsys):
    lines,wrong = [],[]
    for name,call in verbs(tmp_path).items():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            learn = make(MetricsS(accuracy, show=False))
            with torch.autograd.set_multithreading_enabled(False): learn.fit(1)
            try: inside,foreign = seen_while(learn, lambda: call(learn))
            except Exception as error: inside,foreign = {(repr(error)[:150],)},[]
        plt.close('all')
        lines.append(f'{name:20} {len(foreign)} foreign, waits: {sorted(inside) or 0}')
        gathered = {who for *_,who in inside} == {'collect'}
        if foreign or inside and not gathered and name not in ANSWERS: wrong.append(lines[-1])
    with capsys.disabled(): print('\n' + '\n'.join(lines))
    assert not wrong, '\n'.join(wrong)


def test_a_process_that_has_trained_can_check_for_a_device():
    learn = make()
    learn.subs[0].device = torch.device('cpu')
    learn.fit(1)
    assert learn.check_device().findings == []


def programs_of(page):
    "The code cells of a page that are shown, as they are, on the pretend device."
    cells = json.loads((NBS/page).read_text(encoding='utf-8'))['cells']
    code = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    return [text.replace("device='cpu'", 'device=pretend_device()') for text in code
            if not text.startswith('#| hide')]


def fits_of(page, monkeypatch):
    "Run a page's programs: (the program, waits in batch events, foreign tensors) of each fit."
    found,fit,elsewhere = [],Learner.fit,lambda *_: None  # an assert may compare with the CPU's

    def seen_fit(learn, *args, **kwargs):
        if DeviceS not in learn.subs: learn.subscribe(DeviceS(pretend_device()))
        try: seen = seen_while(learn, lambda: fit(learn, *args, **kwargs))
        finally: meter.on_foreign = elsewhere
        found.append((program, *seen))
    monkeypatch.setattr(Learner, 'fit', seen_fit)
    monkeypatch.setattr(meter, 'on_foreign', elsewhere)
    space = dict(pretend_device=pretend_device)
    for program in programs_of(page): exec(compile(program, page, 'exec'), space)
    return found


@pytest.mark.parametrize('page, waiting', [('guides/05_recipes.ipynb', {'SkipNaNsS', 'CountedSkipS'}),
                                           ('index.ipynb', set())])
def test_no_recipe_waits_in_a_batch_but_the_one_that_says_so(page, waiting, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fits = fits_of(page, monkeypatch)
    wrong = [(program, inside, foreign) for program,inside,foreign in fits
             if foreign or {who for *_,who in inside} - waiting]
    assert fits and not wrong, wrong
    assert {who for _,inside,_ in fits for *_,who in inside} == waiting


def test_torch_takes_it_for_no_device_of_its_own():
    "DataParallel would look for its devices, also long after the check."
    pretend_device()
    parallel, x = nn.DataParallel(nn.Linear(3, 2)), torch.ones(4, 3)
    assert torch.equal(parallel(x), parallel.module(x))
