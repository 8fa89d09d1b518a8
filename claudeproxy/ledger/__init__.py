"""What every turn used and would have cost: kept in a file, and added up. Nothing in here knows
what a conversation said."""
