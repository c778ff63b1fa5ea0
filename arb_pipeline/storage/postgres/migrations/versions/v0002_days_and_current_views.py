"""Days of the partitioned tables on demand, and views of what is current."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ENSURE_DAY = """
    CREATE FUNCTION ensure_day(parent text, day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = SCHEMA_OF_THE_TABLES, pg_temp AS $$
    DECLARE
        child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        day_by name;
        low text := quote_literal(day);
        high text := quote_literal(day + 1);
    BEGIN
        SELECT attname INTO day_by FROM pg_partitioned_table JOIN pg_attribute ON attrelid = partrelid
        WHERE partrelid = to_regclass(quote_ident(parent)) AND attnum = partattrs[0];
        IF day_by IS NULL THEN
            RAISE EXCEPTION 'table % is not partitioned by day', parent;
        END IF;
        IF day_by = 'recv_ns' THEN
            low := (day - DATE '1970-01-01')::bigint * 86400000000000;
            high := (day + 1 - DATE '1970-01-01')::bigint * 86400000000000;
        END IF;
        IF to_regclass(child) IS NOT NULL THEN
            RETURN;
        END IF;
        PERFORM pg_advisory_xact_lock(hashtextextended(child, 1634886239));
        -- Read from the catalogue itself: what to_regclass knows may be older than the lock.
        IF EXISTS (SELECT FROM pg_class WHERE relname = child AND relnamespace = current_schema()::regnamespace) THEN
            RETURN;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
        IF parent = 'trades' THEN
            EXECUTE format(
                'CREATE UNIQUE INDEX ON %I (market_id, trade_id, (recv_ns / 3600000000000), venue, price, size, '
                'taker_side) NULLS NOT DISTINCT', child);
        END IF;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       parent, child, low, high);
    END $$
"""

_VIEW = """
    CREATE VIEW {table}_current AS SELECT * FROM {table}
    WHERE lake_date = (SELECT max(lake_date) FROM {table} AS newest WHERE {same})
"""


def upgrade() -> None:
    """Apply."""
    # Whoever writes ticks need not own the tables to get a day's partition: the function runs as their owner.
    # A table is made beside its parent and attached, which (unlike PARTITION OF) neither waits for readers nor stops
    # them.
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(_ENSURE_DAY.replace("SCHEMA_OF_THE_TABLES", str(schema)))
    op.execute("REVOKE EXECUTE ON FUNCTION ensure_day(text, date) FROM PUBLIC")
    op.execute(_VIEW.format(table="events", same="newest.venue = events.venue"))
    op.execute(_VIEW.format(table="markets", same="newest.venue = markets.venue"))
    # A statement about a pair holds until it is ended, whatever the day on which it was made.
    op.execute("CREATE VIEW market_matches_current AS SELECT * FROM market_matches WHERE valid_to IS NULL")


def downgrade() -> None:
    """Take back; days that exist stay."""
    for table in ("events", "markets", "market_matches"):
        op.execute(f"DROP VIEW {table}_current")
    op.execute("DROP FUNCTION ensure_day(text, date)")
