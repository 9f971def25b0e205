"""Pictures from a folder: what an epoch costs beside the decoder, and from the cache.

    python benchmarks/pictures.py [--n 5000] [--rounds 3] [--workers 2] [--steps]

Draws `--n` JPEGs of 500x375 pixels, about 105 KB each, into a temporary folder, which is deleted at
the end. Epochs of random resized crops of 224 pixels, mirrored at random, in batches of 64, nothing
trained. Each entry in each round, in turn; printed is the least of the seconds, by the wall and of
all processors together, and the ratio to the decoder. The latter is a loop over
`Image.open(file).convert('RGB')` and nothing else, in as many processes as others have workers.

- by hand: a DataLoader with worker processes; decode, crop and resize by PIL, mirror, normalise.
- first epoch: of nntrain, with a new cache in each round; batches of bytes.
- later epoch: from that cache; batches of bytes.
- with floats: the same and `Normalize` of each batch, as a training on the CPU needs it.
- simplejpeg: with that decoder instead of PIL's, if it is installed (pip install 'nntrain[jpeg]');
  all other rows need PIL alone, and later epochs decode nothing.

`--steps` prints what each step of one picture costs, in milliseconds of one processor. Wall times
of a loaded machine mean little; those of the processors are close to what an idle one takes."""
import argparse
import io
import math
import multiprocessing
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from nntrain.data import pictures
from nntrain.data.pictures import (SIMPLEJPEG, EncodedPicture, PictureCache, PictureFiles,
                                   PictureLoader, cut, open_picture, scaled)
from nntrain.data.transforms import Normalize

SIZE, BATCH = 224, 64
MEAN, STD = [.485, .456, .406], [.229, .224, .225]


def draw(job):
    "Waves of four sizes and noise, with about as many bytes as a photograph of that size."
    path, i = job
    numbers = np.random.default_rng(i)
    levels = np.zeros((375, 500, 3), np.float32)
    for cells, amount in ((4, 120), (16, 80), (64, 50), (200, 36)):
        few = numbers.normal(128, amount, (cells, cells, 3)).clip(0, 255).astype(np.uint8)
        levels += np.asarray(Image.fromarray(few).resize((500, 375), Image.BICUBIC), np.float32)-128
    levels = levels*.6 + 128 + numbers.normal(0, 7, (375, 500, 1))
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def decode_some(files):
    "The loop of the decoder, and its seconds of processor."
    start = time.process_time()
    for file in files:
        with Image.open(file) as picture: picture.convert('RGB')
    return time.process_time() - start


class ByHand:
    "What people write."
    def __init__(self, files, targets): self.files, self.targets = files, targets
    def __len__(self): return len(self.files)

    def __getitem__(self, i):
        with Image.open(self.files[i]) as picture: picture = picture.convert('RGB')
        width, height = picture.size
        for _ in range(10):
            area = width*height*random.uniform(.08, 1)
            shape = math.exp(random.uniform(math.log(3/4), math.log(4/3)))
            w, h = round(math.sqrt(area*shape)), round(math.sqrt(area/shape))
            if w <= width and h <= height: break
        else: w = h = min(width, height)
        x, y = random.randint(0, width-w), random.randint(0, height-h)
        picture = picture.resize((SIZE, SIZE), Image.BILINEAR, box=(x, y, x+w, y+h))
        if random.random() < .5: picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div_(255)
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        return pixels.sub_(mean).div_(std), self.targets[i]


def spent():
    "Seconds of all processors, of this process and of those that have ended."
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def seconds_of(loader, transform=None):
    "Seconds by the wall and of all processors for a pass."
    others = multiprocessing.active_children()
    wall, busy, n = time.perf_counter(), spent(), 0
    for x, y in loader:
        if transform is not None: x = transform(x)
        n += len(x)
    del x, y
    wall = time.perf_counter() - wall
    for child in multiprocessing.active_children():
        if child not in others: child.join(5)
    assert n == len(loader.dataset if isinstance(loader, DataLoader) else loader.pictures)
    return wall, spent() - busy


def seconds_of_decoder(pool, files, workers):
    parts = [files[i:i+25] for i in range(0, len(files), 25)]
    start = time.perf_counter()
    busy = sum(pool.map(decode_some, parts, chunksize=1))
    return time.perf_counter() - start, busy


