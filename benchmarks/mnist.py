"""MNIST from a cold start: seconds from the start of Python, and the share of test digits right.

    python benchmarks/mnist.py [DATA] [--epochs 5 8] [--seeds 0 1 2]

DATA is a folder with MNIST or a name on the Hugging Face hub. Each run is a process of its own that
imports, reads, decodes, trains and tests, with all cores of the machine; see nbs/30_mnist.ipynb."""
import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("import sys, os; from nntrain.examples.mnist import train_mnist; data, epochs, seed = sys.argv[1:]; "
        "found = train_mnist(data, int(epochs), seed=int(seed)); print(found['accuracy'])")


def cold(data, epochs, seed):
    "Accuracy, and seconds of wall clock from before Python starts until it has ended."
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    env.pop('OMP_NUM_THREADS', None)  # all cores
    start = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', CODE, data, str(epochs), str(seed)], env=env,
                          capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return float(done.stdout.split()[-1]), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='?', default='ylecun/mnist')
    parser.add_argument('--epochs', type=int, nargs='+', default=[5, 8])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    print(f'{os.cpu_count()} cores\nepochs  seed  accuracy  seconds')
    for epochs in args.epochs:
        for seed in args.seeds:
            accuracy, seconds = cold(args.data, epochs, seed)
            print(f'{epochs:6}{seed:6}{accuracy:10.4f}{seconds:9.1f}', flush=True)


if __name__ == '__main__': main()
