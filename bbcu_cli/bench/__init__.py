"""Measuring: engines, peers, folders, the published table; and what `bbcu doctor` finds."""