def measure(files, folder, rounds, workers, pool):
    "The least seconds of each entry, by name; `pool` has processes that decode."
    found = {}
    def note(name, seconds):
        found[name] = [min(a, b) for a, b in zip(seconds, found.get(name, seconds))]

    normalize = Normalize([255*m for m in MEAN], [255*s for s in STD])
    def ours(cache=None):
        return PictureLoader(files, BATCH, SIZE, shuffle=True, seed=0, n_workers=workers,
                             cache=cache and folder/cache)
    pool.map(decode_some, [files.files[:8]]*workers, chunksize=1)
    for _ in range(rounds):
        note('decoder', seconds_of_decoder(pool, files.files, workers))
        by_hand = DataLoader(ByHand(files.files, files.targets), BATCH, shuffle=True,
                             num_workers=workers)
        note('by hand', seconds_of(by_hand))
        for faster in (False, True)[:1 + SIMPLEJPEG]:
            pictures.SIMPLEJPEG, by = faster, ', simplejpeg' if faster else ''
            loader = ours('cache')
            note(f'first epoch{by}', seconds_of(loader))
            if not faster:
                for _ in range(2): note('later epoch', seconds_of(loader))
                note('later epoch, floats', seconds_of(loader, normalize))
            shutil.rmtree(folder/'cache')
            note(f'first epoch, floats{by}', seconds_of(ours('cache'), normalize))
            shutil.rmtree(folder/'cache')
            note(f'no cache{by}', seconds_of(ours()))
    return found


def steps(files, folder, n=200):
    "Milliseconds of one processor for each step of one picture."
    def least(function, items):
        times = []
        for _ in range(9):
            start = time.process_time()
            for item in items: function(item)
            times.append((time.process_time() - start)/len(items))
        return 1000*min(times)

    rows = range(min(n, len(files)))
    data = [Path(file).read_bytes() for file in files.files[:len(rows)]]
    def load(i): Image.open(io.BytesIO(data[i])).load()
    def decode(i): EncodedPicture(data[i]).decode()
    pixels = open_picture(files, 0).decode().copy()
    small, box = scaled(pixels, 256, 256), (.1, .1, .9, .8)
    image, part = Image.fromarray(pixels), Image.fromarray(small)
    cache = PictureCache(folder/'steps', 'steps', len(rows), 256, 256)
    batch = torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8)
    batch = batch.contiguous(memory_format=torch.channels_last)
    normalize = Normalize([9., 9, 9], [5., 5, 5])
    found = {
        'read the file': least(lambda i: Path(files.files[i]).read_bytes(), rows),
        'decode, PIL': least(load, rows)}
    for faster in (False, True)[:1 + SIMPLEJPEG]:
        pictures.SIMPLEJPEG, by = faster, 'simplejpeg' if faster else 'PIL'
        found[f'decode to an array, {by}'] = least(decode, rows)
    return found | {
        'scale to 256x256': least(lambda i: scaled(pixels, 256, 256), rows),
        '... by PIL': least(lambda i: image.resize((256, 256), Image.BILINEAR), rows),
        'scale a crop of that to 224x224': least(lambda i: scaled(cut(small, box), 224, 224), rows),
        '... by PIL, crop': least(lambda i: part.resize((224, 224), Image.BILINEAR,
                                                        box=(25, 25, 205, 230)), rows),
        'write it to the cache': least(lambda i: cache.write(i, small, (375, 500)), rows),
        'read it from the cache': least(cache.read, rows),
        'normalise bytes to floats': least(lambda i: normalize(batch), range(4))/BATCH}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--n', type=int, default=5000, help='pictures')
    parser.add_argument('--rounds', type=int, default=3, help='of all entries in turn')
    parser.add_argument('--workers', type=int, default=2, help='processes or threads')
    parser.add_argument('--steps', action='store_true', help='the steps of one picture alone')
    args = parser.parse_args()
    torch.set_num_threads(1)
    fork = multiprocessing.get_context('fork')
    with tempfile.TemporaryDirectory() as folder, fork.Pool(args.workers) as pool:
        folder = Path(folder)
        jobs = [(folder/'pictures'/'ab'[i % 2]/f'{i:06}.jpg', i) for i in range(args.n)]
        for path, _ in jobs[:2]: path.parent.mkdir(parents=True)
        pool.map(draw, jobs)
        # not `in_folder`, which has PIL load all its formats: what is by hand would open slower
        files = PictureFiles([str(path) for path, _ in jobs], [i % 2 for _, i in jobs], ['a', 'b'])
        size = sum(Path(file).stat().st_size for file in files.files)/len(files)/1000
        print(f'{len(files)} JPEGs of 500x375, {size:.0f} KB each; PIL {Image.__version__}, '
              f'simplejpeg {"also" if SIMPLEJPEG else "not installed"}; {args.workers} workers',
              flush=True)
        if args.steps:
            for name, value in steps(files, folder).items(): print(f'{name:34}{value:8.3f} ms')
            return
        found = measure(files, folder, args.rounds, args.workers, pool)
        print(f'{"":32}{"seconds":>9}{"ratio":>8}{"processors":>12}{"ratio":>8}')
        first = found['decoder']
        for name, (wall, busy) in found.items():
            print(f'{name:32}{wall:9.2f}{wall/first[0]:8.2f}{busy:12.2f}{busy/first[1]:8.2f}')


if __name__ == '__main__': main()
