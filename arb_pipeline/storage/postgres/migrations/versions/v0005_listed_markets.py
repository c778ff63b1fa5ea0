"""How many markets a venue lists under an event; what the columns of baskets say."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BASKETS = ("basket_opportunities", "basket_pieces")
_COMMENTS = (
    *((name, "kind", "yes_basket, no_basket, best_of_both or synthetic_no", "yes_basket, no_basket or best_of_both")
      for name in _BASKETS),
    *((name, "outcome", "of synthetic_no the market of the event that is bought on the other venue, else empty",
       "the market that a basket is about alone; empty, as it is about all of the event's")
      for name in _BASKETS),
)  # fmt: skip
"""Table, column, and its comment before and after."""


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "events",
        sa.Column(
            "listed_markets",
            sa.BigInteger(),
            nullable=True,
            comment="number of markets that the venue lists under it, unreadable ones included",
        ),
    )
    _comment("events", "market_count", sa.BigInteger(), "number of its markets in the table markets")
    for name, column, _, after in _COMMENTS:
        _comment(name, column, sa.Text(), after)


def downgrade() -> None:
    """Take back."""
    for name, column, before, _ in _COMMENTS:
        _comment(name, column, sa.Text(), before)
    _comment("events", "market_count", sa.BigInteger(), "number of markets listed under the event")
    op.drop_column("events", "listed_markets")


def _comment(table: str, column: str, type_: sa.BigInteger | sa.Text, comment: str) -> None:
    op.alter_column(table, column, existing_type=type_, existing_nullable=False, comment=comment)
