"""Make nntrain/data/digits.parquet, the data set that comes with the package. Run by hand, once:

    pip install scikit-learn && python tools/make_digits.py

Source: the test set of the UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998,
CC BY 4.0), 1,797 images of 8x8 pixels with values 0..16, as in scikit-learn's `load_digits`.
No random number is drawn: the same rows come out every time, in the order of the source."""
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, Value, disable_progress_bars
from PIL import Image as PILImage
from sklearn.datasets import load_digits

PATH = Path(__file__).resolve().parent.parent/'nntrain'/'data'/'digits.parquet'
FEATURES = Features(image=Image(), label=ClassLabel(names=list('0123456789')),
                    split=Value('string'))


def png(pixels:np.ndarray)->bytes:
    "One grey 8x8 image as PNG; 0..16 becomes 0..255, and `round(p/255*16)` is the way back."
    file = io.BytesIO()
    image = PILImage.fromarray((pixels.astype(int)*255//16).astype(np.uint8))
    image.save(file, 'PNG', optimize=True, compress_level=9)
    return file.getvalue()


def splits(labels:np.ndarray)->list:
    "Of every five images of one digit, in the order of the source, the third goes to 'test'."
    seen = [0]*10
    names = []
    for label in labels:
        names.append('test' if seen[label] % 5 == 2 else 'train')
        seen[label] += 1
    return names


def check(images:np.ndarray, labels:np.ndarray):
    "What was written is read again and compared with the source."
    back = Dataset(pq.read_table(PATH))
    assert back.features == FEATURES, back.features
    pixels = np.stack([np.array(image) for image in back['image']])
    assert pixels.dtype == np.uint8 and np.array_equal(np.round(pixels/255*16), images)
    assert back['label'] == labels.tolist()
    test = np.array(back['split']) == 'test'
    print(f'{PATH.name}: {PATH.stat().st_size:,} bytes, {(~test).sum()} train, {test.sum()} test')
    print('test images of each digit:', np.bincount(labels[test]).tolist())


def main():
    disable_progress_bars()
    source = load_digits()
    rows = dict(image=[dict(bytes=png(pixels), path=None) for pixels in source.images],
                label=source.target.tolist(), split=splits(source.target))
    PATH.parent.mkdir(exist_ok=True)
    data = Dataset.from_dict(rows, features=FEATURES)
    data.to_parquet(str(PATH), batch_size=len(data))
    check(source.images, source.target)


if __name__ == '__main__': main()
