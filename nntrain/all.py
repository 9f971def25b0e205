"""Every public name of nntrain, for notebooks and experiments: `from nntrain.all import *`.

Written by hand: one line for each module, in the order of the notebooks; tools/check.py says which
is missing. Library code imports nothing from here."""
from nntrain.rows import *
from nntrain.decode import *
from nntrain.batches import *
from nntrain.streams import *
from nntrain.dataloaders import *
from nntrain.learner import *
from nntrain.pubsub import *
from nntrain.state import *
from nntrain.metrics import *
from nntrain.device import *
from nntrain.transforms import *
from nntrain.lrfind import *
from nntrain.momentum import *
from nntrain.inspect import *
from nntrain.timing import *
from nntrain.hostreads import *
from nntrain.explain import *
from nntrain.hooks import *
from nntrain.summary import *
from nntrain.checks import *
from nntrain.hyperparams import *
from nntrain.curves import *
from nntrain.schedule import *
from nntrain.plans import *
from nntrain.finite import *
from nntrain.gradients import *
from nntrain.stopping import *
from nntrain.precision import *
from nntrain.mixing import *
from nntrain.averages import *
from nntrain.regularize import *
from nntrain.progress import *
from nntrain.records import *
from nntrain.history import *
from nntrain.recorder import *
from nntrain.nested import *
from nntrain.files import *
from nntrain.weights import *
from nntrain.folders import *
from nntrain.checkpoint import *
from nntrain.proof import *
from nntrain.images import *
from nntrain.runs import *
