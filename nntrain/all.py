"""What users type, about 150 names, for notebooks and experiments: `from nntrain.all import *`.

Written by hand, in the order of the book. None hides a public name of `torch` or of Python, and
library code imports nothing from here. What acts on a learner is a method of it."""
from nntrain.pubsub import DECIDE, GROUP, MEASURE, PRECISION, PREPARE, SAVE, SHOW, TRANSFORM
from nntrain.pubsub import CancelException, CancelFitException, CancelFullEpochException
from nntrain.pubsub import CancelEpochException, CancelTrainException, CancelValidateException
from nntrain.pubsub import CancelBatchException, CancelPredictException, CancelLossException
from nntrain.pubsub import CancelBackwardException, CancelStepException
from nntrain.pubsub import Publisher, PublishEvents, Subscriber, every, once
from nntrain.state import Stateful
from nntrain.learner import Learner, split_batch
from nntrain.dataloaders import DataLoaders
from nntrain.metrics import EpochMetric, MetricsS, SmoothLossS, accuracy
from nntrain.device import DeviceS, default_device, to_device
from nntrain.lrfind import LRCurve, LRFindS
from nntrain.momentum import MomentumLearner
from nntrain.progress import ProgressS
from nntrain.data.collate import eight_bits, hf_ds_collate_fn, load_digits
from nntrain.data.cache import kept_size
from nntrain.data.loaders import FetchLoader, OrderedLoader, TensorLoader
from nntrain.data.streams import StreamLoader, endless
from nntrain.data.transforms import BatchTransformS, KeyedDataset, Normalize, normalize_for
from nntrain.data.transforms import seed_all
from nntrain.data.samplers import HardExampleSampler, Weighted
from nntrain.data.mixup import CutMixS, MixUpS, RandomErasingS
from nntrain.data.images import build_model, load_images, show_batch
from nntrain.data.pictures import PictureFiles, PictureLoader
from nntrain.data.text import Perplexity, SequenceDataset
from nntrain.training.hyperparams import GroupedOptim, HyperParams, JointOptim, layer_groups
from nntrain.training.curves import Curve, combine, constant, cosine, exponential, flat_cos, linear
from nntrain.training.curves import one_cycle, polynomial, warm_restarts
from nntrain.training.schedule import FreezeS, ScheduleS, TorchScheduleS
from nntrain.training.early_stopping import EarlyStoppingS, KeepBestS, ReduceLROnPlateauS
from nntrain.training.limits import OverfitBatchS, ShortEpochS, SingleBatchS, StopAfterS
from nntrain.training.gradients import GradientAccumulationS, GradientClipS
from nntrain.training.nans import StopOnNaNS
from nntrain.training.precision import ChannelsLastS, CompileS, MixedPrecisionS
from nntrain.training.weight_averaging import EMAS, SWAS
from nntrain.training.regularize import ActivationRegularizationS, BatchNormFreezeS, ResetStateS
from nntrain.training.validation import ValidateS
from nntrain.inspect.timing import TimingS, stopwatch
from nntrain.inspect.syncs import SyncCounterS
from nntrain.inspect.hooks import ActivationStatsS, GradientStatsS, Hooks
from nntrain.inspect.synthetic import synth_learner
from nntrain.tracking.history import History, compare
from nntrain.tracking.recorder import RecorderS
from nntrain.tracking.usual import usual
from nntrain.tracking.loggers import CSVLoggerS, JSONLLoggerS, TrackerS
from nntrain.tracking.tensorboard import TensorBoardS
from nntrain.tracking.wandb import WandbS
from nntrain.tracking.mlflow import MLflowS
from nntrain.checkpoint.format import read_checkpoint
from nntrain.checkpoint.checkpoint import CheckpointS
from nntrain.checkpoint.folder import best_of, show_checkpoints
from nntrain.checkpoint.weights import load_model, save_model
from nntrain.checkpoint.verify import check_resume
from nntrain.inference.interpret import Results
from nntrain.inference.inputs import Preparation, find_preparation
from nntrain.inference.export import Predictor, load_predictor
from nntrain.distributed.comm import end_ranks, launch, my_place, start_ranks
from nntrain.distributed.strategies import Replicas, Shares
from nntrain.distributed.distributed import DistributedS
from nntrain.variants.sam import SAMLearner
from nntrain.variants.distill import DistillationLearner
from nntrain.variants.gan import GANLearner, SamplesS
from nntrain.interop.accelerate import AcceleratorS
from nntrain.interop.hub import from_hub
from nntrain.interop.optuna import PruneS
from nntrain.interop.transformers import GenerateS

