"""What the programs of the tests share: the server that they are forked from imports this.

Late imports are here, too, and what the libraries prepare when they are first used: they took half
of the time of a short run. Nothing of torch is computed: its threads do not bear to be forked.
"""

import gc
import importlib
import io

from matplotlib.figure import Figure
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

for name in (
    "distil_lib.pretrain",
    "matplotlib.backends.backend_agg",
    "multiprocess.managers",
    "scipy.io",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
):
    importlib.import_module(name)
get_checkpoint_conversion_mapping("bert")  # thousands of patterns
figure = Figure(layout="constrained")
figure.subplots().set(yscale="log", ylabel="fonts")
figure.savefig(io.BytesIO())
# What is here stays: no program searches it for garbage, which would also copy all of it.
gc.collect()
gc.freeze()
