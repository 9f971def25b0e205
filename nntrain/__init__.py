import warnings

__version__ = "0.1.0"

# datasets draws its bars with tqdm, which warns in every notebook that it found no ipywidgets
warnings.filterwarnings('ignore', 'IProgress not found')
