"""A trained network from the bytes of its state."""

import io

import torch

from recspark import settings
from recspark.encodings import Encodings
from recspark.gnn.model import Network


def load(state: bytes, encodings: Encodings, shape: settings.Model) -> Network:
    """The network with these parameters on the CPU, in evaluation mode."""
    network = Network(encodings, shape)
    network.load_state_dict(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True))
    return network.eval()
