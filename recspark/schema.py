"""Every table that crosses a stage, and every column of it, named once.

Free of imports, so that Spark workers and training ranks can read it too. Times are UTC. A
*node* is the dense number, from 0, of a row of a node table (users, items, merchants, ...) among
the rows that exist at the run date. Node numbers hold within one `run_date` only; what outlives a
run (the model, the recommendations) speaks of primary keys.
Every stage table has the column `run_date` and is written by replacing that slice.
"""

RUN_DATE = "run_date"  # date        the slice that a run owns
ANCHOR_TIME = "anchor_time"  # timestamp   inputs are <= it, labels in (it + start, it + end]
SPLIT = "split"  # string      one of the four below
TRAIN, VALIDATION, TEST, SCORE = "train", "validation", "test", "score"

NODE = "node"  # bigint      dense number of a row of a node table, >= 0
KEY = "key"  # as declared primary key of that row in the source table
START_TIME = "start_time"  # timestamp   the row exists (is on sale) from here; null: always
END_TIME = "end_time"  # timestamp   ... until here, exclusive; null: no end
ID_CODE = "id_code"  # int         row of the id embedding; 0 for keys unseen in training
PARENTS = "parents"  # array<bigint> node of each declared foreign key; -1 where null or dangling
NUMBERS = "numbers"  # array<float>  standardised numeric columns; NaN where missing
CODES = "codes"  # array<int>    vocabulary position of each category; 0 missing, 1 unknown
TIMES = "times"  # array<double> timestamp columns as days since 1970; NaN where missing
BUCKETS = "buckets"  # array<int>    hashed word n-grams of all text columns together

EVENT = "event"  # bigint      stable id of an event row: a hash of its primary key, or of the row
TIME = "time"  # timestamp   when the event happened
NODES = "nodes"  # array<bigint> one node per declared foreign key, in declared order
AMOUNTS = "amounts"  # array<double> numeric columns as they are; NaN where missing

ENTITY = "entity"  # bigint      node of the row we recommend to
LABELS = "labels"  # array<bigint> item nodes, sorted, distinct; empty when nothing happened
NUM_SEEDS = "num_seeds"

RELATION = "relation"  # string      "table.foreign_key": how an event hangs on its node
HOP = "hop"  # int         1: around the entity, 2: around what hop 1 reached
AGES = "ages"  # array<float>  days from event to anchor, >= 0, newest first

ITEM = "item"  # bigint      node of an item
ITEMS = "items"  # array<bigint>
FEATURES = "features"  # binary  numbers as PACKED, row-major (items x features); NaN where missing
PACKED = "<f4"  # numpy's name of float32, little-endian
IS_LABEL = "is_label"  # array<boolean> aligned with items
SIMILAR_ITEMS = "similar_items"  # array<bigint> most often bought by the same people, best first
SIMILARITIES = "similarities"  # array<float>  cosine, aligned with similar_items
RATES = "rates"  # array<float>  decayed purchases of each item per basket, aligned with items
WEIGHTS = "weights"  # array<float>  log1p of the decayed count of each item, aligned with items
BECAUSE = "because"  # array<bigint> aligned with items
TREND = "trend"  # array<float>  what is known of the item at the anchor
TRAITS = "traits"  # array<int>    its categories and the rows it points to, as numbers; -1: none
REPEATS = "repeats"  # array<bigint> how often bought again, by days since (`prepare.life_tables`)
SHARES = "shares"  # array<double>  of the customers in each class, sum 1
STRENGTHS = "strengths"  # array<double>  of each trait (`prepare.latent_classes`)
FACTORS = "factors"  # array<array<double>>  by trait: of each class and value, class by class
VALUES = "values"  # array<array<bigint>>  by column of the customers: those that tell of a class
LIFTS = "lifts"  # array<array<double>>  by column: of each value and class, value by value
AT_RISK = "at_risk"  # array<bigint> lines of its owners that could have been it
DUE_RATES = "due_rates"  # array<double>  that a line is the item because it is due (`prepare.due`)

GROUP = "seed_group"  # int         number of the group within (split, anchor)

SCORE_VALUE = "score"
RANK = "rank"
REASON = "reason"
QUERY = "query"
MODEL_NAME = "model_name"
MODEL_VERSION = "model_version"
RUN_ID = "run_id"


def nodes(key_type: str) -> str:
    """The schema of `nodes_<table>`; `key_type` is the primary key's own type."""
    return (
        f"{RUN_DATE} date, {NODE} bigint, {KEY} {key_type}, {START_TIME} timestamp, "
        f"{END_TIME} timestamp, {ID_CODE} int, {PARENTS} array<bigint>, {NUMBERS} array<float>, "
        f"{CODES} array<int>, {TIMES} array<double>, {BUCKETS} array<int>"
    )


EVENTS = (
    f"{RUN_DATE} date, {EVENT} bigint, {TIME} timestamp, {NODES} array<bigint>, "
    f"{NUMBERS} array<float>, {CODES} array<int>, {AMOUNTS} array<double>"
)

SNAPSHOTS = (
    f"{RUN_DATE} date, {SPLIT} string, {ANCHOR_TIME} timestamp, {ENTITY} bigint, "
    f"{LABELS} array<bigint>"
)

# Newest first; the flat arrays hold, for each neighbour in turn, one entry per declared foreign
# key (nodes), per numeric column (numbers) and per category (codes) of the event table.
NEIGHBORS = (
    f"{RUN_DATE} date, {HOP} int, {RELATION} string, {ANCHOR_TIME} timestamp, {NODE} bigint, "
    f"{AGES} array<float>, {NODES} array<bigint>, {NUMBERS} array<float>, {CODES} array<int>"
)

