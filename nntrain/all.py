"""Every public name of nntrain, for notebooks and experiments: `from nntrain.all import *`.

Written by hand: one line for each module, in the order of the notebooks (`tools/check.py` says when one is missing).
Library code never imports from here."""
