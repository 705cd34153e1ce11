"""Token mixers: how tokens exchange information. One file a mixer, one interface.

softmax       softmax.MultiHeadAttention                           window      the same, with a sliding window
linear        elu + 1 features (Katharopoulos et al. 2020)         performer   random features (Choromanski et al. 2020)
delta         the delta rule (Schlag et al. 2021); causal only     gated_delta with gates (Yang et al. 2024)
convolution   depthwise over neighbours                            what attention replaced
recurrence    torch's GRU                                          what attention replaced
"""
