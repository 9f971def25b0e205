"""Several processes.

The names that `nntrain.distributed` had as one module are still found here."""
from importlib import import_module

OLD = 'distributed'


def __getattr__(name):
    if name.startswith('__'): raise AttributeError(name)
    module = import_module(f'{__name__}.{OLD}')
    try: return getattr(module, name)
    except AttributeError: raise AttributeError(f'{__name__} has no {name!r}') from None
