"""Offline, no windows, the checkout's own nntrain and tools."""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ |= dict(MPLBACKEND='agg', HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1')
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['PYTHONPATH'] = str(ROOT)
sys.path[:0] = [str(ROOT), str(ROOT/'tools')]


def pytest_configure(config):
    config.addinivalue_line('markers', 'faults: kills, damage and forgeries; minutes, not seconds')
