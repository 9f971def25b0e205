"""What an import costs after torch, in seconds of CPU: medians over fresh processes.

    python benchmarks/import_time.py [--rounds N]"""
import argparse
import statistics
import subprocess
import sys

CODE = '''
import torch, time, sys
before = set(sys.modules)
start = time.process_time()
import {module}
print(time.process_time() - start, *sorted({{n.split('.')[0] for n in set(sys.modules) - before}}))
'''
HEAVY = {'matplotlib', 'datasets', 'torcheval', 'fastprogress', 'PIL', 'pandas', 'IPython'}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5, help='processes for each row')
    rounds = parser.parse_args().rounds
    slow = False
    print(f'{"import":20}{"seconds":>9}  heavy packages loaded')
    for module, limit in ('nntrain.learner', 0.2), ('nntrain.all', None):
        command = [sys.executable, '-c', CODE.format(module=module)]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                for _ in range(rounds)]
        seconds = statistics.median(float(run[0]) for run in runs)
        slow |= bool(limit and seconds > limit)
        print(f'{module:20}{seconds:9.3f}  {" ".join(HEAVY & {*runs[0][1:]}) or "none"}')
    return 1 if slow else 0


if __name__ == '__main__': sys.exit(main())