# Written by tools/stubs.py, for type checkers
__all__ = [
    'DECIDE', 'GROUP', 'MEASURE', 'PRECISION', 'PREPARE', 'SAVE', 'SHOW', 'TRANSFORM',
    'CancelException', 'CancelFitException', 'CancelFullEpochException', 'CancelEpochException',
    'CancelTrainException', 'CancelValidateException', 'CancelBatchException',
    'CancelPredictException', 'CancelLossException', 'CancelBackwardException',
    'CancelStepException', 'Publisher', 'PublishEvents', 'Subscriber', 'every', 'once', 'Stateful',
    'Learner', 'split_batch', 'DataLoaders', 'EpochMetric', 'MetricsS', 'SmoothLossS', 'accuracy',
    'DeviceS', 'default_device', 'to_device', 'LRCurve', 'LRFindS', 'MomentumLearner', 'ProgressS',
    'eight_bits', 'hf_ds_collate_fn', 'load_digits', 'kept_size', 'FetchLoader', 'OrderedLoader',
    'TensorLoader', 'StreamLoader', 'endless', 'BatchTransformS', 'KeyedDataset', 'Normalize',
    'normalize_for', 'seed_all', 'HardExampleSampler', 'Weighted', 'CutMixS', 'MixUpS',
    'RandomErasingS', 'build_model', 'load_images', 'show_batch', 'PictureFiles', 'PictureLoader',
    'Perplexity', 'SequenceDataset', 'GroupedOptim', 'HyperParams', 'JointOptim', 'layer_groups',
    'Curve', 'combine', 'constant', 'cosine', 'exponential', 'flat_cos', 'linear', 'one_cycle',
    'polynomial', 'warm_restarts', 'FreezeS', 'ScheduleS', 'TorchScheduleS', 'EarlyStoppingS',
    'KeepBestS', 'ReduceLROnPlateauS', 'OverfitBatchS', 'ShortEpochS', 'SingleBatchS', 'StopAfterS',
    'GradientAccumulationS', 'GradientClipS', 'StopOnNaNS', 'ChannelsLastS', 'CompileS',
    'MixedPrecisionS', 'EMAS', 'SWAS', 'ActivationRegularizationS', 'BatchNormFreezeS',
    'ResetStateS', 'ValidateS', 'TimingS', 'stopwatch', 'SyncCounterS', 'ActivationStatsS',
    'GradientStatsS', 'Hooks', 'synth_learner', 'History', 'compare', 'RecorderS', 'usual',
    'CSVLoggerS', 'JSONLLoggerS', 'TrackerS', 'TensorBoardS', 'WandbS', 'MLflowS',
    'read_checkpoint', 'CheckpointS', 'best_of', 'show_checkpoints', 'load_model', 'save_model',
    'check_resume', 'Results', 'Preparation', 'find_preparation', 'Predictor', 'load_predictor',
    'end_ranks', 'launch', 'my_place', 'start_ranks', 'Replicas', 'Shares', 'DistributedS',
    'SAMLearner', 'DistillationLearner', 'GANLearner', 'SamplesS', 'AcceleratorS', 'from_hub',
    'PruneS', 'GenerateS']
