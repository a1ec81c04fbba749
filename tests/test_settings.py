import copy

import pytest
import yaml

from recspark import settings

SHOP = {
    "name": "shop", "seed": 7, "query": "PREDICT ...",
    "tables": {
        "users": {"path": "/data/users", "primary_key": "user_id"},
        "items": {"name": "shop.items", "primary_key": "item_id"},
        "transactions": {
            "path": "/data/transactions", "time_column": "time",
            "foreign_keys": {"user_id": "users", "item_id": "items"},
        },
    },
    "output": {"recommendations": "s3://shop/recommendations", "workspace": "/shop/stages/"},
}  # fmt: skip
ABSENT = object()


def changed(place, value):
    """The shop's settings with the value at a dotted place replaced, or removed."""
    content = copy.deepcopy(SHOP)
    *sections, key = place.split(".")
    section = content
    for name in sections:
        section = section.setdefault(name, {})
    if value is ABSENT:
        del section[key]
    else:
        section[key] = value
    return content


def test_what_is_not_written_has_its_default():
    shop = settings.parse(SHOP)
    assert shop.snapshots.train_anchors is None
    assert shop.sampling.fanouts == (32, 8)
    assert shop.training.num_processes == 2
    assert shop.tracking.uri == "sqlite:///mlflow.db"
    assert shop.model_name == "recspark-shop"
    assert shop.checkpoint_root == "/shop/stages/checkpoints"
    assert shop.stage_path("snapshots") == "/shop/stages/snapshots"


def test_a_price_that_is_ignored_too_is_told():
    shop = changed("tables.transactions.price_column", "paid")
    shop["tables"]["transactions"]["ignore"] = ["paid"]
    with pytest.raises(ValueError, match=r"tables\.transactions: price_column is under ignore too"):
        settings.parse(shop)


def test_tables_are_told_apart_by_what_points_to_them():
    shop = settings.parse(SHOP)
    assert shop.node_tables == ("users", "items")
    assert shop.event_tables == ("transactions",)
    assert [table.location for table in shop.tables.values()] == [
        "/data/users", "shop.items", "/data/transactions",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("trainings", {}, "unknown key 'trainings'; did you mean 'training'?"),
        ("model.widht", 8, "unknown key 'model.widht'; did you mean 'width'?"),
        (
            "tables.users.primarykey", "user_id",
            "unknown key 'tables.users.primarykey'; did you mean 'primary_key'?",
        ),
        ("seed", ABSENT, "'seed' is missing; it has no default."),
        ("model.width", 30, "'model.width': input should be a multiple of 4, got 30."),
        ("model.dropout", 1, "'model.dropout': input should be less than 1, got 1."),
        ("sampling.fanouts", [32, 0], "'sampling.fanouts.1': input should be greater than 0, got 0."),
        ("name", "bob's mail", "name: use letters, digits, '_', '.' and '-' only, not 'bob's mail'."),
        ("name", "", "name: use letters, digits, '_', '.' and '-' only, not ''."),
        ("tables.users.name", "shop.users", "tables.users: give either path or name."),
        ("tables.users.path", ABSENT, "tables.users: give either path or name."),
        (
            "tables.transactions.foreign_keys.user_id", "user",
            "tables.transactions.foreign_keys.user_id: no table 'user'; did you mean 'users'? "
            "Known: items, transactions, users.",
        ),
        (
            "tables.users.primary_key", ABSENT,
            "tables.transactions.foreign_keys.user_id: table 'users' has no primary_key.",
        ),
        (
            "tables.items.foreign_keys", {"bundle_id": "items"},
            "tables.items.foreign_keys.bundle_id: a table cannot point to itself.",
        ),
        (
            "tables.campaigns", {"path": "/data/campaigns", "primary_key": "campaign_id"},
            "tables.campaigns: give it a time_column and foreign_keys (an event table), or let "
            "another table's foreign_keys point to it (a node table).",
        ),
        (
            "tables.transactions.time_column", ABSENT,
            "tables.transactions: give it a time_column and foreign_keys",
        ),
        (
            "output.workspace", "s3://shop/work",
            "output: checkpoints need a mounted folder that every rank reaches, not "
            "'s3://shop/work'; set output.checkpoints.",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_told_in_one_sentence(place, value, sentence):
    with pytest.raises(ValueError, match=r"^shop\.yaml: ") as fault:
        settings.parse(changed(place, value), source="shop.yaml")
    assert sentence in str(fault.value)


def test_a_workspace_on_a_uri_is_fine_with_checkpoints_in_a_folder():
    content = changed("output.workspace", "s3://shop/work")
    content["output"]["checkpoints"] = "/mnt/checkpoints"
    assert settings.parse(content).checkpoint_root == "/mnt/checkpoints"


def test_a_file_is_read_and_a_broken_one_is_named(tmp_path):
    file = tmp_path / "shop.yaml"
    with pytest.raises(ValueError, match=r"config '.*shop\.yaml' does not exist"):
        settings.load(file)
    file.write_text(yaml.safe_dump(SHOP))
    assert settings.load(file) == settings.parse(SHOP)
    file.write_text("name: [")
    with pytest.raises(ValueError, match=r"shop\.yaml' is not valid YAML: .*line 1"):
        settings.load(file)
    file.write_text("- name")
    with pytest.raises(ValueError, match="should hold keys and values"):
        settings.load(file)
