"""Stop a run and go on.

The names that `nntrain.checkpoint` had as one module are still found here."""
from importlib import import_module

OLD = 'checkpoint'


def __getattr__(name):
    if name.startswith('__'): raise AttributeError(name)
    module = import_module(f'{__name__}.{OLD}')
    try: return getattr(module, name)
    except AttributeError: raise AttributeError(f'{__name__} has no {name!r}') from None