# A distinct (entity, anchor) that hop 2 reaches, with the features the network reads.
FRONTIER = (
    f"{RUN_DATE} date, {ANCHOR_TIME} timestamp, {NODE} bigint, {NUMBERS} array<float>, "
    f"{CODES} array<int>, {TIMES} array<double>, {BUCKETS} array<int>"
)

# One row per item that exists at the anchor, what was sold of it and with it.
ITEM_STATES = (
    f"{RUN_DATE} date, {ANCHOR_TIME} timestamp, {ITEM} bigint, {TREND} array<float>, "
    f"{TRAITS} array<int>, {REPEATS} array<bigint>, {AT_RISK} array<bigint>, "
    f"{SIMILAR_ITEMS} array<bigint>, {SIMILARITIES} array<float>"
)

# When an item is bought again because it is due, one row per row of `item_states`.
ITEM_DUE_RATES = (
    f"{RUN_DATE} date, {ANCHOR_TIME} timestamp, {ITEM} bigint, {DUE_RATES} array<double>"
)

# Entities drawn at random per anchor, with what they bought: their newest distinct items.
ENTITY_POOL = (
    f"{RUN_DATE} date, {ANCHOR_TIME} timestamp, {ENTITY} bigint, {ITEMS} array<bigint>, "
    f"{RATES} array<float>, {AGES} array<float>, {TRAITS} array<int>"
)

# What classes of customers were found at the anchor (`recspark.prepare.latent_classes`): their
# shares, and by trait the strength and the factors, one per class and value, class after class; by
# column of the customers the values that tell of the class, and their lifts, value after value.
CUSTOMER_CLASSES = (
    f"{RUN_DATE} date, {ANCHOR_TIME} timestamp, {SHARES} array<double>, {STRENGTHS} array<double>, "
    f"{FACTORS} array<array<double>>, {VALUES} array<array<bigint>>, "
    f"{LIFTS} array<array<double>>"
)

# `because` is the item of the entity's history that is bought most often with the candidate, -1
# for none.
CANDIDATES = (
    f"{RUN_DATE} date, {SPLIT} string, {ANCHOR_TIME} timestamp, {ENTITY} bigint, "
    f"{ITEMS} array<bigint>, {FEATURES} binary, {IS_LABEL} array<boolean>, "
    f"{BECAUSE} array<bigint>"
)

# One row per group of seeds of one anchor. `nodes` holds the distinct nodes of each (hop, table)
# once: hop 0 the seeds, hop 1 what their events point to, hop 2 what the events of those point
# to. Features are packed for the entity table only; of other tables ranks hold `nodes_<table>`, so
# their feature arrays are empty. An edge is an event: `destinations` are positions in the list it
# hangs on (hop - 1), `sources` positions in the lists of the event's other foreign keys (hop), one
# entry per foreign key and edge, -1 for the key it hangs on. Offsets start at 0 and end at the
# length. Seeds that are scored layer by layer (test, score) carry hop 1 only; `node_subgraphs`
# has the same schema, no seeds, and hop 2 around every node that hop 1 can reach.
SUBGRAPHS = (
    f"{RUN_DATE} date, {SPLIT} string, {ANCHOR_TIME} timestamp, {GROUP} int, {NUM_SEEDS} int, "
    f"{NODES} array<struct<hop:int,table:string,{NODE}:array<bigint>,{NUMBERS}:array<float>,"
    f"{CODES}:array<int>,{TIMES}:array<double>,{BUCKETS}:array<int>,bucket_offsets:array<int>>>, "
    f"edges array<struct<hop:int,{RELATION}:string,destinations:array<int>,sources:array<int>,"
    f"{AGES}:array<float>,{NUMBERS}:array<float>,{CODES}:array<int>>>, "
    f"candidate_offsets array<int>, {ITEMS} array<bigint>, {FEATURES} binary, "
    f"{IS_LABEL} array<boolean>, label_offsets array<int>, {LABELS} array<bigint>"
)

# What the model says of every node that hop 1 can reach, at the anchor of the split; `tower` and
# `prior` are null for tables other than the items'.
NODE_VECTORS = (
    f"{RUN_DATE} date, {SPLIT} string, {ANCHOR_TIME} timestamp, table string, {NODE} bigint, "
    f"context array<float>, tower array<float>, prior float"
)


# The K best items on sale of each seed, best first; fewer only where fewer are on sale.
SCORED = (
    f"{RUN_DATE} date, {SPLIT} string, {ANCHOR_TIME} timestamp, {ENTITY} bigint, "
    f"{ITEMS} array<bigint>, scores array<double>, reasons array<string>"
)


def recommendations(entity_type: str, item_type: str) -> str:
    """The schema of the output; keys have the types of the users' and items' primary keys."""
    return (
        f"{RUN_DATE} date, {QUERY} string, {ENTITY}_id {entity_type}, {RANK} int, "
        f"{ITEM}_id {item_type}, {SCORE_VALUE} double, {REASON} string, {MODEL_NAME} string, "
        f"{MODEL_VERSION} int, {ANCHOR_TIME} timestamp, {RUN_ID} string"
    )


def is_number(kind: str) -> bool:
    """Whether Spark's simple type name, such as decimal(10,2), is that of a number."""
    names = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
    return kind.partition("(")[0] in names
