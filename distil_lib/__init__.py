"""distil_lib: DistilBERT (Sanh et al. 2019) step by step, at every scale by the same code.

Read the modules in the order in which data walks through them: corpus, blocks, masking, student, teacher, initialization,
losses, batches, distillation, evaluation, optimization, checkpoint, config, run_folder, pretrain.
"""

__version__ = "0.1.0"
