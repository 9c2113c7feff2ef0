"""The decoder of hidden patches."""

import pytest
import torch

from contrast3d.nn.patch_decoder import PatchDecoder


def test_decoder():
    """Hidden patches by their centers: in their order, each whatever the other hidden ones are called."""
    torch.manual_seed(0)
    decoder = PatchDecoder(16, 2, 2, patch_size=5).eval()
    tokens, centers, hidden = torch.randn(2, 4, 16), torch.randn(2, 4, 3), torch.randn(2, 3, 3)
    found = decoder(tokens, centers, hidden)
    assert found.shape == (2, 3, 5, 3)
    torch.testing.assert_close(decoder(tokens, centers, hidden.flip(1)), found.flip(1))
    torch.testing.assert_close(decoder(tokens.flip(1), centers.flip(1), hidden), found)
    position, x = decoder.position(torch.cat([centers, hidden], 1)), torch.cat(
        [tokens, decoder.mask_token.expand(2, 3, 16)], 1)
    for block in decoder.blocks:
        x = block(x[:, :0], x + position)[1]
    expected = decoder.head(torch.nn.functional.layer_norm(x[:, 4:], (16,), decoder.norm.weight, decoder.norm.bias))
    torch.testing.assert_close(found, expected.unflatten(2, (5, 3)))
    with pytest.raises(AssertionError):  # its positions are what tells one hidden patch from another
        torch.testing.assert_close(decoder(tokens, centers, hidden + 1), found)
