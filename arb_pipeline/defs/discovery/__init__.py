"""Discovery: both venues' catalogues, and one view across them."""
