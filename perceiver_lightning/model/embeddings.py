"""Content made of integer tokens, such as bytes or words, as vectors that a Perceiver reads.

A modality of tokens has the facts `{"vocabulary": V, "resolution": [M]}`; its content (B, M) is embedded by a table,
and from there on it is content of as many channels as the table's vectors have.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """One learned vector for each token of a vocabulary (Perceiver IO, section 4.1).

    Args:
        vocabulary: V, how many tokens there are.
        width: of a token's vector.
    """

    def __init__(self, vocabulary: int, width: int = 64):
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocabulary, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, *grid), int64 in [0, V), to vectors (B, *grid, width)."""
        return F.embedding(tokens, self.table)
