"""ELMo (Peters et al. 2018): the model that Tables 1 and 3 of the paper compare with."""
