"""Brazilian E-Commerce by Olist (Kaggle olistbr/brazilian-ecommerce, CC BY-NC-SA 4.0) as tables.

The marketplace gives each order a customer id of its own; the person is `customer_unique_id`, who
becomes the user. Nearly all persons order once, ever. Times carry no zone; they are read as UTC.
"""

from pathlib import Path
from typing import cast

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from recspark.tables import conform

USERS = "customer_id string, state string, city string, zip_prefix string, zip_region string"
ITEMS = (
    "product_id string, category string, weight_g int, length_cm int, height_cm int, "
    "width_cm int, num_photos int, name_length int, description_length int, first_sold timestamp"
)
SELLERS = "seller_id string, state string, city string, zip_prefix string, zip_region string"
TRANSACTIONS = (
    "line_id string, order_id string, customer_id string, product_id string, seller_id string, "
    "bought_at timestamp, price double, freight double"  # of one unit, in reais
)
REVIEWS = (
    "review_line_id string, order_id string, customer_id string, product_id string, "
    "seller_id string, answered_at timestamp, score int"  # stars, 1 to 5
)

PUBLISHED = {
    "customers": (
        "customer_id string, customer_unique_id string, customer_zip_code_prefix int, "
        "customer_city string, customer_state string"
    ),
    "orders": (
        "order_id string, customer_id string, order_status string, "
        "order_purchase_timestamp timestamp"
    ),
    "order_items": (
        "order_id string, order_item_id int, product_id string, seller_id string, price double, "
        "freight_value double"
    ),
    "order_reviews": "order_id string, review_score int, review_answer_timestamp timestamp",
    "products": (
        "product_id string, product_category_name string, product_name_length int, "
        "product_description_length int, product_photos_qty int, product_weight_g int, "
        "product_length_cm int, product_height_cm int, product_width_cm int"
    ),
    "sellers": (
        "seller_id string, seller_zip_code_prefix int, seller_city string, seller_state string"
    ),
}

DELIVERED = "delivered"


def read_published(spark: SparkSession, source: str | Path) -> dict[str, DataFrame]:
    """The published tables (`PUBLISHED`) from the folder `source`, one Parquet file each.

    The file of `orders` is `orders.parquet`, and so on; columns that are not needed are left out.

    Raises:
        ValueError: a file or a column is missing.
    """
    published = {}
    for name, ddl in PUBLISHED.items():
        file = Path(source) / f"{name}.parquet"
        if not file.is_file():
            raise ValueError(
                f"source '{source}' holds no {file.name}; save the published tables as "
                f"{', '.join(f'{table}.parquet' for table in PUBLISHED)} and point --source there."
            )
        frame = spark.read.parquet(str(file.resolve()))
        wanted = cast(StructType, StructType.fromDDL(ddl)).fields
        missing = sorted({column.name for column in wanted} - set(frame.columns))
        if missing:
            raise ValueError(f"{file.name} lacks {missing}; it has {frame.columns}.")
        # Times without a zone arrive as timestamp_ntz; the session's zone, UTC, makes them times.
        casts = [F.col(column.name).cast(column.dataType) for column in wanted]
        published[name] = conform(frame.select(*casts), ddl, table=file.name)
    return published


def tables(published: dict[str, DataFrame]) -> dict[str, DataFrame]:
    """The source tables users, items, sellers, transactions and reviews.

    Only delivered orders count. A person's address is that of the first one; an item is known
    from the first one on that holds it, since nothing says when it was listed.
    """
    delivered = (
        published["orders"]
        .where(F.col("order_status") == DELIVERED)
        .join(published["customers"], on="customer_id", how="inner")
        .drop("customer_id")
        .withColumnsRenamed(
            {"customer_unique_id": "customer_id", "order_purchase_timestamp": "bought_at"}
        )
    )
    transactions = _transactions(delivered, published["order_items"])
    return {
        "users": conform(_users(delivered), USERS, table="users"),
        "items": conform(_items(published["products"], transactions), ITEMS, table="items"),
        "sellers": conform(_sellers(published["sellers"]), SELLERS, table="sellers"),
        "transactions": conform(transactions, TRANSACTIONS, table="transactions"),
        "reviews": conform(
            _reviews(published["order_reviews"], transactions), REVIEWS, table="reviews"
        ),
    }


def _transactions(delivered: DataFrame, order_items: DataFrame) -> DataFrame:
    """One row per unit."""
    return (
        order_items.join(
            delivered.select("order_id", "customer_id", "bought_at"), on="order_id", how="inner"
        )
        .withColumn("line_id", F.concat_ws("-", "order_id", "order_item_id"))
        .withColumnRenamed("freight_value", "freight")
    )


def _users(delivered: DataFrame) -> DataFrame:
    address = F.struct("customer_state", "customer_city", "customer_zip_code_prefix")
    first = delivered.groupBy("customer_id").agg(
        F.min_by(address, F.struct("bought_at", "order_id")).alias("address")
    )
    return first.select("customer_id", "address.*").select(
        "customer_id", *_place("customer_state", "customer_city", "customer_zip_code_prefix")
    )


def _sellers(sellers: DataFrame) -> DataFrame:
    return sellers.select(
        "seller_id", *_place("seller_state", "seller_city", "seller_zip_code_prefix")
    )


def _place(state: str, city: str, zip_prefix: str) -> list[Column]:
    """State, city, the five digits of the postcode's prefix, and the two that name its region."""
    digits = F.lpad(F.col(zip_prefix).cast("string"), 5, "0")
    return [
        F.col(state).alias("state"),
        F.col(city).alias("city"),
        digits.alias("zip_prefix"),
        F.substring(digits, 1, 2).alias("zip_region"),
    ]


def _items(products: DataFrame, transactions: DataFrame) -> DataFrame:
    sold = transactions.groupBy("product_id").agg(F.min("bought_at").alias("first_sold"))
    return products.join(sold, on="product_id", how="inner").withColumnsRenamed(
        {
            "product_category_name": "category",
            "product_weight_g": "weight_g",
            "product_length_cm": "length_cm",
            "product_height_cm": "height_cm",
            "product_width_cm": "width_cm",
            "product_photos_qty": "num_photos",
            "product_name_length": "name_length",
            "product_description_length": "description_length",
        }
    )


def _reviews(order_reviews: DataFrame, transactions: DataFrame) -> DataFrame:
    """One row per review and product of its order, at the time of the answer.

    Only then are the stars known: the time of creation is that of the question. Some reviews have
    no id of their own, and one answered twice in the same second counts once, by its lower score.
    """
    products = transactions.groupBy("order_id", "product_id", "seller_id").agg(
        F.first("customer_id").alias("customer_id")  # the same for the whole order
    )
    answers = order_reviews.groupBy("order_id", "review_answer_timestamp").agg(
        F.min("review_score").alias("score")
    )
    answered = F.unix_micros("review_answer_timestamp")
    key = F.concat_ws("-", "order_id", "product_id", "seller_id", answered)
    return (
        answers.join(products, on="order_id", how="inner")
        .withColumn("review_line_id", key)
        .withColumnRenamed("review_answer_timestamp", "answered_at")
    )
