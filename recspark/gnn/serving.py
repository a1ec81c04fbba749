"""A trained network from the bytes of its state."""

import io
import pickle

import torch

from recspark import settings
from recspark.encodings import Encodings
from recspark.gnn.model import Network


class DamagedState(ValueError):
    """Bytes that torch cannot read."""


def load(state: bytes, encodings: Encodings, shape: settings.Model) -> Network:
    """The network with these parameters on the CPU, in evaluation mode.

    Raises:
        DamagedState: the bytes are not the whole of a state as torch writes it.
        RuntimeError: of torch, the network has other parameters.
    """
    try:
        parameters = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as fault:
        raise DamagedState(str(fault)) from None
    network = Network(encodings, shape)
    network.load_state_dict(parameters)
    return network.eval()
