"""Reviewing datasets before they are used: verification, differences, agreement, reports."""
