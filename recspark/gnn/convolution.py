"""Messages from the events of a node, one convolution per relation, summed over relations.

A message depends on the event, what it points to and its age at the anchor: on (node, anchor)
only, never on the seed that asks. Axes: N nodes, E edges, K foreign keys, D channels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from recspark.encodings import Encodings, TableEncoding
from recspark.gnn.batches import Edges, source_tables
from recspark.gnn.encoders import TIME_CHANNELS, Categories, Numbers, encode_ages


def module_key(name: str) -> str:
    """A table's or relation's name as torch allows it in a ModuleDict."""
    return "of " + name.replace(".", "/")


def rows_or_zero(values_ND: Tensor, rows_E: Tensor) -> Tensor:
    """The rows asked for, (E, D), and zeros where the row is -1."""
    with_zero = torch.cat([values_ND, values_ND.new_zeros(1, values_ND.shape[1])])
    return with_zero.index_select(0, torch.where(rows_E < 0, len(values_ND), rows_E))


class RelationConvolution(MessagePassing):  # type: ignore[misc]
    """Mean and maximum over a node's events of one relation, with how many there are."""

    def __init__(self, event: TableEncoding, width: int) -> None:
        super().__init__(aggr=["mean", "max"], node_dim=0)
        self.numbers = Numbers(len(event.numbers), width)
        self.categories = Categories(event.category_sizes, width)
        self.age = nn.Linear(TIME_CHANNELS, width)
        self.perceptron = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.out = nn.Linear(2 * width + 1, width)

    def forward(self, source_ED: Tensor, edges: Edges, num_nodes: int) -> Tensor:
        """Return (N, D); `source_ED` is the sum of what each event's other keys point to."""
        event_ED = self.age(encode_ages(edges.ages_E)) + self.numbers(edges.numbers_EF)
        event_ED = event_ED + self.categories(edges.codes_EC)
        destinations_E = edges.destinations_E
        # An event is a source of its own: PyG sees a bipartite graph from events to nodes.
        events_E = torch.arange(len(destinations_E), device=destinations_E.device)
        messages_ND: Tensor = self.propagate(
            torch.stack([events_E, destinations_E]),
            size=(len(destinations_E), num_nodes),
            event=torch.cat([source_ED, event_ED], dim=1),
        )
        num_events_N = torch.bincount(destinations_E, minlength=num_nodes)
        log_count_N1 = num_events_N.to(messages_ND.dtype).log1p().unsqueeze(1)
        updated_ND: Tensor = self.out(torch.cat([messages_ND, log_count_N1], dim=1))
        return updated_ND

    def message(self, event: Tensor) -> Tensor:
        """Return the message of each event, (E, D)."""
        message_ED: Tensor = self.perceptron(event)
        return message_ED


class Hop(nn.Module):
    """All relations of one hop: own vectors plus what the events bring, then a norm."""

    def __init__(self, hop: int, encodings: Encodings, width: int) -> None:
        super().__init__()
        self.hop = hop
        self.relations = {
            relation: (encodings.target_of(relation), source_tables(relation, encodings))
            for relation in (encodings.hop_1() if hop == 1 else encodings.hop_2())
        }
        self.convolutions = nn.ModuleDict(
            {
                module_key(relation): RelationConvolution(
                    encodings.events[relation.partition(".")[0]], width
                )
                for relation in self.relations
            }
        )
        self.norms = nn.ModuleDict(
            {module_key(table): nn.LayerNorm(width) for table, _ in self.relations.values()}
        )

    def forward(
        self,
        own: Mapping[str, Tensor],
        sources: Mapping[str, Tensor],
        edges: Mapping[tuple[int, str], Edges],
    ) -> dict[str, Tensor]:
        """Return (N, D) for every table of `own`; `sources` are the vectors of this hop's lists."""
        updated = dict(own)
        for relation, (table, tables) in self.relations.items():
            at_hop = edges[self.hop, relation]
            columns = zip(tables, at_hop.sources_EK.unbind(1), strict=True)
            source_ED = sum(
                (rows_or_zero(sources[name], rows_E) for name, rows_E in columns),
                start=own[table].new_zeros(len(at_hop.ages_E), own[table].shape[1]),
            )
            convolution = self.convolutions[module_key(relation)]
            updated[table] = updated[table] + convolution(source_ED, at_hop, len(own[table]))
        return {
            name: self.norms[module_key(name)](vectors_ND)
            if module_key(name) in self.norms
            else vectors_ND
            for name, vectors_ND in updated.items()
        }
