"""Offline, no windows, the checkout's own nntrain and tools."""
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ |= dict(MPLBACKEND='agg', HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1')
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['PYTHONPATH'] = str(ROOT)
sys.path[:0] = [str(ROOT), str(ROOT/'tools')]


def pytest_configure(config):
    config.addinivalue_line('markers', 'faults: kills, damage and forgeries; minutes, not seconds')


def pytest_terminal_summary(terminalreporter):
    "What the tests counted, and the sum of the kills."
    said = [text for report in terminalreporter.stats.get('passed', ()) if report.when == 'call'
            for name, text in report.user_properties if name == 'said']
    kills = [re.fullmatch(r'.*: (\d+) kills?, (\d+) identical ends?', text) for text in said]
    sums = [sum(int(found[i]) for found in kills if found) for i in (1, 2)]
    if any(sums): said = [text for text in said if not text.startswith('torchrun: 1 ')]
    if any(sums): said.append(f'{sums[0]} kills in all, {sums[1]} identical ends')
    for text in said: terminalreporter.write_line(text)
