"""Token mixers: how tokens exchange information. One file a mixer, one interface.

softmax       core.layers.MultiHeadAttention
linear        elu + 1 features (Katharopoulos et al. 2020)         performer   random features (Choromanski et al. 2020)
delta         the delta rule, gated (Yang et al. 2024)             causal only
convolution   depthwise over neighbours                            what attention replaced
recurrence    torch's GRU                                          what attention replaced
"""
