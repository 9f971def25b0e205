# Written by tools/stubs.py from the modules and pages: do not edit.
from typing import Any
import torch
def mixed_seed(*numbers) -> int: ...
def drawn_seed() -> int: ...

class OrderedLoader:
    order_by: Any
    counts_passes: bool
    n: Any
    batch_size: Any
    shuffle: Any
    drop_last: Any
    seed: Any
    epoch: Any
    position: Any
    rows: Any
    def __init__(self, n: int, batch_size: int, shuffle: bool=False, seed: int | None | None=None, drop_last=False): ...
    def __len__(self): ...
    def __repr__(self): ...
    def permutation(self, epoch: int) -> torch.Tensor:
        "The order of pass `epoch`, the same for every kind of loader."
        ...
    def __iter__(self): ...
    def state_dict(self):
        "The position of the loader, and the settings that its batches depend on."
        ...
    def load_state_dict(self, state: dict):
        "Let the next `iter` continue where `state` was taken."
        ...

class TensorLoader(OrderedLoader):
    transform: Any
    tensors: Any
    def __init__(self, *tensors: torch.Tensor, batch_size: int, transform=None, device=None, **kwargs): ...
    def fetch(self, epoch: int, position: int):
        "The batches of a pass from `position` on."
        ...
def copied_ahead(batches, device): ...

class Reader:
    dataset: Any
    collate_fn: Any
    name: Any
    epoch: Any
    def __init__(self, dataset, collate_fn, name: str): ...
    def rows(self, rows): ...
    def __getitem__(self, job): ...

class FetchLoader(OrderedLoader):
    dataset: Any
    options: Any
    reader: Any
    seed: Any
    def __init__(self, dataset, batch_size: int, collate_fn=..., name: str='train', options=None, **kwargs): ...
    def fetch(self, epoch: int, position: int):
        "The batches of a pass from `position` on."
        ...
