"""Quotes are indexed by market once their day is over."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INDEX_DAY = """
    CREATE FUNCTION index_day(parent text, day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = SCHEMA_OF_THE_TABLES, pg_temp
    SET maintenance_work_mem = '256MB' AS $$
    DECLARE
        child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        index text := child || '_by_market';
    BEGIN
        IF parent <> 'quotes' THEN
            RAISE EXCEPTION 'table % has no index that a day gets when it is over', parent;
        END IF;
        IF NOT pg_try_advisory_xact_lock(hashtextextended(index, 1634886239)) THEN
            RETURN false;
        END IF;
        -- Read from the catalogue itself: what to_regclass knows may be older than the lock.
        IF EXISTS (SELECT FROM pg_class WHERE relname = index AND relnamespace = current_schema()::regnamespace) THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE INDEX %I ON %I (market_id, recv_ns)', index, child);
        RETURN true;
    END $$
"""


def upgrade() -> None:
    """Apply. Days lose their part of the whole table's index; those that are over get their own by ``index_days``."""
    op.drop_index("quotes_by_market", table_name="quotes")
    # Whoever writes ticks need not own the tables to have a day indexed: the function runs as their owner.
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(_INDEX_DAY.replace("SCHEMA_OF_THE_TABLES", str(schema)))
    op.execute("REVOKE EXECUTE ON FUNCTION index_day(text, date) FROM PUBLIC")


def downgrade() -> None:
    """Take back; an index that a day has of its own becomes its part of the whole table's."""
    op.execute("DROP FUNCTION index_day(text, date)")
    op.create_index("quotes_by_market", "quotes", ["market_id", "recv_ns"], unique=False)
