"""The ledger of chaos."""
