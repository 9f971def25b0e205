# Written by tools/stubs.py from the modules and pages: do not edit.
from typing import NamedTuple
import torch

class Results(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor
    probs: torch.Tensor
    losses: torch.Tensor
    classes: list
    @property
    def predicted(self): ...
    @property
    def wrong(self): ...
    def show_results(self, n: int=18, axes=None):
        "Samples with what the model says of them, in red where it is wrong."
        ...
    def top_losses(self, n: int=10, axes=None) -> tuple:
        "The samples with the highest losses."
        ...
    def confusion(self):
        "How often each class was taken for each."
        ...
    def most_confused(self, least: int=2) -> list:
        "The pairs of classes that are mistaken for each other."
        ...
    def plot_confusion(self, ax=None):
        "The table of `confusion` with counts; the darker, the more mistakes of that kind."
        ...
    def calibration(self, n_bins: int=10) -> list:
        "How sure the model is, and how often it is right, for samples of which it is about as sure."
        ...
    def plot_calibration(self, n_bins: int=10, ax=None):
        "Share of right answers against the confidence; on the diagonal the two agree."
        ...
def calibration_error(table: list) -> float: ...
