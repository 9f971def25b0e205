"""Train PyTorch networks with a loop that publishes every step.

`nt.Learner` and `from nntrain import Learner, MetricsS` work for every name of `nntrain.all`; the
module that defines a name is imported when the name is first asked for."""
__version__ = "0.1.0"
TYPE_CHECKING = False  # True for type checkers alone
if TYPE_CHECKING: from nntrain.all import *


def _homes():
    "The module of each name, as `nntrain/all.py` lists them."
    import ast
    from pathlib import Path
    tree = ast.parse((Path(__file__).parent/'all.py').read_text(encoding='utf-8'))
    return {name.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom)
            for name in node.names}


def __getattr__(name):
    from importlib import import_module
    homes = {} if name.startswith('__') else _homes()
    if name not in homes: raise AttributeError(f'nntrain has no {name!r}; see nntrain.all')
    return getattr(import_module(homes[name]), name)


def __dir__(): return sorted({*globals(), *_homes()})
